"""`refeed studies`: the shipped studies and the questions they answer."""

from __future__ import annotations

import json
import tomllib

from refeed.cli.options import Json


def studies(json_output: Json = False) -> None:
    """List the shipped studies with their questions."""
    from refeed.studies.files import shipped

    questions = {name: tomllib.loads(text).get("question", "") for name, text in shipped().items()}
    if json_output:
        print(json.dumps(questions))
        return
    width = max(map(len, questions))
    for name, question in questions.items():
        print(f"{name:{width}}  {question}")
