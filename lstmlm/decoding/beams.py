"""Beam search: the likeliest continuations that can be found by keeping the best few at each step.

Hypotheses are ranked as in Hugging Face's transformers: by their summed scores, divided by their
length to the power of `length_penalty` (Wu et al. 2016, section 7, in a simpler form). A prompt's
search ends when as many hypotheses have ended as there are beams, and none that goes on has a
better score so far.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from lstmlm.decoding.constraints import Constraint, constrained
from lstmlm.decoding.processors import LogitsProcessor
from lstmlm.decoding.sampling import padded, processed, read_prompts
from lstmlm.model import RecurrentLM
from lstmlm.scoring import inference
from lstmlm.text import END, Ids


@dataclass(frozen=True)
class Hypothesis:
    """A continuation.

    Parameters
    ----------
    ids : tuple of int
        Its ids, `END` last if it ended itself.
    log_probs : tuple of float
        Of each, under the model, in nats.
    total : float
        The sum of their scores: of what processors made of the log-probabilities.
    """

    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    total: float = 0.0


def search_ids(
    model: RecurrentLM,
    prompts: Sequence[Ids],
    max_new_tokens: int,
    *,
    num_beams: int,
    length_penalty: float = 1.0,
    processors: Sequence[LogitsProcessor] = (),
    allow: Constraint | None = None,
    ends: Callable[[int, tuple[int, ...]], bool] | None = None,
) -> list[list[Hypothesis]]:
    """Continue prompts, each by the likeliest ids that a search finds.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    prompts : sequence of ndarray of integers
        Each is read after an end mark, as the beginning of a text; it may be empty.
    max_new_tokens : int
        How many ids follow at most.
    num_beams : int
        Hypotheses that are kept at each step.
    length_penalty : float
        Above 0 longer continuations rank higher, below 0 shorter ones.
    processors : sequence of callables
        See `lstmlm.decoding.processors`.
    allow : callable, optional
        Which ids may follow; see `lstmlm.decoding.constraints`.
    ends : callable, optional
        Whether a prompt's continuation, by the prompt's number and its new ids, has come to an end
        without an end mark.

    Returns
    -------
    list of list of Hypothesis
        For each prompt `num_beams` at most, the best first.
    """
    searches = [_Search(num_beams, length_penalty) for _ in prompts]
    if not prompts or not max_new_tokens:
        return [[Hypothesis()] for _ in prompts]
    read = padded(prompts)
    with inference(model):
        features, state = read_prompts(model, prompts)
    beams = [_Beam(number, number, Hypothesis()) for number in range(len(prompts))]
    for n_new in range(max_new_tokens):
        with inference(model):
            log_probs = model.head.log_probs(features)
            new = torch.tensor([beam.hypothesis.ids for beam in beams], dtype=torch.int64)
            of_prompts = read[[beam.prompt for beam in beams]]
            ids = torch.cat([of_prompts, new.reshape(len(beams), n_new)], dim=1)
            numbers, texts = [b.prompt for b in beams], [b.hypothesis.ids for b in beams]
            scores = constrained(log_probs, allow, numbers, texts)
            scores = processed(processors, scores, ids, limited=allow is not None)
        following: list[_Beam] = []
        for number, group in groupby(range(len(beams)), key=lambda row: beams[row].prompt):
            search, rows = searches[number], list(group)
            grown = _grown([beams[row] for row in rows], rows, scores, log_probs, 2 * num_beams)
            following += search.take(grown, ends)
        beams = following
        if not beams:
            break
        if n_new + 1 < max_new_tokens:
            with inference(model):
                picked = torch.tensor([beam.row for beam in beams], device=model.device)
                last = [[beam.hypothesis.ids[-1]] for beam in beams]
                outputs, state = model(
                    torch.tensor(last, device=model.device), state.select(picked)
                )
                features = outputs[:, -1]
    for beam in beams:
        searches[beam.prompt].ended.append(beam.hypothesis)
    return [search.best() for search in searches]


class _Beam(NamedTuple):
    """A hypothesis that goes on: its prompt, and the row of the state that it grew from."""

    prompt: int
    row: int
    hypothesis: Hypothesis


@dataclass
class _Search:
    """One prompt's search."""

    num_beams: int
    length_penalty: float
    ended: list[Hypothesis] = field(default_factory=list)

    def take(
        self, grown: Iterable[_Beam], ends: Callable[[int, tuple[int, ...]], bool] | None
    ) -> list[_Beam]:
        """Take hypotheses, the best first; return those that go on, none if the search is over."""
        going: list[_Beam] = []
        for rank, beam in enumerate(grown):
            ids = beam.hypothesis.ids
            if ids[-1] == END or (ends is not None and ends(beam.prompt, ids)):
                if rank < self.num_beams:
                    self.ended.append(beam.hypothesis)
            elif len(going) < self.num_beams:
                going.append(beam)
        self.ended = self.best()
        full = going and len(self.ended) == self.num_beams
        if full and self.score(going[0].hypothesis) <= self.score(self.ended[-1]):
            return []
        return going

    def score(self, hypothesis: Hypothesis) -> float:
        """Return what hypotheses are ranked by."""
        return hypothesis.total / float(len(hypothesis.ids) ** self.length_penalty)

    def best(self) -> list[Hypothesis]:
        """Return the hypotheses that have ended, the best first, no more than there are beams."""
        return sorted(self.ended, key=self.score, reverse=True)[: self.num_beams]


def _grown(
    beams: list[_Beam], rows: list[int], scores: Tensor, log_probs: Tensor, n: int
) -> Iterator[_Beam]:
    """Yield the n best hypotheses that are one id longer, the best first."""
    before = scores.new_tensor([beam.hypothesis.total for beam in beams], dtype=torch.float64)
    totals = scores[rows[0] : rows[-1] + 1].double() + before.unsqueeze(1)
    values, places = totals.flatten().topk(min(n, totals.numel()))
    for total, place in zip(values.tolist(), places.tolist(), strict=True):
        if total == -math.inf:
            return
        number, token = divmod(place, totals.shape[1])
        parent, row = beams[number].hypothesis, rows[number]
        longer = Hypothesis(
            (*parent.ids, token), (*parent.log_probs, float(log_probs[row, token])), total
        )
        yield _Beam(beams[number].prompt, row, longer)
