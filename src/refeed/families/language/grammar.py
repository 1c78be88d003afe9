"""A stochastic grammar of small stories as a finite automaton with three registers: hero, pet and thing.

    once there was a {adjective} girl named {name} .
    she had a {adjective} {pet} and a {adjective} {thing} .
    (she | {name} | her {pet}) (ran to the {place} | took her {thing} | ate some {food} | saw a {adjective} {animal} |
                                felt {feeling}) .                                                  ... repeated
    <|endoftext|>

Every state emits one token, and the token fixes the next state. So a story has one derivation, and its probability is an
exact product over its tokens. Name, pronoun, pet and thing are copied from registers, hence consistent through the story.
The word of rank r in its class has a probability proportional to r^-zipf, independent of all else: the long tail lives in
word choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from refeed.core.rows import Ragged
from refeed.families.language.layout import padded
from refeed.families.language.lexicon import BOYS, CLASSES, END, GIRLS, PETS, THINGS, WORDS

TOKEN = {word: token for token, word in enumerate(WORDS)}
END_TOKEN = TOKEN[END]

# Beyond words, a state may emit what a register holds, or the word that agrees with it.
SYMBOLS = {"HERO": len(WORDS), "PRONOUN": len(WORDS) + 1, "POSSESSIVE": len(WORDS) + 2}
SYMBOLS |= {"PET": len(WORDS) + 3, "THING": len(WORDS) + 4}

SUBJECTS = {"PRONOUN": 0.45, "HERO": 0.25, "POSSESSIVE PET": 0.3}
PREDICATES = {
    "{move} to the {place} .": 0.2,
    "{use} POSSESSIVE THING .": 0.25,
    "{eat} some {food} .": 0.2,
    "{meet} a {adjective} {animal} .": 0.2,
    "felt {feeling} .": 0.15,
}
STOP = 0.3  # probability that a story ends after a sentence beyond the opening, short of the most it may have

_AGREES = np.full((2, len(WORDS)), -1)  # pronoun and possessive of a name
_REGISTER = np.full(len(WORDS), -1)  # which register a word may fill: 0 hero, 1 pet, 2 thing
for names, pair in ((GIRLS, ("she", "her")), (BOYS, ("he", "his"))):
    _AGREES[:, [TOKEN[name] for name in names]] = [[TOKEN[word]] for word in pair]
for register, words in enumerate((GIRLS + BOYS, PETS, THINGS)):
    _REGISTER[[TOKEN[word] for word in words]] = register


class Grammar:
    """The distribution over stories of one to `sentences` sentences after the two of the opening.

    >>> stories = Grammar(zipf=1.0, sentences=8).sample(3, np.random.default_rng(0))
    >>> len(stories), bool(np.isfinite(Grammar(zipf=1.0, sentences=8).log_prob(stories)).all())
    (3, True)
    """

    def __init__(self, *, zipf: float, sentences: int) -> None:
        self._classes = {name: _zipf(words, zipf) for name, words in CLASSES.items()}
        self._emits: list[dict[int, tuple[float, int]]] = []  # state -> symbol -> (probability, next state)
        start, opening, second, body = (self._new() for _ in range(4))
        self._chain(start, "once there was a {adjective}", opening)
        self._chain(opening, "girl named {girl name} .", second, 0.5)
        self._chain(opening, "boy named {boy name} .", second, 0.5)
        self._chain(second, "PRONOUN had a {adjective} {pet} and a {adjective} {thing} .", body)
        final = -1
        for number in range(1, sentences + 1):
            predicate, after = self._new(), self._new()
            stop = STOP if number > 1 else 0.0
            for subject, share in SUBJECTS.items():
                self._chain(body, subject, predicate, share * (1 - stop))
            for words, share in PREDICATES.items():
                self._chain(predicate, words, after, share)
            if stop:
                self._emits[body][END_TOKEN] = (stop, final)
            body = after
        self._emits[body][END_TOKEN] = (1.0, final)
        self._compile()

    def _new(self) -> int:
        self._emits.append({})
        return len(self._emits) - 1

    def _chain(self, state: int, phrase: str, last: int, probability: float = 1.0) -> None:
        """From `state`, emit a phrase of words, {classes} and SYMBOLS, and be in state `last`."""
        pieces = phrase.replace(" name}", "_name}").split()
        for number, piece in enumerate(pieces):
            following = last if number == len(pieces) - 1 else self._new()
            if piece.startswith("{"):
                choices = self._classes[piece[1:-1].replace("_", " ")]
            else:
                choices = {SYMBOLS[piece] if piece in SYMBOLS else TOKEN[piece]: 1.0}
            for symbol, share in choices.items():
                assert symbol not in self._emits[state], f"two phrases begin with {piece!r}: the parse is ambiguous"
                self._emits[state][symbol] = (probability * share, following)
            state, probability = following, 1.0

    def _compile(self) -> None:
        """Tables: log p and next state by (state, symbol) for scoring; cumulative probabilities end to end for sampling."""
        num_states = len(self._emits)
        num_symbols = len(WORDS) + len(SYMBOLS)
        self._final, dead = num_states, num_states + 1
        self._log_p = np.full((num_states + 2, num_symbols), -np.inf)
        self._next = np.full((num_states + 2, num_symbols), dead)
        symbols, cumulative = [], []
        for state, emits in enumerate(self._emits):
            order = np.fromiter(emits, dtype=np.int64)
            p = np.array([emits[symbol][0] for symbol in order])
            assert abs(p.sum() - 1) < 1e-12
            self._log_p[state, order] = np.log(p)
            self._next[state, order] = [emits[symbol][1] if emits[symbol][1] >= 0 else self._final for symbol in order]
            symbols.append(order)
            cumulative.append(state + np.minimum(np.cumsum(p), 1.0))
        self._symbols = np.concatenate(symbols)
        self._cumulative = np.concatenate(cumulative)
        self._last = np.cumsum([len(order) for order in symbols]) - 1
        self._visits = self._expected_visits()

    def _expected_visits(self) -> np.ndarray:
        """How often a story passes through each state, on average: v = e_0 + P'v, of shape (states,)."""
        num_states = len(self._emits)
        transitions = np.zeros((num_states, num_states + 2))
        for state in range(num_states):
            np.add.at(transitions[state], self._next[state], np.exp(self._log_p[state]))
        start = np.zeros(num_states)
        start[0] = 1.0
        return np.linalg.solve(np.eye(num_states) - transitions[:, :num_states].T, start)

    @property
    def entropy(self) -> float:
        """Nats a story, exact: the sum over states of expected visits times the entropy of what the state emits."""
        p = np.exp(self._log_p[: len(self._emits)])
        return float(-self._visits @ (p * np.where(p > 0, self._log_p[: len(self._emits)], 0.0)).sum(axis=1))

    @property
    def mean_tokens(self) -> float:
        """Tokens a story, its end included, exact. `entropy / mean_tokens` is the source's cross-entropy in nats a token."""
        return float(self._visits.sum())

    def expected_counts(self) -> np.ndarray:
        """How often a story draws each word afresh (not from a register), on average: (words,), exact."""
        return (self._visits @ np.exp(self._log_p[: len(self._emits)]))[: len(WORDS)]

    def rare_words(self, share: float) -> np.ndarray:
        """Tokens of the rarest open-class words: as many as together make at most `share` of the open-class draws."""
        tokens = np.array([TOKEN[word] for words in CLASSES.values() for word in words])
        counts = self.expected_counts()[tokens]
        order = np.argsort(counts, kind="stable")
        cumulative = np.cumsum(counts[order])
        return np.sort(tokens[order[cumulative <= share * cumulative[-1]]])

    def sample(self, num_stories: int, rng: np.random.Generator) -> Ragged:
        """Stories as tokens (uint16), each closed by the end token."""
        tokens: list[np.ndarray] = []
        state = np.zeros(num_stories, dtype=np.int64)
        held = np.full((3, num_stories), -1)
        alive = np.arange(num_stories)
        while len(alive):
            entry = np.searchsorted(self._cumulative, state + rng.random(len(alive)), side="right")
            symbol = self._symbols[np.minimum(entry, self._last[state])]
            token = self._written(symbol, held)
            _hold(held, token)
            column = np.full(num_stories, -1, dtype=np.int32)
            column[alive] = token
            tokens.append(column)
            state = self._next[state, symbol]
            going = state != self._final
            alive, state, held = alive[going], state[going], held[:, going]
        matrix = np.stack(tokens, axis=1) if tokens else np.zeros((0, 1), dtype=np.int32)
        written = matrix >= 0
        offsets = np.concatenate([[0], np.cumsum(written.sum(axis=1))]).astype(np.int64)
        return Ragged(matrix[written].astype(np.uint16), offsets)

    def log_prob(self, stories: Ragged) -> np.ndarray:
        """log p of each story in nats, exact: (stories,). -inf for what the grammar cannot say, and for a story without its end."""
        result = np.empty(len(stories))
        for first in range(0, len(stories), 8192):
            piece = stories.take(np.arange(first, min(first + 8192, len(stories))))
            result[first : first + 8192] = self._log_prob(padded(piece, fill=-1))
        return result

    def _log_prob(self, tokens: np.ndarray) -> np.ndarray:
        num_stories, num_tokens = tokens.shape
        total, state = np.zeros(num_stories), np.zeros(num_stories, dtype=np.int64)
        held = np.full((3, num_stories), -1)
        for position in range(num_tokens):
            token = tokens[:, position]
            inside = (token >= 0) & (token < len(WORDS))
            total[token >= len(WORDS)] = -np.inf
            symbol = self._read(np.where(inside, token, 0), held)
            total += np.where(inside, self._log_p[state, symbol], 0.0)
            state = np.where(inside, self._next[state, symbol], state)
            _hold(held, np.where(inside, token, 0))
        return np.where(state == self._final, total, -np.inf)

    @staticmethod
    def _written(symbol: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Symbols as tokens, given the registers."""
        hero, pet, thing = held
        token = symbol.copy()
        meanings = {"HERO": hero, "PET": pet, "THING": thing}
        meanings |= {"PRONOUN": _AGREES[0, hero], "POSSESSIVE": _AGREES[1, hero]}
        for name, meaning in meanings.items():
            token = np.where(symbol == SYMBOLS[name], meaning, token)
        return token

    @staticmethod
    def _read(token: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Tokens as symbols, given the registers: the inverse of `_written`."""
        hero, pet, thing = held
        symbol = token.copy()
        for name, meaning in (("HERO", hero), ("PET", pet), ("THING", thing)):
            symbol = np.where(token == meaning, SYMBOLS[name], symbol)
        for name, agreeing in zip(("PRONOUN", "POSSESSIVE"), _AGREES, strict=True):
            symbol = np.where((hero >= 0) & (token == agreeing[hero]), SYMBOLS[name], symbol)
        return symbol


def _hold(held: np.ndarray, token: np.ndarray) -> None:
    """The first word of its kind fills a register, for good."""
    for register in range(3):
        fills = (held[register] < 0) & (_REGISTER[token] == register)
        held[register][fills] = token[fills]


def _zipf(words: Sequence[str], exponent: float) -> dict[int, float]:
    weights = np.arange(1, len(words) + 1) ** -float(exponent)
    return {TOKEN[word]: float(p) for word, p in zip(words, weights / weights.sum(), strict=True)}


@lru_cache(maxsize=16)
def grammar(*, zipf: float, sentences: int) -> Grammar:
    """The grammar with these settings, built once."""
    return Grammar(zipf=zipf, sentences=sentences)
