import pickle

import numpy as np

from refeed.core.seeds import Seed


def test_a_stream_depends_on_its_path_alone():
    first, again = (Seed(0) / "generation" / 3 / "fit", Seed(0) / "generation" / 3 / "fit")
    assert first == again
    assert np.array_equal(first.generator().standard_normal(5), again.generator().standard_normal(5))


def test_different_paths_give_different_streams():
    paths = [Seed(0), Seed(1), Seed(0) / "a", Seed(0) / "b", Seed(0) / "a" / "b", Seed(0) / 1, Seed(0) / 11, Seed(0) / 1 / 1]
    draws = {float(seed.generator().standard_normal()) for seed in paths}
    assert len(draws) == len(paths)


def test_streams_are_not_correlated():
    """1000 sibling streams, first draw each: mean and variance of a standard normal, z = 4 (false alarm 1 in 10^4)."""
    draws = np.array([(Seed(0) / n).generator().standard_normal() for n in range(1000)])
    assert abs(draws.mean()) < 4 / np.sqrt(1000)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / 1000)


def test_a_seed_survives_pickling():
    seed = Seed(7) / "generation" / 2
    assert pickle.loads(pickle.dumps(seed)) == seed
    assert str(pickle.loads(pickle.dumps(seed))) == "7/generation/2"


def test_integers_have_the_bits_asked_for():
    assert all((Seed(0) / n).integer(bits=8) < 256 for n in range(50))
    assert len({(Seed(0) / n).integer() for n in range(50)}) == 50


def test_the_stream_is_frozen():
    """A golden value: if this changes, every stored result of every user changes with it."""
    assert (Seed(0) / "generation" / 1 / "fit").key.hex() == GOLDEN_KEY
    assert (Seed(0) / "a").generator().integers(2**32) == GOLDEN_DRAW


GOLDEN_KEY = "480d06a263adb91728911d1c585d0bbe"
GOLDEN_DRAW = 2339611038
