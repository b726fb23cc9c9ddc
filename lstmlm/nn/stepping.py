"""One token at a time: a step of a recurrent layer as plain products, for streams and generation.

torch's fused kernels are made for windows; for a single token they take several times as long as
reading the weights once from memory, which is what a step must do.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from lstmlm.nn.int8 import Int8Rows

MANY_WEIGHTS = 1 << 22  # of a matrix, from which a vector's product with it is taken in blocks,
BLOCKS = 32  # so many of them

Weights = Tensor | Int8Rows  # shape (columns, inner)
Matrix = tuple[Tensor, Tensor | None]  # weights, and the biases, shape (columns,)


def products(parts: Iterable[Tensor], matrices: list[Matrix]) -> list[Tensor]:
    """Return each part times its matrix; parts beyond the matrices are passed over."""
    return [product(part, *matrix) for part, matrix in zip(parts, matrices, strict=False)]


def product(x: Tensor, weight: Weights, bias: Tensor | None) -> Tensor:
    """Return ``F.linear(x, weight, bias)``; a single row by the product of matrix and vector."""
    if isinstance(weight, Int8Rows):
        return weight.product(x, bias)
    if len(x) != 1 or x.ndim != 2 or torch.is_autocast_enabled(x.device.type):
        return F.linear(x, weight, bias)
    found = _times_vector(weight, x[0])
    return (found if bias is None else found.add_(bias)).unsqueeze(0)


def _times_vector(weight: Tensor, x: Tensor) -> Tensor:
    """Return W x. A large matrix is taken in blocks, on which torch works side by side.

    In float32 a vector's product with 33,278 rows of 650 took 5.5 ms by mv, 7.3 by linear and 3.3
    in blocks, on two cores.
    """
    n_rows = len(weight) // BLOCKS
    if weight.numel() < MANY_WEIGHTS:
        return weight.mv(x)
    blocks = weight[: n_rows * BLOCKS].view(BLOCKS, n_rows, -1)
    found = torch.bmm(blocks, x.expand(BLOCKS, -1).unsqueeze(-1)).flatten()
    return torch.cat([found, weight[n_rows * BLOCKS :].mv(x)])


def lstm_state(
    gates: Tensor, cell: Tensor, peepholes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return an LSTM's state after its gates i, f, g, o, not yet squashed, shape (B, 4H).

    Peepholes are those of i, f and o, shape (3, H); see `lstmlm.nn.peephole`.
    """
    i, f, g, o = gates.chunk(4, dim=1)
    if peepholes is not None:
        i, f = torch.addcmul(i, peepholes[0], cell), torch.addcmul(f, peepholes[1], cell)
    after = torch.addcmul(f.sigmoid() * cell, i.sigmoid(), g.tanh())
    if peepholes is not None:
        o = torch.addcmul(o, peepholes[2], after)
    return o.sigmoid() * after.tanh(), after


def gru_state(from_input: Tensor, from_state: Tensor, hidden: Tensor) -> Tensor:
    """Return a GRU's state after its products, for r, z and the candidate, shape (B, 3H) each."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_input.chunk(3, 1), from_state.chunk(3, 1)
    candidate = torch.addcmul(n_x, (r_x + r_h).sigmoid(), n_h).tanh()
    return torch.lerp(candidate, hidden, (z_x + z_h).sigmoid())
