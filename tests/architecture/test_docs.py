"""Docs cannot rot: what is generated is up to date, and everything with a name is documented."""

from pathlib import Path

import pytest

from refeed import catalogue
from refeed.cli.manual import manual, verbs

ROOT = Path(__file__).parents[2]


def test_the_manual_is_up_to_date():
    assert (ROOT / "docs" / "cli.md").read_text() == manual(), "type: python -m refeed.cli.manual > docs/cli.md"


@pytest.mark.parametrize("verb", list(verbs()))
def test_every_verb_stands_in_the_readme_or_the_manual(verb):
    assert f"## refeed {verb}\n" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("table", ["POLICIES", "AMOUNTS", "KEEPS", "TRAINS", "ALTERATIONS", "CONTROLS"])
def test_everything_in_the_catalogue_says_what_it_is(table):
    for name, target in getattr(catalogue, table).items():
        text = catalogue.load(target).__doc__ or ""
        made = catalogue.load(target).__name__
        assert text, name
        assert not text.startswith(f"{made}("), f"{name} has only the docstring that dataclasses make"


@pytest.mark.parametrize("name", sorted(catalogue.FAMILIES))
def test_every_plug_in_of_a_family_says_what_it_is(name):
    family = catalogue.load(catalogue.FAMILIES[name])
    for table in (family.sources, family.learners, family.samplers, family.metrics):
        for kind, target in table.items():
            made = catalogue.load(target)
            assert made.__doc__, (name, kind)
            assert not made.__doc__.startswith(f"{made.__name__}("), (name, kind)
