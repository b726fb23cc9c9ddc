"""One token at a time: a step of a recurrent layer as plain products, for streams and generation.

torch's fused kernels are made for windows; for a single token they take several times as long as
reading the weights once from memory, which is what a step must do.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lstmlm.nn.int8 import Int8Rows

MANY_WEIGHTS = 1 << 16  # of a matrix, from which numpy's product with a single row is faster

Weights = Tensor | Int8Rows  # shape (columns, inner)
Matrix = tuple[Tensor, Tensor | None]  # weights, and the biases, shape (columns,)


def products(parts: Iterable[Tensor], matrices: list[Matrix]) -> list[Tensor]:
    """Return each part times its matrix; parts beyond the matrices are passed over."""
    return [product(part, *matrix) for part, matrix in zip(parts, matrices, strict=False)]


def product(x: Tensor, weight: Weights, bias: Tensor | None) -> Tensor:
    """Return ``F.linear(x, weight, bias)``, of a single row on a processor by numpy.

    A token's time goes into reading weights, which numpy's product of matrix and vector does at
    the memory's pace. With two layers of 650 and 33,278 words a token took 2.5 ms, and 4.3 by
    torch's. It is for what reads token after token: threads of torch and of numpy wait for each
    other for some ms when they take turns.
    """
    if isinstance(weight, Int8Rows):
        return weight.product(x, bias)
    if weight.numel() < MANY_WEIGHTS or not _is_one_row(x):
        return F.linear(x, weight, bias)
    found: NDArray[np.floating] = weight.detach().numpy().dot(x.detach().numpy()[0])
    if bias is not None:
        found += bias.detach().numpy()
    return torch.from_numpy(found).unsqueeze(0)


def _is_one_row(x: Tensor) -> bool:
    return (
        len(x) == 1
        and x.ndim == 2
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


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
