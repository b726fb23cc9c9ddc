"""Options of generation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from lstmlm.config.rules import Settings, setting
from lstmlm.errors import ParameterError, did_you_mean


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
