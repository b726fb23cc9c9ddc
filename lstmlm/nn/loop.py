"""The steps of an LSTM as a loop, with their gradient written out.

torch's kernels know no peepholes, and in bf16 on a CPU they go back through wide layers slowly: of
650 units that took 50 ms, and 26 here (20 texts, 35 tokens, two cores); up to 512 units it is the
kernel that is faster.

In the loop, texts are columns, as in the equations: a step is one product of all matrices, side by
side, with the columns of what they see, one below the other, and each gate lies in one piece. What
a step reads and writes stays in the processor's cache. Only the steps' values are kept, and the
gradient of the matrices is one product for all steps.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lstmlm.nn.losses import padded, product_type, rounded_up

TEXTS = 4  # of which there are a multiple: a product in bf16 is compiled for each number
TURNED_ROWS = 128  # that are transposed at a time, and stay in the cache meanwhile


def run_steps(
    x: Tensor,
    hidden: Tensor,
    cell: Tensor,
    matrices: list[Tensor],
    bias: Tensor,
    diagonal: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the steps of a window.

    Parameters
    ----------
    x : Tensor, shape (B, T, E)
        The inputs.
    hidden, cell : Tensor, shape (B, H)
        The state before.
    matrices : list of Tensor, shape (4H, E), (4H, H) and perhaps (4H, H)
        What the gates i, f, g, o see the input, the state and perhaps the cell before through.
    bias : Tensor, shape (4H,)
    diagonal : Tensor of shape (3, H), optional
        Peepholes of i, f and o.

    Returns
    -------
    outputs : Tensor, shape (B, T, H)
    hidden, cell : Tensor, shape (B, H)
        The state after.
    """
    n_texts = len(x)
    x, hidden, cell = (padded(rows, TEXTS) for rows in (x, hidden, cell))
    outputs, last_cell = _Steps.apply(  # type: ignore[no-untyped-call]
        *(x.permute(1, 2, 0), hidden.T, cell.T), *(bias, diagonal, product_type(bias)), *matrices
    )
    outputs, last_cell = outputs[..., :n_texts], last_cell[:, :n_texts]
    return outputs.permute(2, 0, 1), outputs[-1].T, last_cell.T


class _Steps(torch.autograd.Function):
    """The steps of a window and their gradient, texts as columns: see `run_steps`.

    Parameters
    ----------
    x : Tensor, shape (T, E, B)
        The inputs.
    hidden, cell : Tensor, shape (H, B)
        The state before.
    bias, diagonal, matrices
        See `run_steps`.
    dtype : torch.dtype
        Of the products with the matrices; all else is computed in the state's type.

    Returns
    -------
    outputs : Tensor, shape (T, H, B)
    cell : Tensor, shape (H, B)
        The last one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        bias: Tensor,
        diagonal: Tensor | None,
        dtype: torch.dtype,
        *matrices: Tensor,
    ) -> tuple[Tensor, Tensor]:
        (steps, inputs, columns), width = x.shape, len(cell)
        weight = _side_by_side(matrices, dtype)
        gates = cell.new_empty(steps, 4 * width, columns)
        outputs = cell.new_empty(steps, width, columns)
        squashed = torch.empty_like(outputs)  # tanh(c_t)
        cells = cell.new_empty(steps + 1, width, columns)
        seen = weight.new_empty(steps + 1, weight.shape[1], columns)  # by the matrices, each step
        product, of_gate = weight.new_empty(4 * width, columns), bias.unsqueeze(1)
        seen[:-1, :inputs] = x
        cells[0] = cell
        _see(seen[0, inputs:], hidden, cell)
        with torch.autocast(x.device.type, enabled=False):
            for t in range(steps):
                torch.mm(weight, seen[t], out=product)
                i, f, g, o = gates[t].copy_(product).add_(of_gate).chunk(4)
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
                _see(seen[t + 1, inputs:], outputs[t], new_cell)
        ctx.save_for_backward(weight, diagonal, gates, cells, squashed, seen)
        ctx.widths = [matrix.shape[1] for matrix in matrices]
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
            dx_t     = W^T (di, df, dg, do)
            dh_{t-1} = U^T (di, df, dg, do)
            dc_{t-1} = dc * f  +  p_i * di + p_f * df, or V^T (di, df, dg, do)
        """
        weight, diagonal, gates, cells, squashed, seen = ctx.saved_tensors
        grad_outputs, grad_cell = grads[0].contiguous(), grads[1].clone()
        steps, width, columns = grad_outputs.shape
        inputs = ctx.widths[0]
        of_hidden = slice(inputs, inputs + width)
        transposed, deltas = _transposed(weight), weight.new_empty(gates.shape)
        grad_bias = gates.new_zeros(4, width)
        grad_seen = weight.new_zeros(steps + 1, weight.shape[1], columns)
        delta, part = gates.new_empty(4, width, columns), torch.empty_like(grad_cell)
        d_i, d_f, d_g, d_o = delta
        for t in reversed(range(steps)):
            i, f, g, o = gates[t].chunk(4)
            grad_hidden = torch.add(grad_outputs[t], grad_seen[t + 1, of_hidden])
            _through_sigmoid(torch.mul(grad_hidden, squashed[t], out=d_o), o)
            grad_cell += _through_tanh(torch.mul(grad_hidden, o, out=part), squashed[t])
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[2].unsqueeze(-1), d_o)
            _through_sigmoid(torch.mul(grad_cell, g, out=d_i), i)
            _through_sigmoid(torch.mul(grad_cell, cells[t], out=d_f), f)
            _through_tanh(torch.mul(grad_cell, i, out=d_g), g)
            deltas[t] = delta.view(4 * width, columns)
            torch.mm(transposed, deltas[t], out=grad_seen[t])
            grad_bias += delta.sum(-1)
            grad_cell *= f
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[0].unsqueeze(-1), d_i)
                grad_cell.addcmul_(diagonal[1].unsqueeze(-1), d_f)
            if len(ctx.widths) > 2:
                grad_cell += grad_seen[t, of_hidden.stop :]
        grad_diagonal = None
        if diagonal is not None:
            parts = deltas.view(steps, 4, width, columns)
            of_cells = zip((0, 1, 3), (cells[:-1], cells[:-1], cells[1:]), strict=True)
            sums = [(parts[:, gate] * seen_cells).sum((0, 2)) for gate, seen_cells in of_cells]
            grad_diagonal = torch.stack(sums)
        grad_weight = (_flat(deltas) @ _flat(seen[:-1]).T).to(grad_cell.dtype)
        return (
            grad_seen[:-1, :inputs].to(grad_cell.dtype),
            grad_seen[0, of_hidden].to(grad_cell.dtype),
            *(grad_cell, grad_bias.view(-1), grad_diagonal, None),
            *torch.split(grad_weight, ctx.widths, dim=1),
        )


def _side_by_side(matrices: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """Return matrices of shape (4H, ...) as one of a type."""
    whole = matrices[0].new_empty(
        len(matrices[0]), sum(matrix.shape[1] for matrix in matrices), dtype=dtype
    )
    return torch.cat(matrices, dim=1, out=whole)


def _transposed(matrix: Tensor) -> Tensor:
    """Return a matrix the other way round, in one piece: 4096 x 1424 in 1.6 ms, by torch 12.5."""
    turned = matrix.new_empty(matrix.shape[::-1])
    for start in range(0, len(matrix), TURNED_ROWS):
        rows = slice(start, start + TURNED_ROWS)
        turned[:, rows] = matrix[rows].T
    return turned


def _see(seen: Tensor, hidden: Tensor, cell: Tensor) -> None:
    """Write what the recurrent matrices are multiplied with: the output, and below it the cell."""
    width = len(hidden)
    seen[:width] = hidden
    if len(seen) > width:
        seen[width:] = cell


def _through_sigmoid(grad: Tensor, squashed: Tensor) -> Tensor:
    """Multiply a gradient in place by s (1 - s), the slope of a sigmoid whose value is s."""
    found: Tensor = torch.ops.aten.sigmoid_backward.grad_input(grad, squashed, grad_input=grad)
    return found


def _through_tanh(grad: Tensor, squashed: Tensor) -> Tensor:
    """Multiply a gradient in place by 1 - s^2, the slope of a tanh whose value is s."""
    found: Tensor = torch.ops.aten.tanh_backward.grad_input(grad, squashed, grad_input=grad)
    return found


def _flat(steps: Tensor) -> Tensor:
    """Put the columns of all steps side by side, (T, R, B) to (R, T * B) or a little more."""
    turned = steps.transpose(0, 1)
    if steps.dtype != torch.bfloat16:
        return turned.flatten(1)
    n_columns = turned[0].numel()
    flat = steps.new_empty(len(turned), rounded_up(n_columns))
    flat[:, :n_columns].view(turned.shape).copy_(turned)
    flat[:, n_columns:] = 0
    return flat
