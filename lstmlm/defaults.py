"""What ``"auto"`` becomes: plain numbers that follow from the corpus and the device.

`lstmlm.config` says what may be set; this module fills in what was not.
"""

from dataclasses import replace
from typing import Any

from lstmlm.config import AUTO, ModelConfig, TextConfig, TrainConfig

ADAPTIVE_FROM = 5_000  # ids from which the adaptive softmax is the faster one by far
SMALL_VOCABULARY = 512  # ids up to which a vocabulary is one of characters
TOKENS_PER_FIT = 12_000_000  # what max_epochs="auto" reads in all, about
MAX_EPOCHS = 60
MAX_HELD_OUT = 200_000  # tokens that are held out at most: they are read after every epoch
MIN_STEPS = 20  # steps of an epoch, however small the corpus: lanes are given up for them


def resolve_text(config: TextConfig, n_chars: int) -> TextConfig:
    """Settle the size of a learned bpe vocabulary: it grows with the square root of the text."""
    if config.vocab_size != AUTO:
        return config
    size = 8 * round(n_chars**0.5 / 8 * 4)
    return replace(config, vocab_size=min(max(size, 320), 32_768))


def resolve_model(config: ModelConfig, *, n_tokens: int, vocab_size: int) -> ModelConfig:
    """Settle the network's sizes from the number of training tokens and of ids."""
    hidden = _by_size(n_tokens, {0: 128, 50_000: 256, 300_000: 512})
    if config.hidden_size != AUTO:
        hidden = config.hidden_size
    embedding = min(hidden, 64 if vocab_size <= SMALL_VOCABULARY else 320)
    small = n_tokens < 300_000
    auto: dict[str, Any] = {
        "output": "adaptive" if vocab_size >= ADAPTIVE_FROM else "softmax",
        "hidden_size": hidden,
        "embedding_dim": embedding,
        "num_layers": 1,
        "dropout": 0.4 if small else 0.3,
        "dropout_input": 0.1 if vocab_size <= SMALL_VOCABULARY else 0.3,
        "dropout_embedding": 0.0,
        "dropout_weight": 0.0,
    }
    return replace(config, **_filled(config, auto))


def resolve_train(
    config: TrainConfig, *, n_tokens: int, vocab_size: int, mean_length: float, fast_bf16: bool
) -> TrainConfig:
    """Settle the training's pace from the number of tokens, of ids and the texts' length."""
    by_char = vocab_size <= SMALL_VOCABULARY
    budget = max(1, min(MAX_EPOCHS, round(TOKENS_PER_FIT / max(1, n_tokens))))
    window = 100 if by_char else 35
    if config.context == "document" and window < mean_length <= 2 * window:
        window = round(mean_length)  # most texts then need one window instead of two
    auto: dict[str, Any] = {
        "max_epochs": budget if config.max_seconds is None else None,
        "batch_size": max(1, min(32 if by_char else 20, n_tokens // (MIN_STEPS * window))),
        "bptt_length": window,
        "learning_rate": 6e-3 if by_char else 4e-3,
        "validation_fraction": _validation_fraction(max(1, n_tokens)),
        "precision": "bf16" if fast_bf16 else "float32",
    }
    return replace(config, **_filled(config, auto))


def _validation_fraction(n_tokens: int) -> float:
    """Hold out 2 %, but 10,000 tokens and no more than 200,000: within 10 % at any rate."""
    return min(0.1, max(0.02, 10_000 / n_tokens), MAX_HELD_OUT / n_tokens)


def wants_first_rows(vocab_size: int, seconds: float | None) -> bool:
    """Return whether to count neighbours for the embedding's first rows (`fitting.cooccurrence`).

    That takes some seconds, and gains nothing for characters, all of which are soon learned.
    """
    return vocab_size > SMALL_VOCABULARY and (seconds is None or seconds >= 20)


def embedding_scale(vocab_size: int) -> float:
    """Return what embedded ids are multiplied by, from the number of ids.

    In 40 s on tinyshakespeare 4 instead of 1 took the held-out loss from 1.56 to 1.41 nats a
    character; in 600 s on WikiText-2, with 33,278 ids, it took the test perplexity from 121 to 129.
    """
    return 4.0 if vocab_size <= SMALL_VOCABULARY else 1.0


def cutoffs(vocab_size: int) -> list[int]:
    """Return where the adaptive softmax's tails begin: 12 % and 36 % of the ids, 2,000 at least."""
    edges = [max(2_000, round(0.12 * vocab_size)), max(6_000, round(0.36 * vocab_size))]
    return [edge for edge in edges if edge < vocab_size] or [max(1, vocab_size // 2)]


def _filled(config: ModelConfig | TrainConfig, auto: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in auto.items() if getattr(config, name) == AUTO}


def _by_size(n_tokens: int, steps: dict[int, int]) -> int:
    """Return the value of the largest step that `n_tokens` reaches."""
    return steps[max(size for size in steps if size <= n_tokens)]
