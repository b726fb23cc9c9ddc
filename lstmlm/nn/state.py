"""The recurrent state as a value, and the letters of shapes.

Shapes in this wing and in `lstmlm.model` are spelled with

====== =================================================
B      batch: rows read side by side
T      time: tokens of a window
E      width of the embedding
H      width of a recurrent layer
V      vocabulary, the end mark included
L      number of recurrent layers
N      tokens that count, of all rows, in one axis
====== =================================================
"""

from typing import NamedTuple

import torch
from torch import Tensor


class State(NamedTuple):
    """What a recurrent model remembers: goes into each call and comes out of it, never stays.

    Parameters
    ----------
    hidden : Tensor, shape (L, B, H)
        Each layer's last output.
    cell : Tensor, shape (L, B, H)
        Each layer's cell.
    """

    hidden: Tensor
    cell: Tensor

    def rows(self, n_rows: int) -> "State":
        """Return the first `n_rows` rows."""
        return State(self.hidden[:, :n_rows], self.cell[:, :n_rows])

    def row(self, number: int) -> "State":
        """Return one row."""
        return State(self.hidden[:, number : number + 1], self.cell[:, number : number + 1])

    def select(self, rows: Tensor) -> "State":
        """Return the rows of the given numbers, shape (K,), in their order."""
        return State(self.hidden[:, rows], self.cell[:, rows])

    def below(self, n_rows: int) -> "State":
        """Return the rows from number `n_rows` on."""
        return State(self.hidden[:, n_rows:], self.cell[:, n_rows:])

    def repeat(self, n_rows: int) -> "State":
        """Return a single row `n_rows` times, each in memory of its own."""
        return State(self.hidden.repeat(1, n_rows, 1), self.cell.repeat(1, n_rows, 1))

    def put(self, rows: Tensor, state: "State") -> None:
        """Write another state's rows in place of the rows of the given numbers, shape (K,)."""
        self.hidden[:, rows] = state.hidden
        self.cell[:, rows] = state.cell

    def equals(self, state: "State") -> bool:
        """Return whether another state is the same."""
        return torch.equal(self.hidden, state.hidden) and torch.equal(self.cell, state.cell)

    def detach(self) -> "State":
        """Return the state cut off from the graph that computed it."""
        return State(self.hidden.detach(), self.cell.detach())

    @staticmethod
    def concatenate(states: "list[State]") -> "State":
        """Put the rows of several states one below another."""
        return State(
            torch.cat([state.hidden for state in states], dim=1),
            torch.cat([state.cell for state in states], dim=1),
        )
