"""A last reading of the text that was held out."""

import math
from collections.abc import Iterator
from dataclasses import replace

from lstmlm.optim import last_rate
from lstmlm.training.loop.trainer import Trainer
from lstmlm.training.records import Report
from lstmlm.training.weights import put_weights

STEPS = 20  # or more of each pass


def read_last(trainer: Trainer) -> Iterator[Report]:
    """Train on the held-out text too, which has said which weights to keep, at a low rate.

    `HeldOut.last_passes` says how often. Broken off, this leaves the weights of before.

    Parameters
    ----------
    trainer : Trainer
        Of a training with held-out text that has settled. Its optimiser goes on.

    Yields
    ------
    Report
        As the last one of the training, but for the loss and the seconds.
    """
    heldout, weights = trainer.heldout, trainer.kept
    assert heldout is not None
    assert weights is not None
    corpus = heldout.corpus
    before = replace(trainer.report(math.nan), epoch=len(trainer.history))
    config = replace(
        trainer.config,
        max_epochs=heldout.last_passes(trainer.passes),
        batch_size=max(1, min(trainer.n_rows, corpus.n_tokens // (STEPS * trainer.window))),
        input_noise=0.0,
    )
    left = None if trainer.seconds is None else trainer.seconds - before.seconds
    model, optimiser = trainer.model, trainer.optimiser
    optimiser.rows.load()
    last = Trainer(model, corpus, None, config, optimiser, last_rate, trainer.seed, left)
    try:
        for report in last.run():
            seconds = before.seconds + report.seconds
            yield replace(before, train_loss=report.train_loss, seconds=seconds)
        last.settle()
    except BaseException:
        put_weights(model, weights)
        model.eval()
        raise
