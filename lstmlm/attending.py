"""The language model that looks back at a prompt: see `lstmlm.nn.attention`."""

from typing import Any

import torch
from torch import Tensor

from lstmlm.model import RecurrentLM
from lstmlm.nn.attention import AttendingState, Attention


class AttendingLM(RecurrentLM):
    """A recurrent language model whose outputs over a completion look at the prompt's.

    Parameters
    ----------
    **architecture
        Of `RecurrentLM`.
    """

    attends = True

    def __init__(self, **architecture: Any) -> None:
        super().__init__(**architecture)
        self.attention = Attention(self.hidden_size)

    def initialise(self, generator: torch.Generator) -> None:
        """See `RecurrentLM.initialise`."""
        super().initialise(generator)
        self.attention.initialise(generator)

    def attend(self, outputs: Tensor, counted: Tensor) -> Tensor:
        """See `RecurrentLM.attend`: what is before a row's first counted place is its prompt."""
        memory, lengths = _prompts(outputs, counted)
        if not len(outputs) or not memory.shape[1]:
            return outputs
        first = int(lengths.min())
        seen = self.attention(outputs[:, first:], memory, lengths)
        return torch.cat([outputs[:, :first], seen], dim=1)

    def attention_weights(self, ids: Tensor, first: int) -> Tensor:
        """Return how a completion looks at its prompt.

        Parameters
        ----------
        ids : Tensor of int64, shape (T,)
            An end mark, the prompt, an end mark and the completion.
        first : int
            The place of the second end mark, which predicts the completion's first id.

        Returns
        -------
        Tensor, shape (T - first, first)
            For each id of the completion and the end mark behind it, each id of the prompt and the
            end mark behind that.
        """
        outputs, _ = self.read(ids.unsqueeze(0), self.zero_state(1))
        lengths = torch.tensor([first], device=outputs.device)
        return self.attention.weights(outputs[:, first:], outputs[:, 1 : first + 1], lengths)[0]

    def begin(self, ids: Tensor) -> tuple[Tensor, AttendingState]:  # type: ignore[override]
        """See `RecurrentLM.begin`; what is read is kept to be looked at."""
        outputs, state = self.read(ids, self.zero_state(len(ids)))
        memory = outputs[:, 1:]
        lengths = torch.full((len(ids),), memory.shape[1], device=memory.device)
        seen = self.attention(outputs[:, -1:], memory, lengths)
        return self.project(seen[:, -1]), AttendingState(*state, memory, lengths)

    def forward(  # type: ignore[override]
        self, ids: Tensor, state: AttendingState, *, noise: torch.Generator | None = None
    ) -> tuple[Tensor, AttendingState]:
        """See `RecurrentLM.forward`: read on after a prompt that `begin` has read."""
        outputs, after = self.read(ids, state.recurrent, noise=noise)
        seen = self.attention(self.drop(outputs, noise), state.memory, state.lengths)
        return self.project(seen), AttendingState(*after, state.memory, state.lengths)


def _prompts(outputs: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs over each row's prompt, shape (B, S, H), and their number, shape (B,)."""
    lengths = counted.int().argmax(1)
    return outputs[:, 1 : int(lengths.max()) + 1], lengths


def make_network(architecture: dict[str, Any]) -> RecurrentLM:
    """Make the network of an architecture, with ``attention`` or without."""
    plain = {name: value for name, value in architecture.items() if name != "attention"}
    return (AttendingLM if architecture.get("attention") else RecurrentLM)(**plain)
