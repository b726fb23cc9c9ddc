"""An id for each row, drawn or the likeliest, with no more of the output layer than that takes.

On a processor. The adaptive softmax computes a tail only where it is drawn, or may hold the
likeliest id. All beyond the products is numpy's, whose threads don't wait for torch's.
"""

import math
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.nn.heads import AdaptiveSoftmax, Head
from lstmlm.nn.linear import logits

Logits = NDArray[np.float32]  # shape (B, ids)
BLOCK = 256  # columns whose sum is taken first
BELOW_ONE = math.nextafter(1.0, 0.0)


class Scores(Protocol):
    """The logits of some rows, a tail's only where they are asked for.

    Attributes
    ----------
    edges : list of int
        Where the head's ids and each tail's begin, and the number of all ids.
    """

    edges: list[int]

    def of_head(self) -> Logits:
        """Return the logits of the head's ids and of the tails' classes, of all rows."""
        ...

    def of_tail(self, k: int, rows: list[int]) -> Logits:
        """Return the logits of tail k's ids, of some rows."""
        ...


class HeadScores:
    """The logits that an output layer gives features.

    Parameters
    ----------
    head : Head
        The output layer.
    x : Tensor, shape (B, D)
        Features.
    """

    def __init__(self, head: Head, x: Tensor) -> None:
        self._head, self._x = head, x
        self.edges = edges_of(head)

    def of_head(self) -> Logits:
        """See `Scores.of_head`."""
        if isinstance(self._head, AdaptiveSoftmax):
            return _numbers(self._head.head_logits(self._x))
        return _numbers(logits(self._x, self._head.rows, self._head.bias))

    def of_tail(self, k: int, rows: list[int]) -> Logits:
        """See `Scores.of_tail`."""
        assert isinstance(self._head, AdaptiveSoftmax)
        return _numbers(self._head.tail_logits(k, self._x[torch.tensor(rows)]))


def edges_of(head: Head) -> list[int]:
    """Return where a layer's head and its tails begin, and the number of its ids."""
    return head.edges if isinstance(head, AdaptiveSoftmax) else [0, len(head.bias)]


def can_choose(head: Head, without: tuple[int, ...]) -> bool:
    """Return whether `choose` serves: on a processor, and nothing is left out of a tail."""
    first = edges_of(head)[1]
    return head.bias.device.type == "cpu" and all(token < first for token in without)


def choose(
    scores: Scores, uniform: Sequence[float] | None, without: tuple[int, ...] = ()
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Choose an id for each row.

    Parameters
    ----------
    scores : Scores
        Of B rows.
    uniform : sequence of B floats, or None
        Numbers from 0 up to 1 by which ids are drawn: by the inverse of the cumulative
        distribution. None takes the likeliest ids.
    without : tuple of int
        Ids that are not chosen; see `can_choose`.

    Returns
    -------
    ids : ndarray of int64, shape (B,)
    log_probs : ndarray of float32, shape (B,)
        Their log-probabilities, in nats, those of `without` in the reckoning.
    """
    found = scores.of_head()
    if uniform is None:
        return _arrays(*_likeliest(scores, found, without))
    columns, log_probs, left = _drawn(found, uniform, without)
    ids, first = list(columns), scores.edges[1]
    for k, begin in enumerate(scores.edges[1:-1]):
        rows = [row for row, column in enumerate(columns) if column == first + k]
        if rows:
            inside, values, _ = _drawn(scores.of_tail(k, rows), [left[row] for row in rows])
            for row, column, value in zip(rows, inside, values, strict=True):
                ids[row] = begin + column
                log_probs[row] += value
    return _arrays(ids, log_probs)


def _arrays(
    ids: list[int], log_probs: list[float]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.array(ids, dtype=np.int64), np.array(log_probs, dtype=np.float32)


def _likeliest(
    scores: Scores, found: Logits, without: tuple[int, ...]
) -> tuple[list[int], list[float]]:
    """Return what `choose` does without numbers; a tail is looked into where it may hold more."""
    first, norms = scores.edges[1], _log_norms(found)
    for token in without:
        found[:, token] = -np.inf
    best = found[:, :first].argmax(1)
    ids = best.tolist()
    log_probs = (found[np.arange(len(ids)), best] - norms).tolist()
    for k, begin in enumerate(scores.edges[1:-1]):
        of_tail = (found[:, first + k] - norms).tolist()
        rows = [row for row, log_prob in enumerate(log_probs) if of_tail[row] > log_prob]
        if rows:
            inside = scores.of_tail(k, rows)
            columns = inside.argmax(1)
            values = inside[np.arange(len(rows)), columns] - _log_norms(inside)
            for row, column, value in zip(rows, columns.tolist(), values.tolist(), strict=True):
                if value + of_tail[row] > log_probs[row]:
                    ids[row], log_probs[row] = begin + column, value + of_tail[row]
    return ids, log_probs


def _log_norms(found: Logits) -> NDArray[np.float64]:
    """Return log(sum(exp(logits))) of each row."""
    most = found.max(1)
    sums = np.exp(found - most[:, np.newaxis]).sum(1, dtype=np.float64)
    norms: NDArray[np.float64] = most + np.log(sums)
    return norms


def _drawn(
    found: Logits, uniform: Sequence[float], without: tuple[int, ...] = ()
) -> tuple[list[int], list[float], list[float]]:
    """Draw a column of each row of logits.

    Sums over blocks of columns come first, so that few of the columns are added up one by one.

    Returns
    -------
    columns : list of B ints
    log_probs : list of B floats
    left : list of B floats
        What is left of the numbers: where in the column's share they lie, from 0 up to 1.
    """
    most = found.max(1)
    shares = found - most[:, np.newaxis]
    np.exp(shares, out=shares)
    lost = np.zeros(len(found))
    for token in without:
        lost += shares[:, token]
        shares[:, token] = 0.0
    sums = np.add.reduceat(shares, _blocks(shares.shape[1]), axis=1, dtype=np.float64).cumsum(1)
    columns, log_probs, left = [], [], []
    for row, (number, until, out) in enumerate(
        zip(uniform, sums.tolist(), lost.tolist(), strict=True)
    ):
        whole = until[-1]
        # Rounding must not reach the end, behind which there is nothing.
        target = min(number * whole, math.nextafter(whole, 0.0))
        block = bisect(until, target)
        rest = target - (until[block - 1] if block else 0.0)
        here = shares[row, block * BLOCK : (block + 1) * BLOCK]
        within = here.cumsum(dtype=np.float64)
        at = int(within.searchsorted(rest, "right"))
        if at == len(here):  # by rounding
            at = int(here.nonzero()[0][-1])
        share, column = float(here[at]), block * BLOCK + at
        columns.append(column)
        log_probs.append(float(found[row, column] - most[row]) - math.log(whole + out))
        left.append(min(max((rest - (float(within[at]) - share)) / share, 0.0), BELOW_ONE))
    return columns, log_probs, left


@lru_cache
def _blocks(n_columns: int) -> NDArray[np.int64]:
    """Return where the blocks of so many columns begin."""
    return np.arange(0, n_columns, BLOCK)


def _numbers(found: Tensor) -> Logits:
    numbers: Logits = found.numpy()
    return numbers
