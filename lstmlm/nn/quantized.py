"""Recurrent layers with int8 weights, for reading alone."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from lstmlm.nn.int8 import Int8Matrix
from lstmlm.nn.stepping import Matrix, gru_state, lstm_state, next_state, product


class QuantizedLayer(nn.Module):
    """A recurrent layer of any kind, its matrices in int8; biases and peepholes stay as they are.

    Parameters
    ----------
    kind : {"lstm", "gru", "peephole_lstm"}
        Its equations; see `lstmlm.nn.cells`.
    input_size, hidden_size : int
        Width of the input and of the state, H.
    peephole : {"diagonal", "full"}
        For "peephole_lstm".
    """

    def __init__(self, kind: str, input_size: int, hidden_size: int, *, peephole: str) -> None:
        super().__init__()
        self.kind = kind
        self.cell_size = 0 if kind == "gru" else hidden_size
        gates = (3 if kind == "gru" else 4) * hidden_size
        n_states = 2 if kind == "peephole_lstm" and peephole == "full" else 1
        self.has_peepholes = kind == "peephole_lstm" and n_states == 1
        self.of_x = Int8Matrix(gates, input_size)
        self.of_h = nn.ModuleList(Int8Matrix(gates, hidden_size) for _ in range(n_states))
        self.bias_x, self.bias_h = (nn.Parameter(torch.zeros(gates)) for _ in range(2))
        if self.has_peepholes:
            self.weight_ch = nn.Parameter(torch.zeros(3, hidden_size))

    @torch.no_grad()
    def take(self, layer: Any) -> None:
        """Take over the weights of a layer of `lstmlm.nn.cells`, rounded."""
        weight, bias = layer.of_input()
        self.of_x.take(weight)
        self.bias_x.copy_(bias)
        for matrix, (weight, bias) in zip(self.of_h, layer.of_state(), strict=True):
            cast(Int8Matrix, matrix).take(weight)
            if bias is not None:
                self.bias_h.copy_(bias)
        if self.has_peepholes:
            self.weight_ch.copy_(layer.weight_ch)

    def of_input(self) -> Matrix:
        """See `lstmlm.nn.stepping.Steps`."""
        return self.of_x.rows, self.bias_x

    def of_state(self) -> list[Matrix]:
        """See `lstmlm.nn.stepping.Steps`."""
        first, *others = (cast(Int8Matrix, matrix).rows for matrix in self.of_h)
        return [(first, self.bias_h), *((other, None) for other in others)]

    def advance(
        self, from_input: Tensor, from_state: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `lstmlm.nn.stepping.Steps`."""
        if self.kind == "gru":
            return gru_state(from_input, from_state, hidden), cell
        peepholes = self.weight_ch if self.has_peepholes else None
        return lstm_state(from_input + from_state, cell, peepholes)

    def step(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *,
        weight_drop: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window; see `lstmlm.nn.cells.LSTM.step`. Nothing is ever dropped."""
        outputs = []
        for from_input in product(x, *self.of_input()).unbind(1):
            hidden, cell = next_state(self, from_input, hidden, cell)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1), hidden, cell
