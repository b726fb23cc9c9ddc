"""The recurrent language model: embedding, recurrent layers, output layer.

One `forward` serves training, scoring and generation: ids and a state go in, features and a state
come out. What is done with the features (a loss, log-probabilities, a choice) is the head's.
"""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from lstmlm.nn.cells import LSTM
from lstmlm.nn.dropout import locked_dropout
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
    output : {"softmax", "adaptive"}
        The output layer.
    cutoffs : list of int
        For "adaptive": the first id of each tail.
    tie_weights : bool
        Whether the output layer shares the embedding's rows (Press and Wolf 2017; Inan et al.
        2017). Where H is not E, the last layer's output is then projected to E.
    dropout, dropout_input : float in [0, 1)
        Locked dropout after each recurrent layer, and on the embedded ids.
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
        output: str = "softmax",
        cutoffs: list[int] | None = None,
        tie_weights: bool = True,
        dropout: float = 0.0,
        dropout_input: float = 0.0,
        embedding_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.dropout_input = dropout_input
        self.tie_weights = tie_weights
        self.embedding_scale = embedding_scale
        self.cutoffs = list(cutoffs or [])
        # With tied weights the head makes a dense gradient, to which a sparse one is cheaply added.
        self.embedding = nn.Embedding(vocab_size, embedding_dim, sparse=tie_weights)
        widths = [embedding_dim] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(LSTM(*pair) for pair in pairwise(widths))
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
        for layer in self.layers:
            layer.initialise(generator)  # type: ignore[operator]
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection.weight, generator=generator)
        self.head.initialise(generator, tied=self.tie_weights)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def zero_state(self, n_rows: int) -> State:
        """Return the state before any text, for `n_rows` rows."""
        zeros = self.embedding.weight.new_zeros(len(self.layers), n_rows, self.hidden_size)
        return State(zeros, zeros)

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
        hidden, state = self.read(ids, state, noise=noise)
        return self.project(hidden), state

    def read(
        self, ids: Tensor, state: State, *, noise: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Read a window of ids, the output layer's projection left out.

        Parameters
        ----------
        ids, state, noise
            See `forward`.

        Returns
        -------
        hidden : Tensor, shape (B, T, H)
            The last layer's output at each place.
        state : State
            After the last of the T ids.
        """
        x = locked_dropout(self.embedding(ids) * self.embedding_scale, self.dropout_input, noise)
        hidden, cell = [], []
        for number, layer in enumerate(self.layers):
            x, last_hidden, last_cell = layer.step(  # type: ignore[operator]
                x, state.hidden[number], state.cell[number]
            )
            x = locked_dropout(x, self.dropout, noise)
            hidden.append(last_hidden)
            cell.append(last_cell)
        return x, State(torch.stack(hidden), torch.stack(cell))

    def project(self, hidden: Tensor) -> Tensor:
        """Turn the last layer's output, shape (..., H), into the head's features, (..., D)."""
        return hidden if self.projection is None else self.projection(hidden)
