"""What generated text must be: which ids may follow, given what a row has written so far.

A constraint that can be met at all is met by every text: with each id it is looked at whether what
is still to come fits into the ids that are left.
"""

import functools
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.errors import MissingExtraError, ParameterError
from lstmlm.text import END, Ids, Tokenizer

Allowed = NDArray[np.int64]


class Constraint(Protocol):
    """Says which ids may follow."""

    def __call__(self, row: int, new: Sequence[int]) -> Allowed | None:
        """Return the ids that may follow a row's new ones, the end mark perhaps among them.

        Parameters
        ----------
        row : int
            The number of the prompt among those that are continued together.
        new : sequence of int
            What was written to it.

        Returns
        -------
        ndarray of int64, or None for all
        """
        ...


def constrained(
    logits: Tensor, allow: Constraint | None, rows: Iterable[int], new: Iterable[Sequence[int]]
) -> Tensor:
    """Return scores, shape (B, V), in which what a constraint doesn't allow is minus infinity."""
    if allow is None:
        return logits
    given = [allow(row, ids) for row, ids in zip(rows, new, strict=True)]
    if all(allowed is None for allowed in given):
        return logits
    limited = logits.clone()
    for row, allowed in enumerate(given):
        if allowed is not None:
            limited[row] = -torch.inf
            chosen = torch.tensor(allowed, device=logits.device)
            limited[row, chosen] = logits[row, chosen]
    return limited


class FirstIds:
    """Lets some rows begin with some ids only."""

    def __init__(self, firsts: Mapping[int, Allowed]) -> None:
        self._firsts = firsts

    def __call__(self, row: int, new: Sequence[int]) -> Allowed | None:
        """See `Constraint`."""
        return None if len(new) else self._firsts.get(row)


class AllowedTokens:
    """Asks a user's function, as Hugging Face's ``prefix_allowed_tokens_fn`` is asked.

    Parameters
    ----------
    ask : callable
        Gets the number of a prompt's text and its ids so far, the prompt's first, as a tensor, and
        returns the ids that may follow.
    prompts : sequence of ndarray of integers
        The prompts' ids.
    first : int
        The number of the first of them among all of the call.
    vocab_size : int
        Number of ids.
    """

    def __init__(
        self,
        ask: Callable[[int, Tensor], Iterable[int]],
        prompts: Sequence[Ids],
        first: int,
        vocab_size: int,
    ) -> None:
        self._ask, self._prompts, self._first = ask, prompts, first
        self._vocab_size = vocab_size

    def __call__(self, row: int, new: Sequence[int]) -> Allowed:
        """See `Constraint`."""
        before = torch.tensor([*self._prompts[row].tolist(), *new], dtype=torch.int64)
        allowed = np.unique(np.array(list(self._ask(self._first + row, before)), dtype=np.int64))
        if len(allowed) and not 0 <= allowed[0] <= allowed[-1] < self._vocab_size:
            raise ParameterError(
                f"prefix_allowed_tokens gave ids from {allowed[0]} to {allowed[-1]}; the ids are "
                f"0 to {self._vocab_size - 1}."
            )
        return allowed


class Pattern:
    """Lets only texts be written that a regular expression matches as a whole.

    The expression becomes an automaton whose arrows are ids (Willard and Louf 2023, section 3), by
    the library outlines-core.

    Parameters
    ----------
    pattern : str
        A regular expression of Rust's `regex`: without look-around and back references.
    tokenizer : Tokenizer
        One of the library's own kinds.
    max_new_tokens : int
        Ids that a text may have.
    glued : sequence of bool
        For each prompt, whether what stands between two ids comes before the first new one too.

    Raises
    ------
    ParameterError
        If the expression is none, or no text of so many ids matches it.
    MissingExtraError
        If outlines-core is not installed.
    """

    def __init__(
        self, pattern: str, tokenizer: Tokenizer, max_new_tokens: int, glued: Sequence[bool]
    ) -> None:
        self._automaton = _automaton(pattern, tokenizer)
        self._max, self._glued = max_new_tokens, glued
        needed = max((self._automaton.needed(glued=each) for each in set(glued)), default=0)
        if needed > max_new_tokens:
            at_least = "more tokens than there can be" if math.isinf(needed) else f"{needed:g}"
            raise ParameterError(
                f"regex={pattern!r} needs {at_least} tokens, and max_new_tokens={max_new_tokens}."
            )

    def __call__(self, row: int, new: Sequence[int]) -> Allowed:
        """See `Constraint`."""
        glued, left = self._glued[row], self._max - len(new) - 1
        return self._automaton.allowed(new, left, glued=glued)


@dataclass(frozen=True)
class _Arrows:
    """Where ids lead from a state."""

    ids: NDArray[np.int64]
    to: dict[int, int]
    then: NDArray[np.float64]  # how many more it takes from there to an end

    @classmethod
    def of(cls, to: dict[int, int], least: Mapping[int, float]) -> "_Arrows":
        then = np.array([least[state] for state in to.values()], dtype=np.float64)
        return cls(np.array(list(to), dtype=np.int64), to, then)


class _Automaton:
    """States and arrows: what `Pattern` walks through.

    Parameters
    ----------
    arrows : dict of dict
        By state and id, the next state. Words that stand without a space before them, as a text's
        first may, are ids from `n_ids` on.
    initial : int
    final : frozenset of int
    n_ids : int
    """

    def __init__(
        self, arrows: dict[int, dict[int, int]], initial: int, final: frozenset[int], n_ids: int
    ) -> None:
        self._initial, self._final = initial, final
        glued = {
            state: {token: to for token, to in by_token.items() if END < token < n_ids}
            for state, by_token in arrows.items()
        }
        least = _least(glued, final)
        self._arrows = {state: _Arrows.of(by_token, least) for state, by_token in glued.items()}
        first = arrows.get(initial, {})
        bare = {token - n_ids: to for token, to in first.items() if token >= n_ids}
        self._bare = _Arrows.of(bare, least)
        self._nowhere = _Arrows.of({}, least)

    def needed(self, *, glued: bool) -> float:
        """Return how many ids a text has at least."""
        if self._initial in self._final:
            return 0
        return 1 + float(self._from(self._initial, bare=not glued).then.min(initial=math.inf))

    def allowed(self, new: Sequence[int], left: int, *, glued: bool) -> Allowed:
        """Return which ids may follow new ones, so that `left` more suffice, or the end mark."""
        state = self._initial
        for number, token in enumerate(new):
            state = self._from(state, bare=not (glued or number)).to[token]
        arrows = self._from(state, bare=not (glued or len(new)))
        fits = arrows.ids[arrows.then <= left]
        return np.append(fits, END) if state in self._final else fits

    def _from(self, state: int, *, bare: bool) -> _Arrows:
        return self._bare if bare else self._arrows.get(state, self._nowhere)


def _least(arrows: dict[int, dict[int, int]], final: frozenset[int]) -> dict[int, float]:
    """Return how many ids it takes at least from each state to a final one."""
    before: dict[int, set[int]] = {}
    for state, by_token in arrows.items():
        for to in by_token.values():
            before.setdefault(to, set()).add(state)
    least = defaultdict(lambda: math.inf, dict.fromkeys(final, 0.0))
    waiting = deque(final)
    while waiting:
        state = waiting.popleft()
        for earlier in before.get(state, ()):
            if least[earlier] > least[state] + 1:
                least[earlier] = least[state] + 1
                waiting.append(earlier)
    return least


@functools.lru_cache(maxsize=8)
def _automaton(pattern: str, tokenizer: Tokenizer) -> _Automaton:
    try:
        import outlines_core
    except ImportError as error:
        raise MissingExtraError(
            "a regular expression needs the package outlines-core; install lstmlm[regex]."
        ) from error
    lexicon, n_ids = tokenizer.lexicon, tokenizer.vocab_size
    ids: dict[bytes, list[int]] = {}
    for token in lexicon.longer(b"").tolist():
        ids.setdefault(tokenizer.glue + lexicon.pieces[token], []).append(token)
        if tokenizer.glue:
            ids.setdefault(lexicon.pieces[token], []).append(token + n_ids)
    try:
        index = outlines_core.Index(pattern, outlines_core.Vocabulary(END, ids))
    except ValueError as error:
        raise ParameterError(
            f"regex={pattern!r} can't be used: {str(error).split('. ')[0]}. It is to "
            "be a regular expression without look-around and back references, of characters that "
            "the model knows."
        ) from error
    final = frozenset(index.get_final_states())
    return _Automaton(index.get_transitions(), index.get_initial_state(), final, n_ids)


def verse_pattern(line_lengths: Sequence[int]) -> str:
    """Return the expression for lines of so many characters each, a line break between two."""
    return "\\n".join(f"[^\\n]{{{length}}}" for length in line_lengths)
