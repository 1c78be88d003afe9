from dataclasses import dataclass
from typing import ClassVar

import pytest

from refeed.core.recipes import digest, recipe


@dataclass(frozen=True, kw_only=True)
class Thing:
    size: float = 1.0
    inner: object = None
    version: ClassVar[int] = 1


def test_a_recipe_is_class_version_and_fields():
    assert recipe(Thing(size=2.5)) == {"kind": f"{__name__}:Thing", "version": 1, "fields": {"size": 2.5, "inner": None}}


def test_equal_things_have_equal_digests_and_every_option_counts():
    assert digest(Thing(size=2.0)) == digest(Thing(size=2.0))
    assert len({digest(Thing()), digest(Thing(size=2.0)), digest(Thing(inner=Thing())), digest(Thing(inner=(1, 2)))}) == 4


def test_one_and_one_point_zero_are_one_recipe():
    assert digest(Thing(size=1)) == digest(Thing(size=1.0))


def test_a_new_version_of_the_code_is_a_new_identity():
    before = digest(Thing())
    Thing.version = 2
    try:
        assert digest(Thing()) != before
    finally:
        Thing.version = 1


def test_order_of_keys_does_not_matter():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(TypeError, match="make it a frozen dataclass"):
        digest(Thing(inner=object()))


def test_identity_says_what_matters():
    @dataclass(frozen=True)
    class File:
        path: str
        content: str

        def identity(self):
            return {"content": self.content}

    assert digest(File("a", "same")) == digest(File("b", "same"))
    assert digest(File("a", "same")) != digest(File("a", "other"))
