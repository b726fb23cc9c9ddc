"""The peer for characters: a plain loop in PyTorch, as a careful person would write it in an hour.

One LSTM layer of 512, embeddings of 64, 32 lanes of 100 characters, dropout 0.2, products in bf16
where the processor has them, AdamW at 3e-3 with warm-up and one cosine over the time there is.
Texts are read as one stream, an end mark between them.
"""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

LANES, WINDOW, WIDTH, HIDDEN, DROPOUT, RATE = 32, 100, 64, 512, 0.2, 3e-3
HAS_BF16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))


class CharLM(nn.Module):
    """Embedding, an LSTM layer, a decoder of its own."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True)
        self.drop = nn.Dropout(DROPOUT)
        self.decoder = nn.Linear(HIDDEN, vocab_size)

    def forward(
        self, ids: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read a window, shape (B, T); return the next ids' logits and the state."""
        x, state = self.lstm(self.drop(self.embedding(ids)), state)
        return self.decoder(self.drop(x)), state


class CharLoop:
    """Its training.

    Parameters
    ----------
    texts : sequence of str
        The training text; id 0 ends a text, id 1 is any character that is not in it.
    """

    def __init__(self, texts: Sequence[str], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.ids = {character: n + 2 for n, character in enumerate(sorted(set("".join(texts))))}
        self.train = self.lanes(texts, LANES)
        self.model = CharLM(len(self.ids) + 2)

    def lanes(self, texts: Sequence[str], n_lanes: int) -> Tensor:
        """Return texts as lanes, shape (n_lanes, length)."""
        ids = [0] + [i for text in texts for i in [*(self.ids.get(c, 1) for c in text), 0]]
        length = len(ids) // n_lanes
        return torch.tensor(ids[: length * n_lanes]).view(n_lanes, length)

    def windows(self, lanes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets, window by window."""
        for at in range(0, lanes.shape[1] - 1, WINDOW):
            part = lanes[:, at : at + WINDOW + 1]
            yield part[:, :-1], part[:, 1:]

    def fit(self, seconds: float) -> float:
        """Train for a time; return the characters a second."""
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=RATE, betas=(0.9, 0.99))
        began, read = time.perf_counter(), 0
        while True:
            state = None
            for inputs, targets in self.windows(self.train):
                progress = (time.perf_counter() - began) / seconds
                if progress >= 1:
                    return read / seconds
                for group in optimiser.param_groups:
                    group["lr"] = RATE * min(
                        progress / 0.03, (1 + math.cos(math.pi * progress)) / 2
                    )
                with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
                    logits, state = self.model(inputs, state)
                    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
                state = (state[0].detach(), state[1].detach())
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimiser.step()
                read += targets.numel()

    @torch.no_grad()
    def nats(self, texts: Sequence[str]) -> float:
        """Return the mean loss a character of texts read as one stream, end marks counted."""
        self.model.eval()
        total, count, state = 0.0, 0, None
        for inputs, targets in self.windows(self.lanes(texts, 1)):
            logits, state = self.model(inputs, state)
            total += float(nn.functional.cross_entropy(logits[0], targets[0], reduction="sum"))
            count += targets.numel()
        self.model.train()
        return total / count
