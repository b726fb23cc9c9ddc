"""A training from its beginning, or a checkpoint, to its end."""

from collections.abc import Callable, Generator

from lstmlm.batches import Corpus
from lstmlm.checkpoints import Checkpoints
from lstmlm.config import TrainConfig
from lstmlm.model import RecurrentLM
from lstmlm.optim import AdamW, make_optimiser, rate_at
from lstmlm.training.loop.last import read_last
from lstmlm.training.loop.snapshots import restore, snapshot
from lstmlm.training.loop.trainer import Trainer
from lstmlm.training.records import Report


def train(
    model: RecurrentLM,
    corpus: Corpus,
    heldout: Corpus | None,
    config: TrainConfig,
    *,
    seed: int,
    seconds: float | None = None,
    checkpoints: Checkpoints | None = None,
    optimiser: AdamW | None = None,
    schedule: Callable[[float, int, float], float] = rate_at,
    heldout_last: bool = False,
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
    checkpoints : Checkpoints, optional
        Where the training's state is kept now and then; if there is one, training goes on from it.
    optimiser : AdamW, optional
        Moves the weights, and is changed; a new one by default.
    schedule : callable
        From the share of the budget that is used up, the steps taken and the passes over the text,
        to the share of the learning rate.
    heldout_last : bool
        Whether to train on the held-out text too, last of all: see `read_last`.

    Yields
    ------
    Report

    Raises
    ------
    DivergenceError
        When the loss is no longer finite.
    """
    optimiser = optimiser or make_optimiser(model, config)
    trainer = Trainer(
        *(model, corpus, heldout, config, optimiser, schedule, seed, seconds),
        heldout_last=heldout_last,
    )
    saved = checkpoints.load() if checkpoints else None
    if saved:
        restore(trainer, *saved)
    try:
        for report in trainer.run():
            if checkpoints and checkpoints.is_due:
                checkpoints.save(*snapshot(trainer))
            yield report
    finally:
        trainer.settle()
    if heldout_last and heldout is not None and trainer.tokens:
        yield from read_last(trainer)
