"""What a window of text costs in training."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.batches import Window
from lstmlm.config import TrainConfig
from lstmlm.model import RecurrentLM
from lstmlm.nn.losses import padded
from lstmlm.nn.rows import TrainedRows
from lstmlm.nn.state import State
from lstmlm.training.noise import InputNoise


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
    input_noise: InputNoise | None = None,
    trained: TrainedRows | None = None,
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
        Where noise comes from: dropout's, and that of the input; None for none.
    input_noise : InputNoise, optional
        Exchanges tokens that are read.
    trained : TrainedRows, optional
        Parts of the model's rows, which get their gradients instead of them.
    """
    rows, device = len(window.positions), model.device
    inputs = torch.from_numpy(ids[window.positions - 1].astype(np.int64)).to(device)
    if input_noise is not None and noise is not None:
        inputs = input_noise(inputs, noise)
    targets = torch.from_numpy(ids[window.positions[window.counted]].astype(np.int64)).to(device)
    counted = torch.from_numpy(window.counted).to(device)
    embedded, seen = trained.look_up(inputs) if trained else (None, ())
    outputs, state = model.read(inputs, state.rows(rows), noise=noise, embedded=embedded)
    dropped = model.attend(model.drop(outputs, noise), counted)
    # Most windows count in full, and gathering all places would be a copy there and one back.
    chosen = dropped.flatten(0, 1) if window.counted.all() else dropped[counted]
    nats = model.head.loss(model.project(padded(chosen)), targets, seen)
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
