"""Settings of text, network and training."""

from dataclasses import dataclass
from typing import Literal

from lstmlm.config.rules import AUTO, Auto, Settings, setting


@dataclass(frozen=True, kw_only=True)
class TextConfig(Settings):
    """How text becomes ids."""

    vocab_size: int | Auto = setting(
        AUTO, "Ids in all, the end mark included.", int, low=2, high=2**24, auto=True
    )
    min_frequency: int | Auto = setting(
        AUTO,
        "How often a type (for bpe: a merge) must occur in the training text.",
        int,
        low=1,
        auto=True,
    )
    lowercase: bool = setting(False, "Read all text in lower case.", bool)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """The network."""

    cell: Literal["lstm", "gru", "peephole_lstm"] = setting(
        "lstm", "Kind of recurrent layer.", str, choices=("lstm", "gru", "peephole_lstm")
    )
    peephole: Literal["diagonal", "full"] = setting(
        "diagonal",
        "For peephole_lstm: gates see the cell through vectors, or through matrices.",
        str,
        choices=("diagonal", "full"),
    )
    output: Literal["softmax", "adaptive"] | Auto = setting(
        AUTO,
        "Output layer; both give exact, normalised probabilities.",
        str,
        choices=("softmax", "adaptive"),
        auto=True,
    )
    embedding_dim: int | Auto = setting(
        AUTO, "Width of the embedding.", int, low=1, high=2**16, auto=True
    )
    hidden_size: int | Auto = setting(
        AUTO, "Width of each recurrent layer.", int, low=1, high=2**16, auto=True
    )
    num_layers: int | Auto = setting(AUTO, "Recurrent layers.", int, low=1, high=64, auto=True)
    tie_weights: bool = setting(True, "Share the embedding's rows with the output layer.", bool)
    dropout: float | Auto = setting(
        AUTO, "Dropout after each recurrent layer.", float, low=0, below=1, auto=True
    )
    dropout_input: float | Auto = setting(
        AUTO, "Dropout on the embedded tokens.", float, low=0, below=1, auto=True
    )
    dropout_embedding: float | Auto = setting(
        AUTO, "Share of types whose embedding is dropped.", float, low=0, below=1, auto=True
    )
    dropout_weight: float | Auto = setting(
        AUTO, "Share of the recurrent weights that is dropped.", float, low=0, below=1, auto=True
    )


@dataclass(frozen=True, kw_only=True)
class PairModelConfig(ModelConfig):
    """The network of a model that reads a prompt and writes a completion."""

    attention: bool = setting(False, "Look back at the prompt's states.", bool)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """The training."""

    context: Literal["document", "stream"] = setting(
        "document",
        "document: each text starts afresh; stream: the texts are consecutive parts of one.",
        str,
        choices=("document", "stream"),
    )
    max_epochs: int | Auto | None = setting(
        AUTO,
        "Passes over the text; auto follows from its size, and is no limit beside max_seconds.",
        int,
        low=0,
        auto=True,
        optional=True,
    )
    max_seconds: float | None = setting(
        None,
        "Seconds that fit may take, reading and held-out text included.",
        float,
        above=0,
        optional=True,
    )
    batch_size: int | Auto = setting(
        AUTO, "Lanes of text that are read side by side.", int, low=1, auto=True
    )
    bptt_length: int | Auto = setting(
        AUTO, "Tokens of a window of truncated back-propagation.", int, low=1, auto=True
    )
    learning_rate: float | Auto = setting(
        AUTO, "AdamW's step size at its largest.", float, low=0, auto=True
    )
    weight_decay: float | Auto = setting(
        AUTO, "AdamW's decoupled weight decay.", float, low=0, auto=True
    )
    clip_norm: float | None = setting(
        0.5, "Largest norm of a step's gradient; None for no limit.", float, above=0, optional=True
    )
    activation_penalty: float = setting(
        0.0, "Weight of the mean square of the last layer's dropped outputs.", float, low=0
    )
    temporal_penalty: float = setting(
        0.0, "Weight of the mean square of the last layer's steps.", float, low=0
    )
    input_noise: float | Auto = setting(
        AUTO,
        "Share of the tokens that are read as others, of those of which least is known.",
        float,
        low=0,
        below=1,
        auto=True,
    )
    early_stopping: bool = setting(
        True, "Hold text out, stop when it no longer gets better, keep the best weights.", bool
    )
    validation_fraction: float | Auto = setting(
        AUTO, "Share of the tokens that is held out.", float, above=0, below=1, auto=True
    )
    n_iter_no_change: int = setting(
        10, "Epochs without a better held-out loss that end the training.", int, low=1
    )
    precision: Literal["float32", "bf16"] | Auto = setting(
        AUTO,
        "Numbers of matrix products; auto: bf16 where the machine has it (scoring: if it pays).",
        str,
        choices=("float32", "bf16"),
        auto=True,
    )
