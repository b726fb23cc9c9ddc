"""What a training says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


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
        Mean nats a token of the held-out text after the epoch, tokens of types that the training
        text doesn't have left out; None where nothing is held out.
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
    if early_stopping and scored and scored[-1] is history[-1]:
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
    history : tuple of Epoch
        The epochs that have ended, those before a checkpoint among them.
    """

    epoch: int
    progress: float
    seconds: float
    tokens: int
    train_loss: float
    learning_rate: float
    ended: Epoch | None = None
    best: dict[str, Tensor] | None = field(default=None, repr=False, compare=False)
    history: tuple[Epoch, ...] = ()
