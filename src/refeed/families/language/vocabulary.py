"""Tokenizers: text to tokens and back, saved in the JSON format of the `tokenizers` library, which transformers opens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from refeed.core.errors import SourceError, StudyError
from refeed.core.rows import Ragged

END = "<|endoftext|>"


class Tokenizer(Protocol):
    """What the family asks of a tokenizer. Token `end` closes a story, and stands before its first token as the start."""

    @property
    def end(self) -> int: ...

    @property
    def size(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Each text as tokens, closed by the end token."""
        ...

    def decode(self, tokens: np.ndarray) -> str:
        """The text of one story, without its end token."""
        ...

    def num_bytes(self, stories: Ragged) -> np.ndarray:
        """UTF-8 bytes of each story's text, its end token counted as none: (stories,)."""
        ...

    def to_json(self) -> str: ...


class WordTokenizer:
    """A fixed list of words, the end token among them; texts are words separated by spaces."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._token = {word: token for token, word in enumerate(self.words)}
        self.end = self._token[END]
        self.size = len(self.words)

    def encode(self, texts: Sequence[str]) -> Ragged:
        unknown = sorted({word for text in texts for word in text.split() if word not in self._token})
        if unknown:
            raise SourceError(f"{len(unknown)} words are not in the vocabulary, such as {unknown[0]!r}")
        return Ragged.of([[*(self._token[word] for word in text.split()), self.end] for text in texts], np.uint16)

    def decode(self, tokens: np.ndarray) -> str:
        return " ".join(self.words[token] for token in tokens if token != self.end)

    def num_bytes(self, stories: Ragged) -> np.ndarray:
        sizes = np.array([0 if word == END else len(word.encode()) + 1 for word in self.words])
        spaces = np.array([np.any(story != self.end) for story in stories], dtype=np.int64)
        return _sums(sizes, stories) - spaces

    def to_json(self) -> str:
        end: dict[str, object] = {"id": self.end, "content": END, "special": True}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [end | flags],
                "normalizer": None,
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": self._token, "unk_token": END},
            },
            ensure_ascii=False,
        )


class SubwordTokenizer:
    """Any tokenizer of the `tokenizers` library, such as a byte-level BPE: any text is encoded, and decoded to the same bytes.

    `data`: its JSON. `end`: the token that ends a text. `config`: what transformers keeps beside it, in tokenizer_config.json.
    """

    def __init__(self, data: str, *, end: str = END, config: dict[str, Any] | None = None) -> None:
        self._json, self._end, self.config = data, end, config
        self.end = self._tokenizer.token_to_id(end)
        self.size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        self.dtype = np.uint16 if self.size <= 65536 else np.uint32

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int) -> SubwordTokenizer:
        """A byte-level BPE of at most `size` tokens: the 256 bytes, the end token, and merges learnt from `texts`."""
        from tokenizers import Tokenizer as Fast
        from tokenizers import decoders, models, pre_tokenizers, trainers

        fast = Fast(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        fast.train_from_iterator(
            texts,
            trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False),
        )
        return cls(fast.to_str())

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer as Fast

        fast = Fast.from_str(self._json)
        fast.encode_special_tokens = True  # a text that spells the end token is text
        return fast

    def encode(self, texts: Sequence[str]) -> Ragged:
        codes = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return Ragged.of([[*code.ids, self.end] for code in codes], self.dtype)

    def decode(self, tokens: np.ndarray) -> str:
        kept = [token for token in map(int, tokens) if token != self.end]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    @cached_property
    def _token_bytes(self) -> np.ndarray:
        # byte-level BPE spells each byte as one character
        spelt = (self._tokenizer.id_to_token(i) or "" for i in range(self.size))
        return np.array([0 if i == self.end else len(token) for i, token in enumerate(spelt)])

    def num_bytes(self, stories: Ragged) -> np.ndarray:
        if (json.loads(self._json).get("decoder") or {}).get("type") == "ByteLevel":
            return _sums(self._token_bytes, stories)
        return np.array([len(self.decode(story).encode()) for story in stories], dtype=np.int64)

    def to_json(self) -> str:
        return self._json

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), end=self._end, config=self.config), (self._json,)


def given(data: str, config: dict[str, Any], *, name: str) -> Tokenizer:
    """The tokenizer that somebody else made, from its two files; `config` says which token ends a text."""
    if json.loads(data)["model"]["type"] == "WordLevel" and _spelt(config.get("eos_token")) == END:
        words = json.loads(data)["model"]["vocab"]
        return WordTokenizer(sorted(words, key=words.get))
    end = _spelt(config.get("eos_token"))
    if not end:
        raise SourceError(
            f"the tokenizer {name!r} names no token that ends a text.", hint="Set eos_token in tokenizer_config.json."
        )
    try:
        return SubwordTokenizer(data, end=end, config=config)
    except Exception as error:  # the library raises bare exceptions
        raise SourceError(f"the tokenizer {name!r} cannot be read: {error}") from None


def _spelt(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _sums(per_token: np.ndarray, stories: Ragged) -> np.ndarray:
    cumulative = np.concatenate([[0], np.cumsum(per_token[stories.values])])
    return cumulative[stories.offsets[1:]] - cumulative[stories.offsets[:-1]]


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json, and beside it what transformers' AutoTokenizer asks for."""
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    config |= {"clean_up_tokenization_spaces": False}
    config = getattr(tokenizer, "config", None) or config
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def load(folder: Path) -> Tokenizer:
    """The tokenizer that `save` wrote."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return given((folder / "tokenizer.json").read_text(encoding="utf-8"), config, name=str(folder))


def check_size(size: int) -> None:
    if not 257 <= size <= 65536:
        raise StudyError(
            f"source.vocabulary must be 257 to 65536, not {size}: the 256 bytes and the end token at least, "
            "and tokens are kept in 16 bits"
        )


def readable(text: str) -> str:
    """Words and points as a person writes them: 'he ran . she sat .' as 'He ran. She sat.'"""
    text = re.sub(r" ([.,;:!?])", r"\1", text)
    return re.sub(r"(^|[.!?] )(\w)", lambda match: match[1] + match[2].upper(), text)
