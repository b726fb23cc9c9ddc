"""An id for each row, drawn or the likeliest, with no more of the output layer than that takes.

On a processor. The adaptive softmax computes a tail only where it is drawn, or may hold the
likeliest id. All beyond the products is numpy's, whose threads don't wait for torch's.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.nn.heads import AdaptiveSoftmax, Head, logits

Rows = NDArray[np.float64]
BLOCK = 256  # columns whose sum is taken first


def choose(
    head: Head, x: Tensor, uniform: Rows | None, without: tuple[int, ...] = ()
) -> tuple[NDArray[np.int64], Rows]:
    """Choose an id for each row.

    Parameters
    ----------
    head : Head
        The output layer.
    x : Tensor, shape (B, D)
        Features.
    uniform : ndarray of float64, shape (B,), or None
        Numbers from 0 up to 1 by which ids are drawn: by the inverse of the cumulative
        distribution. None takes the likeliest ids.
    without : tuple of int
        Ids that are not chosen; see `can_choose`.

    Returns
    -------
    ids : ndarray of int64, shape (B,)
    log_probs : ndarray of float64, shape (B,)
        Their log-probabilities, in nats, those of `without` in the reckoning.
    """
    if not isinstance(head, AdaptiveSoftmax):
        found = _numbers(logits(x, head.rows, head.bias))
        ids, log_probs, _ = _chosen(found, uniform, without)
        return ids, log_probs
    first = head.sizes[0]
    found = _numbers(head.head_logits(x))
    if uniform is not None:
        columns, log_probs, left = _chosen(found, uniform, without)
        ids = columns.copy()
        for k in range(len(head.sizes) - 1):
            rows = np.flatnonzero(columns == first + k)
            if len(rows):
                ids[rows], inside, _ = _chosen(_tail(head, k, x, rows), left[rows], ())
                ids[rows] += head.edges[k + 1]
                log_probs[rows] += inside
        return ids, log_probs
    norms = _log_norms(found)
    found[:, list(without)] = -np.inf
    ids = found[:, :first].argmax(1)
    every = np.arange(len(ids))
    log_probs = found[every, ids] - norms
    for k in range(len(head.sizes) - 1):
        of_tail = found[:, first + k] - norms
        rows = np.flatnonzero(of_tail > log_probs)
        if len(rows):
            best, inside, _ = _chosen(_tail(head, k, x, rows), None, ())
            better = inside + of_tail[rows] > log_probs[rows]
            ids[rows[better]] = best[better] + head.edges[k + 1]
            log_probs[rows[better]] = (inside + of_tail[rows])[better]
    return ids, log_probs


def can_choose(head: Head, without: tuple[int, ...]) -> bool:
    """Return whether `choose` serves: on a processor, and nothing is left out of a tail."""
    on_processor = head.bias.device.type == "cpu"
    first = head.sizes[0] if isinstance(head, AdaptiveSoftmax) else len(head.bias)
    return on_processor and all(token < first for token in without)


def _tail(head: AdaptiveSoftmax, k: int, x: Tensor, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return _numbers(head.tail_logits(k, x[torch.from_numpy(rows)]))


def _numbers(found: Tensor) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = found.numpy()
    return numbers


def _log_norms(found: NDArray[np.float32]) -> Rows:
    """Return log(sum(exp(logits))) of each row."""
    most = found.max(1, keepdims=True)
    sums = np.exp(found - most).sum(1, dtype=np.float64)
    norms: Rows = most[:, 0] + np.log(sums)
    return norms


def _chosen(
    found: NDArray[np.float32], uniform: Rows | None, without: tuple[int, ...]
) -> tuple[NDArray[np.int64], Rows, Rows]:
    """Choose a column of each row of logits.

    Returns
    -------
    columns : ndarray of int64, shape (B,)
    log_probs : ndarray of float64, shape (B,)
    left : ndarray of float64, shape (B,)
        What is left of the numbers: where in the column's share they lie, from 0 up to 1.
    """
    most = found.max(1, keepdims=True)
    shares = np.exp(found - most)
    lost = shares[:, list(without)].sum(1, dtype=np.float64)
    shares[:, list(without)] = 0.0
    if uniform is None:
        columns, left, whole = (
            shares.argmax(1),
            np.zeros(len(found)),
            shares.sum(1, dtype=np.float64),
        )
    else:
        columns, left, whole = _drawn(shares, uniform)
    every = np.arange(len(found))
    log_probs: Rows = found[every, columns] - most[:, 0] - np.log(whole + lost)
    return columns, log_probs, left


def _drawn(shares: NDArray[np.float32], uniform: Rows) -> tuple[NDArray[np.int64], Rows, Rows]:
    """Return the columns on which numbers from 0 up to 1 fall, where in them, and rows' sums.

    Sums over blocks of columns come first, so that few of the columns are added up one by one.
    """
    edges = np.arange(0, shares.shape[1], BLOCK)
    until = np.add.reduceat(shares, edges, axis=1, dtype=np.float64).cumsum(1)
    whole = until[:, -1].copy()
    # Rounding must not reach the end, behind which there is nothing.
    targets = np.minimum(uniform * whole, np.nextafter(whole, 0))
    columns, left = np.empty(len(shares), dtype=np.int64), np.empty(len(shares))
    for row, target in enumerate(targets.tolist()):
        block = int(until[row].searchsorted(target, "right"))
        here = shares[row, block * BLOCK : (block + 1) * BLOCK]
        rest = target - (until[row, block - 1] if block else 0.0)
        sums = here.cumsum(dtype=np.float64)
        at = min(int(sums.searchsorted(rest, "right")), int(here.nonzero()[0][-1]))
        columns[row] = block * BLOCK + at
        left[row] = (rest - (sums[at] - here[at])) / here[at]
    return columns, np.clip(left, 0.0, np.nextafter(1.0, 0)), whole
