"""Logits processors: what lowers or forbids scores before an id is chosen.

All have one contract, that of Hugging Face's `LogitsProcessor`, so that a callable of a user's own
fits in among them. `make_processors` has the order in which they act.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lstmlm.config import DecodeConfig
from lstmlm.text import END


class LogitsProcessor(Protocol):
    """Changes scores before an id is chosen: lowers some, forbids some with minus infinity."""

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return new logits.

        Parameters
        ----------
        ids : Tensor of int64, shape (B, T)
            What each row has read, its prompt first; shorter rows have end marks on their left.
        logits : Tensor, shape (B, V)
            Scores of the next id, log-probabilities to begin with; left as they are.

        Returns
        -------
        Tensor, shape (B, V)
        """
        ...


@dataclass(frozen=True)
class Forbid:
    """Gives some ids no probability."""

    ids: tuple[int, ...]

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        return logits.index_fill(1, torch.tensor(self.ids, device=logits.device), -torch.inf)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Multiplies the scores of ids that a row has already (Keskar et al. 2019, section 4.1).

    Log-probabilities are below zero, so that a penalty above 1 makes them less likely. A score
    above zero, from a processor before, is divided. The end mark is left alone.
    """

    penalty: float

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        seen = logits.gather(1, ids)
        seen = torch.where(seen < 0, seen * self.penalty, seen / self.penalty)
        penalised = logits.scatter(1, ids, seen)
        penalised[:, END] = logits[:, END]
        return penalised


@dataclass(frozen=True)
class NoRepeatNgram:
    """Forbids the id that would end a run of n ids which the row has already."""

    n: int

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        if ids.shape[1] < self.n:
            return logits
        runs = ids.unfold(1, self.n, 1)
        begun = ids[:, ids.shape[1] - self.n + 1 :].unsqueeze(1)
        again = (runs[..., :-1] == begun).all(-1) & (runs != END).all(-1)
        rows, places = again.nonzero(as_tuple=True)
        return logits.index_put((rows, runs[rows, places, -1]), logits.new_tensor(-torch.inf))


@dataclass(frozen=True)
class BadWords:
    """Forbids each id that would complete a forbidden string, however tokens cut it.

    Parameters
    ----------
    words : tuple of str
        The strings. One that a prompt begins is not completed either.
    pieces : sequence of bytes
        The bytes of each id.
    glue : bytes
        What stands between two ids.
    """

    words: tuple[str, ...]
    pieces: Sequence[bytes]
    glue: bytes
    _begun: list[tuple[bytes, Tensor]] = field(init=False, repr=False, compare=False)
    _reach: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        encoded = [word.encode() for word in self.words]
        added = [self.glue + piece if piece else b"" for piece in self.pieces]
        begun = [
            (
                word[:cut],
                torch.tensor([i for i, new in enumerate(added) if _completes(new, word, cut)]),
            )
            for word in encoded
            for cut in range(len(word))
        ]
        object.__setattr__(self, "_begun", [(start, ids) for start, ids in begun if len(ids)])
        object.__setattr__(self, "_reach", max(map(len, encoded)))

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        logits = logits.clone()
        for row, last in enumerate(ids[:, -self._reach :].tolist()):
            text = self.glue.join(piece for piece in map(self.pieces.__getitem__, last) if piece)
            for start, completing in self._begun:
                if text.endswith(start):
                    logits[row, completing.to(logits.device)] = -torch.inf
        return logits


def _completes(new: bytes, word: bytes, cut: int) -> bool:
    """Return whether bytes that follow a word's first `cut` ones complete it; 0 stands for none."""
    return new.startswith(word[cut:]) if cut else word in new


@dataclass(frozen=True)
class MinNewTokens:
    """Forbids the end mark until `n` ids follow the first `start` ones."""

    n: int
    start: int

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        if ids.shape[1] - self.start >= self.n:
            return logits
        return logits.index_fill(1, torch.tensor([END], device=logits.device), -torch.inf)


@dataclass(frozen=True)
class Temperature:
    """Divides the logits."""

    temperature: float

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """Keeps the k likeliest ids of each row, and what ties with the last of them."""

    k: int

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        least = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)


@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of likeliest ids that holds p (Holtzman et al. 2020, section 3.1)."""

    p: float

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        ranked, order = logits.softmax(-1).sort(descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked  # what the likelier ids hold
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= self.p)
        return logits.masked_fill(dropped, -torch.inf)


@dataclass(frozen=True)
class MinP:
    """Keeps the ids at least p times as likely as the likeliest (Nguyen et al. 2024)."""

    p: float

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        least = logits.amax(-1, keepdim=True) + math.log(self.p)
        return logits.masked_fill(logits < least, -torch.inf)


def make_processors(
    config: DecodeConfig,
    *,
    start: int = 0,
    forbidden: Sequence[int] = (),
    pieces: Sequence[bytes] = (),
    glue: bytes = b"",
    own: Sequence[LogitsProcessor] = (),
) -> list[LogitsProcessor]:
    """Return the processors of a configuration in the order in which they act.

    Forbidden ids come first, so that they take no part in what follows; then the repetition
    penalty, repeated runs, bad words and the least length; a user's own; and last what shapes the
    distribution that is sampled from: temperature, top-k, top-p, min-p, as in Hugging Face's
    transformers. The greedy choice needs none of these last ones.

    Parameters
    ----------
    config : DecodeConfig
        What is wanted.
    start : int
        How many ids the longest prompt has, an end mark before it counted.
    forbidden : sequence of int
        Ids that are never chosen.
    pieces : sequence of bytes
        The bytes of each id, for bad words.
    glue : bytes
        What stands between two ids.
    own : sequence of callables
        A user's.
    """
    processors: list[LogitsProcessor] = []
    if forbidden:
        processors.append(Forbid(tuple(forbidden)))
    if config.repetition_penalty != 1:
        processors.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        processors.append(NoRepeatNgram(config.no_repeat_ngram_size))
    if config.bad_words:
        processors.append(BadWords(config.bad_words, pieces, glue))
    if config.min_new_tokens:
        processors.append(MinNewTokens(config.min_new_tokens, start))
    return [
        *processors,
        *own,
        *(_warpers(config) if config.do_sample and config.num_beams == 1 else ()),
    ]


def _warpers(config: DecodeConfig) -> list[LogitsProcessor]:
    warpers: list[LogitsProcessor] = []
    if config.temperature != 1:
        warpers.append(Temperature(config.temperature))
    if config.top_k:
        warpers.append(TopK(config.top_k))
    if config.top_p < 1:
        warpers.append(TopP(config.top_p))
    if config.min_p:
        warpers.append(MinP(config.min_p))
    return warpers
