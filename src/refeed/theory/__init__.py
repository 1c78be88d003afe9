"""Closed forms for feedback loops: the oracle of the tests and the dashed line of the figures.

Notation, as in the literature: d features, T rows a generation (T_1 real), N_i = T_1 + ... + T_i, s the standard
deviation of the label noise, n the generation. Nothing here imports anything else of refeed.
"""

from refeed.theory.registry import Law, TheoryError, evaluate, find, laws

__all__ = ["Law", "TheoryError", "evaluate", "find", "laws"]
