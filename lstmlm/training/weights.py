"""Weights by name, and their mean over a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lstmlm.model import RecurrentLM

LATER_COUNT = 8  # the power of its number with which a take counts in the mean


def put_weights(model: RecurrentLM, weights: dict[str, Tensor]) -> None:
    """Copy weights, by name, into a model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


class RunningMean:
    """The mean of a model's weights, the later the weightier (Shamir and Zhang 2013, section 4).

    The k-th take counts as about k ** `LATER_COUNT`, however many there are to be: the mean is over
    the last ninth of them or so, and forgets the first weights with the first take. At a learning
    rate that stays high it does what a falling one does, and the weights that it is taken of don't
    settle on the training text.

    Parameters
    ----------
    model : RecurrentLM
        Whose weights.

    Attributes
    ----------
    weights : dict of str to Tensor
        The mean, by name.
    n_taken : int
        How often the weights were taken.
    """

    def __init__(self, model: RecurrentLM) -> None:
        self._model = model
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.n_taken = 0

    def take(self) -> None:
        """Count the weights as they are."""
        self.n_taken += 1
        share = (LATER_COUNT + 1) / (self.n_taken + LATER_COUNT)
        now = [parameter.detach() for parameter in self._model.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), now, share)

    def restore(self, weights: dict[str, Tensor], n_taken: int) -> None:
        """Go on from a mean of before."""
        self.n_taken = n_taken
        for name, weight in self.weights.items():
            weight.copy_(weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the mean and the model's weights change places."""
        self._change_places()
        try:
            yield
        finally:
            self._change_places()

    def _change_places(self) -> None:
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                last = parameter.clone()
                parameter.copy_(self.weights[name])
                self.weights[name].copy_(last)
