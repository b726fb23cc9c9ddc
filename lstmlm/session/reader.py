"""Reading on: rows of ids of all lengths, each from a state of its own."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.continuing import RowWeights, SingleRow, has_row_weights
from lstmlm.decoding import Beginnings
from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.scoring import inference
from lstmlm.text import END, Ids, Tokenizer

READ_TOKENS = 1 << 13  # of all rows that are read at a time

FEW_TOKENS = 3  # of one stream, that are sooner read one by one


@dataclass(frozen=True)
class Reader:
    """What all streams of one model share.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    carries : bool
        Whether the state goes on from one text to the next; else each text starts from a fresh one.
    fingerprint : bytes
        What tells the model from all others.
    """

    model: RecurrentLM
    tokenizer: Tokenizer
    carries: bool
    fingerprint: bytes

    @cached_property
    def fresh(self) -> State:
        """The state before a text, of one row: an end mark has been read."""
        with inference(self.model):
            ids = torch.full((1, 1), END, device=self.model.device)
            return self.model.read(ids, self.model.zero_state(1))[1]

    def beginnings(self, state: State) -> Beginnings:
        """Return beginnings from a state of one row; those of the state before this are forgotten.

        They know what was read for someone who is typing a word.
        """
        known = self._latest.get("beginnings")
        if known is None or not known.state.equals(state):
            known = self._latest["beginnings"] = Beginnings(self.model, self.tokenizer, state)
        return known

    @cached_property
    def _latest(self) -> dict[str, Beginnings]:
        return {}

    def read(self, texts: list[Ids], state: State) -> tuple[list[NDArray[np.float32]], State]:
        """Read on, each row its own ids.

        Parameters
        ----------
        texts : list of B ndarrays of integers
            None is empty.
        state : State, of B rows
            What was read before; the last layer's output says how likely the next id is.

        Returns
        -------
        log_probs : list of B ndarrays of float32
            Of each id, in nats.
        state : State, of B rows
        """
        if len(texts) == 1:
            return self._read_one(texts[0], state)
        lengths = np.array([len(ids) for ids in texts])
        order: NDArray[np.int64] = np.argsort(-lengths, kind="stable")
        log_probs: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        after = State(torch.empty_like(state.hidden), torch.empty_like(state.cell))
        start = 0
        while start < len(order):
            rows = order[start : start + max(1, READ_TOKENS // int(lengths[order[start]]))]
            start += len(rows)
            picked = torch.from_numpy(rows).to(self.model.device)
            found = self._read_sorted([texts[row] for row in rows], state.select(picked))
            for row, of_row in zip(rows.tolist(), found[0], strict=True):
                log_probs[row] = of_row
            after.put(picked, found[1])
        return log_probs, after

    def _read_one(self, ids: Ids, state: State) -> tuple[list[NDArray[np.float32]], State]:
        with inference(self.model):
            if len(ids) <= FEW_TOKENS and has_row_weights(self.model):
                row, found = SingleRow(self._row_weights, state), []
                for token in ids.tolist():
                    found.append(row.log_prob(token))
                    row.read_token(token)
                return [np.array(found, dtype=np.float32)], row.state
            parts = []
            for start in range(0, len(ids), READ_TOKENS):
                nats, state = self._window(ids[None, start : start + READ_TOKENS], state)
                parts.append(-nats.cpu().numpy())
        return [parts[0] if len(parts) == 1 else np.concatenate(parts)], state

    @cached_property
    def _row_weights(self) -> RowWeights:
        return RowWeights(self.model)

    def _read_sorted(
        self, texts: list[Ids], state: State
    ) -> tuple[list[NDArray[np.float32]], State]:
        """Read rows, the longest first: in windows that end where one of them does."""
        lengths = np.array([len(ids) for ids in texts])
        padded = np.full((len(texts), int(lengths[0])), END, dtype=np.int32)
        for row, ids in enumerate(texts):
            padded[row, : len(ids)] = ids
        nats = np.empty(padded.shape, dtype=np.float32)
        done, at = state, 0
        with inference(self.model):
            for stop in np.unique(lengths).tolist():
                n_live = int((lengths > at).sum())
                window, state = self._window(padded[:n_live, at:stop], state.rows(n_live))
                nats[:n_live, at:stop] = window.reshape(n_live, -1).cpu().numpy()
                done = State.concatenate([state, done.below(n_live)])
                at = stop
        return [-row[:length] for row, length in zip(nats, lengths, strict=True)], done

    def _window(self, ids: Ids, state: State) -> tuple[Tensor, State]:
        """Return minus the log-probabilities of ids, shape (B * T,), and the state after them."""
        targets = torch.from_numpy(ids.astype(np.int64)).to(self.model.device)
        outputs, after = self.model.read(targets, state)
        before = state.hidden[-1].unsqueeze(1)
        if ids.shape[1] > 1:
            before = torch.cat([before, outputs[:, :-1]], dim=1)
        features = self.model.project(before.reshape(-1, before.shape[-1]))
        return self.model.head.nll(features, targets.reshape(-1)), after
