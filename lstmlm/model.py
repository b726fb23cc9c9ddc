"""The recurrent language model: embedding, recurrent layers, output layer.

One `forward` serves training, scoring and generation: ids and a state go in, features and a state
come out. What is done with the features (a loss, log-probabilities, a choice) is the head's.
"""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from lstmlm.nn.cells import Layer, make_layer
from lstmlm.nn.dropout import dropped_types, locked_dropout
from lstmlm.nn.heads import make_head
from lstmlm.nn.int8 import Int8Matrix
from lstmlm.nn.quantized import QuantizedLayer
from lstmlm.nn.rows import TrainedRows
from lstmlm.nn.state import State
from lstmlm.nn.stepping import product

READ_TOKENS = 8192  # tokens of beginnings that are read at a time


class RecurrentLM(nn.Module):
    """A recurrent language model over ids.

    Parameters
    ----------
    vocab_size : int
        Number of ids, V, the end mark among them.
    embedding_dim : int
        Width of the embedding, E.
    hidden_size : int
        Width of each recurrent layer, H.
    num_layers : int
        Number of recurrent layers, L.
    cell : {"lstm", "gru", "peephole_lstm"}
        Their kind.
    peephole : {"diagonal", "full"}
        For "peephole_lstm": see `lstmlm.nn.peephole`.
    output : {"softmax", "adaptive"}
        The output layer.
    cutoffs : list of int
        For "adaptive": the first id of each tail.
    tail_width : int, optional
        For "adaptive": how many dimensions the tails see; by default all.
    tie_weights : bool
        Whether the output layer shares the embedding's rows (Press and Wolf 2017; Inan et al.
        2017). Where H is not E, the last layer's output is then projected to E.
    dropout, dropout_input : float in [0, 1)
        Locked dropout after each recurrent layer, and on the embedded ids.
    dropout_embedding : float in [0, 1)
        Share of ids whose embedding is dropped, everywhere in a window.
    dropout_weight : float in [0, 1)
        Share of the recurrent matrices' weights that is dropped in a window.
    embedding_scale : float
        What embedded ids are multiplied by (Vaswani et al. 2017, section 3.4): rows that are shared
        with the output layer are best small there and may be best larger as inputs.
    quantized : bool
        Whether its large matrices are in int8, for reading alone; see `quantize`.
    """

    attends = False  # whether texts must be read as a whole, to be looked back at

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        cell: str = "lstm",
        peephole: str = "diagonal",
        output: str = "softmax",
        cutoffs: list[int] | None = None,
        tail_width: int | None = None,
        tie_weights: bool = True,
        dropout: float = 0.0,
        dropout_input: float = 0.0,
        dropout_embedding: float = 0.0,
        dropout_weight: float = 0.0,
        embedding_scale: float = 1.0,
        quantized: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.dropout_input = dropout_input
        self.dropout_embedding = dropout_embedding
        self.dropout_weight = dropout_weight
        self.tie_weights = tie_weights
        self.embedding_scale = embedding_scale
        self.cutoffs, self.tail_width = list(cutoffs or []), tail_width
        self.quantized = quantized
        self.embedding = (
            Int8Matrix(vocab_size, embedding_dim)
            if quantized
            else _embedding(vocab_size, embedding_dim)
        )
        widths = [embedding_dim] + [hidden_size] * num_layers
        make = QuantizedLayer if quantized else make_layer
        self.layers = nn.ModuleList(
            make(cell, *pair, peephole=peephole) for pair in pairwise(widths)
        )
        width = embedding_dim if tie_weights else hidden_size
        self.projection = (
            None if width == hidden_size else nn.Linear(hidden_size, width, bias=False)
        )
        rows: nn.Parameter | Int8Matrix | None = None
        if quantized:
            rows = (
                cast(Int8Matrix, self.embedding) if tie_weights else Int8Matrix(vocab_size, width)
            )
        elif tie_weights:
            rows = self._float_rows
        self.head = make_head(output, width, vocab_size, rows, self.cutoffs, tail_width)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights from a generator on the CPU."""
        std = self.embedding_dim**-0.5
        nn.init.normal_(self._float_rows, std=std, generator=generator)
        for layer in self._recurrent:
            layer.initialise(generator)
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection.weight, generator=generator)
        self.head.initialise(generator, tied=self.tie_weights)

    @property
    def of_vocabulary(self) -> dict[str, Any]:
        """The part of its architecture that followed from the vocabulary (`lstmlm.defaults`)."""
        names = ("cutoffs", "tail_width", "embedding_scale")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def embed(self, rows: Tensor) -> None:
        """Take rows, shape (V, E), as the embedding."""
        self._float_rows.copy_(rows)

    @torch.no_grad()
    def quantize(self, into: "RecurrentLM") -> "RecurrentLM":
        """Write the weights, rounded to int8, into a quantized network of the same architecture."""
        cast(Int8Matrix, into.embedding).take(self._float_rows)
        for layer, small in zip(self.layers, into.layers, strict=True):
            cast(QuantizedLayer, small).take(layer)
        if not self.tie_weights:
            cast(Int8Matrix, into.head.weight).take(cast(Tensor, self.head.weight))
        kept = dict(self.named_parameters())
        for name, parameter in into.named_parameters():
            if not name.startswith("layers."):
                parameter.copy_(kept[name])
        return into

    def tensors(self) -> dict[str, Tensor]:
        """Return all weights by their names, a shared one once."""
        kept = self.state_dict().keys()
        buffers = {name: buffer for name, buffer in self.named_buffers() if name in kept}
        return dict(self.named_parameters()) | buffers

    @property
    def _float_rows(self) -> nn.Parameter:
        """The embedding of a network that can be trained."""
        return cast(nn.Parameter, self.embedding.weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.bias.device

    @property
    def n_products(self) -> int:
        """How many weights a token is multiplied with, when it is read and the next one scored."""
        weights = [*self.layers.parameters(), *self.layers.buffers()]
        matrices = [weight for weight in weights if weight.ndim > 1]
        if self.projection is not None:
            matrices.append(cast(nn.Parameter, self.projection.weight))
        return sum(matrix.numel() for matrix in matrices) + self.head.n_products

    def zero_state(self, n_rows: int) -> State:
        """Return the state before any text, for `n_rows` rows."""
        depth, like = len(self.layers), self.head.bias
        hidden = like.new_zeros(depth, n_rows, self.hidden_size)
        return State(hidden, like.new_zeros(depth, n_rows, self._recurrent[0].cell_size))

    def forward(
        self, ids: Tensor, state: State, *, noise: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Read a window of ids.

        Parameters
        ----------
        ids : Tensor of int64, shape (B, T)
            The tokens that are read.
        state : State, of B rows
            What was read before.
        noise : torch.Generator, optional
            Where dropout's masks come from; None switches dropout off.

        Returns
        -------
        features : Tensor, shape (B, T, D)
            For each place, what the head needs to predict the next id.
        state : State
            After the last of the T ids, the graph that computed it attached.
        """
        outputs, state = self.read(ids, state, noise=noise)
        return self.project(self.drop(outputs, noise)), state

    def begin(self, ids: Tensor) -> tuple[Tensor, State]:
        """Read beginnings of texts from fresh states.

        Parameters
        ----------
        ids : Tensor of int64, shape (B, T)
            An end mark and what begins.

        Returns
        -------
        features : Tensor, shape (B, D)
            What the head needs to predict the next id.
        state : State, of B rows
        """
        state = self.zero_state(len(ids))
        for window in torch.split(ids, max(1, READ_TOKENS // len(ids)), dim=1):
            features, state = self(window, state)
        return features[:, -1], state

    def attend(self, outputs: Tensor, counted: Tensor) -> Tensor:
        """Return the last layer's outputs in view of what was read before them: as they are.

        Parameters
        ----------
        outputs : Tensor, shape (B, T, H)
            Of whole rows.
        counted : Tensor of bool, shape (B, T)
            Which places count; what is before the first of a row is its prompt.
        """
        return outputs

    def trained_rows(self) -> TrainedRows:
        """Return the embedding's and the output layer's rows in the parts that a training moves."""
        return TrainedRows(self._float_rows, self.head)

    def read(
        self,
        ids: Tensor,
        state: State,
        *,
        noise: torch.Generator | None = None,
        embedded: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Read a window of ids up to the last recurrent layer.

        Parameters
        ----------
        ids, state, noise
            See `forward`.
        embedded : Tensor, shape (B, T, E), optional
            What stands for the ids' rows of the embedding.

        Returns
        -------
        outputs : Tensor, shape (B, T, H)
            The last layer's hidden states, before dropout.
        state : State
        """
        x = dropped_types(
            (self.embedding(ids) if embedded is None else embedded) * self.embedding_scale,
            ids,
            self.vocab_size,
            self.dropout_embedding,
            noise,
        )
        x = locked_dropout(x, self.dropout_input, noise)
        if ids.shape[1] == 1 and noise is None and _steps_are_faster(x):
            return self._one_token(x[:, 0], state)
        hidden, cell = [], []
        for number, layer in enumerate(self._recurrent):
            if number:
                x = self.drop(x, noise)
            x, last_hidden, last_cell = layer.step(
                x,
                state.hidden[number],
                state.cell[number],
                weight_drop=self.dropout_weight,
                noise=noise,
            )
            hidden.append(last_hidden)
            cell.append(last_cell)
        return x, State(torch.stack(hidden), torch.stack(cell))

    def _one_token(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, cell = [], []
        for number, layer in enumerate(self._recurrent):
            x, last_cell = layer.one_token(x, state.hidden[number], state.cell[number])
            hidden.append(x)
            cell.append(last_cell)
        return x.unsqueeze(1), State(torch.stack(hidden), torch.stack(cell))

    def drop(self, outputs: Tensor, noise: torch.Generator | None) -> Tensor:
        """Drop features of a layer's outputs, shape (B, T, H), the same at all its T places."""
        return locked_dropout(outputs, self.dropout, noise)

    def project(self, outputs: Tensor) -> Tensor:
        """Return the head's features, shape (..., D), of the last layer's outputs, (..., H)."""
        if self.projection is None:
            return outputs
        return product(outputs, cast(nn.Parameter, self.projection.weight), None)

    @property
    def _recurrent(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))


def _embedding(n_rows: int, width: int) -> nn.Embedding:
    """Return an embedding of zeros: torch would draw weights that nobody wants."""
    embedding: nn.Embedding = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        torch.zeros(n_rows, width), freeze=False
    )
    return embedding


def _steps_are_faster(x: Tensor) -> bool:
    """Return whether a token is better read by plain products than by torch's fused kernels."""
    device = x.device.type
    return device == "cpu" and not torch.is_grad_enabled() and not torch.is_autocast_enabled(device)
