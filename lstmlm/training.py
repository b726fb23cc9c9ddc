"""Training by truncated back-propagation through time (Williams and Peng 1990).

`train` is a generator: it moves the weights and yields a `Report` when an epoch begins, every few
steps, and when the epoch has ended. Who has seen enough stops iterating; the model then holds the
best weights so far.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.batches import Corpus, Rows, Window, cut_in_lanes, shuffled_groups, walk
from lstmlm.config import TrainConfig
from lstmlm.errors import DivergenceError
from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.optim import make_optimiser, rate_at, scale_and_clip
from lstmlm.scoring import tally_rows

REPORT_STEPS = 10  # steps between two reports
HELDOUT_LANES = 16  # pieces that a long held-out text is read in side by side
SCORING_SPEED = 1.5  # first guess of how much faster held-out text is read than trained on


@dataclass(frozen=True)
class Epoch:
    """One pass over the training text, or the part of it that the budget allowed.

    Parameters
    ----------
    epoch : int
        From 1.
    seconds : float
        Since the training began, held-out text included.
    tokens : int
        Tokens trained on in this epoch.
    train_loss : float
        Mean nats a token over the epoch, under dropout and while the weights moved.
    heldout_loss : float or None
        Mean nats a token of the held-out text after the epoch; None where nothing is held out.
    learning_rate : float
        At the end of the epoch.
    """

    epoch: int
    seconds: float
    tokens: int
    train_loss: float
    heldout_loss: float | None
    learning_rate: float


def kept_epoch(history: Sequence[Epoch], early_stopping: bool) -> Epoch | None:
    """Return the epoch whose weights a training left: the best on held-out text, or the last."""
    scored = [epoch for epoch in history if epoch.heldout_loss is not None]
    if early_stopping and scored:
        return min(scored, key=lambda epoch: (epoch.heldout_loss, epoch.epoch))
    return history[-1] if history else None


@dataclass(frozen=True)
class Report:
    """Where a training stands.

    Parameters
    ----------
    epoch : int
        The epoch under way, from 1.
    progress : float
        Share of the budget used up, 0 to 1.
    seconds : float
        Since the training began.
    tokens : int
        Tokens trained on since then.
    train_loss : float
        Mean nats a token since the last report; NaN where an epoch begins.
    learning_rate : float
        Of the last step.
    ended : Epoch or None
        The epoch's figures if it has just ended.
    best : dict of str to Tensor, or None
        The weights by name that the model is left with if training stops here; None for those that
        it has.
    """

    epoch: int
    progress: float
    seconds: float
    tokens: int
    train_loss: float
    learning_rate: float
    ended: Epoch | None = None
    best: dict[str, Tensor] | None = field(default=None, repr=False, compare=False)


def train(
    model: RecurrentLM,
    corpus: Corpus,
    heldout: Corpus | None,
    config: TrainConfig,
    *,
    seed: int,
    seconds: float | None = None,
) -> Generator[Report]:
    """Train a model in place.

    Parameters
    ----------
    model : RecurrentLM
        Where the weights are, with their first values.
    corpus : Corpus
        What is trained on. Each of its ranges is read from a fresh state; a stream has one range.
    heldout : Corpus or None
        What decides which epoch's weights are kept and, with ``early_stopping``, when to stop.
    config : TrainConfig
        The pace, no value ``"auto"``.
    seed : int
        Of the order of the texts and of dropout.
    seconds : float, optional
        Budget of time from now on, held-out text included; the learning rate follows it.

    Yields
    ------
    Report

    Raises
    ------
    DivergenceError
        When the loss is no longer finite.
    """
    trainer = _Trainer(model, corpus, heldout, config, seed=seed, seconds=seconds)
    try:
        yield from trainer.run()
    finally:
        trainer.settle()


class WindowLoss(NamedTuple):
    """What a window costs.

    Parameters
    ----------
    nats : Tensor, shape ()
        Minus the log-probability of the tokens that count, summed.
    penalty : Tensor, shape ()
        What is added to them in training; summed over the same tokens.
    state : State
        After the window, with its graph.
    """

    nats: Tensor
    penalty: Tensor
    state: State


def window_loss(
    model: RecurrentLM,
    ids: NDArray[Any],
    window: Window,
    state: State,
    config: TrainConfig,
    noise: torch.Generator | None = None,
) -> WindowLoss:
    """Read a window and say what it costs.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    ids : ndarray of integers
        The corpus's ids.
    window : Window, of B rows and T tokens
        What to read, and which of it counts.
    state : State
        Of B rows or more; of more, the first B go on.
    config : TrainConfig
        Its penalties.
    noise : torch.Generator, optional
        Dropout's noise; None for none.
    """
    rows, device = len(window.positions), model.device
    inputs = torch.from_numpy(ids[window.positions - 1].astype(np.int64)).to(device)
    targets = torch.from_numpy(ids[window.positions[window.counted]].astype(np.int64)).to(device)
    counted = torch.from_numpy(window.counted).to(device)
    outputs, state = model.read(inputs, state.rows(rows), noise=noise)
    dropped = model.drop(outputs, noise)
    nats = model.head.loss(model.project(dropped[counted]), targets)
    return WindowLoss(nats, _penalty(outputs, dropped, counted, config), state)


def _penalty(outputs: Tensor, dropped: Tensor, counted: Tensor, config: TrainConfig) -> Tensor:
    """Return the activation and temporal penalties (Merity et al. 2017, section 2).

    The first is on the size of the dropped outputs, the second on the outputs' change from one
    token to the next; each is the mean square over the H features, summed over the tokens.
    """
    penalty = outputs.new_zeros(())
    if config.activation_penalty:
        squares = dropped[counted].square().mean(-1).sum()
        penalty = penalty + config.activation_penalty * squares
    if config.temporal_penalty:
        changes = (outputs[:, 1:] - outputs[:, :-1])[counted[:, 1:]]
        penalty = penalty + config.temporal_penalty * changes.square().mean(-1).sum()
    return penalty


def put_weights(model: RecurrentLM, weights: dict[str, Tensor]) -> None:
    """Copy weights, by name, into a model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


class _Trainer:
    """One training's moving parts: what `train` keeps between its reports."""

    def __init__(
        self,
        model: RecurrentLM,
        corpus: Corpus,
        heldout: Corpus | None,
        config: TrainConfig,
        *,
        seed: int,
        seconds: float | None,
    ) -> None:
        self.model, self.corpus, self.heldout, self.config = model, corpus, heldout, config
        self.rate = float(config.learning_rate)
        self.window = int(config.bptt_length)
        self.n_rows = int(config.batch_size)
        self.optimiser = make_optimiser(
            model, learning_rate=self.rate, weight_decay=config.weight_decay
        )
        self.rng = np.random.default_rng(seed)
        self.noise = torch.Generator(model.device).manual_seed(seed)
        self.rows = cut_in_lanes(corpus, self.n_rows, warm_up=self.window)
        self.began = time.monotonic()
        self.seconds = seconds
        self.heldout_seconds: float | None = None
        self.tokens = 0
        self.best_loss = math.inf
        self.since_best = 0  # epochs since the held-out text was last read better than before
        self.best: dict[str, Tensor] | None = None  # None: the weights in the model are the best

    def run(self) -> Iterator[Report]:
        """Yield reports until the budget is used up or the held-out text no longer gains."""
        self.model.train()
        epoch = 0
        while self.progress < 1 and self.since_best < self.config.n_iter_no_change:
            epoch += 1
            yield from self.run_epoch(epoch)

    def run_epoch(self, epoch: int) -> Iterator[Report]:
        """Train for one epoch, or to the end of the budget."""
        step, first_token, epoch_nats = 0, self.tokens, 0.0
        nats, n_tokens = torch.zeros((), dtype=torch.float64, device=self.model.device), 0
        yield self.report(epoch, math.nan)
        groups = shuffled_groups(self.rows, self.n_rows, self.window, self.rng)
        for step, (loss, n_counted) in enumerate(self.steps(groups), 1):
            nats += loss
            n_tokens += n_counted
            if step % REPORT_STEPS == 0 or self.progress >= 1:
                epoch_nats += self.finite(nats, epoch, step)
                yield self.report(epoch, float(nats) / max(1, n_tokens))
                nats.zero_()
                n_tokens = 0
                if self.progress >= 1:
                    break
        epoch_nats += self.finite(nats, epoch, step)
        heldout_loss = self.evaluate()
        # What the last step did shows only in text that is read after it.
        self.finite(self.first_nats() if heldout_loss is None else heldout_loss, epoch, step)
        train_loss = epoch_nats / (self.tokens - first_token)
        ended = Epoch(
            epoch=epoch,
            seconds=time.monotonic() - self.began,
            tokens=self.tokens - first_token,
            train_loss=train_loss,
            heldout_loss=heldout_loss,
            learning_rate=self.rate_now,
        )
        yield self.report(epoch, train_loss, ended)

    def steps(self, groups: Iterator[Rows]) -> Iterator[tuple[Tensor, int]]:
        """Take one step of the optimiser a window; yield its loss, detached, and its tokens."""
        for rows in groups:
            state = self.model.zero_state(len(rows.begins))
            longest = int((rows.ends - rows.begins)[0])
            shift = int(self.rng.integers(self.window // 2, self.window)) + 1
            for window in walk(rows, self.window, first=shift if longest > self.window else None):
                with self.precision():
                    loss = window_loss(
                        self.model, self.corpus.ids, window, state, self.config, self.noise
                    )
                state = loss.state.detach()
                n_counted = int(window.counted.sum())
                if n_counted:
                    self.move(loss.nats + loss.penalty, n_counted)
                    yield loss.nats.detach(), n_counted

    def move(self, loss: Tensor, n_counted: int) -> None:
        """Take a step down the gradient of the mean loss."""
        loss.backward()  # type: ignore[no-untyped-call]
        scale_and_clip(self.model.parameters(), 1 / n_counted, self.config.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate_now
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.tokens += n_counted

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which losses are computed."""
        if self.config.precision == "bf16":
            return torch.autocast(self.model.device.type, torch.bfloat16)
        return nullcontext()

    @property
    def rate_now(self) -> float:
        """The learning rate at this moment."""
        return self.rate * rate_at(self.progress)

    @property
    def progress(self) -> float:
        """Share of the budget used up: of tokens or of seconds, whichever is further on."""
        shares = []
        if self.config.max_epochs is not None:
            whole = self.corpus.n_tokens * int(self.config.max_epochs)
            shares.append(self.tokens / whole if whole else 1.0)
        if self.seconds is not None:
            used = time.monotonic() - self.began
            left_for_training = self.seconds - self.expected_heldout_seconds(used)
            shares.append(used / left_for_training if left_for_training > 0 else 1.0)
        return min(1.0, max(shares))

    def expected_heldout_seconds(self, used: float) -> float:
        """Return how long the held-out text will take: as last time, else guessed from training."""
        if self.heldout is None or not self.tokens:
            return 0.0
        if self.heldout_seconds is not None:
            return self.heldout_seconds
        guess = self.heldout.n_tokens / (self.tokens / used * SCORING_SPEED)
        return min(guess, 0.1 * (self.seconds or 0.0))

    def evaluate(self) -> float | None:
        """Score the held-out text and remember the weights if they are the best so far."""
        if self.heldout is None:
            return None
        start = time.monotonic()
        self.model.eval()
        lanes = cut_in_lanes(self.heldout, HELDOUT_LANES, warm_up=self.window)
        tally, _ = tally_rows(self.model, self.heldout.ids, lanes)
        loss = tally.nats / tally.tokens
        self.model.train()
        self.heldout_seconds = time.monotonic() - start
        self.since_best += self.config.early_stopping
        if self.config.early_stopping and loss < self.best_loss:
            self.best_loss, self.since_best = loss, 0
            self.best = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        return loss

    def settle(self) -> None:
        """Leave the best weights in the model, ready to score."""
        self.model.eval()
        if self.best is not None:
            put_weights(self.model, self.best)
        self.model.zero_grad()

    def first_nats(self) -> float:
        """Score the first window of the training text."""
        begin = self.corpus.begins[:1]
        rows = Rows(begin, np.minimum(self.corpus.ends[:1], begin + self.window), begin)
        return tally_rows(self.model, self.corpus.ids, rows)[0].nats

    def finite(self, nats: Tensor | float, epoch: int, step: int) -> float:
        """Return nats as a float."""
        if math.isfinite(value := float(nats)):
            return value
        raise DivergenceError(
            f"the loss became {value} by step {step} of epoch {epoch}, at a learning rate of "
            f"{self.rate_now:.2g}. Try a lower learning_rate (for example {self.rate / 3:.1g}), a "
            f"lower clip_norm (now {self.config.clip_norm}), or precision='float32'."
        )

    def report(self, epoch: int, loss: float, ended: Epoch | None = None) -> Report:
        """Say where the training stands."""
        return Report(
            epoch=epoch,
            progress=self.progress,
            seconds=time.monotonic() - self.began,
            tokens=self.tokens,
            train_loss=loss,
            learning_rate=self.rate_now,
            ended=ended,
            best=self.best,
        )
