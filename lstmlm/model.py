"""The recurrent language model: embedding, recurrent layers, output layer.

One `forward` serves training, scoring and generation: ids and a state go in, features and a state
come out. What is done with the features (a loss, log-probabilities, a choice) is the head's.
"""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from lstmlm.nn.cells import Layer, make_layer
from lstmlm.nn.dropout import dropped_types, locked_dropout
from lstmlm.nn.heads import make_head
from lstmlm.nn.state import State


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
    """

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
        tie_weights: bool = True,
        dropout: float = 0.0,
        dropout_input: float = 0.0,
        dropout_embedding: float = 0.0,
        dropout_weight: float = 0.0,
        embedding_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.dropout_input = dropout_input
        self.dropout_embedding = dropout_embedding
        self.dropout_weight = dropout_weight
        self.tie_weights = tie_weights
        self.embedding_scale = embedding_scale
        self.cutoffs = list(cutoffs or [])
        # With tied weights the head makes a dense gradient, to which a sparse one is cheaply added.
        self.embedding = nn.Embedding(vocab_size, embedding_dim, sparse=tie_weights)
        widths = [embedding_dim] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(
            make_layer(cell, *pair, peephole=peephole) for pair in pairwise(widths)
        )
        width = embedding_dim if tie_weights else hidden_size
        self.projection = (
            None if width == hidden_size else nn.Linear(hidden_size, width, bias=False)
        )
        shared = cast(nn.Parameter, self.embedding.weight) if tie_weights else None
        self.head = make_head(output, width, vocab_size, shared, self.cutoffs)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights from a generator on the CPU."""
        width = self.embedding.embedding_dim
        nn.init.normal_(self.embedding.weight, std=width**-0.5, generator=generator)
        for layer in self._recurrent:
            layer.initialise(generator)
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection.weight, generator=generator)
        self.head.initialise(generator, tied=self.tie_weights)

    @torch.no_grad()
    def embed(self, rows: Tensor) -> None:
        """Take rows, shape (V, E), as the embedding."""
        self.embedding.weight.copy_(rows)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    @property
    def n_products(self) -> int:
        """How many weights a token is multiplied with, when it is read and the next one scored."""
        matrices = [p for layer in self.layers for p in layer.parameters() if p.ndim > 1]
        if self.projection is not None:
            matrices.append(cast(nn.Parameter, self.projection.weight))
        return sum(matrix.numel() for matrix in matrices) + self.head.n_products

    def zero_state(self, n_rows: int) -> State:
        """Return the state before any text, for `n_rows` rows."""
        depth, weight = len(self.layers), self.embedding.weight
        hidden = weight.new_zeros(depth, n_rows, self.hidden_size)
        return State(hidden, weight.new_zeros(depth, n_rows, self._recurrent[0].cell_size))

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

    def read(
        self, ids: Tensor, state: State, *, noise: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Read a window of ids up to the last recurrent layer.

        Parameters
        ----------
        ids, state, noise
            See `forward`.

        Returns
        -------
        outputs : Tensor, shape (B, T, H)
            The last layer's hidden states, before dropout.
        state : State
        """
        x = dropped_types(
            self.embedding(ids) * self.embedding_scale,
            ids,
            self.vocab_size,
            self.dropout_embedding,
            noise,
        )
        x = locked_dropout(x, self.dropout_input, noise)
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

    def drop(self, outputs: Tensor, noise: torch.Generator | None) -> Tensor:
        """Drop features of a layer's outputs, shape (B, T, H), the same at all its T places."""
        return locked_dropout(outputs, self.dropout, noise)

    def project(self, outputs: Tensor) -> Tensor:
        """Return the head's features, shape (..., D), of the last layer's outputs, (..., H)."""
        return outputs if self.projection is None else cast(Tensor, self.projection(outputs))

    @property
    def _recurrent(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))
