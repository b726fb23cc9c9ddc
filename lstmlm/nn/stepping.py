"""One token at a time: a step of a recurrent layer as plain products, for streams and generation.

torch's fused kernels are made for windows; for a single token they take several times as long as
reading the weights once from memory, which is what a step must do.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from lstmlm.nn.int8 import Int8Rows
from lstmlm.nn.processors import has_avx512
from lstmlm.nn.threads import one_thread

MANY_WEIGHTS = 1 << 16  # of a matrix, from which numpy's product with a single row is faster
MOST_WEIGHTS = 3 << 19  # of a matrix, up to which one thread is enough
FEW_ROWS = 32  # whose product is taken the other way round
MANY_GATES = 512  # of a layer, whose matrices are so large then

Weights = Tensor | Int8Rows  # shape (columns, inner)
Matrix = tuple[Tensor, Tensor | None]  # weights, and the biases, shape (columns,)
Row = NDArray[Any]


def products(parts: Iterable[Tensor], matrices: list[Matrix]) -> list[Tensor]:
    """Return each part times its matrix; parts beyond the matrices are passed over."""
    return [product(part, *matrix) for part, matrix in zip(parts, matrices, strict=False)]


def product(
    x: Tensor, weight: Weights, bias: Tensor | None, *, beside: Weights | None = None
) -> Tensor:
    """Return ``F.linear(x, weight, bias)``, of a single row on a processor by numpy.

    A token's time goes into reading weights, which numpy's product of matrix and vector does at
    the memory's pace. With two layers of 650 and 33,278 words a token took 2.5 ms, and 4.3 by
    torch's. A thread of numpy's goes on spinning for some ms, and torch's wait for it when they
    take turns: so only large matrices get more than one, and a small product `beside` a large one
    is numpy's too.
    """
    if isinstance(weight, Int8Rows):
        return weight.product(x, bias)
    large = weight if beside is None else beside
    n_weights = 0 if isinstance(large, Int8Rows) else large.numel()
    if n_weights < MANY_WEIGHTS or not _are_few_rows(x):
        return F.linear(x, weight, bias)
    if len(x) > 1:
        turned = torch.mm(weight, x.T).T
        if bias is None:
            return turned.contiguous()
        return torch.add(turned, bias, out=turned.new_empty(turned.shape))
    with nullcontext() if n_weights >= MOST_WEIGHTS else one_thread:
        found: NDArray[np.floating] = weight.detach().numpy().dot(x.detach().numpy()[0])
    if bias is not None:
        found += bias.detach().numpy()
    return torch.from_numpy(found).unsqueeze(0)


def _is_one_row(x: Tensor) -> bool:
    return len(x) == 1 and _are_few_rows(x)


def _are_few_rows(x: Tensor) -> bool:
    """Return whether `product` knows a quicker way: for a single row, without AVX-512 for some."""
    return (
        x.ndim == 2
        and 1 <= len(x) <= (1 if has_avx512() else FEW_ROWS)
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
    if gates.shape[1] >= MANY_GATES and _is_one_row(gates):
        seen = None if peepholes is None else peepholes.detach().numpy()
        new_hidden, new_cell = lstm_row(gates[0].numpy(), cell[0].numpy(), seen)
        return torch.from_numpy(new_hidden[np.newaxis]), torch.from_numpy(new_cell[np.newaxis])
    i, f, g, o = gates.chunk(4, dim=1)
    if peepholes is not None:
        i, f = torch.addcmul(i, peepholes[0], cell), torch.addcmul(f, peepholes[1], cell)
    after = torch.addcmul(f.sigmoid() * cell, i.sigmoid(), g.tanh())
    if peepholes is not None:
        o = torch.addcmul(o, peepholes[2], after)
    return o.sigmoid() * after.tanh(), after


def lstm_row(gates: Row, cell: Row, peepholes: Row | None = None) -> tuple[Row, Row]:
    """Return what `lstm_state` does, of a single row, by numpy: torch's tanh waits for threads."""
    width = len(cell)
    i_and_f = gates[: 2 * width]
    if peepholes is not None:
        i_and_f = i_and_f + (peepholes[:2] * cell).reshape(-1)
    i_and_f = expit(i_and_f)
    after = i_and_f[width:] * cell + i_and_f[:width] * np.tanh(gates[2 * width : 3 * width])
    o = gates[3 * width :]
    if peepholes is not None:
        o = o + peepholes[2] * after
    return expit(o) * np.tanh(after), after


def gru_state(from_input: Tensor, from_state: Tensor, hidden: Tensor) -> Tensor:
    """Return a GRU's state after its products, for r, z and the candidate, shape (B, 3H) each."""
    if from_input.shape[1] >= MANY_GATES and _is_one_row(from_input):
        row = gru_row(from_input[0].numpy(), from_state[0].numpy(), hidden[0].numpy())
        return torch.from_numpy(row[np.newaxis])
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_input.chunk(3, 1), from_state.chunk(3, 1)
    candidate = torch.addcmul(n_x, (r_x + r_h).sigmoid(), n_h).tanh()
    return torch.lerp(candidate, hidden, (z_x + z_h).sigmoid())


def gru_row(from_input: Row, from_state: Row, hidden: Row) -> Row:
    """Return what `gru_state` does, of a single row, by numpy; see `lstm_row`."""
    width = len(hidden)
    r_and_z = expit(from_input[: 2 * width] + from_state[: 2 * width])
    candidate = np.tanh(from_input[2 * width :] + r_and_z[:width] * from_state[2 * width :])
    after: Row = candidate + r_and_z[width:] * (hidden - candidate)
    return after
