"""Products in int8: weights by row, activations by row (Jacob et al. 2018, section 2.1, symmetric).

A row w of weights is kept as whole numbers from -127 to 127 and one scale, w = s q; so is, for the
time of a product, each row of activations. The sum of products of whole numbers is exact, so that
a row's figures depend on no other row. Of four bytes a weight one is left, and reading weights is
what a token's time goes into.

The product is `torch._int_mm`, which torchao's quantisation rests on too: plain tensors of int8, on
processors by oneDNN. torch's own quantised tensors and torch.ao's dynamic quantisation are
deprecated. For one row of 650 and 33,278 rows of weights it took 0.24 ms on two cores, a quantised
linear layer 0.27, and float32 3.3.

Where a processor doesn't multiply int8, that takes ten times as long as float32. There the same
sums are computed in floats, of a few weights at a time, and are as exact; those of a single row by
NumKong, where it is installed: its vectors hold four times as many weights as floats do.
"""

from collections.abc import Callable
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lstmlm.nn.processors import has_int8_products
from lstmlm.nn.threads import one_thread
from lstmlm.nn.versions import version

try:
    import numkong
except ImportError:
    numkong = None  # type: ignore[assignment]

Row = NDArray[np.float32]  # shape (D,)
Sums = Callable[[Row], Row]  # of a row's products with other rows

LARGEST = 127  # -128 is left out: the range is symmetric
LEAST_SCALE = 1e-12  # of a row of zeros
MOST_TERMS = (1 << 24) // LARGEST**2  # whose sum is whole in float32
BLOCK_WEIGHTS = 1 << 19  # that are made floats at a time,
BLOCK_OF_ROW = 1 << 17  # and fewer for a single row, for which they must be quick to read again
MOST_FLOATS = 3 << 19  # that are kept of weights
PACKED = 16  # rows and columns of which NumKong's quick products are multiples


class Int8Rows:
    """Rows of weights, as whole numbers and scales.

    Parameters
    ----------
    values : Tensor of int8, shape (V, D)
        q of each row.
    scales : Tensor, shape (V,)
        s of each row.
    of : Int8Matrix
        The matrix that they are rows of.
    begin : int
        From which row of it on.
    """

    __slots__ = ("begin", "of", "scales", "values")

    def __init__(self, values: Tensor, scales: Tensor, of: "Int8Matrix", begin: int = 0) -> None:
        self.values, self.scales, self.of, self.begin = values, scales, of, begin

    def __getitem__(self, rows: slice) -> "Int8Rows":
        begin = self.begin + rows.indices(len(self))[0]
        return Int8Rows(self.values[rows], self.scales[rows], self.of, begin)

    def __len__(self) -> int:
        return len(self.values)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b for x of shape (..., D), shape (..., V)."""
        q, scales = quantised(x if x.ndim == 2 else x.reshape(-1, x.shape[-1]))
        found = torch.mul(whole_sums(q, self.values), self.scales).mul_(scales)
        if bias is not None:
            found += bias
        return found if x.ndim == 2 else found.reshape(*x.shape[:-1], len(self))

    def sums_of_row(self) -> Sums:
        """See `sums_of_row`; what it lays out anew is kept for as long as the matrix is."""
        if has_int8_products() or numkong is None:
            return sums_of_row(self.values)
        kept, now = _PACKED.setdefault(self.of, {}), version(self.values)
        place = self.begin, len(self)
        if place not in kept or kept[place][0] != now:  # somebody changed the weights
            kept[place] = now, sums_of_row(self.values)
        return kept[place][1]

    def chosen(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return, for each row of x, shape (N, D), its product with one row, shape (N,)."""
        q, scales = quantised(x)
        sums = (q.int() * self.values[rows].int()).sum(-1)
        return sums * self.scales[rows] * scales.squeeze(-1)


class Int8Matrix(nn.Module):
    """`Int8Rows` as a part of a network.

    Parameters
    ----------
    n_rows, width : int
        V and D.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(n_rows, width, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(n_rows))

    def take(self, weight: Tensor) -> Self:
        """Take over weights, shape (V, D), rounded."""
        values, scales = quantised(weight.detach())
        self.values.copy_(values)
        self.scales.copy_(scales.squeeze(-1))
        return self

    @property
    def rows(self) -> Int8Rows:
        """All of them."""
        return Int8Rows(self.values, self.scales, self)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Int8Rows.product`."""
        return self.rows.product(x, bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids, of any shape: as an embedding does."""
        return self.values[ids] * self.scales[ids].unsqueeze(-1)


_PACKED: WeakKeyDictionary[Int8Matrix, dict[tuple[int, int], tuple[int, Sums]]]
_PACKED = WeakKeyDictionary()  # of a matrix, by the place of its rows


def whole_sums(q: Tensor, values: Tensor) -> Tensor:
    """Return q W^T of whole numbers.

    Parameters
    ----------
    q : Tensor of int8, shape (N, D)
    values : Tensor of int8, shape (V, D)

    Returns
    -------
    Tensor of int32 or float32, shape (N, V)
    """
    if has_int8_products():
        return torch._int_mm(q, values.T)
    kind = torch.float32 if values.shape[1] <= MOST_TERMS else torch.float64
    if len(q) == 1:
        return torch.from_numpy(_sums_of_row(q.to(kind)[0].numpy(), values.numpy()))
    blocks = torch.split(values, max(1, BLOCK_WEIGHTS // values.shape[1]))
    x = q.to(kind)
    return torch.cat([x @ block.to(kind).T for block in blocks], dim=1).float()


def sums_of_row(values: Tensor) -> Sums:
    """Return what multiplies whole rows of numbers with a row of them, again and again.

    Parameters
    ----------
    values : Tensor of int8, shape (V, D)
        They must not change meanwhile: some ways keep a copy.

    Returns
    -------
    callable
        Takes what `whole_row` gives, shape (D,), and returns the sums, shape (V,), in a new array.
    """
    if has_int8_products():
        by_torch = values.T
        return lambda whole: torch._int_mm(_int8_row(whole), by_torch).float().numpy()[0]
    if numkong is not None:
        return _packed(values.numpy())
    if values.numel() >= MOST_FLOATS or values.shape[1] > MOST_TERMS:
        return lambda whole: whole_sums(_int8_row(whole), values).numpy()[0]
    floats = values.float().numpy()  # making them anew took three times as long as the sums

    def sums(whole: Row) -> Row:
        with one_thread:
            found: Row = floats.dot(whole)
        return found

    return sums


def _packed(values: NDArray[np.int8]) -> Sums:
    """Return `sums_of_row` by NumKong, which is quick where nothing is left over of its blocks."""
    n_rows, width = values.shape
    whole_width = -(-width // PACKED) * PACKED
    padded = np.zeros((-(-n_rows // PACKED) * PACKED, whole_width), np.int8)
    padded[:n_rows, :width] = values
    rows = numkong.dots_pack(padded, dtype="int8")

    def sums(whole: Row) -> Row:
        q = np.zeros((1, whole_width), np.int8)
        q[0, :width] = whole
        return np.asarray(numkong.dots_packed(q, rows))[0, :n_rows].astype(np.float32)

    return sums


def _sums_of_row(x: NDArray[np.floating], values: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return what `whole_sums` does of a row, shape (D,), in floats; shape (1, V)."""
    n_rows = min(len(values), max(1, BLOCK_OF_ROW // len(x)))
    block, found = np.empty((n_rows, len(x)), x.dtype), np.empty((1, len(values)), np.float32)
    with one_thread:
        for begin in range(0, len(values), n_rows):
            part = values[begin : begin + n_rows]
            block[: len(part)] = part
            found[0, begin : begin + n_rows] = block[: len(part)] @ x
    return found


def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers and scales of rows, shapes (N, D) and (N, 1)."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad
    if len(x) == 1 and plain:
        whole, scale = whole_row(x[0].numpy())
        return _int8_row(whole), torch.from_numpy(scale.reshape(1, 1))
    scales = x.abs().amax(-1, keepdim=True).clamp_min_(LEAST_SCALE).div_(LARGEST)
    return torch.round(x / scales).to(torch.int8), scales


def whole_row(x: Row) -> tuple[Row, np.float32]:
    """Return what `quantised` does of a row, by numpy, whose calls are shorter.

    Returns
    -------
    whole : ndarray of float32, shape (D,)
        The whole numbers.
    scale : float32
    """
    scale = np.float32(max(float(np.maximum.reduce(np.abs(x))), LEAST_SCALE)) / np.float32(LARGEST)
    whole = x / scale
    return np.rint(whole, out=whole), scale


def _int8_row(whole: Row) -> Tensor:
    """Return whole numbers as int8, shape (1, D).

    In rows as oneDNN takes them: behind a new axis of numpy's torch would see a stride of 0.
    """
    return torch.from_numpy(whole.astype(np.int8).reshape(1, -1))
