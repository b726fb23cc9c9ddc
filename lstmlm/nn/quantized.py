"""Recurrent layers with int8 weights, for reading alone."""

from typing import Any

import torch
from torch import Tensor, nn

from lstmlm.nn.int8 import Int8Matrix
from lstmlm.nn.stepping import gru_state, lstm_state


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
        gru, full = kind == "gru", kind == "peephole_lstm" and peephole == "full"
        gates = (3 if gru else 4) * hidden_size
        self.cell_size = 0 if gru else hidden_size
        # An LSTM adds the products of its input and its state: they lie in one matrix. A GRU's
        # candidate doesn't add them, and a cell is too large beside the others for one scale.
        self.matrix = Int8Matrix(gates, input_size if gru else input_size + hidden_size)
        self.bias = nn.Parameter(torch.zeros(gates))
        self.of_state = Int8Matrix(gates, hidden_size) if gru else None
        self.of_cell = Int8Matrix(gates, hidden_size) if full else None
        self.bias_state = nn.Parameter(torch.zeros(gates)) if gru else None
        self.peepholes = (
            nn.Parameter(torch.zeros(3, hidden_size))
            if kind == "peephole_lstm" and not full
            else None
        )

    @torch.no_grad()
    def take(self, layer: Any) -> None:
        """Take over the weights of a layer of `lstmlm.nn.cells`, rounded."""
        (of_x, bias), (of_h, bias_h), *of_cell = layer.matrices()
        self.bias.copy_(bias)
        if self.of_state is not None and self.bias_state is not None:
            self.matrix.take(of_x)
            self.of_state.take(of_h)
            self.bias_state.copy_(bias_h)
            return
        self.matrix.take(torch.cat([of_x, of_h], dim=1))
        if bias_h is not None:
            self.bias.add_(bias_h)
        if self.of_cell is not None:
            self.of_cell.take(of_cell[0][0])
        if self.peepholes is not None:
            self.peepholes.copy_(layer.weight_ch)

    def one_token(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Read a token; see `lstmlm.nn.cells.LSTM.one_token`."""
        if self.of_state is not None:
            from_h = self.of_state.product(hidden, self.bias_state)
            return gru_state(self.matrix.product(x, self.bias), from_h, hidden), cell
        gates = self.matrix.product(torch.cat([x, hidden], dim=1), self.bias)
        if self.of_cell is not None:
            gates += self.of_cell.product(cell, None)
        return lstm_state(gates, cell, self.peepholes)

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
        for token in x.unbind(1):
            hidden, cell = self.one_token(token, hidden, cell)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1), hidden, cell
