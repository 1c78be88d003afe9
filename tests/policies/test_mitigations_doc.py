"""The study fragment in docs/mitigations.md runs as it stands."""

from pathlib import Path

from refeed.studies import run
from refeed.studies.files import parse

PAGE = Path(__file__).parents[2] / "docs" / "mitigations.md"


def test_the_example_runs():
    fragment = PAGE.read_text().partition("```toml\n")[2].partition("```")[0]
    study = parse(f'family = "regression"\nseeds = 1\ngenerations = 2\n{fragment}', name="mitigations")
    results = run(study)
    assert results.policies == ["verified", "detected", "degrading"]
    assert {row["outcome"] for row in results.outcomes.to_pylist()} == {"completed"}
    rejected = {line["policy"]: line["rejected"] for line in results.ledger.to_pylist()}
    assert rejected == {"verified": 0.5, "detected": 0.0, "degrading": 1 - 100 / 150}
