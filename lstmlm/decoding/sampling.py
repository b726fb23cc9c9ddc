"""Generation as columns of ids.

`generate_ids` yields a column a step: the next id of every row that goes on. Who wants whole texts
collects the columns, who wants a stream hands them on. Each row draws its own random numbers, so
what it becomes does not depend on its company.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.continuing import rows_to_continue
from lstmlm.decoding.constraints import Constraint, FirstIds, constrained
from lstmlm.decoding.processors import Forbid, LogitsProcessor
from lstmlm.model import READ_TOKENS, RecurrentLM
from lstmlm.nn.choosing import can_choose, choose
from lstmlm.nn.state import State
from lstmlm.scoring import inference
from lstmlm.text import END, Ids


class Draw:
    """Draws an id for each row, every row from a stream of random numbers of its own.

    Parameters
    ----------
    seed : int
        Of all streams together.
    rows : iterable of int
        A number for each stream; the same number and seed give the same stream.
    """

    def __init__(self, seed: int, rows: Iterable[int]) -> None:
        self._streams = [np.random.default_rng([seed, row]) for row in rows]

    def numbers(self, rows: NDArray[np.int64]) -> list[float]:
        """Return a number from 0 up to 1 from each of some streams."""
        return [self._streams[row].random() for row in rows.tolist()]

    def __call__(self, logits: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return ids, shape (B,), by the inverse of the cumulative distribution, in float64.

        Parameters
        ----------
        logits : Tensor, shape (B, V)
            Scores; they are normalised here.
        rows : ndarray of int64, shape (B,)
            Which stream each of them draws from.
        """
        uniform = torch.tensor(self.numbers(rows), dtype=torch.float64)
        cumulative = logits.double().softmax(-1).cumsum(-1)
        whole = cumulative[:, -1]
        # Rounding must not reach the end, behind which there is no id, or one of no probability.
        at = torch.minimum(uniform.to(whole) * whole, whole.nextafter(torch.zeros_like(whole)))
        return torch.searchsorted(cumulative, at.unsqueeze(1), right=True).squeeze(1)


@dataclass
class Step:
    """What a step of generation chose.

    Parameters
    ----------
    rows : ndarray of int64, shape (B,)
        The rows that went on, by the number of their prompt.
    ids : ndarray of int64, shape (B,)
        Each one's next id; `END` ends the row.
    log_probs : ndarray of float32, shape (B,)
        Its log-probability under the model, in nats, whatever processors made of it.
    ended : set of int
        Rows that their reader wants no more of: to be added to before the next step.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    ended: set[int] = field(default_factory=set)


def generate_ids(
    model: RecurrentLM,
    prompts: Sequence[Ids],
    max_new_tokens: int,
    *,
    processors: Sequence[LogitsProcessor] = (),
    allow: Constraint | None = None,
    do_sample: bool = True,
    seed: int = 0,
    first_row: int = 0,
) -> Iterator[Step]:
    """Continue prompts, a column of ids a step.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    prompts : sequence of ndarray of integers
        Each is read after an end mark, as the beginning of a text; it may be empty.
    max_new_tokens : int
        How many ids follow at most.
    processors : sequence of callables
        What is done to the scores first; see `lstmlm.decoding.processors`. A row for which they
        leave no id ends.
    allow : callable, optional
        Which ids may follow; see `lstmlm.decoding.constraints`.
    do_sample : bool
        Whether to draw from what they leave; else the likeliest id is taken.
    seed : int
        Of the random numbers.
    first_row : int
        The number of the first prompt among all that are continued with this seed.

    Yields
    ------
    Step
        Until all rows have ended.
    """
    if not prompts or not max_new_tokens:
        return
    draw = Draw(seed, range(first_row, first_row + len(prompts))) if do_sample else None
    without = _only_forbidden(processors)  # None: whatever it takes needs all scores
    limited = allow is not None and not isinstance(allow, FirstIds)  # beyond the first ids
    if limited or (without is not None and not can_choose(model.head, without)):
        without = None
    start = at = 1 + max(map(len, prompts))
    read = padded(prompts, max_new_tokens if without is None else 0)
    live, ids = np.arange(len(prompts)), np.empty(0, dtype=np.int64)
    with inference(model):
        text = rows_to_continue(model, *read_prompts(model, prompts), short=without is not None)
    for n_new in range(max_new_tokens):
        left_out = without if n_new or allow is None else None
        with inference(model) if left_out is None else text.computing():
            if n_new:
                text.read(ids)
            if left_out is not None:
                numbers = draw.numbers(live) if draw else None
                step = Step(live, *choose(text.scores, numbers, left_out))
            else:
                scores = log_probs = model.head.log_probs(text.features)
                rows = live.tolist()
                new = (read[row, start:at].tolist() for row in rows)
                scores = constrained(scores, allow, rows, new)
                before = read[torch.from_numpy(live), :at] if processors else read
                scores = processed(processors, scores, before, limited=allow is not None)
                chosen = draw(scores, live) if draw else scores.argmax(-1)
                values = log_probs.gather(1, chosen.unsqueeze(1)).squeeze(1)
                step = Step(live, chosen.cpu().numpy(), values.float().cpu().numpy())
        if without is None:
            read[torch.from_numpy(live), at] = torch.from_numpy(step.ids)
        at += 1
        yield step
        ids = step.ids
        going = ids != END
        if step.ended:
            going &= ~np.isin(live, list(step.ended))
        if not going.all():
            live = live[going]
            if not len(live):
                return
            text.keep(np.flatnonzero(going))
            ids = ids[going]


def _only_forbidden(processors: Sequence[LogitsProcessor]) -> tuple[int, ...] | None:
    """Return the ids that processors forbid, if that is all they do."""
    ids: tuple[int, ...] = ()
    for process in processors:
        if not isinstance(process, Forbid):
            return None
        ids += process.ids
    return ids


def processed(
    processors: Sequence[LogitsProcessor], logits: Tensor, ids: Tensor, *, limited: bool = False
) -> Tensor:
    """Return what processors make of scores; where they leave no id the end mark is due.

    Parameters
    ----------
    processors : sequence of callables
    logits : Tensor, shape (B, V)
    ids : Tensor of int64, shape (B, T)
    limited : bool
        Whether the scores hold what a constraint allows: where processors leave none of that, they
        are not heard.
    """
    if not processors and not limited:
        return logits
    given, ids = logits, ids.to(logits.device)
    for process in processors:
        logits = process(ids, logits)
    none_left = torch.isneginf(logits).all(1)
    if none_left.any():
        logits = logits.clone()
        if limited:
            logits[none_left] = given[none_left]
            none_left = torch.isneginf(logits).all(1)
        logits[none_left, END] = 0.0
    return logits


def padded(prompts: Sequence[Ids], room: int = 0) -> Tensor:
    """Return prompts with end marks on their left, at least one, and room for more ids."""
    start = 1 + max(map(len, prompts))
    ids = np.full((len(prompts), start + room), END, dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, start - len(prompt) : start] = prompt
    return torch.from_numpy(ids)


def read_prompts(model: RecurrentLM, prompts: Sequence[Ids]) -> tuple[Tensor, State]:
    """Read an end mark and each prompt from a fresh state; prompts of one length side by side.

    Returns
    -------
    features : Tensor, shape (B, D)
        After each prompt's last id: what the head needs to predict the first new one.
    state : State, of B rows
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    order = np.argsort(lengths, kind="stable")
    features: list[Tensor] = []
    states: list[State] = []
    for length in np.unique(lengths):
        same = [prompts[i] for i in np.flatnonzero(lengths == length).tolist()]
        marked = np.array([[END, *prompt] for prompt in same], dtype=np.int64)
        ids = torch.from_numpy(marked).to(model.device)
        for rows in torch.split(ids, max(1, READ_TOKENS // (int(length) + 1))):
            of_rows, state = model.begin(rows)
            features.append(of_rows)
            states.append(state)
    back = torch.from_numpy(np.argsort(order)).to(model.device)
    return torch.cat(features)[back], type(states[0]).concatenate(states).select(back)
