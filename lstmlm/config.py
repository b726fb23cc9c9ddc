"""Every setting of the library: its default, its range and what it means, once.

The estimator's parameters and the command line's options carry the same names; their defaults are
tested equal to, or generated from, the dataclasses here. A value may be ``"auto"`` where its rule
says so: `lstmlm.defaults` replaces those when a corpus is known.
"""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from lstmlm.errors import ParameterError, did_you_mean

AUTO: Literal["auto"] = "auto"
Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a setting may be, and its help text.

    Parameters
    ----------
    help : str
        One line for the command line and the documentation.
    kind : type
        int, float, bool or str; an int is taken where a float is due.
    choices : tuple of str
        For str: the values allowed; empty for any.
    low, high : float, optional
        The range, ends included.
    above, below : float, optional
        The range, ends excluded.
    auto, optional : bool
        Whether ``"auto"`` and None are allowed.
    many : bool
        Whether the value is a sequence of such, kept as a tuple; a single one stands for itself.
    """

    help: str
    kind: type
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    auto: bool = False
    optional: bool = False
    many: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Return `value` as a plain Python value, or raise ParameterError naming what is due."""
        if (value is None and self.optional) or (self.auto and _is_auto(value)):
            return value
        plain = self._all_plain(value) if self.many else _plain(value, self.kind)
        if plain is None or not self._holds(plain):
            wrong = f"{name}={value!r} is not valid; {name} is {self.due()}."
            raise ParameterError(wrong + did_you_mean(str(value), self.choices))
        return plain

    def due(self) -> str:
        """Describe the allowed values in words."""
        if self.choices:
            kinds = [" or ".join(map(repr, self.choices))]
        else:
            named = {int: "an integer", float: "a number", bool: "True or False", str: "a str"}
            kinds = [" ".join([named[self.kind], *self._bounds()])]
        if self.many:
            whole = " that is not empty" if self.kind is str else ""
            kinds = [f"{kinds[0]}{whole}, or several"]
        if self.auto:
            kinds.append('"auto"')
        if self.optional:
            kinds.append("None")
        return ", or ".join(kinds)

    def _bounds(self) -> list[str]:
        words: list[str] = []
        for text, bound in (
            ("at least", self.low),
            ("greater than", self.above),
            ("at most", self.high),
            ("less than", self.below),
        ):
            if bound is not None:
                words.append(f"{'and ' if words else ''}{text} {bound}")
        return words

    def _all_plain(self, value: Any) -> tuple[Any, ...] | None:
        several = value if isinstance(value, list | tuple | set | frozenset) else (value,)
        plain = tuple(_plain(one, self.kind) for one in several)
        return None if any(one in (None, "") for one in plain) else plain

    def _holds(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(map(self._holds, value))
        if self.choices:
            return value in self.choices
        if self.kind not in (int, float):
            return True
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == AUTO


def _plain(value: Any, kind: type) -> Any:
    """Return `value` as a plain `kind`, None where it is none; numpy's scalars are taken."""
    if kind is str:
        return str(value) if isinstance(value, str) else None
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind is bool:
        return bool(value) if is_bool else None
    due = numbers.Integral if kind is int else numbers.Real
    return kind(value) if isinstance(value, due) and not is_bool else None


def setting(default: Any, help: str, kind: type, **rule: Any) -> Any:
    """Make a dataclass field that carries its `Rule`."""
    return field(default=default, metadata={"rule": Rule(help=help, kind=kind, **rule)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the groups of settings: checks each field against its rule when it is made."""

    def __post_init__(self) -> None:
        for name, rule in self.rules().items():
            object.__setattr__(self, name, rule.check(name, getattr(self, name)))

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Return each field's rule by the field's name."""
        return {f.name: f.metadata["rule"] for f in fields(cls)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Take from a larger mapping the fields that belong here."""
        return cls(**{name: values[name] for name in cls.rules() if name in values})


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


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(Settings):
    """How text is generated: the names and meanings of Hugging Face's GenerationConfig.

    Parameters
    ----------
    max_new_tokens : int, default 100
        Tokens to write at most; a text that ends itself is shorter.
    min_new_tokens : int, default 0
        Tokens to write before a text may end.
    do_sample : bool, default True
        Draw each token from the model's distribution; False takes the likeliest.
    num_return_sequences : int, default 1
        Texts to write to each prompt. More than one need sampling.
    temperature : float, default 1.0
        The logits are divided by it before sampling: below 1 is bolder, above 1 is wilder.
    top_k : int, default 0
        Sample from the k likeliest tokens only; 0 for all.
    top_p : float, default 1.0
        Sample from the smallest set of likeliest tokens that holds this much probability
        (nucleus sampling; Holtzman et al. 2020, section 3.1).
    min_p : float, default 0.0
        Sample from the tokens at least this many times as likely as the likeliest (Nguyen et al.
        2024).
    repetition_penalty : float, default 1.0
        The log-probabilities of tokens that the prompt or the text has already are multiplied by it
        (Keskar et al. 2019, section 4.1): above 1 they become less likely.
    no_repeat_ngram_size : int, default 0
        No run of so many tokens is written that the prompt or the text has already; 0 for any.
    bad_words : sequence of str, optional
        Strings that are never written, however they are cut into tokens.
    stop_strings : sequence of str, optional
        Strings with which a text ends as soon as it has one.
    choices : sequence of str, optional
        The new text is one of these, drawn by their probability; where nothing is sampled, the
        likeliest.
    regex : str, optional
        A regular expression that the new text matches as a whole; see
        `lstmlm.decoding.constraints`.
    line_lengths : int or sequence of int, optional
        The new text has so many lines, each of so many characters.
    token_healing : bool, default True
        Whether a prompt that breaks off inside a word, or behind a space, is gone on with as the
        text was cut into tokens that begins like this.
    num_beams : int, default 1
        Above 1 the likeliest texts are searched for, this many hypotheses being kept at each step;
        nothing is drawn then.
    length_penalty : float, default 1.0
        Hypotheses are ranked by their log-probability divided by their length to this power: above
        0 longer ones rank higher, below 0 shorter ones.
    """

    max_new_tokens: int = setting(100, "Tokens to write at most.", int, low=0)
    min_new_tokens: int = setting(0, "Tokens to write before a text may end.", int, low=0)
    do_sample: bool = setting(True, "Sample; else take the likeliest token.", bool)
    num_return_sequences: int = setting(1, "Texts to write to each prompt.", int, low=1)
    temperature: float = setting(1.0, "Divides the logits before sampling.", float, above=0)
    top_k: int = setting(0, "Sample from the k likeliest tokens only; 0 for all.", int, low=0)
    top_p: float = setting(
        1.0, "Sample from the likeliest tokens that hold this probability.", float, above=0, high=1
    )
    min_p: float = setting(
        0.0, "Sample from tokens at least so many times as likely as the likeliest.", float,
        low=0, high=1,
    )  # fmt: skip
    repetition_penalty: float = setting(
        1.0, "Multiplies the log-probabilities of tokens that have been.", float, above=0
    )
    no_repeat_ngram_size: int = setting(
        0, "No run of so many tokens is written twice; 0 for any.", int, low=0
    )
    bad_words: tuple[str, ...] | None = setting(
        None, "Strings that are never written.", str, optional=True, many=True
    )
    stop_strings: tuple[str, ...] | None = setting(
        None, "Strings with which a text ends.", str, optional=True, many=True
    )
    choices: tuple[str, ...] | None = setting(
        None, "What the new text is one of.", str, optional=True, many=True
    )
    regex: str | None = setting(
        None, "A regular expression that the new text matches as a whole.", str, optional=True
    )
    line_lengths: tuple[int, ...] | None = setting(
        None, "Characters of each line of the new text.", int, low=1, optional=True, many=True
    )
    token_healing: bool = setting(True, "Let a prompt break off inside a word.", bool)
    num_beams: int = setting(1, "Hypotheses of a search for the likeliest text.", int, low=1)
    length_penalty: float = setting(
        1.0, "Above 0 a search prefers longer texts.", float, low=-10, high=10
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.num_return_sequences
        if self.num_beams > 1 and n > self.num_beams:
            raise ParameterError(
                f"num_return_sequences={n} is more than num_beams={self.num_beams}."
            )
        forms = [f for f in ("choices", "regex", "line_lengths") if getattr(self, f) is not None]
        for name in forms:
            if getattr(self, name) in ((), ""):
                raise ParameterError(f"{name} is empty; give one at least, or None.")
        if len(forms) > 1:
            raise ParameterError(f"{forms[0]} and {forms[1]} can't be had together; give one.")
        greedy = self.num_beams == 1 and not self.do_sample and self.choices is None
        if n > 1 and greedy:
            raise ParameterError(
                f"num_return_sequences={n} needs do_sample=True or num_beams: the likeliest tokens "
                "give a single text."
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise ParameterError(
                f"min_new_tokens={self.min_new_tokens} is more than "
                f"max_new_tokens={self.max_new_tokens}."
            )

    @classmethod
    def merged(cls, base: "DecodeConfig | Mapping[str, Any] | None", **changes: Any) -> Self:
        """Return a configuration with some options changed.

        Parameters
        ----------
        base : DecodeConfig, dict or None
            What an estimator has as its ``generation_config``.
        **changes
            Options, by name.

        Raises
        ------
        ParameterError
            For an option that doesn't exist, with the nearest one that does, or a value out of
            range.
        """
        given = _mapping(base) | changes
        known = cls.rules()
        for name in given:
            if name not in known:
                raise ParameterError(
                    f"{name!r} is not an option of generation; the options are "
                    f"{', '.join(known)}." + did_you_mean(str(name), known)
                )
        return cls(**given)


def _mapping(base: Any) -> dict[str, Any]:
    if base is None:
        return {}
    if isinstance(base, DecodeConfig):
        return {name: getattr(base, name) for name in base.rules()}
    if isinstance(base, Mapping):
        return dict(base)
    raise ParameterError(
        f"generation_config is a {type(base).__name__}; give a DecodeConfig, a dict of its options "
        "or None."
    )
