"""Batched scoring: the log-probability of every token of every text, whatever their company.

Texts come from an iterable in pools of bounded size. Within a pool they are read side by side,
texts of like length together, in windows of bounded width with the state carried; padding is
dropped before the output layer. The results leave in the order in which the texts came.
"""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.allocator import few_shapes
from lstmlm.batches import Corpus, Rows, group_rows, rows_of, sort_rows, walk
from lstmlm.measures import Tally, perplexity
from lstmlm.model import RecurrentLM
from lstmlm.nn.losses import padded
from lstmlm.nn.state import State
from lstmlm.text import (
    END,
    WHITE_SPACE,
    Ids,
    Tokenizer,
    count_bytes,
    count_words,
    word_spans,
)

WINDOW_ROWS = 16  # texts of WINDOW_WIDTH tokens or more that are read side by side
WINDOW_WIDTH = 512  # tokens of a window; of shorter texts more are read side by side
POOL_CHARS = 1 << 19  # a pool of texts is closed when it holds this many characters


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text with the log-probability of each of its tokens.

    Parameters
    ----------
    text : str
        The text as it came.
    tokens : list of str
        What each token covers of the text; the end mark, last, is ``""``.
    spans : ndarray of int64, shape (n_tokens, 2)
        Start and end of each token in characters of the text; the end mark's span is empty.
    log_probs : ndarray of float32, shape (n_tokens,)
        Each token's log-probability given all tokens before it, in nats.
    """

    text: str
    tokens: list[str]
    spans: NDArray[np.int64]
    log_probs: NDArray[np.float32]

    @property
    def log_prob(self) -> float:
        """Log-probability of the text, its end mark included, in nats."""
        return float(self.log_probs.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """Perplexity per token, the end mark counted as one."""
        return perplexity(-self.log_prob, len(self.log_probs))

    @property
    def bits_per_char(self) -> float:
        """Bits a character, the end mark counted as one."""
        return -self.log_prob / math.log(2) / (len(self.text) + 1)

    @property
    def surprisals(self) -> NDArray[np.float32]:
        """Each token's surprisal, in bits: -log2 of its probability."""
        return -self.log_probs / np.float32(math.log(2))

    def words(self) -> list[tuple[str, float]]:
        """Return each word between white space with its log-probability in nats.

        A word's figure is the sum over its tokens. A token belongs to the word that holds its first
        character other than white space; tokens of white space alone go to the next word. What
        follows the last word, and the end mark, belong to no word.
        """
        words = word_spans(self.text)
        sums = [0.0] * len(words)
        number = 0
        for token, (start, _), log_prob in zip(
            self.tokens, self.spans, self.log_probs, strict=True
        ):
            blank = len(token) - len(token.lstrip(WHITE_SPACE))
            while number < len(words) and words[number][1] <= start + blank:
                number += 1
            if number < len(words):
                sums[number] += float(log_prob)
        return [
            (self.text[start:end], nats) for (start, end), nats in zip(words, sums, strict=True)
        ]


@dataclass(frozen=True)
class Scorer:
    """Scores texts with one model.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    stream : bool
        Whether each text goes on where the one before it ended, the state carried along; else each
        text starts from a fresh state.
    precision : {"float32", "bf16"}
        See `inference`.
    """

    model: RecurrentLM
    tokenizer: Tokenizer
    stream: bool
    precision: str = "float32"

    def pipe(self, texts: Iterable[str], batch_size: int) -> Iterator[ScoredText]:
        """Yield a ScoredText a text, lazily and in order, `batch_size` texts ahead at most."""
        state = None
        for pool in pools(texts, batch_size):
            encoded = self.tokenizer.encode_with_spans(pool)
            nats, state = self._nats([ids for ids, _ in encoded], state)
            for text, (_, spans), text_nats in zip(pool, encoded, nats, strict=True):
                tokens = [text[start:end] for start, end in spans.tolist()]
                spans = np.concatenate([spans, np.full((1, 2), len(text))])
                yield ScoredText(text, [*tokens, ""], spans, -text_nats)

    def nats(self, texts: Iterable[str], batch_size: int) -> Iterator[NDArray[np.float32]]:
        """Yield minus the log-probability of each text's tokens, the end mark's last, in nats."""
        state = None
        for pool in pools(texts, batch_size):
            of_pool, state = self._nats(self.tokenizer.encode(pool), state)
            yield from of_pool

    def log_probs(self, texts: Iterable[str], batch_size: int) -> Iterator[float]:
        """Yield each text's log-probability in nats, added in float64."""
        for nats in self.nats(texts, batch_size):
            yield -float(nats.sum(dtype=np.float64))

    def tally(self, texts: Iterable[str], batch_size: int, *, accuracy: bool = False) -> Tally:
        """Add up texts; with `accuracy` also the tokens that the model thought likeliest."""
        total, state = Tally(), None
        for pool in pools(texts, batch_size):
            corpus = Corpus.of(self.tokenizer.encode(pool), END)
            rows = self._rows(corpus)
            sums, after = tally_rows(
                self.model, corpus.ids, rows, state, accuracy=accuracy, precision=self.precision
            )
            state = after if self.stream else None
            total += sums + Tally(
                unknown=self._count_unknown(corpus.ids),
                texts=len(pool),
                words=len(pool) + sum(map(count_words, pool)),
                chars=len(pool) + sum(map(len, pool)),
                bytes=len(pool) + sum(map(count_bytes, pool)),
            )
        return total

    def _count_unknown(self, ids: Ids) -> int:
        unknown = self.tokenizer.unknown_id
        return 0 if unknown is None else int((ids == unknown).sum())

    def _rows(self, corpus: Corpus) -> Rows:
        return rows_of(corpus.as_stream() if self.stream else corpus)

    @few_shapes()
    def _nats(
        self, texts: list[Ids], state: State | None
    ) -> tuple[list[NDArray[np.float32]], State | None]:
        """Return minus each token's log-probability, text by text, and the state to go on from."""
        corpus = Corpus.of(texts, END)
        nats = np.empty(len(corpus.ids), dtype=np.float32)
        with inference(self.model, self.precision):
            for seen in read_windows(self.model, corpus.ids, self._rows(corpus), state):
                nats[seen.positions] = self.model.head.nll(seen.features, seen.targets).cpu()
                after = seen.state
        by_text = [nats[a:b] for a, b in zip(corpus.begins, corpus.ends, strict=True)]
        return by_text, after if self.stream else None


@few_shapes()
def tally_rows(
    model: RecurrentLM,
    ids: Ids,
    rows: Rows,
    start: State | None = None,
    *,
    accuracy: bool = False,
    precision: str = "float32",
    known: Tensor | None = None,
) -> tuple[Tally, State | None]:
    """Sum the nats and the tokens of rows (and correct guesses); a tally's other counts stay 0.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    ids : ndarray of integers
        What the rows are ranges of.
    rows : Rows
        What is read, and from where on it counts; each row starts from a fresh state.
    start : State, optional
        Where a single row goes on from instead.
    accuracy : bool
        Whether to count the tokens that the model thought likeliest.
    precision : {"float32", "bf16"}
        See `inference`.
    known : Tensor of bool, shape (V,), optional
        Which ids count; those of others are read, and nothing more.

    Returns
    -------
    tally : Tally
    state : State
        After the last group of rows: of use where there is a single row.
    """
    nats, tokens, correct = 0.0, 0, 0
    with inference(model, precision):
        for seen in read_windows(model, ids, rows, start):
            nll = model.head.nll(seen.features, seen.targets)
            if known is not None:
                nll = nll[known[seen.targets]]
            nats += float(nll.sum(dtype=torch.float64))
            tokens += len(nll)
            if accuracy:
                correct += int(model.head.hits(seen.features, seen.targets).sum())
            start = seen.state
    return Tally(nats=nats, tokens=tokens, correct=correct), start


@dataclass(frozen=True, eq=False)
class Seen:
    """A window that was read: N tokens that count, padding dropped.

    Parameters
    ----------
    positions : ndarray of int64, shape (N,)
        Where the tokens stand among the ids.
    hidden : Tensor, shape (N, H)
        The last layer's output before each token: what it is predicted from.
    features : Tensor, shape (N, D)
        The same as the head takes it.
    targets : Tensor of int64, shape (N,)
        The tokens.
    state : State
        After the window.
    """

    positions: NDArray[np.int64]
    hidden: Tensor
    features: Tensor
    targets: Tensor
    state: State


def read_windows(
    model: RecurrentLM, ids: Ids, rows: Rows, start: State | None = None
) -> Iterator[Seen]:
    """Lead the model over rows, from `start` or from fresh states; see `inference`."""
    width = WINDOW_WIDTH
    if model.attends and len(rows.begins):
        width = max(width, int((rows.ends - rows.begins).max()))
    for group in group_rows(sort_rows(rows), WINDOW_ROWS, width):
        state = start or model.zero_state(len(group.begins))
        for window in walk(group, width):
            inputs = torch.from_numpy(ids[window.positions - 1].astype(np.int64)).to(model.device)
            outputs, state = model.read(inputs, state.rows(len(window.positions)))
            positions = window.positions[window.counted]
            counted = torch.from_numpy(window.counted).to(model.device)
            hidden = model.attend(outputs, counted)[counted]
            targets = torch.from_numpy(ids[positions].astype(np.int64)).to(model.device)
            features = model.project(padded(hidden))[: len(hidden)]
            yield Seen(positions, hidden, features, targets, state)


def pools(texts: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    """Group texts into lists of `batch_size`, fewer where they hold many characters."""
    pool: list[str] = []
    n_chars = 0
    for text in texts:
        pool.append(text)
        n_chars += len(text)
        if len(pool) >= batch_size or n_chars >= POOL_CHARS:
            yield pool
            pool, n_chars = [], 0
    if pool:
        yield pool


@contextmanager
def inference(model: RecurrentLM, precision: str = "float32") -> Iterator[None]:
    """Compute without gradients, products in full float32 or in bf16. Not for use around a yield.

    Parameters
    ----------
    model : RecurrentLM
        What computes.
    precision : {"float32", "bf16"}
        On CUDA float32 means without TF32. Whatever it is, sums and the softmax are in float32.
    """
    device = model.device.type
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_exact_products)
        if device == "cuda":
            precise = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
            stack.enter_context(precise)
        if precision == "bf16":
            stack.enter_context(torch.autocast(device, torch.bfloat16))
        yield


class _ExactProducts:
    """Sets the process's float32 products to the fastest exact ones, while any thread computes.

    The first to enter sets them, the last to leave sets them back: each for itself, of two threads
    the later would take the other's setting for the user's.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, "highest"

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = torch.get_float32_matmul_precision()
                fast = not torch.cuda.is_available() and medium_is_exact()
                torch.set_float32_matmul_precision("medium" if fast else "highest")
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                torch.set_float32_matmul_precision(self.before)


_exact_products = _ExactProducts()


@cache
def medium_is_exact() -> bool:
    """Return whether this processor's "medium" float32 products are as exact as its "highest".

    "medium" allows bf16 inside of products. Where the processor doesn't do that, it only means
    oneDNN's product in place of MKL's: on AMD's Zen 4 twice as fast, and no less exact.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 1024, generator=generator) for _ in range(2))
    exact = left.double() @ right.double().T
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        error = (left @ right.T - exact).norm() / exact.norm()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(error < 1e-6)
