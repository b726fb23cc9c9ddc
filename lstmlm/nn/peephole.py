"""LSTM layers whose gates see the cell.

With diagonal peepholes (Gers et al. 2000, equations 1 to 5; Gers and Schmidhuber 2000), p the
peepholes of a gate, one a unit::

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)        input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)        forget gate
    g_t =    tanh(W_g x_t + U_g h_{t-1} + b_g)                        candidate
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)            output gate, of the new cell
    h_t = o_t * tanh(c_t)

With full ones, all four see the cell before, through matrices (often written W_ci, W_cf, W_cc and
W_co)::

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + V_i c_{t-1} + b_i)
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + V_f c_{t-1} + b_f)
    g_t =    tanh(W_g x_t + U_g h_{t-1} + V_g c_{t-1} + b_g)
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + V_o c_{t-1} + b_o)
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

torch has no kernel for them, so the steps are a loop here. What doesn't depend on the state, W x +
b, is one product for all steps. In the loop, texts are columns, as in the equations: a step is the
product of the recurrent matrix with the columns of the state, and each gate lies in one piece. The
gradient is written out, so that only the steps' values are kept and the gradient of a matrix is one
product for all steps.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lstmlm.nn.dropout import dropped_weight


class PeepholeLSTM(nn.Module):
    """One LSTM layer whose gates see the cell; with peepholes of zero it is `LSTM`.

    Peepholes start at zero, all else as in `LSTM`.

    Parameters
    ----------
    input_size, hidden_size : int
        Width of the input and of the state, H.
    peephole : {"diagonal", "full"}
        Peepholes as vectors of shape (H,) for i, f and o, stacked in ``weight_ch`` of shape (3, H);
        or as matrices for i, f, g and o, stacked in ``weight_ch`` of shape (4H, H).
    """

    def __init__(self, input_size: int, hidden_size: int, *, peephole: str) -> None:
        super().__init__()
        self.hidden_size = self.cell_size = hidden_size
        self.full = peephole == "full"
        gates = 4 * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(gates, input_size))
        self.weight_hh = nn.Parameter(torch.empty(gates, hidden_size))
        self.weight_ch = nn.Parameter(torch.empty(gates if self.full else 3, hidden_size))
        self.bias = nn.Parameter(torch.empty(gates))

    @property
    def slow(self) -> list[nn.Parameter]:
        """Weights that learn at a lower rate: those that see the cell, which has no bound.

        At the rate of the others they throw the gates about. In an epoch of half of WikiText-2 at a
        rate of 4e-3 the held-out perplexity was 241 with diagonal peepholes, 213 with a tenth of
        the rate for them; full ones stayed at the perplexity of word frequencies.
        """
        return [self.weight_ch]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights."""
        with torch.no_grad():
            for rows in torch.split(self.weight_ih, self.hidden_size):
                nn.init.xavier_uniform_(rows, generator=generator)
            for rows in torch.split(self.weight_hh, self.hidden_size):
                nn.init.orthogonal_(rows, generator=generator)
            self.weight_ch.zero_()
            self.bias.zero_()[self.hidden_size : 2 * self.hidden_size] = 1.0

    def step(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *,
        weight_drop: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a window; see `lstmlm.nn.cells.LSTM.step`. Full peepholes drop weights too."""
        inputs = F.linear(x, self.weight_ih, self.bias).permute(1, 2, 0)  # (T, 4H, B)
        recurrent = dropped_weight(self.weight_hh, weight_drop, noise)
        diagonal = None if self.full else self.weight_ch
        if self.full:
            matrices = dropped_weight(self.weight_ch, weight_drop, noise)
            recurrent = torch.cat([recurrent, matrices], dim=1)
        outputs, last_cell = _Loop.apply(  # type: ignore[no-untyped-call]
            inputs, hidden.T, cell.T, recurrent, diagonal, _product_dtype(recurrent)
        )
        return outputs.permute(2, 0, 1), outputs[-1].T, last_cell.T


class _Loop(torch.autograd.Function):
    """The steps of a window and their gradient, texts as columns.

    Parameters
    ----------
    inputs : Tensor, shape (T, 4H, B)
        W x + b for the gates i, f, g, o.
    hidden, cell : Tensor, shape (H, B)
        The state before.
    recurrent : Tensor, shape (4H, K)
        What the gates see the state through: U, K = H; or U and V side by side, K = 2H.
    diagonal : Tensor of shape (3, H), or None
        Peepholes of i, f and o.
    dtype : torch.dtype
        Of the products with `recurrent`; all else is computed in the state's type.

    Returns
    -------
    outputs : Tensor, shape (T, H, B)
    cell : Tensor, shape (H, B)
        The last one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        hidden: Tensor,
        cell: Tensor,
        recurrent: Tensor,
        diagonal: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        steps, _, columns = inputs.shape
        width = len(cell)
        weight = recurrent.to(dtype)
        gates = cell.new_empty(inputs.shape)
        outputs = cell.new_empty(steps, width, columns)
        squashed = torch.empty_like(outputs)  # tanh(c_t)
        cells = cell.new_empty(steps + 1, width, columns)
        seen = weight.new_empty(steps + 1, weight.shape[1], columns)  # what products see of a state
        cells[0] = cell
        _see(seen[0], hidden, cell)
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.contiguous()
            for t in range(steps):
                torch.add(inputs[t], weight @ seen[t], out=gates[t])
                i, f, g, o = gates[t].chunk(4)
                if diagonal is not None:
                    before = gates[t, : 2 * width].view(2, width, columns)
                    before.addcmul_(diagonal[:2].unsqueeze(-1), cells[t])
                gates[t, : 2 * width].sigmoid_()
                g.tanh_()
                torch.mul(f, cells[t], out=cells[t + 1])
                new_cell = cells[t + 1].addcmul_(i, g)
                if diagonal is not None:
                    o.addcmul_(diagonal[2].unsqueeze(-1), new_cell)
                o.sigmoid_()
                torch.tanh(new_cell, out=squashed[t])
                torch.mul(o, squashed[t], out=outputs[t])
                _see(seen[t + 1], outputs[t], new_cell)
        ctx.save_for_backward(weight, diagonal, gates, cells, squashed, seen)
        ctx.input_type = inputs.dtype
        return outputs, cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Go back from the gradients of the outputs and of the last cell.

        With d standing for the gradient of the loss, and primes for states one step later::

            dc = dc from step t + 1  +  dh * o * (1 - tanh(c)^2)  +  p_o * do
            do = dh * tanh(c) * o * (1 - o)
            di = dc * g * i * (1 - i)
            df = dc * c_{t-1} * f * (1 - f)
            dg = dc * i * (1 - g^2)
            dh_{t-1} = U^T (di, df, dg, do)
            dc_{t-1} = dc * f  +  p_i * di + p_f * df, or V^T (di, df, dg, do)
        """
        weight, diagonal, gates, cells, squashed, seen = ctx.saved_tensors
        grad_outputs, grad_cell = grads[0].contiguous(), grads[1].clone()
        steps, width, columns = grad_outputs.shape
        transposed = weight.T
        slopes = _slopes(gates)
        deltas = torch.empty_like(gates)
        grad_hidden = torch.zeros_like(grad_cell)
        full = weight.shape[1] > width
        for t in reversed(range(steps)):
            i, f, g, o = gates[t].chunk(4)
            d_i, d_f, d_g, d_o = deltas[t].chunk(4)
            grad_hidden = grad_outputs[t] + grad_hidden
            torch.mul(grad_hidden, squashed[t], out=d_o).mul_(slopes[t, 3 * width :])
            through = torch.addcmul(o, o * squashed[t], squashed[t], value=-1)
            grad_cell.addcmul_(grad_hidden, through)
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[2].unsqueeze(-1), d_o)
            torch.mul(grad_cell, g, out=d_i)
            torch.mul(grad_cell, cells[t], out=d_f)
            torch.mul(grad_cell, i, out=d_g)
            deltas[t, : 3 * width].mul_(slopes[t, : 3 * width])
            grad_seen = transposed @ deltas[t].to(weight.dtype)
            grad_hidden = grad_seen[:width].to(grad_cell.dtype)
            grad_cell.mul_(f)
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[0].unsqueeze(-1), d_i)
                grad_cell.addcmul_(diagonal[1].unsqueeze(-1), d_f)
            if full:
                grad_cell += grad_seen[width:]
        grad_diagonal = None
        if diagonal is not None:
            parts = deltas.view(steps, 4, width, columns)
            grad_diagonal = torch.stack(
                [
                    (parts[:, 0] * cells[:-1]).sum((0, 2)),
                    (parts[:, 1] * cells[:-1]).sum((0, 2)),
                    (parts[:, 3] * cells[1:]).sum((0, 2)),
                ]
            )
        flat_deltas, flat_seen = _flat(deltas.to(weight.dtype)), _flat(seen[:-1])
        grad_recurrent = (flat_deltas @ flat_seen.T).to(grad_cell.dtype)
        return (
            deltas.to(ctx.input_type),
            grad_hidden,
            grad_cell,
            grad_recurrent,
            grad_diagonal,
            None,
        )


def _see(seen: Tensor, hidden: Tensor, cell: Tensor) -> None:
    """Write what the recurrent matrix is multiplied with: the output, and below it the cell."""
    width = len(hidden)
    seen[:width] = hidden
    if len(seen) > width:
        seen[width:] = cell


def _slopes(gates: Tensor) -> Tensor:
    """Return the slope of each gate's squashing function: s(1 - s), for the candidate 1 - g^2."""
    slopes = gates - gates * gates
    width = gates.shape[1] // 4
    g = gates[:, 2 * width : 3 * width]
    slopes[:, 2 * width : 3 * width] = 1 - g * g
    return slopes


def _flat(steps: Tensor) -> Tensor:
    """Put the columns of all steps side by side: (T, R, B) to (R, T * B)."""
    return steps.transpose(0, 1).reshape(steps.shape[1], -1)


def _product_dtype(weight: Tensor) -> torch.dtype:
    """Return autocast's type where it is on, else the weight's."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
