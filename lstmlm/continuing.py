"""Rows of text that are continued token by token, side by side or a single one.

A token of a small network takes some microseconds of products, and each of torch's calls one or two
more, so that for a single row most of the time would go into calls. There the weights are looked up
once, and the state stays in numpy's arrays.
"""

import math
from bisect import bisect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lstmlm.model import RecurrentLM
from lstmlm.nn.choosing import HeadScores, Logits, Scores, edges_of
from lstmlm.nn.heads import AdaptiveSoftmax, Head
from lstmlm.nn.int8 import Int8Matrix, Int8Rows, whole_row
from lstmlm.nn.quantized import QuantizedLayer
from lstmlm.nn.state import State
from lstmlm.nn.stepping import MOST_WEIGHTS, Weights, gru_row, lstm_row
from lstmlm.nn.threads import one_thread
from lstmlm.nn.versions import version
from lstmlm.scoring import inference

Row = NDArray[Any]  # shape (D,)
Product = Callable[[Row], Row]
Layer = Callable[[Row, Row, Row], tuple[Row, Row]]

TURN_AFTER = 32  # tokens, when the weights of a large softmax are copied for quicker products
_TURNED: WeakKeyDictionary[Head, tuple[int, Row]] = WeakKeyDictionary()


class ManyRows:
    """Rows that are read side by side, token by token, and what may follow each.

    Parameters
    ----------
    model : RecurrentLM
        The network.
    features : Tensor, shape (B, D)
        What the head needs to predict the next ids.
    state : State, of B rows
        What was read before.
    """

    def __init__(self, model: RecurrentLM, features: Tensor, state: State) -> None:
        self._model, self.features, self.state = model, features, state

    def computing(self) -> AbstractContextManager[None]:
        """Return the settings of torch's under which rows are read and their `scores` asked."""
        return inference(self._model)

    @property
    def scores(self) -> Scores:
        """Of the next ids."""
        return HeadScores(self._model.head, self.features)

    def read(self, ids: NDArray[np.int64]) -> None:
        """Read the next id of each row."""
        column = torch.from_numpy(ids).to(self.features.device).unsqueeze(1)
        outputs, self.state = self._model(column, self.state)
        self.features = outputs[:, -1]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with the rows of the given numbers alone."""
        kept = torch.from_numpy(rows).to(self.features.device)
        self.features, self.state = self.features[kept], self.state.select(kept)


class RowWeights:
    """A network's weights as a single row is multiplied with them; they must not change meanwhile.

    Parameters
    ----------
    model : RecurrentLM
        The network, on a processor, that doesn't attend.
    """

    def __init__(self, model: RecurrentLM) -> None:
        self._model = model
        self.embed = _embedding(model.embedding, model.embedding_scale)
        self.layers = [_layer(layer) for layer in model.layers]
        by_numpy = not isinstance(model.layers[0], QuantizedLayer)
        largest = max(weight.numel() for weight in model.layers.parameters())
        few = by_numpy and largest < MOST_WEIGHTS
        self.threads_of_layers = one_thread if few else nullcontext()
        projection = None if model.projection is None else _product(model.projection.weight)
        self.project: Product = projection or (lambda outputs: outputs)
        self.edges = edges_of(model.head)
        self.of_head = _head(model.head)
        self._tails: dict[int, Product] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RowWeights, (self._model,)

    def of_tail(self, k: int) -> Product:
        """Return what gives the logits of tail k's ids; most tails are rare."""
        if k not in self._tails:
            self._tails[k] = _tail(cast(AdaptiveSoftmax, self._model.head), k)
        return self._tails[k]


class SingleRow:
    """A row that is read token by token, and what may follow it; see `ManyRows`.

    It is `lstmlm.nn.choosing.Scores` of the next id.

    Parameters
    ----------
    weights : RowWeights
        Of the network.
    state : State, of one row
        What was read before; the last layer's output says what may follow.
    """

    def __init__(self, weights: RowWeights, state: State) -> None:
        self._weights, self.edges = weights, weights.edges
        self._hidden, self._cell = list(state.hidden[:, 0].numpy()), list(state.cell[:, 0].numpy())
        self._seen: Row | None = None

    @property
    def state(self) -> State:
        """What was read so far."""
        hidden, cell = np.stack(self._hidden), np.stack(self._cell)
        return State(torch.from_numpy(hidden).unsqueeze(1), torch.from_numpy(cell).unsqueeze(1))

    @property
    def features(self) -> Tensor:
        """What the head needs to predict the next id, shape (1, D)."""
        return torch.from_numpy(self._features[np.newaxis])

    @property
    def _features(self) -> Row:
        if self._seen is None:
            self._seen = self._weights.project(self._hidden[-1])
        return self._seen

    def computing(self) -> AbstractContextManager[None]:
        """See `ManyRows.computing`; numpy needs no settings."""
        return nullcontext()

    @property
    def scores(self) -> "SingleRow":
        """Of the next id."""
        return self

    def read(self, ids: NDArray[np.int64]) -> None:
        """Read the next id, alone in its array."""
        self.read_token(int(ids[0]))

    def read_token(self, token: int) -> None:
        """Read the next id."""
        x = self._weights.embed(token)
        with self._weights.threads_of_layers:  # set once, not for each product
            for number, layer in enumerate(self._weights.layers):
                x, self._cell[number] = layer(x, self._hidden[number], self._cell[number])
                self._hidden[number] = x
        self._seen = None

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with this row: without it there is none."""

    def of_head(self) -> Logits:
        """See `lstmlm.nn.choosing.Scores.of_head`."""
        return self._weights.of_head(self._features)[np.newaxis]

    def of_tail(self, k: int, rows: list[int]) -> Logits:
        """See `lstmlm.nn.choosing.Scores.of_tail`; there is but one row."""
        return self._weights.of_tail(k)(self._features)[np.newaxis]

    def log_prob(self, token: int) -> float:
        """Return the log-probability of an id to be the next, in nats."""
        of_head, first = self.of_head()[0], self.edges[1]
        if token < first:
            return _log_prob(of_head, token)
        k = bisect(self.edges, token) - 2
        inside = self.of_tail(k, [0])[0]
        return _log_prob(of_head, first + k) + _log_prob(inside, token - self.edges[k + 1])


def rows_to_continue(
    model: RecurrentLM, features: Tensor, state: State, *, short: bool
) -> ManyRows | SingleRow:
    """Return rows to be continued; a single one by `SingleRow`, if the `short` way may be gone."""
    if short and len(features) == 1 and has_row_weights(model):
        return SingleRow(RowWeights(model), state)
    return ManyRows(model, features, state)


def has_row_weights(model: RecurrentLM) -> bool:
    """Return whether a network has `RowWeights`."""
    return not model.attends and model.device.type == "cpu"


def _log_prob(logits: Row, at: int) -> float:
    most = logits.max()
    norm = float(np.exp(logits - most).sum(dtype=np.float64))
    return float(logits[at] - most) - math.log(norm)


def _embedding(embedding: nn.Module, scale: float) -> Callable[[int], Row]:
    if isinstance(embedding, Int8Matrix):
        values, scales = embedding.values.numpy(), embedding.scales.numpy()
        return lambda token: values[token] * scales[token] * np.float32(scale)
    rows = cast(Tensor, embedding.weight).detach().numpy()
    return lambda token: rows[token] * rows.dtype.type(scale)


def _layer(layer: Any) -> Layer:
    """Return a recurrent layer's equations for a row."""
    if isinstance(layer, QuantizedLayer):
        return _quantized_layer(layer)
    of_x, of_h, *of_cell = (_product(*matrix) for matrix in layer.matrices())
    if not layer.cell_size:
        return lambda x, hidden, cell: (gru_row(of_x(x), of_h(hidden), hidden), cell)
    diagonal = getattr(layer, "weight_ch", None) if not of_cell else None
    peepholes = None if diagonal is None else diagonal.detach().numpy()

    def lstm(x: Row, hidden: Row, cell: Row) -> tuple[Row, Row]:
        gates = of_x(x) + of_h(hidden)
        for matrix in of_cell:
            gates += matrix(cell)
        return lstm_row(gates, cell, peepholes)

    return lstm


def _quantized_layer(layer: QuantizedLayer) -> Layer:
    matrix = _product(layer.matrix.rows, layer.bias)
    if layer.of_state is not None:
        of_state = _product(layer.of_state.rows, layer.bias_state)
        return lambda x, hidden, cell: (gru_row(matrix(x), of_state(hidden), hidden), cell)
    of_cell = None if layer.of_cell is None else _product(layer.of_cell.rows)
    peepholes = None if layer.peepholes is None else layer.peepholes.detach().numpy()

    def lstm(x: Row, hidden: Row, cell: Row) -> tuple[Row, Row]:
        gates = matrix(np.concatenate((x, hidden)))
        if of_cell is not None:
            gates += of_cell(cell)
        return lstm_row(gates, cell, peepholes)

    return lstm


def _head(head: Head) -> Product:
    """Return what gives the logits of the head's ids and of the tails' classes."""
    if not isinstance(head, AdaptiveSoftmax):
        large = isinstance(head.rows, Tensor) and head.rows.numel() >= MOST_WEIGHTS
        return _TurningHead(head) if large else _product(head.rows, head.bias)
    first = head.sizes[0]
    ids = _product(head.rows[:first], head.bias[:first])
    weight = head.cluster_weight.detach().numpy()
    bias = (head.cluster_bias + head.log_sizes).detach().numpy()
    return lambda x: np.concatenate((ids(x), weight.dot(x) + bias))


class _TurningHead:
    """A large softmax's product with a row, sooner done by columns when it is taken often.

    Columns as long as the vocabulary are added up two to three times as fast as as many short rows
    are multiplied. A copy that lies so is made for a model when one row has been continued by
    `TURN_AFTER` tokens: by then the slower products have cost about as much as making it.
    """

    def __init__(self, head: Head) -> None:
        self._head, self._left = head, TURN_AFTER
        self._by_rows = _product(head.rows, head.bias)
        self._bias = head.bias.detach().numpy()

    def __call__(self, x: Row) -> Row:
        if self._left:
            self._left -= 1
            if not self._left:
                self._columns = _columns(self._head)
            return self._by_rows(x)
        found: Row = x @ self._columns
        found += self._bias
        return found


def _columns(head: Head) -> Row:
    """Return a head's rows, shape (V, D), in memory column by column: shape (D, V)."""
    rows = cast(Tensor, head.rows)
    found = _TURNED.get(head)
    if found is None or found[0] != version(rows):  # somebody changed the weights
        found = _TURNED[head] = version(rows), rows.detach().T.contiguous().numpy()
    return found[1]


def _tail(head: AdaptiveSoftmax, k: int) -> Product:
    rows, biases = head.tail(k)
    project, ids = _product(head.projection(k), beside=rows), _product(rows, biases)
    return lambda x: ids(project(x))


def _product(
    weight: Weights, bias: Tensor | None = None, *, beside: Weights | None = None
) -> Product:
    """Return what multiplies a row with weights, (columns, D), and adds biases: (columns,)."""
    if isinstance(weight, Int8Rows):
        return _int8_product(weight, None if bias is None else bias.detach().numpy())

    rows, added = weight.detach().numpy(), None if bias is None else bias.detach().numpy()
    large = weight if beside is None else beside
    few = isinstance(large, Int8Rows) or large.numel() < MOST_WEIGHTS

    def multiply(x: Row) -> Row:
        with one_thread if few else nullcontext():
            found: Row = rows.dot(x)
        if added is not None:
            found += added
        return found

    return multiply


def _int8_product(rows: Int8Rows, bias: Row | None) -> Product:
    """Return what `Int8Rows.product` does, for a row of float32."""
    sums, scales = rows.sums_of_row(), rows.scales.numpy()

    def multiply(x: Row) -> Row:
        whole, scale = whole_row(x)
        found: Row = sums(whole)
        found *= scales
        found *= scale
        if bias is not None:
            found += bias
        return found

    return multiply
