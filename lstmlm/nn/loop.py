"""The steps of an LSTM as a loop, with their gradient written out.

torch's kernels know no peepholes, and in bf16 on a CPU they go back through wide layers slowly: of
650 units that took 50 ms, and 26 here (20 texts, 35 tokens, two cores); up to 512 units it is the
kernel that is faster.

What doesn't depend on the state, W x + b, is one product for all steps. In the loop, texts are
columns, as in the equations: a step is the product of the recurrent matrix with the columns of
the state, and each gate lies in one piece. Only the steps' values are kept, and the gradient of a
matrix is one product for all steps.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lstmlm.nn.losses import product_type


def run_steps(
    inputs: Tensor, hidden: Tensor, cell: Tensor, recurrent: Tensor, diagonal: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the steps of a window.

    Parameters
    ----------
    inputs : Tensor, shape (B, T, 4H)
        W x + b for the gates i, f, g, o.
    hidden, cell : Tensor, shape (B, H)
        The state before.
    recurrent : Tensor, shape (4H, K)
        What the gates see the state through: U, K = H; or U and the cell's V side by side, K = 2H.
    diagonal : Tensor of shape (3, H), optional
        Peepholes of i, f and o.

    Returns
    -------
    outputs : Tensor, shape (B, T, H)
    hidden, cell : Tensor, shape (B, H)
        The state after.
    """
    outputs, last_cell = _Steps.apply(  # type: ignore[no-untyped-call]
        inputs.permute(1, 2, 0), hidden.T, cell.T, recurrent, diagonal, product_type(recurrent)
    )
    return outputs.permute(2, 0, 1), outputs[-1].T, last_cell.T


class _Steps(torch.autograd.Function):
    """The steps of a window and their gradient, texts as columns: see `run_steps`.

    Parameters
    ----------
    inputs : Tensor, shape (T, 4H, B)
        W x + b for the gates i, f, g, o.
    hidden, cell : Tensor, shape (H, B)
        The state before.
    recurrent, diagonal
        See `run_steps`.
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
        slopes, through = _slopes(gates, cells, squashed)
        deltas = weight.new_empty(gates.shape)
        grad_seen = weight.new_zeros(weight.shape[1], columns)
        transposed = weight.T.contiguous()
        for t in reversed(range(steps)):
            grad_hidden = grad_outputs[t] + grad_seen[:width]
            d_o = torch.mul(grad_hidden, slopes[t, 3], out=deltas[t, 3 * width :])
            grad_cell.addcmul_(grad_hidden, through[t])
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[2].unsqueeze(-1), d_o)
            d_others = deltas[t, : 3 * width].view(3, width, columns)
            torch.mul(slopes[t, :3], grad_cell, out=d_others)
            torch.mm(transposed, deltas[t], out=grad_seen)
            grad_cell.mul_(gates[t, width : 2 * width])
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[0].unsqueeze(-1), d_others[0])
                grad_cell.addcmul_(diagonal[1].unsqueeze(-1), d_others[1])
            if len(grad_seen) > width:
                grad_cell += grad_seen[width:]
        grad_diagonal = None
        if diagonal is not None:
            parts = deltas.view(steps, 4, width, columns)
            of_cells = zip((0, 1, 3), (cells[:-1], cells[:-1], cells[1:]), strict=True)
            sums = [(parts[:, gate] * seen_cells).sum((0, 2)) for gate, seen_cells in of_cells]
            grad_diagonal = torch.stack(sums)
        grad_recurrent = (_flat(deltas) @ _flat(seen[:-1]).T).to(grad_cell.dtype)
        grad_hidden = grad_seen[:width].to(grad_cell.dtype)
        grad_inputs = deltas.to(ctx.input_type)
        return grad_inputs, grad_hidden, grad_cell, grad_recurrent, grad_diagonal, None


def _see(seen: Tensor, hidden: Tensor, cell: Tensor) -> None:
    """Write what the recurrent matrix is multiplied with: the output, and below it the cell."""
    width = len(hidden)
    seen[:width] = hidden
    if len(seen) > width:
        seen[width:] = cell


def _slopes(gates: Tensor, cells: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the gradients are multiplied with on their way, for all steps at once.

    Returns
    -------
    slopes : Tensor, shape (T, 4, H, B)
        From dc to di, df and dg, and from dh to do.
    through : Tensor, shape (T, H, B)
        From dh to dc.
    """
    i, f, g, o = gates.chunk(4, dim=1)
    slopes = gates.new_empty(len(gates), 4, *squashed.shape[1:])
    to_i, to_f, to_g, to_o = slopes.unbind(1)
    for gate, factor, to_gate in ((i, g, to_i), (f, cells[:-1], to_f), (o, squashed, to_o)):
        torch.addcmul(gate, gate, gate, value=-1, out=to_gate).mul_(factor)
    torch.addcmul(i, i, g * g, value=-1, out=to_g)
    return slopes, torch.addcmul(o, o, squashed * squashed, value=-1)


def _flat(steps: Tensor) -> Tensor:
    """Put the columns of all steps side by side: (T, R, B) to (R, T * B)."""
    return steps.transpose(0, 1).reshape(steps.shape[1], -1)
