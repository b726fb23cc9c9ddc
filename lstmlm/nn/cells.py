"""Recurrent layers on torch's fused kernels; those with peepholes are in `lstmlm.nn.peephole`.

The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000)::

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)        input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)        forget gate
    g_t =    tanh(W_g x_t + U_g h_{t-1} + b_g)        candidate
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)        output gate
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

The GRU (Cho et al. 2014, section 2.3; the reset gate after the product, as in cuDNN)::

    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)        reset gate
    z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)        update gate
    n_t =    tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + b'_n))    candidate
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

Every layer has the same face: `step` reads a window with the state going in and coming out,
`initialise` draws the first weights, `cell_size` is the width of its cell, 0 for the GRU.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from lstmlm.nn.dropout import dropped_weight
from lstmlm.nn.loop import run_steps
from lstmlm.nn.peephole import PeepholeLSTM
from lstmlm.nn.processors import kernel_has_bf16
from lstmlm.nn.stepping import Matrix, gru_state, lstm_state, products

MAX_FUSED = 512  # units up to which torch's kernel for CPUs is the faster one in bf16


class Layer(Protocol):
    """What every recurrent layer can do."""

    cell_size: int

    def one_token(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Read a token; see `LSTM.one_token`."""
        ...

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights."""

    def step(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *,
        weight_drop: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window; see `LSTM.step`."""
        ...


class _Fused(nn.RNNBase):
    """What the layers share that torch has kernels for."""

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def matrices(self) -> list[Matrix]:
        """Return what the input and the hidden state are multiplied with, and the biases."""
        return [(self.weight_ih_l0, self.bias_ih_l0), (self.weight_hh_l0, self.bias_hh_l0)]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights, gate by gate.

        Matrices start as in Glorot and Bengio (2010) from the input and orthogonal (Saxe et al.
        2014) from the state.
        """
        with torch.no_grad():
            for rows in torch.split(self.weight_ih_l0, self.hidden_size):
                nn.init.xavier_uniform_(rows, generator=generator)
            for rows in torch.split(self.weight_hh_l0, self.hidden_size):
                nn.init.orthogonal_(rows, generator=generator)
            self.bias_ih_l0.zero_()
            self.bias_hh_l0.zero_()

    def _weights(self, weight_drop: float, noise: torch.Generator | None) -> list[Tensor]:
        """Return the kernel's weights, some of the recurrent matrix dropped."""
        recurrent = dropped_weight(self.weight_hh_l0, weight_drop, noise)
        return [self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0]


class LSTM(_Fused, nn.LSTM):
    """One LSTM layer.

    The forget gates' bias starts at 1, so that the cell remembers from the first step on
    (Jozefowicz et al. 2015, section 5).

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the state, H.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        self.cell_size = hidden_size

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights."""
        super().initialise(generator)
        with torch.no_grad():
            self.bias_ih_l0[self.hidden_size : 2 * self.hidden_size] = 1.0

    def step(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *,
        weight_drop: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window.

        Parameters
        ----------
        x : Tensor, shape (B, T, input_size)
            Inputs.
        hidden, cell : Tensor, shape (B, H) and (B, cell_size)
            The state before the window.
        weight_drop : float in [0, 1)
            Share of the recurrent matrix that is dropped for this window.
        noise : torch.Generator, optional
            Where the dropped weights are drawn from; None drops none.

        Returns
        -------
        outputs : Tensor, shape (B, T, H)
        hidden, cell : Tensor, shape (B, H) and (B, cell_size)
            The state after the window.
        """
        device = x.device.type
        if torch.is_autocast_enabled(device) and not kernel_has_bf16(device):
            with torch.autocast(device, enabled=False):
                parts = (part.float() for part in (x, hidden, cell))
                return self.step(*parts, weight_drop=weight_drop, noise=noise)
        if self._wide_in_bf16():
            recurrent = dropped_weight(self.weight_hh_l0, weight_drop, noise)
            bias = self.bias_ih_l0 + self.bias_hh_l0
            return run_steps(x, hidden, cell, [self.weight_ih_l0, recurrent], bias)
        state = (hidden.unsqueeze(0).contiguous(), cell.unsqueeze(0).contiguous())
        if noise is None or weight_drop == 0:
            outputs, (hidden_after, cell_after) = self(x, state)
        else:
            weights = self._weights(weight_drop, noise)
            with _scattered_weights():
                outputs, hidden_after, cell_after = torch.lstm(
                    x, state, weights, True, 1, 0.0, self.training, False, True
                )
        return outputs, hidden_after.squeeze(0), cell_after.squeeze(0)

    def one_token(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Read a token by plain products, without gradients: as `step` reads a window of one.

        Parameters
        ----------
        x : Tensor, shape (B, input_size)
            The input.
        hidden, cell : Tensor, shape (B, H) and (B, cell_size)
            The state before.

        Returns
        -------
        hidden, cell : Tensor, shape (B, H) and (B, cell_size)
            The state after; the hidden state is the layer's output.
        """
        from_x, from_h = products((x, hidden), self.matrices())
        return lstm_state(from_x + from_h, cell)

    def _wide_in_bf16(self) -> bool:
        """Return whether a step back through the kernel takes longer than the loop's."""
        return (
            self.hidden_size > MAX_FUSED
            and torch.is_grad_enabled()
            and torch.is_autocast_enabled("cpu")
            and self.weight_ih_l0.device.type == "cpu"
        )


class GRU(_Fused, nn.GRU):
    """One GRU layer.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the state, H.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        self.cell_size = 0

    def step(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *,
        weight_drop: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window; see `LSTM.step`. The cell, of width 0, is passed on."""
        before = hidden.unsqueeze(0).contiguous()
        if noise is None or weight_drop == 0:
            outputs, after = self(x, before)
        else:
            weights = self._weights(weight_drop, noise)
            with _scattered_weights():
                outputs, after = torch.gru(
                    x, before, weights, True, 1, 0.0, self.training, False, True
                )
        return outputs, after.squeeze(0), cell

    def one_token(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Read a token; see `LSTM.one_token`."""
        from_x, from_h = products((x, hidden), self.matrices())
        return gru_state(from_x, from_h, hidden), cell


def make_layer(kind: str, input_size: int, hidden_size: int, *, peephole: str) -> nn.Module:
    """Make a recurrent layer of one kind: "lstm", "gru" or "peephole_lstm"."""
    if kind == "peephole_lstm":
        return PeepholeLSTM(input_size, hidden_size, peephole=peephole)
    return {"lstm": LSTM, "gru": GRU}[kind](input_size, hidden_size)


@contextmanager
def _scattered_weights() -> Iterator[None]:
    """Let cuDNN gather weights that don't lie together: a dropped matrix is a new one each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
        yield
