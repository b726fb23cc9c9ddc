"""The plain way to read text with a network, which the library's fast ways are held against."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.text import END


def read(
    model: RecurrentLM, ids: Iterable[int], state: State | None = None
) -> tuple[Tensor, State]:
    """Read an end mark and ids one by one.

    Returns the log-probabilities of all ids after each, shape (n_ids + 1, V), and the state.
    """
    rows = []
    state = model.zero_state(1) if state is None else state
    with torch.inference_mode():
        for token in [END, *map(int, ids)]:
            features, state = model(torch.tensor([[token]]), state)
            rows.append(model.head.log_probs(features[0])[0])
    return torch.stack(rows), state


def log_probs(
    model: RecurrentLM, ids: Iterable[int], state: State | None = None
) -> tuple[list[float], State]:
    """Return the log-probability of each id and of the end mark after them, and the state."""
    targets = [*map(int, ids), END]
    table, state = read(model, targets[:-1], state)
    return [float(row[target]) for row, target in zip(table, targets, strict=True)], state


def loss(model: RecurrentLM, ids: Iterable[int]) -> Tensor:
    """Return minus a text's log-probability with its whole graph, off the table of all ids."""
    marked = torch.tensor([END, *map(int, ids), END])
    features, _ = model(marked[None, :-1], model.zero_state(1))
    return -model.head.log_probs(features[0]).gather(1, marked[1:, None]).sum()


def greedy(
    model: RecurrentLM, ids: Iterable[int], n: int, forbidden: Iterable[int] = ()
) -> list[int]:
    """Return the likeliest id after `ids`, the likeliest after that, up to `n` or an end mark."""
    before, chosen = [int(token) for token in ids], []
    for _ in range(n):
        table, _ = read(model, before + chosen)
        last = table[-1].clone()
        last[list(forbidden)] = -torch.inf
        chosen.append(int(last.argmax()))
        if chosen[-1] == END:
            break
    return chosen
