"""Writing text: logits processors, sampling, and generation as columns of ids.

`generate_ids` yields a column a step: the next id of every row. Who wants whole texts collects the
columns, who wants a stream hands them on. Each row draws its own random numbers, so what it becomes
does not depend on its company.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.config import DecodeConfig
from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.scoring import inference
from lstmlm.text import END, Ids, Tokenizer

READ_TOKENS = 8192  # tokens of prompts that are read at a time


class Completion(NamedTuple):
    """What could come next.

    Parameters
    ----------
    text : str
        What to append.
    log_prob : float
        Its log-probability, in nats.
    """

    text: str
    log_prob: float


class LogitsProcessor(Protocol):
    """Changes scores before an id is chosen: lowers some, forbids some with minus infinity."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Return new logits of the same shape, (B, V); the argument is left as it is."""
        ...


@dataclass(frozen=True)
class Forbid:
    """Gives some ids no probability."""

    ids: tuple[int, ...]

    def __call__(self, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        return logits.index_fill(1, torch.tensor(self.ids, device=logits.device), -torch.inf)


@dataclass(frozen=True)
class Temperature:
    """Divides the logits."""

    temperature: float

    def __call__(self, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """Keeps the k likeliest ids of each row, and what ties with the last of them."""

    k: int

    def __call__(self, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        least = logits.topk(min(self.k, logits.shape[1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)


@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of likeliest ids that holds p (Holtzman et al. 2020, section 3.1)."""

    p: float

    def __call__(self, logits: Tensor) -> Tensor:
        """See `LogitsProcessor`."""
        ranked, order = logits.softmax(-1).sort(descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked  # what the likelier ids hold
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= self.p)
        return logits.masked_fill(dropped, -torch.inf)


def make_processors(config: DecodeConfig, forbidden: Sequence[int] = ()) -> list[LogitsProcessor]:
    """Return the processors of a configuration in the order in which they act.

    Forbidden ids come first, so that they take no part in what follows; then temperature, top-k and
    top-p, as in Hugging Face's transformers. The greedy choice needs the first alone.
    """
    processors: list[LogitsProcessor] = []
    if forbidden:
        processors.append(Forbid(tuple(forbidden)))
    if config.do_sample and config.temperature != 1:
        processors.append(Temperature(config.temperature))
    if config.do_sample and config.top_k:
        processors.append(TopK(config.top_k))
    if config.do_sample and config.top_p < 1:
        processors.append(TopP(config.top_p))
    return processors


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

    def __call__(self, logits: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return ids, shape (B,), by the inverse of the cumulative distribution, in float64.

        Parameters
        ----------
        logits : Tensor, shape (B, V)
            Scores; they are normalised here.
        rows : ndarray of int64, shape (B,)
            Which stream each of them draws from.
        """
        numbers = [self._streams[row].random() for row in rows.tolist()]
        uniform = torch.tensor(numbers, dtype=torch.float64)
        cumulative = logits.double().softmax(-1).cumsum(-1)
        whole = cumulative[:, -1]
        # Rounding must not reach the end, behind which there is no id, or one of no probability.
        at = torch.minimum(uniform.to(whole) * whole, whole.nextafter(torch.zeros_like(whole)))
        return torch.searchsorted(cumulative, at.unsqueeze(1), right=True).squeeze(1)


def generate_ids(
    model: RecurrentLM,
    prompts: Sequence[Ids],
    config: DecodeConfig,
    *,
    forbidden: Sequence[int] = (),
    seed: int = 0,
    first_row: int = 0,
) -> Iterator[NDArray[np.int64]]:
    """Continue prompts, a column of ids a step.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    prompts : sequence of ndarray of integers
        Each is read after an end mark, as the beginning of a text; it may be empty.
    config : DecodeConfig
        How ids are chosen, and how many at most.
    forbidden : sequence of int
        Ids that are never chosen.
    seed : int
        Of the random numbers.
    first_row : int
        The number of the first prompt among all that are continued with this seed.

    Yields
    ------
    ndarray of int64, shape (len(prompts),)
        Each row's next id, `END` from where a row has ended. Stops when all have.
    """
    if not prompts or not config.max_new_tokens:
        return
    draw, live = Draw(seed, range(first_row, first_row + len(prompts))), np.arange(len(prompts))
    processors = make_processors(config, forbidden)
    with inference(model):
        features, state = read_prompts(model, prompts)
    for _ in range(config.max_new_tokens):
        column = np.full(len(prompts), END, dtype=np.int64)
        with inference(model):
            logits = model.head.log_probs(features)
            for process in processors:
                logits = process(logits)
            chosen = draw(logits, live) if config.do_sample else logits.argmax(-1)
            column[live] = chosen.cpu().numpy()
            going = (chosen != END).nonzero().squeeze(1)
            live = live[going.cpu().numpy()]
            if len(live):
                outputs, state = model(chosen[going].unsqueeze(1), state.select(going))
                features = outputs[:, -1]
        yield column
        if not len(live):
            return


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
            state = model.zero_state(len(rows))
            for window in torch.split(rows, max(1, READ_TOKENS // len(rows)), dim=1):
                outputs, state = model(window, state)
            features.append(outputs[:, -1])
            states.append(state)
    back = torch.from_numpy(np.argsort(order)).to(model.device)
    return torch.cat(features)[back], State.concatenate(states).select(back)


def likeliest_next(
    model: RecurrentLM, tokenizer: Tokenizer, state: State, n: int, *, after: str
) -> list[Completion]:
    """Return the n likeliest next tokens, the likeliest first.

    Left out are the end mark, the unknown token and tokens that end inside a character.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    state : State, of one row
        What was read.
    n : int
        How many.
    after : str
        The text that they continue, as far as it decides on a space before them.
    """
    with inference(model):
        log_probs = model.head.log_probs(model.project(state.hidden[-1]))[0]
        values, ids = log_probs.sort(descending=True, stable=True)
    found: list[Completion] = []
    for token_id, value in zip(ids.tolist(), values.tolist(), strict=True):
        decoder = tokenizer.decoder(after=after)
        text = decoder.feed(token_id)
        if token_id not in (END, tokenizer.unknown_id) and text and not decoder.finish():
            found.append(Completion(text, value))
            if len(found) == n:
                break
    return found
