"""The papers of an exported training set: a data card that Hugging Face reads, and Croissant metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import refeed
from refeed.workspace.files import sha256

MEANINGS = {
    "refeed_shard": "digest of the shard that the row was born in",
    "refeed_row": "position of the row in that shard, from 0; (shard, row) is the row's identity",
    "refeed_real": "whether the row is real; null where its file does not say",
    "refeed_generation": "0 for real rows, g for rows written by the model of generation g",
    "refeed_model": "digest of the model that wrote the row; null for real rows",
    "refeed_weight": "weight of the row in training",
    "refeed_candidate": "position among the sampled candidates that a filter chose from",
    "refeed_score": "score that the filter went by",
    "text": "the row as text, decoded exactly",
    "prompt_tokens": "how many first tokens of a sampled row were taken from a real one; null for real rows",
}
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)
CROISSANT_TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "double": "sc:Float", "float": "sc:Float"}


def write_card(folder: Path, about: dict[str, Any], *, data: str) -> None:
    """README.md and croissant.json beside the data."""
    (folder / "README.md").write_text(_readme(about, data), encoding="utf-8")
    (folder / "croissant.json").write_text(json.dumps(_croissant(folder, about, data), indent=1), encoding="utf-8")


def _title(about: dict[str, Any]) -> str:
    return f"{about['study']}: {about['case']}, {about['policy']}, seed {about['seed']}, generation {about['generation']}"


def _summary(about: dict[str, Any]) -> str:
    real = about["rows_by_generation"].get(0, 0)
    start = about.get("start")
    begun = f" Every model began from the weights of {start[0]} (content {start[1][:12]})." if start else ""
    return (
        f"The {about['rows']:,} rows that the model of generation {about['generation']} was trained on in a feedback loop: "
        f"{real:,} real ones ({real / about['rows']:.1%}), the others written by earlier models.{begun}"
    )


def _readme(about: dict[str, Any], data: str) -> str:
    synthetic = about["rows"] - about["rows_by_generation"].get(0, 0)
    size = next((name for bound, name in SIZES if about["rows"] < bound), "100M<n<1B")
    tags = ["refeed", "provenance", *(["synthetic"] if synthetic else [])]
    front = {"pretty_name": _title(about), "license": "unknown", "size_categories": [size], "tags": tags}
    if "text" in about["columns"]:
        front["task_categories"] = ["text-generation"]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]  # JSON is YAML
    configs = ["configs:", "- config_name: default", "  data_files:", "  - split: train", f"    path: {data}"]
    births = [f"| {g or 'real'} | {rows:,} | {rows / about['rows']:.1%} |" for g, rows in about["rows_by_generation"].items()]
    columns = [f"| `{name}` | {kind} | {MEANINGS.get(name, 'data')} |" for name, kind in about["columns"].items()]
    body = [
        f"# {_title(about)}\n",
        f"{_summary(about)}\n",
        *([f"The study asks: {about['question']}\n"] if about["question"] else []),
        "| born in generation | rows | share |\n|---|---|---|",
        *births,
        "\n| column | type | meaning |\n|---|---|---|",
        *columns,
        "\n`provenance.json` holds the recipe of every shard and model above, by digest: walk any row back to real data with it.",
        f"The model fitted on these rows is {about['model']}. The licence of the real rows is that of their source.\n",
        "```python",
        'import datasets\n\nrows = datasets.load_dataset("path/to/this/folder", split="train")',
        "```\n",
        f"Written by refeed {refeed.__version__}.",
    ]
    return "\n".join(["---", *lines, *configs, "---", "", *body, ""])


def _croissant(folder: Path, about: dict[str, Any], data: str) -> dict[str, Any]:
    path = folder / data
    return {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "rai": "http://mlcommons.org/croissant/RAI/",
            "dct": "http://purl.org/dc/terms/",
            "citeAs": "cr:citeAs",
            "column": "cr:column",
            "conformsTo": "dct:conformsTo",
            "data": {"@id": "cr:data", "@type": "@json"},
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "examples": {"@id": "cr:examples", "@type": "@json"},
            "extract": "cr:extract",
            "field": "cr:field",
            "fileObject": "cr:fileObject",
            "fileProperty": "cr:fileProperty",
            "fileSet": "cr:fileSet",
            "format": "cr:format",
            "includes": "cr:includes",
            "isLiveDataset": "cr:isLiveDataset",
            "jsonPath": "cr:jsonPath",
            "key": "cr:key",
            "md5": "cr:md5",
            "parentField": "cr:parentField",
            "path": "cr:path",
            "recordSet": "cr:recordSet",
            "references": "cr:references",
            "regex": "cr:regex",
            "repeated": "cr:repeated",
            "replace": "cr:replace",
            "separator": "cr:separator",
            "source": "cr:source",
            "subField": "cr:subField",
            "transform": "cr:transform",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": _title(about),
        "description": _summary(about),
        "version": refeed.__version__,
        "keywords": ["synthetic data", "provenance", "model collapse"],
        "rai:dataCollection": "Real rows from the study's source; synthetic rows sampled from the models named in each row.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "train",
                "name": "train",
                "contentUrl": data,
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256(path),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "field": [_field(name, kind) for name, kind in about["columns"].items()],
            }
        ],
    }


def _field(name: str, kind: str) -> dict[str, Any]:
    is_list = kind.startswith(("list", "large_list", "fixed_size_list"))
    element = kind.partition("<")[2].rpartition(">")[0].rpartition(": ")[2].partition(" ")[0].partition(">")[0] if is_list else kind
    field = {
        "@type": "cr:Field",
        "@id": f"rows/{name}",
        "name": name,
        "description": MEANINGS.get(name, "data"),
        "dataType": CROISSANT_TYPES.get(element, "sc:Integer"),
        "source": {"fileObject": {"@id": "train"}, "extract": {"column": name}},
    }
    return field | ({"repeated": True} if is_list else {})
