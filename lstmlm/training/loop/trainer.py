"""The steps and epochs of a training."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lstmlm.batches import Corpus, Rows, Window, cut_in_pieces, shuffled_groups, walk
from lstmlm.config import TrainConfig
from lstmlm.errors import DivergenceError
from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.optim import AdamW, scale_and_clip, set_rate
from lstmlm.scoring import tally_rows
from lstmlm.training.heldout import HeldOut
from lstmlm.training.loss import window_loss
from lstmlm.training.noise import InputNoise
from lstmlm.training.records import Epoch, Report
from lstmlm.training.weights import RunningMean, put_weights

_log = logging.getLogger("lstmlm")

REPORT_STEPS = 10  # steps between two reports


class Trainer:
    """One training's moving parts: what `train` keeps between its reports.

    Its parameters are those of `train`.
    """

    def __init__(
        self,
        model: RecurrentLM,
        corpus: Corpus,
        heldout: Corpus | None,
        config: TrainConfig,
        optimiser: AdamW,
        schedule: Callable[[float, int, float], float],
        seed: int,
        seconds: float | None,
        *,
        heldout_last: bool = False,
    ) -> None:
        self.model, self.corpus, self.config, self.seed = model, corpus, config, seed
        self.optimiser, self.schedule = optimiser, schedule
        self.rate = float(config.learning_rate)
        self.window = int(config.bptt_length)
        self.n_rows = int(config.batch_size)
        self.rng = np.random.default_rng(seed)
        self.noise = torch.Generator(model.device).manual_seed(seed)
        self.input_noise = InputNoise.of(corpus, model.vocab_size, config, model.device)
        self.rows = cut_in_pieces(corpus, self.n_rows, self.window)
        self.heldout: HeldOut | None = None
        if heldout is not None:
            self.heldout = HeldOut(heldout, corpus, model, self.window, read_last=heldout_last)
        self.began = time.monotonic()
        self.seconds = seconds
        self.history: list[Epoch] = []
        self.tokens = self.steps = 0
        self.best_loss = math.inf
        self.since_best = 0  # epochs since the held-out text was last read better than before
        self.mean = RunningMean(model)
        self.best: dict[str, Tensor] | None = None  # the mean after the epoch that was best
        self.state: State | None = None  # after the last window
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Set all that counts within an epoch to its beginning."""
        self.order = self.rng.bit_generator.state
        self.first_token, self.first_step = self.tokens, self.steps
        self.windows = 0
        self.epoch_nats = 0.0

    def run(self) -> Iterator[Report]:
        """Yield reports until the budget is used up or the held-out text no longer gains."""
        self.model.train()
        if self.history:  # of the training that this one goes on with
            yield self.report(math.nan)
        # A checkpoint may be of an epoch whose last window was read, and held-out text not yet.
        while (self.progress < 1 or self.windows) and (
            self.since_best < self.config.n_iter_no_change
        ):
            yield from self.run_epoch()

    def run_epoch(self) -> Iterator[Report]:
        """Train for one epoch or what is left of it, or to the end of the budget."""
        _log.debug("train: epoch %d", self.epoch)
        nats, n_tokens = torch.zeros((), dtype=torch.float64, device=self.model.device), 0
        yield self.report(math.nan)
        groups = shuffled_groups(self.rows, self.n_rows, self.window, self.rng)
        for loss, n_counted in self.each_step(groups):
            self.steps += 1
            nats += loss
            n_tokens += n_counted
            if self.steps % REPORT_STEPS == 0 or self.progress >= 1:
                part, read = self.finite(nats), n_tokens
                self.take_mean()
                self.epoch_nats += part
                nats.zero_()
                n_tokens = 0
                yield self.report(part / max(1, read))
                if self.progress >= 1:
                    break
        self.epoch_nats += self.finite(nats)
        ended = self.end_epoch()
        self.begin_epoch()
        yield self.report(ended.train_loss, ended)

    def end_epoch(self) -> Epoch:
        """Read the held-out text and put the epoch on record."""
        self.optimiser.rows.store()
        self.finite(self.first_nats())  # what the last step did shows only in what is read after it
        if self.steps % REPORT_STEPS:
            self.take_mean()
        heldout_loss = self.evaluate()
        tokens = self.tokens - self.first_token
        ended = Epoch(
            epoch=self.epoch,
            seconds=time.monotonic() - self.began,
            tokens=tokens,
            train_loss=self.epoch_nats / tokens,
            heldout_loss=heldout_loss,
            learning_rate=self.rate_now,
        )
        self.history.append(ended)
        return ended

    def take_mean(self) -> None:
        """Count the weights as they are in their mean."""
        self.optimiser.rows.store()
        self.mean.take()

    @property
    def epoch(self) -> int:
        """The number of the epoch under way, from 1."""
        return len(self.history) + 1

    def each_step(self, groups: Iterator[Rows]) -> Iterator[tuple[Tensor, int]]:
        """Take one step of the optimiser a window; yield its loss, detached, and its tokens."""
        for window in self.windows_left(groups):
            if window.fresh:
                self.state = self.model.zero_state(len(window.positions))
            assert self.state is not None
            with self.precision():
                loss = window_loss(
                    *(self.model, self.corpus.ids, window, self.state, self.config),
                    *(self.noise, self.input_noise, self.optimiser.rows),
                )
            self.state = loss.state.detach()
            n_counted = int(window.counted.sum())
            if n_counted:
                self.move(loss.nats + loss.penalty, n_counted)
                yield loss.nats.detach(), n_counted

    def windows_left(self, groups: Iterator[Rows]) -> Iterator[Window]:
        """Yield an epoch's windows, passing over those that were read before a checkpoint."""
        number, read = 0, self.windows
        for rows in groups:
            longest = int((rows.ends - rows.begins)[0])
            shift = int(self.rng.integers(self.window // 2, self.window)) + 1
            for window in walk(rows, self.window, first=shift if longest > self.window else None):
                number += 1
                if number > read:
                    self.windows = number
                    yield window

    def move(self, loss: Tensor, n_counted: int) -> None:
        """Take a step down the gradient of the mean loss."""
        loss.backward()  # type: ignore[no-untyped-call]
        scale_and_clip(self.optimiser, 1 / n_counted, self.config.clip_norm)
        set_rate(self.optimiser, self.rate_now)
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
        return self.rate * self.schedule(self.progress, self.steps, self.passes)

    @property
    def passes(self) -> float:
        """How often the text was read so far."""
        return self.tokens / max(1, self.corpus.n_tokens)

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
        """Return how long the held-out text will take, so far as is known."""
        if self.heldout is None or not self.tokens:
            return 0.0
        at_most = 0.1 * (self.seconds or 0.0)
        return self.heldout.expected_seconds(self.tokens / used, self.passes, at_most)

    def evaluate(self) -> float | None:
        """Score the held-out text by the mean weights; keep them if they are the best so far."""
        if self.heldout is None:
            return None
        with self.mean.in_place():
            loss = self.heldout.loss()
        self.model.train()
        self.since_best += self.config.early_stopping
        if self.config.early_stopping and loss < self.best_loss:
            self.best_loss, self.since_best = loss, 0
            self.best = {name: weight.clone() for name, weight in self.mean.weights.items()}
        return loss

    @property
    def kept(self) -> dict[str, Tensor] | None:
        """The weights that training would leave now: the best, else the mean; None: the last."""
        if self.best is None and self.mean.n_taken:
            return self.mean.weights
        return self.best

    def settle(self) -> None:
        """Leave the best weights in the model, ready to score."""
        self.model.eval()
        self.optimiser.rows.store()
        if self.kept is not None:
            put_weights(self.model, self.kept)
        self.model.zero_grad()

    def first_nats(self) -> float:
        """Score the first window of the training text."""
        begin = self.corpus.begins[:1]
        counted = begin if self.corpus.counted is None else self.corpus.counted[:1]
        rows = Rows(begin, np.minimum(self.corpus.ends[:1], begin + self.window), counted)
        return tally_rows(self.model, self.corpus.ids, rows)[0].nats

    def finite(self, nats: Tensor | float) -> float:
        """Return nats as a float."""
        if math.isfinite(value := float(nats)):
            return value
        raise DivergenceError(
            f"the loss became {value} by step {self.steps - self.first_step} of epoch "
            f"{self.epoch}, at a learning rate of {self.rate_now:.2g}. Try a lower learning_rate "
            f"(for example {self.rate / 3:.1g}), a lower clip_norm (now {self.config.clip_norm}), "
            "or precision='float32'."
        )

    def report(self, loss: float, ended: Epoch | None = None) -> Report:
        """Say where the training stands."""
        return Report(
            epoch=ended.epoch if ended else self.epoch,
            progress=self.progress,
            seconds=time.monotonic() - self.began,
            tokens=self.tokens,
            train_loss=loss,
            learning_rate=self.rate_now,
            ended=ended,
            best=self.kept,
            history=tuple(self.history),
        )
