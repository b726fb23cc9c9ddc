"""The steps of an LSTM as a loop, with their gradient written out.

torch's kernels know no peepholes, and in bf16 on a CPU they go back through wide layers slowly: of
650 units that took 50 ms, and 26 here (20 texts, 35 tokens, two cores of Zen 4); up to 512 units it
is the kernel that is faster.

In the loop, texts are columns, as in the equations: a step is one product of all matrices, the bias
among them, side by side, with the columns of what they see, one below the other. Each gate lies in
one piece, the three that are squashed alike together. What a step reads and writes stays in the
processor's cache. Only the steps' values are kept, and the gradients of the matrices and of the
inputs are one product each for all steps.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lstmlm.nn.losses import padded, product_type, rounded_up

COLUMNS = 32  # of which matrices in bf16 have a multiple: so products are a tenth faster
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
    outputs = outputs[:n_texts]
    return outputs, outputs[:, -1], last_cell[:, :n_texts].T


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
    outputs : Tensor, shape (B, T, H)
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
        weight = _side_by_side([*matrices, bias.unsqueeze(1)], dtype)
        gates = cell.new_empty(steps, 4, width, columns)
        outputs, output = cell.new_empty(columns, steps, width), cell.new_empty(width, columns)
        squashed = cell.new_empty(steps, width, columns)  # tanh(c_t)
        cells = cell.new_empty(steps + 1, width, columns)
        # What the weights are multiplied with, each step: the input, the state, perhaps the cell,
        # a row of ones for the bias and rows of zeros.
        seen = weight.new_zeros(steps + 1, weight.shape[1], columns)
        n_seen = sum(matrix.shape[1] for matrix in matrices)
        seen[:-1, :inputs] = x
        seen[:, n_seen] = 1
        product = weight.new_empty(4, width, columns)
        cells[0] = cell
        states = [part.unbind() for part in torch.split(seen[:, inputs:n_seen], width, dim=1)]
        for part, now in zip(states, (hidden, cell), strict=False):
            part[0].copy_(now)
        flat_product = product.view(4 * width, columns)
        of_step = [part.unbind() for part in (seen[:-1], gates, cells[1:], squashed)]
        with torch.autocast(x.device.type, enabled=False):
            before = cell
            for t, (seen_now, gate, now, tanh) in enumerate(zip(*of_step, strict=True)):
                torch.mm(weight, seen_now, out=flat_product)
                gate.copy_(product)
                i, f, o, g = gate.unbind()
                if diagonal is None:
                    gate[:3].sigmoid_()
                else:
                    gate[:2].addcmul_(diagonal[:2].unsqueeze(-1), before).sigmoid_()
                torch.mul(f, before, out=now).addcmul_(i, g.tanh_())
                if diagonal is not None:
                    o.addcmul_(diagonal[2].unsqueeze(-1), now).sigmoid_()
                torch.mul(o, torch.tanh(now, out=tanh), out=output)
                outputs[:, t].copy_(output.T)
                for part, after in zip(states, (output, now), strict=False):
                    part[t + 1].copy_(after)
                before = now
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
            dx_t     = W^T (di, df, do, dg)
            dh_{t-1} = U^T (di, df, do, dg)
            dc_{t-1} = dc * f  +  p_i * di + p_f * df, or V^T (di, df, do, dg)
        """
        weight, diagonal, gates, cells, squashed, seen = ctx.saved_tensors
        grad_outputs = grads[0].permute(1, 2, 0).contiguous()
        grad_cell = grads[1].clone(memory_format=torch.contiguous_format)
        steps, width, columns = grad_outputs.shape
        inputs, n_seen = ctx.widths[0], sum(ctx.widths)
        transposed = _transposed(weight[:, inputs:n_seen])
        deltas, delta = weight.new_empty(gates.shape), torch.empty_like(gates[0])
        by_state = weight.new_empty(len(transposed), columns)  # of the state before, or the cell
        grad_hidden, part = torch.zeros_like(grad_cell), torch.empty_like(grad_cell)
        d_i, d_f, d_o, d_g = delta
        of_step = (grad_outputs, gates, cells[:-1], squashed, deltas)
        for output, gate, before, tanh, rounded in zip(
            *(reversed(each.unbind()) for each in of_step), strict=True
        ):
            i, f, o, g = gate.unbind()
            grad_hidden += output
            torch.mul(grad_hidden, tanh, out=d_o)
            grad_cell += _through_tanh(torch.mul(grad_hidden, o, out=part), tanh)
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[2].unsqueeze(-1), _through_sigmoid(d_o, o))
            torch.mul(grad_cell, g, out=d_i)
            torch.mul(grad_cell, before, out=d_f)
            _through_tanh(torch.mul(grad_cell, i, out=d_g), g)
            n_sigmoids = 3 if diagonal is None else 2
            _through_sigmoid(delta[:n_sigmoids], gate[:n_sigmoids])
            rounded.copy_(delta)
            torch.mm(transposed, rounded.view(4 * width, columns), out=by_state)
            grad_hidden.copy_(by_state[:width])
            grad_cell *= f
            if diagonal is not None:
                grad_cell.addcmul_(diagonal[0].unsqueeze(-1), d_i)
                grad_cell.addcmul_(diagonal[1].unsqueeze(-1), d_f)
            if len(ctx.widths) > 2:
                grad_cell += by_state[width:]
        grad_diagonal = None
        if diagonal is not None:
            of_cells = zip((0, 1, 2), (cells[:-1], cells[:-1], cells[1:]), strict=True)
            sums = [(deltas[:, gate] * seen_cells).sum((0, 2)) for gate, seen_cells in of_cells]
            grad_diagonal = torch.stack(sums)
        flat = _flat(deltas.view(steps, 4 * width, columns))
        grad_x = (flat.T @ weight[:, :inputs])[: steps * columns].view(steps, columns, inputs)
        by_weight = torch.cat(_gates(flat @ _flat(seen[:-1]).T)).to(grad_cell.dtype)
        grad_bias = by_weight[:, n_seen]
        return (
            grad_x.transpose(1, 2).to(grad_cell.dtype),
            *(grad_hidden, grad_cell, grad_bias, grad_diagonal, None),
            *torch.split(by_weight[:, :n_seen], ctx.widths, dim=1),
        )


def _side_by_side(matrices: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Return matrices of shape (4H, ...) as one of a type, gates in the loop's order.

    In bf16, columns of zeros fill it up to a multiple of `COLUMNS`.
    """
    n_columns = sum(matrix.shape[1] for matrix in matrices)
    if dtype == torch.bfloat16:
        n_columns += -n_columns % COLUMNS
    whole = matrices[0].new_zeros(len(matrices[0]), n_columns, dtype=dtype)
    start = 0
    for matrix in matrices:
        of_matrix = whole[:, start : start + matrix.shape[1]]
        for gate, rows in zip(of_matrix.chunk(4), _gates(matrix), strict=True):
            gate.copy_(rows)
        start += matrix.shape[1]
    return whole


def _gates(matrix: Tensor) -> list[Tensor]:
    """Return the rows of each gate, (i, f, g, o) becoming (i, f, o, g), and the other way round."""
    first, second, third, fourth = matrix.chunk(4)
    return [first, second, fourth, third]


def _transposed(matrix: Tensor) -> Tensor:
    """Return a matrix the other way round, in one piece: 4096 x 1424 in 1.6 ms, by torch 12.5."""
    turned = matrix.new_empty(matrix.shape[::-1])
    for start in range(0, len(matrix), TURNED_ROWS):
        rows = slice(start, start + TURNED_ROWS)
        turned[:, rows] = matrix[rows].T
    return turned


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
