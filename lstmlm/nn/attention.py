r"""Attention to what was read before (Luong et al. 2015, sections 3 and 3.1, "global", "general").

With the outputs m_s of the last layer over a prompt, and its output h_t further on::

    a_t(s) = softmax_s(h_t^T W_a m_s)
    c_t    = sum_s a_t(s) m_s
    h'_t   = tanh(W_c [c_t; h_t])

h'_t goes to the output layer in place of h_t. It is not fed back into the recurrent layers, so that
all places of a window are computed side by side.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lstmlm.nn.state import State


class AttendingState(NamedTuple):
    """What a network with attention remembers: a `State`, and its outputs over the prompt.

    Parameters
    ----------
    hidden, cell : Tensor, shape (L, B, H)
        See `State`.
    memory : Tensor, shape (B, S, H)
        The last layer's outputs over the prompt, zeros behind them.
    lengths : Tensor of int64, shape (B,)
        How many there are.
    """

    hidden: Tensor
    cell: Tensor
    memory: Tensor
    lengths: Tensor

    def select(self, rows: Tensor) -> "AttendingState":
        """Return the rows of the given numbers, shape (K,), in their order."""
        return AttendingState(
            self.hidden[:, rows], self.cell[:, rows], self.memory[rows], self.lengths[rows]
        )

    @staticmethod
    def concatenate(states: "list[AttendingState]") -> "AttendingState":
        """Put the rows of several states one below another."""
        memories = [row for state in states for row in state.memory]
        return AttendingState(
            torch.cat([state.hidden for state in states], dim=1),
            torch.cat([state.cell for state in states], dim=1),
            nn.utils.rnn.pad_sequence(memories, batch_first=True),
            torch.cat([state.lengths for state in states]),
        )

    @property
    def recurrent(self) -> State:
        """The state of the recurrent layers."""
        return State(self.hidden, self.cell)


class Attention(nn.Module):
    """Looks at a prompt's outputs.

    Parameters
    ----------
    width : int
        Width of the outputs, H.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights from a generator on the CPU."""
        for layer in (self.score, self.combine):
            nn.init.xavier_uniform_(layer.weight, generator=generator)

    def weights(self, outputs: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Return how much each output looks at each place of its prompt.

        Parameters
        ----------
        outputs : Tensor, shape (B, T, H)
        memory : Tensor, shape (B, S, H)
        lengths : Tensor of int64, shape (B,)
            How many places of each row's memory there are.

        Returns
        -------
        Tensor, shape (B, T, S)
            Each row sums to 1.
        """
        scores = self.score(outputs) @ memory.transpose(1, 2)
        there = torch.arange(memory.shape[1], device=memory.device) < lengths.unsqueeze(1)
        shares: Tensor = scores.float().masked_fill(~there.unsqueeze(1), -torch.inf).softmax(-1)
        return shares

    def forward(self, outputs: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Return the outputs in view of their prompts, shape (B, T, H); see `weights`."""
        seen = self.weights(outputs, memory, lengths).to(memory.dtype) @ memory
        combined: Tensor = self.combine(torch.cat([seen, outputs.to(seen.dtype)], dim=-1))
        return combined.tanh().to(outputs.dtype)
