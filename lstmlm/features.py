"""What a text is like, as numbers: the mean of the model's states over it, and its figures.

Texts are read as in scoring, each from a fresh state, so that a text's numbers are its own whatever
its company. Sums are in float64; the results are float32.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lstmlm.batches import Corpus, Positions, rows_of
from lstmlm.model import RecurrentLM
from lstmlm.scoring import inference, pools, read_windows
from lstmlm.text import END, Tokenizer

FIGURES = (
    "log_n_tokens",
    "mean_surprisal",
    "std_surprisal",
    "max_surprisal",
    "bits_per_char",
    "unknown_rate",
)


def feature_names(hidden_size: int) -> list[str]:
    """Return the columns' names: hidden0, hidden1, ... and then the figures'."""
    return [*(f"hidden{number}" for number in range(hidden_size)), *FIGURES]


def describe_texts(
    model: RecurrentLM, tokenizer: Tokenizer, texts: Iterable[str], batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """Turn texts into rows of numbers, `batch_size` texts ahead at most.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    texts : iterable of str
        Read once.
    batch_size : int
        Texts that are read side by side at most.

    Yields
    ------
    ndarray of float32, shape (n_texts, H + 6)
        The features of some texts, in order; the columns are those of `feature_names`.
    """
    for pool in pools(texts, batch_size):
        corpus = Corpus.of(tokenizer.encode(pool), END)
        hidden, bits = _read(model, corpus)
        unknown = -1 if tokenizer.unknown_id is None else tokenizer.unknown_id
        n_chars = np.array([len(text) + 1 for text in pool])
        figures = _figures(bits, corpus.ids[1:] == unknown, corpus.begins - 1, n_chars)
        yield np.concatenate([hidden, figures], axis=1, dtype=np.float32)


def _read(model: RecurrentLM, corpus: Corpus) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each text's mean state, shape (n_texts, H), and each token's surprisal in bits."""
    bits = np.empty(len(corpus.ids))
    sums = torch.zeros(corpus.n_texts, model.hidden_size, dtype=torch.float64, device=model.device)
    with inference(model):
        for seen in read_windows(model, corpus.ids, rows_of(corpus)):
            bits[seen.positions] = model.head.nll(seen.features, seen.targets).cpu() / math.log(2)
            text = np.searchsorted(corpus.ends, seen.positions, side="right")
            sums.index_add_(0, torch.from_numpy(text).to(model.device), seen.hidden.double())
    return sums.cpu().numpy() / (corpus.ends - corpus.begins)[:, None], bits[1:]


def _figures(
    bits: NDArray[np.float64],
    is_unknown: NDArray[np.bool_],
    begins: Positions,
    n_chars: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the figures of texts whose tokens stand one after another, shape (n_texts, 6)."""
    n_tokens = np.diff(begins, append=len(bits))
    totals = np.add.reduceat(bits, begins)
    means = totals / n_tokens
    squares = np.add.reduceat((bits - np.repeat(means, n_tokens)) ** 2, begins)
    columns = {
        "log_n_tokens": np.log(n_tokens),
        "mean_surprisal": means,
        "std_surprisal": np.sqrt(squares / n_tokens),
        "max_surprisal": np.maximum.reduceat(bits, begins),
        "bits_per_char": totals / n_chars,
        "unknown_rate": np.add.reduceat(is_unknown, begins, dtype=np.int64) / n_tokens,
    }
    return np.stack([columns[name] for name in FIGURES], axis=1)
