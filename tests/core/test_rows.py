import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refeed.core.rows import Ragged, Rows

stories = st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=6), max_size=8)


@given(stories)
def test_ragged_columns_go_to_arrow_and_back(lists):
    rows = Rows(tokens=Ragged.of(lists, np.uint16))
    back = Rows.from_arrow(rows.to_arrow())
    assert len(back) == len(lists)
    assert [row.tolist() for row in back["tokens"]] == lists


@given(stories.filter(len), st.data())
def test_take_keeps_the_rows_meant(lists, data):
    index = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
    taken = Ragged.of(lists, np.uint16).take(np.array(index, dtype=np.int64))
    assert [row.tolist() for row in taken] == [lists[i] for i in index]


def test_tensor_columns_keep_shape_and_type_through_arrow():
    rows = Rows(image=np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1), y=np.array([1.5, 2.5], dtype=np.float32))
    back = Rows.from_arrow(rows.to_arrow())
    assert back["image"].shape == (2, 3, 4, 1)
    assert back["image"].dtype == np.uint8
    assert back["y"].dtype == np.float32
    assert np.array_equal(back["image"], rows["image"])


def test_an_empty_table_keeps_its_columns():
    rows = Rows(x=np.zeros((0, 3)), tokens=Ragged.of([], np.uint16))
    back = Rows.from_arrow(rows.to_arrow())
    assert len(back) == 0
    assert back["x"].shape == (0, 3)
    assert len(back["tokens"]) == 0


def test_a_slice_of_a_table_reads_as_its_own_rows():
    table = Rows(tokens=Ragged.of([[1], [2, 3], [4]], np.uint16)).to_arrow().slice(1)
    assert [row.tolist() for row in Rows.from_arrow(table)["tokens"]] == [[2, 3], [4]]


def test_concatenation_is_one_after_the_other():
    pieces = [
        Rows(t=Ragged.of([[1, 2], []], np.uint16), y=np.array([0.0, 1.0])),
        Rows(t=Ragged.of([[3]], np.uint16), y=np.array([2.0])),
    ]
    whole = Rows.concatenate(pieces)
    assert [row.tolist() for row in whole["t"]] == [[1, 2], [], [3]]
    assert whole["y"].tolist() == [0.0, 1.0, 2.0]


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="'y' has 2 rows where others have 3"):
        Rows(x=np.zeros(3), y=np.zeros(2))


def test_non_finite_rows_are_counted_once_each():
    x = np.zeros((4, 2))
    x[1] = np.nan
    x[3, 0] = np.inf
    ragged = Ragged.of([[0.0], [1.0, np.nan], [], [2.0]], np.float64)
    assert Rows(x=x, r=ragged).num_non_finite() == 2
    assert Rows(r=ragged).num_non_finite() == 1
    assert Rows(n=np.arange(4)).num_non_finite() == 0
