"""Models and tokenizers from elsewhere: a folder that transformers wrote, or a name on the Hugging Face hub.

A name is looked up by transformers' own means, so HF_HOME and HF_HUB_OFFLINE count, and nothing else is ever fetched. Weights are
read from safetensors only; no code that comes with a model is run.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refeed.core.errors import SourceError, StudyError
from refeed.core.recipes import digest

if TYPE_CHECKING:
    from refeed.families.language.vocabulary import Tokenizer

TOKENIZER = "tokenizer.json"
INDEX = "model.safetensors.index.json"
IGNORED = (
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "trained_context",
)  # of a configuration: they change no architecture


def folder(name: str) -> Path:
    """Where the files of a model or tokenizer lie."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    return _hub_folder(name)


@lru_cache(maxsize=16)
def _hub_folder(name: str) -> Path:
    from transformers.utils import cached_file

    found = None
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    try:
        for file in ("config.json", TOKENIZER, "tokenizer_config.json"):
            found = cached_file(name, file, **options) or found
    except (OSError, ValueError):
        found = None
    if found is None:
        raise SourceError(
            f"{name!r} is neither a folder here nor a model that transformers finds by that name.",
            hint="Name a folder, or a model of the hub that is in this machine's cache (or reachable, with HF_HUB_OFFLINE unset).",
        )
    return Path(found).parent


def weight_files(name: str) -> list[Path]:
    """The safetensors files of a model, in order."""
    where = folder(name)
    if not Path(name).expanduser().is_dir():
        from transformers.utils import cached_file

        options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        if not cached_file(name, "model.safetensors", **options) and (index := cached_file(name, INDEX, **options)):
            for file in sorted(set(json.loads(Path(index).read_text())["weight_map"].values())):
                cached_file(name, file)
    if (where / "model.safetensors").is_file():
        return [where / "model.safetensors"]
    if (where / INDEX).is_file():
        files = sorted(set(json.loads((where / INDEX).read_text())["weight_map"].values()))
        if lacking := [file for file in files if not (where / file).is_file()]:
            raise SourceError(f"{where} lacks {lacking[0]}, which its index names.", hint="Fetch the model again.")
        return [where / file for file in files]
    raise SourceError(
        f"{where} holds no weights in safetensors (there is neither model.safetensors nor {INDEX}).",
        hint="Open the model once with transformers and write it by save_pretrained(FOLDER).",
    )


def weights_digest(name: str) -> str:
    """The identity of a model's weights and configuration: their content, wherever they lie."""
    return digest(architecture(name), [_content(path, *_stamp(path)) for path in weight_files(name)])


def architecture(name: str) -> dict[str, Any]:
    """What a configuration says of the architecture."""
    config = _json(folder(name) / "config.json")
    return {key: value for key, value in sorted(config.items()) if key not in IGNORED}


def tokenizer_files(name: str) -> tuple[str, dict[str, Any]]:
    """The content of tokenizer.json and of tokenizer_config.json."""
    where = folder(name)
    if not (where / TOKENIZER).is_file():
        raise SourceError(
            f"{where} holds no {TOKENIZER}.",
            hint="Open the tokenizer once with transformers' AutoTokenizer and write it by save_pretrained(FOLDER).",
        )
    config = where / "tokenizer_config.json"
    return (where / TOKENIZER).read_text(encoding="utf-8"), _json(config) if config.is_file() else {}


def tokenizer_digest(name: str) -> str:
    """The identity of a tokenizer: the content of its files."""
    files = [path for path in (folder(name) / TOKENIZER, folder(name) / "tokenizer_config.json") if path.is_file()]
    if not files or files[0].name != TOKENIZER:
        tokenizer_files(name)  # says what is missing
    return digest([_content(path, *_stamp(path)) for path in files])


def refuse_other_tokens(theirs: Tokenizer, ours: Tokenizer | None, *, name: str = "FOLDER-or-NAME") -> None:
    """Weights mean something only with the tokens that they were trained on. `ours` is None where it is yet to be learnt."""
    if ours is None or json.loads(theirs.to_json())["model"] != json.loads(ours.to_json())["model"]:
        found = "is yet to be learnt" if ours is None else f"has {ours.size:,} tokens where theirs has {theirs.size:,}"
        raise StudyError(
            f"the weights to start from were trained with another tokenizer than the source's, which {found}.",
            hint=f"Let a text speak in their tokens: --set source.tokenizer={name}",
            at="start",
        )


def refuse_longer_context(context: int, *, name: str) -> None:
    """A model has only so many positions."""
    config = architecture(name)
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if positions is not None and context > positions:
        message = f"learner.context = {context} is more than the {positions} positions of {name}."
        raise StudyError(message, hint=f"Type: --set learner.context={positions}", at="learner")


def refuse_other_shape(theirs: Any, ours: Any) -> None:
    """Weights fit only a network of their own shape."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in net.state_dict().items()} for net in (theirs, ours)]
    if shapes[0] != shapes[1]:
        names = sorted({name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name)})
        raise StudyError(
            f"the weights to start from are of another shape: {names[0]} is {shapes[0].get(names[0], 'missing')} there and "
            f"{shapes[1].get(names[0], 'missing')} here.",
            hint="Give the learner their shape, or use learner 'causal', which takes it from them.",
            at="start",
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path.parent} holds no {path.name}, so it is not a model of transformers.") from None
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from None
    return dict(found)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _content(path: Path, size: int, modified: int) -> str:
    content = sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            content.update(block)
    return content.hexdigest()
