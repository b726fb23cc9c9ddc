"""What ``"auto"`` becomes: plain numbers that follow from the corpus and the device.

`lstmlm.config` says what may be set; this module fills in what was not.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from lstmlm.config import AUTO, ModelConfig, TextConfig, TrainConfig

ADAPTIVE_FROM = 5_000  # ids from which the adaptive softmax is the faster one by far
SMALL_VOCABULARY = 512  # ids up to which a vocabulary is one of characters
TOKENS_PER_FIT = 12_000_000  # what max_epochs="auto" reads in all, about
MAX_EPOCHS = 60
MAX_HELD_OUT = 200_000  # tokens that are held out at most: they are read after every epoch
STEP_OPERATIONS = 1_250  # as which the optimiser's step counts for each weight
MANY_PRODUCTS = 8_000_000  # a token, from which scoring is faster in bf16 by far
WIDE = 1_024  # units of the widest network, which is for words that are read
WIDE_PASSES = 6  # times or more, in the seconds given
LANES = 20  # of words, at least; more, up to
STEP_TOKENS = 2_240  # tokens a step (64 lanes of 35), where a pass has
STEPS = 900  # or more
CHAR_LANES = 16, 32  # of characters: from the least, where few are read, to the most for
CHARS = 6_000_000  # or more of them, and
CHAR_RATES = 6e-3, 4e-3  # the learning rates that go with them
WEIGHTS_A_TOKEN = 4.35  # of a text on which dropout follows from its passes alone
INPUT_NOISE = 0.2  # with which words of a large vocabulary are read
NOISY_PASSES = 15  # times or more, in a text that has `WEIGHTS_A_TOKEN`
DECAY_PASSES = 2.7  # over which weight decay alone would take a weight to 1/e of itself,
MIN_DECAY_STEPS = 100  # on very little text over so many steps a pass
PAIRS_A_STEP = 64
TAILS = (0.06, 2_000), (0.18, 6_000), (0.42, 14_000)  # shares of the ids, and the least of each
TAIL_WIDTH = 64  # dimensions
MIN_STEPS = 20  # steps of an epoch, however small the corpus: lanes are given up for them


def resolve_text(config: TextConfig, n_chars: int) -> TextConfig:
    """Settle the size of a learned bpe vocabulary: it grows with the square root of the text."""
    if config.vocab_size != AUTO:
        return config
    size = 8 * round(n_chars**0.5 / 8 * 4)
    return replace(config, vocab_size=min(max(size, 320), 32_768))


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What ``"auto"`` follows from: the corpus and the device.

    Parameters
    ----------
    n_tokens : int
        Training tokens, held-out ones included.
    vocab_size : int
        Ids.
    mean_length : float
        Tokens of a text.
    fast_bf16 : bool
        Whether products in bf16 are faster on the device than in float32.
    flops : float
        Guess of what the device computes a second in the products of a training; infinite where
        no seconds limit it.
    longest_pair : int
        Tokens of the longest pair of a prompt and a completion; 0 where texts are no pairs.
    by_word : bool
        Whether the tokens are words.
    """

    n_tokens: int
    vocab_size: int
    mean_length: float
    fast_bf16: bool
    flops: float
    longest_pair: int = 0
    by_word: bool = False


@dataclass(frozen=True)
class Width:
    """A width of the network, and what it is for: see `_suits`."""

    hidden: int
    embedding: int
    n_tokens: int  # of the text, or more
    reads: int  # tokens, or more, in the seconds given


WIDTHS = (
    Width(WIDE, 400, 1_000_000, 4_000_000),
    Width(512, 224, 300_000, 2_000_000),
    Width(256, 128, 50_000, 200_000),
    Width(128, 128, 0, 0),
)


def resolve(
    model: ModelConfig, train: TrainConfig, case: Circumstances
) -> tuple[ModelConfig, TrainConfig]:
    """Settle the network's sizes, then the training's pace, then the restraint that suits both."""
    given = None if model.hidden_size == AUTO else int(model.hidden_size)
    for width in WIDTHS:
        sized = _sized(model, train, case, width)
        if _suits(width, *sized, case) if given is None else given >= width.hidden:
            break
    model, train = sized
    n_passes = passes(model, train, case)
    model = replace(model, **_filled(model, _dropout(model, n_passes, case)))
    settled = _decay(train, n_passes, case) | _noise(model, n_passes, case)
    return model, replace(train, **_filled(train, settled))


def _sized(
    model: ModelConfig, train: TrainConfig, case: Circumstances, width: Width
) -> tuple[ModelConfig, TrainConfig]:
    model = replace(model, **_filled(model, _sizes(model, case, width)))
    return model, replace(train, **_filled(train, _pace(model, train, case)))


def _suits(width: Width, model: ModelConfig, train: TrainConfig, case: Circumstances) -> bool:
    """Return whether a network of this width learns more than a narrower one.

    Where seconds limit a fit, what a wider layer learns from a token is to outweigh that it reads
    fewer. In 150 s on one thread of a Zen 1 (33 GFLOP/s) 512 units read 230,000 words of WikiText-2
    and left a cross-entropy of 5.54 nats; 256 read 570,000, 128 read 770,000, and left 5.31 and
    5.34. Of characters 256 lost 2 % to 128 when they read 520,000, and gained 1 % with 1.6 million.
    On a thread with AMX 512 units, which read 2.7 million words, were half a per cent behind 256.

    In ten minutes of WikiText-2 on two cores with AMX 3.4 passes of 1,024 units left a test
    perplexity of 90.6, and 7.8 of 512 units, which score and write twice as fast, of 90.3; but
    further passes of those gain nothing, where sixteen of the wide one left 84.8. Of Tang poems 4.2
    passes of 1,024 units left 6.556 bits a character, and 7.8 of 512 units, in the same time on a
    slower processor, 6.509. Of few characters wider networks learned no more.
    """
    if case.n_tokens < width.n_tokens:
        return False
    limited = train.max_seconds is not None and not case.longest_pair
    n_passes = passes(model, train, case)
    often = limited and case.vocab_size > SMALL_VOCABULARY and n_passes >= WIDE_PASSES
    if width.hidden == WIDE and not often:
        return False
    return not limited or n_passes * case.n_tokens >= width.reads


def _sizes(config: ModelConfig, case: Circumstances, width: Width) -> dict[str, Any]:
    hidden = width.hidden if config.hidden_size == AUTO else int(config.hidden_size)
    embedding = 64 if case.vocab_size <= SMALL_VOCABULARY else width.embedding
    return {
        "output": "adaptive" if case.vocab_size >= ADAPTIVE_FROM else "softmax",
        "hidden_size": hidden,
        "embedding_dim": min(hidden, embedding),
        "num_layers": 1,
    }


def _pace(model: ModelConfig, train: TrainConfig, case: Circumstances) -> dict[str, Any]:
    by_char, n_tokens = case.vocab_size <= SMALL_VOCABULARY, max(1, case.n_tokens)
    window = 100 if by_char else 35
    if train.context == "document" and window < case.mean_length <= 2 * window:
        window = round(case.mean_length)  # most texts then need one window instead of two
    budget = max(1, min(MAX_EPOCHS, round(TOKENS_PER_FIT / n_tokens)))
    pace = {
        "max_epochs": budget if train.max_seconds is None else None,
        "bptt_length": window,
        "validation_fraction": _validation_fraction(n_tokens),
        "precision": "bf16" if case.fast_bf16 else "float32",
    }
    if case.longest_pair:  # pairs are read whole, and with so many a step enough steps are taken
        side_by_side = min(PAIRS_A_STEP, n_tokens / case.mean_length / MIN_STEPS)
        lanes = max(1, round(side_by_side * case.mean_length / case.longest_pair))
        pace |= {"bptt_length": case.longest_pair}
    else:
        most = _lanes(model, replace(train, **_filled(train, pace)), by_char, case)
        lanes = max(1, min(most, n_tokens // (MIN_STEPS * window)))
    pace |= {"batch_size": lanes}
    settled = replace(train, **_filled(train, pace))
    return pace | {"learning_rate": _rate(model, settled, by_char, case)}


def _lanes(model: ModelConfig, train: TrainConfig, by_char: bool, case: Circumstances) -> int:
    """Return how many lanes to read side by side, if the text is long enough.

    More of them take fewer steps, each of which goes further, and spread an optimiser's step over
    more tokens. In 150 s on WikiText-2 (AMX, one thread) 64 lanes left a perplexity of 121 where 20
    left 148; in four passes 98 where 20 left 114 in three, which took longer. But on an eighth of
    it, where 64 lanes leave 116 steps a pass, 191 where 20 left 178.
    """
    if by_char:
        return round(_between(CHAR_LANES, model, train, case))
    window = int(train.bptt_length)
    n_passes = min(1.0, passes(model, replace(train, batch_size=LANES), case))
    return max(LANES, round(min(STEP_TOKENS, n_passes * case.n_tokens / STEPS) / window))


def _rate(model: ModelConfig, train: TrainConfig, by_char: bool, case: Circumstances) -> float:
    """Let the rate of words grow with the square root of a step's tokens, as adaptive steps allow.

    So Malladi et al. (2022) found. With 64 lanes 9e-3 in place of 6e-3 took the held-out perplexity
    from 152 to 147; more was not tried.
    """
    if case.longest_pair:
        return 4e-3 if by_char else 6e-3
    if by_char:
        return round(_between(CHAR_RATES, model, train, case), 4)
    more = int(train.batch_size) * int(train.bptt_length) / (LANES * 35)
    return round(6e-3 * max(1.0, min(1.5, math.sqrt(more))), 4)


def _between(
    ends: tuple[float, float], model: ModelConfig, train: TrainConfig, case: Circumstances
) -> float:
    """Go from one end to the other as a training reads more characters: `CHARS` or more in the end.

    Where it reads few, shorter and more steps at a higher rate get further: 256 units read 1.9
    million of tinyshakespeare's in 150 s on one thread of a Zen 1 and left 1.685 nats with 32 lanes
    and 4e-3, 1.673 with 6e-3, 1.641 with 16 lanes, 1.620 with both; 8 lanes left 1.627.
    """
    reads = passes(model, replace(train, batch_size=CHAR_LANES[1]), case) * case.n_tokens
    share = min(1.0, reads / CHARS)
    return ends[0] + share * (ends[1] - ends[0])


def _dropout(model: ModelConfig, n_passes: float, case: Circumstances) -> dict[str, Any]:
    """Drop the more, the more often a text is read and the less text a weight has.

    With the weights a token of WikiText-2's two million words, 0.1 for one pass and 0.28 for six; a
    quarter of that text, which has three times as many, is better learned with 0.4 or 0.5 (found
    with embeddings of 320). But with more than 0.4 a narrower network in a minute on 260,000
    characters lost 5 %.
    """
    by_char, wide = case.vocab_size <= SMALL_VOCABULARY, int(model.hidden_size) >= WIDE
    wanted = 0.1 * math.log2(1 + n_passes * _crowding(model, case))
    rate = min(0.4, wanted)
    on_inputs = min(0.1, rate) if by_char else min(0.6, 1.2 * wanted) if wide else rate
    return {
        "dropout": round(rate, 2),
        "dropout_input": round(on_inputs, 2),
        "dropout_embedding": 0.0,
        "dropout_weight": 0.0,
    }


def _decay(config: TrainConfig, n_passes: float, case: Circumstances) -> dict[str, Any]:
    """Let weights forget over `DECAY_PASSES` of the text, if it is read more than once.

    It is this time that has an optimum for all sizes (Wang and Aitchison 2024, section 4); in steps
    of AdamW it is 1 / (learning rate * weight decay).
    """
    tokens_a_step = int(config.batch_size) * int(config.bptt_length)
    steps = max(case.n_tokens / tokens_a_step, MIN_DECAY_STEPS) * DECAY_PASSES
    rate = float(config.learning_rate)
    forgetting = 1 / (rate * steps) if rate and n_passes > 1 else 0.0
    return {"weight_decay": max(0.01, round(forgetting, 3))}


def _noise(model: ModelConfig, n_passes: float, case: Circumstances) -> dict[str, Any]:
    """Read words with noise, where they are read so often that they would be learned by heart.

    Eight passes over a quarter of WikiText-2, which has three times the whole's weights a token,
    gave a test perplexity 3 % lower for it, and held-out text gained from the fifth on. In six
    passes bpe lost by it, and in three a wide network, whose inputs are dropped more: 5 %.
    """
    words = case.by_word and case.vocab_size >= ADAPTIVE_FROM and not case.longest_pair
    words &= int(model.hidden_size) < WIDE
    often = n_passes * _crowding(model, case) >= NOISY_PASSES
    return {"input_noise": INPUT_NOISE if words and often else 0.0}


def passes(model: ModelConfig, train: TrainConfig, case: Circumstances) -> float:
    """Return how often a training will read its text: a guess where seconds limit it."""
    limits = [math.inf if train.max_epochs is None else float(train.max_epochs)]
    if train.max_seconds is not None:
        speed = case.flops / _operations(model, train, case.vocab_size)
        limits.append(train.max_seconds * speed / max(1, case.n_tokens))
    return min(limits)


def _operations(model: ModelConfig, train: TrainConfig, vocab_size: int) -> float:
    """Return what a token costs in training, in floating-point operations.

    Each weight of a product costs six (two forward, four backward). An optimiser's step takes as
    long as `STEP_OPERATIONS` for each weight: with a large vocabulary that is half of the time.
    """
    width, hidden = int(model.embedding_dim), int(model.hidden_size)
    recurrent = _recurrent_weights(model)
    rows = 1.75 * cutoffs(vocab_size)[0] if model.output == "adaptive" else vocab_size
    products = recurrent + width * (rows + hidden)
    weights = _weights(model, vocab_size)
    tokens_a_step = int(train.batch_size) * int(train.bptt_length)
    return 6 * products + STEP_OPERATIONS * weights / tokens_a_step


def _recurrent_weights(model: ModelConfig) -> int:
    width, hidden = int(model.embedding_dim), int(model.hidden_size)
    gates = 3 if model.cell == "gru" else 4
    befores = [width] + [hidden] * (int(model.num_layers) - 1)
    return sum(gates * hidden * (hidden + before) for before in befores)


def _weights(model: ModelConfig, vocab_size: int) -> int:
    width, hidden = int(model.embedding_dim), int(model.hidden_size)
    return _recurrent_weights(model) + width * (vocab_size + hidden)


def _crowding(model: ModelConfig, case: Circumstances) -> float:
    """Return how many weights there are for each token, in `WEIGHTS_A_TOKEN`."""
    return _weights(model, case.vocab_size) / max(1, case.n_tokens) / WEIGHTS_A_TOKEN


def _validation_fraction(n_tokens: int) -> float:
    """Hold out 2 %, but 10,000 tokens and no more than 200,000: within 10 % at any rate."""
    return min(0.1, max(0.02, 10_000 / n_tokens), MAX_HELD_OUT / n_tokens)


def scoring_precision(setting: str, n_products: int, *, fast_bf16: bool) -> str:
    """Return in which precision to score with a network that takes so many products a token.

    With few products bf16 gains little, and float32's figures are the same on every path.
    """
    if setting != AUTO:
        return setting
    return "bf16" if fast_bf16 and n_products >= MANY_PRODUCTS else "float32"


def wants_first_rows(vocab_size: int, seconds: float | None) -> bool:
    """Return whether to count neighbours for the embedding's first rows (`fitting.words`).

    That takes some seconds, and gains nothing for characters, all of which are soon learned. In one
    pass over WikiText-2 it gains 9 %, over three 7 % of the held-out perplexity; in six passes over
    a quarter of it and in twenty over 300,000 characters still 1 or 2 %.
    """
    return vocab_size > SMALL_VOCABULARY and (seconds is None or seconds >= 20)


def embedding_scale(vocab_size: int) -> float:
    """Return what embedded ids are multiplied by, from the number of ids.

    In 40 s on tinyshakespeare 4 instead of 1 took the held-out loss from 1.56 to 1.41 nats a
    character; in 600 s on WikiText-2, with 33,278 ids, it took the test perplexity from 121 to 129.
    """
    return 4.0 if vocab_size <= SMALL_VOCABULARY else 1.0


def cutoffs(vocab_size: int) -> list[int]:
    """Return where the adaptive softmax's tails begin: 6, 18 and 42 % of the ids, 2,000 at least.

    With two tails, from 12 and 36 % on, the perplexity is 0.6 % less after three passes over a
    quarter of WikiText-2, but a training step on all of it takes 18 % longer in float32.
    """
    edges = [max(least, round(share * vocab_size)) for share, least in TAILS]
    return [edge for edge in edges if edge < vocab_size] or [max(1, vocab_size // 2)]


def tail_width(width: int) -> int:
    """Return how many of the features' dimensions the adaptive softmax's tails see.

    In one pass over a quarter of WikiText-2 (features 224 wide) 32, 64 and 112 gave a perplexity of
    197, 195 and 199, all of them 202: rare ids have few examples to learn many dimensions from.
    """
    return min(width, TAIL_WIDTH)


def _filled(config: ModelConfig | TrainConfig, auto: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in auto.items() if getattr(config, name) == AUTO}
