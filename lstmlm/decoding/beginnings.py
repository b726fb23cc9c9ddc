"""Beginnings of a text that are read from one state, a longer one from where a known one ends."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.scoring import inference
from lstmlm.text import Tokenizer

MOST_KEPT = 32  # readings: some MB, for a hundred thousand ids some ten

Ids = tuple[int, ...]


class Reading(NamedTuple):
    """A beginning that was read.

    Parameters
    ----------
    ids : tuple of int
        What was read.
    log_prob : float
        Its log-probability, in nats.
    state : State, of one row
        What is remembered behind it.
    following : Tensor, shape (V,), or None
        The log-probabilities of the ids that may follow, once they are asked for.
    """

    ids: Ids
    log_prob: float
    state: State
    following: Tensor | None = None


class Beginnings:
    """What was read of beginnings; of someone who is typing, each is that of a letter before.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    state : State, of one row
        What was read before them.
    """

    def __init__(self, model: RecurrentLM, tokenizer: Tokenizer, state: State) -> None:
        self.model, self.tokenizer, self.state = model, tokenizer, state
        self._before: dict[Ids, Reading] = {}
        self._now: dict[Ids, Reading] = {}
        self._keep(Reading((), 0.0, state))

    def forget(self) -> None:
        """Forget what was not asked for since this was called before."""
        self._before, self._now = self._now, {}
        self._known(())

    def read(self, rows: Iterable[Ids]) -> list[Reading]:
        """Read rows of ids; what is known is not read again."""
        rows = list(rows)
        found = {ids: self._known(ids) for ids in rows}
        new = [ids for ids, known in found.items() if known is None]
        if new:
            with inference(self.model):
                found |= {one.ids: self._keep(one) for one in self._read(new)}
        return [cast(Reading, found[ids]) for ids in rows]

    def follow(self, readings: Sequence[Reading]) -> list[Reading]:
        """Look up what may follow, where that is not known."""
        new = {one.ids: one for one in readings if one.following is None}
        found = {}
        if new:
            with inference(self.model):
                last = torch.cat([one.state.hidden[-1] for one in new.values()])
                log_probs = self.model.head.log_probs(self.model.project(last))
            for one, following in zip(new.values(), log_probs, strict=True):
                found[one.ids] = self._keep(one._replace(following=following))
        return [found.get(one.ids, one) for one in readings]

    def read_next(self, steps: Sequence[tuple[Reading, int]]) -> list[Reading]:
        """Read an id more of each reading, of which it is known what follows; it then is of these.

        Parameters
        ----------
        steps : sequence of (Reading, int)
            What to go on from, and the id.
        """
        found = [self._known((*one.ids, token)) for one, token in steps]
        new = [
            step
            for step, known in zip(steps, found, strict=True)
            if known is None or known.following is None
        ]
        if not new:
            return cast(list[Reading], found)
        with inference(self.model):
            state = State.concatenate([one.state for one, _ in new])
            ids = torch.tensor([[token] for _, token in new], device=self.model.device)
            outputs, after = self.model(ids, state)
            log_probs = self.model.head.log_probs(outputs[:, -1])
        read = {
            (*one.ids, token): Reading(
                (*one.ids, token),
                one.log_prob + _log_prob(one, token),
                after.row(row),
                log_probs[row],
            )
            for row, (one, token) in enumerate(new)
        }
        for one in read.values():
            self._keep(one)
        return [
            read.get((*one.ids, token)) or cast(Reading, known)
            for (one, token), known in zip(steps, found, strict=True)
        ]

    def step_to(self, ids: Ids) -> tuple[Reading, int] | None:
        """Return a step for `read_next` that leads to ids which are not known, if there is one."""
        before = self._known(ids[:-1]) if ids and self._known(ids) is None else None
        return None if before is None or before.following is None else (before, ids[-1])

    def _known(self, ids: Ids) -> Reading | None:
        found = self._now.get(ids) or self._before.get(ids)
        return found and self._keep(found)

    def _keep(self, reading: Reading) -> Reading:
        if len(self._now) < MOST_KEPT or reading.ids in self._now:
            self._now[reading.ids] = reading
        return reading

    def _read(self, new: list[Ids]) -> list[Reading]:
        """Read rows of ids that are not known, from the longest beginnings that are."""
        common = _common(new)
        start = self._longest(common)
        if len(common) > len(start.ids) + 1:  # some ids, read at one go
            log_prob, state = read_on(self.model, common[len(start.ids) :], start.state)
            start = Reading(common, start.log_prob + log_prob, state)
        starts = [self._longest(ids, start) for ids in new]
        tails = [ids[len(start.ids) :] for ids, start in zip(new, starts, strict=True)]
        return _read_tails(self.model, starts, tails)

    def _longest(self, ids: Ids, least: Reading | None = None) -> Reading:
        """Return the longest beginning of ids that is known."""
        for n_ids in range(len(ids), -1, -1):
            if least is not None and n_ids <= len(least.ids):
                break
            known = self._known(ids[:n_ids])
            if known is not None:
                return known
        return cast(Reading, least)


def read_on(model: RecurrentLM, ids: Ids, state: State) -> tuple[float, State]:
    """Read ids from a state of one row; return their log-probability too, in nats."""
    if not ids:
        return 0.0, state
    targets = torch.tensor([ids], device=model.device)
    outputs, after = model.read(targets, state)
    before = torch.cat([state.hidden[-1].unsqueeze(1), outputs[:, :-1]], dim=1)
    nats = model.head.nll(model.project(before[0]), targets[0])
    return -float(nats.double().sum()), after


def _read_tails(model: RecurrentLM, starts: list[Reading], tails: list[Ids]) -> list[Reading]:
    """Read tails of ids, each from a start of its own, an id of each at a time."""
    state = State.concatenate([start.state for start in starts])
    log_probs: NDArray[np.float64] = np.array([start.log_prob for start in starts])
    for depth in range(max(map(len, tails))):
        live: NDArray[np.int64] = np.flatnonzero([len(tail) > depth for tail in tails])
        ids = [tails[row][depth] for row in live.tolist()]
        rows = torch.from_numpy(live).to(model.device)
        targets = torch.tensor(ids, device=model.device)
        picked = state.select(rows)
        of_rows = [starts[row] for row in live.tolist()]
        if depth == 0 and all(start.following is not None for start in of_rows):
            log_probs[live] += list(map(_log_prob, of_rows, ids))
        else:
            nats = model.head.nll(model.project(picked.hidden[-1]), targets)
            log_probs[live] -= nats.double().cpu().numpy()
        state.put(rows, model.read(targets.unsqueeze(1), picked)[1])
    return [
        Reading(start.ids + tail, log_prob, state.row(row))
        for row, (start, tail, log_prob) in enumerate(
            zip(starts, tails, log_probs.tolist(), strict=True)
        )
    ]


def _log_prob(before: Reading, token: int) -> float:
    return float(cast(Tensor, before.following)[token])


def _common(rows: list[Ids]) -> Ids:
    """Return the ids with which all rows begin."""
    least, most = min(rows), max(rows)
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), None)
    return least[:same]
