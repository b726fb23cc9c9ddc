"""The peer: a plain training loop for words, as PyTorch's word_language_model example has it.

Two LSTM layers of 200 with tied embeddings, a full softmax, SGD at 20 whose rate is divided by 4
when held-out text gets no better, 20 lanes, windows of 35, dropout 0.2, gradients clipped to 0.25.
Written from that example's description and defaults (pytorch/examples, word_language_model).
"""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

LANES, WINDOW, DROPOUT, CLIP, RATE = 20, 35, 0.2, 0.25, 20.0


class WordLM(nn.Module):
    """Embedding, two LSTM layers, a decoder that shares the embedding's rows."""

    def __init__(self, vocab_size: int, size: int = 200, layers: int = 2) -> None:
        super().__init__()
        self.drop = nn.Dropout(DROPOUT)
        self.embedding = nn.Embedding(vocab_size, size)
        self.lstm = nn.LSTM(size, size, layers, dropout=DROPOUT)
        self.decoder = nn.Linear(size, vocab_size)
        self.decoder.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(
        self, ids: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read a window, shape (T, B); return the next ids' log-probabilities and the state."""
        x, state = self.lstm(self.drop(self.embedding(ids)), state)
        logits = self.decoder(self.drop(x))
        return nn.functional.log_softmax(logits.flatten(0, 1), dim=1), state


class WordLoop:
    """Its training: ids by first appearance, an end mark after each line.

    Parameters
    ----------
    lines : list of str
        The training text. Held-out and test text hold no other words.
    """

    def __init__(self, lines: list[str], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.ids: dict[str, int] = {}
        self.train = self.lanes(lines, LANES)
        self.model = WordLM(len(self.ids))
        self.rate = RATE

    def lanes(self, lines: list[str], n_lanes: int) -> Tensor:
        """Return text as lanes, shape (length, n_lanes)."""
        words = [word for line in lines for word in [*line.split(), "<eos>"]]
        ids = torch.tensor([self.ids.setdefault(word, len(self.ids)) for word in words])
        length = len(ids) // n_lanes
        return ids[: length * n_lanes].view(n_lanes, length).T.contiguous()

    def steps(self) -> Iterator[int]:
        """Train for an epoch; yield each window's tokens."""
        self.model.train()
        state = None
        for at in range(0, len(self.train) - 1, WINDOW):
            length = min(WINDOW, len(self.train) - 1 - at)
            inputs, targets = self.train[at : at + length], self.train[at + 1 : at + 1 + length]
            self.model.zero_grad()
            state = state and (state[0].detach(), state[1].detach())
            log_probs, state = self.model(inputs, state)
            nn.functional.nll_loss(log_probs, targets.flatten()).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            for parameter in self.model.parameters():
                parameter.data.add_(parameter.grad, alpha=-self.rate)
            yield targets.numel()

    @torch.no_grad()
    def nats(self, lines: list[str], n_lanes: int = 10) -> float:
        """Return the mean loss on a text that is read in lanes, dropout off."""
        self.model.eval()
        text, total, state = self.lanes(lines, n_lanes), 0.0, None
        for at in range(0, len(text) - 1, WINDOW):
            length = min(WINDOW, len(text) - 1 - at)
            log_probs, state = self.model(text[at : at + length], state)
            targets = text[at + 1 : at + 1 + length].flatten()
            total += float(nn.functional.nll_loss(log_probs, targets, reduction="sum"))
        return total / ((len(text) - 1) * n_lanes)

    def speed(self, seconds: float) -> float:
        """Return the tokens a second of a training that lasts so long."""
        began, tokens = time.perf_counter(), 0
        for n_tokens in self.steps():
            tokens += n_tokens
            if time.perf_counter() - began >= seconds:
                break
        return tokens / (time.perf_counter() - began)

    def fit(self, seconds: float, valid: list[str]) -> float:
        """Train for a time, held-out text included; return the epochs that it was enough for."""
        began, best, tokens = time.perf_counter(), math.inf, 0
        while True:
            for n_tokens in self.steps():
                tokens += n_tokens
                if time.perf_counter() - began >= seconds:
                    return tokens / self.train.numel()
            if (loss := self.nats(valid)) >= best:
                self.rate /= 4
            best = min(best, loss)
