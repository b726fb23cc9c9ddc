"""What was summed over a text, and the figures that follow from it.

Inside the library there are only sums of nats (float64) and counts of units; this module is where
they are divided, once. Every unit's count includes one for each text's end mark, so that the
figures of one corpus in different units describe the same total.
"""

import math
from dataclasses import dataclass, fields

from lstmlm.errors import ParameterError, TextError, did_you_mean

UNITS = ("token", "word", "char", "byte")


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums over scored texts; tallies of disjoint texts add up with ``+``.

    Parameters
    ----------
    nats : float
        Minus the log-probability of all tokens, end marks included, in nats.
    texts, tokens, words, chars, bytes : int
        Counts of units. Tokens, words, characters and UTF-8 bytes each include one end mark a text.
    correct : int
        Tokens that the model thought likeliest at their place.
    unknown : int
        Tokens that were the unknown token.
    """

    nats: float = 0.0
    texts: int = 0
    tokens: int = 0
    words: int = 0
    chars: int = 0
    bytes: int = 0
    correct: int = 0
    unknown: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        names = [field.name for field in fields(self)]
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def count(self, per: str) -> int:
        """Return the number of units of one kind: "token", "word", "char" or "byte"."""
        if per not in UNITS:
            raise ParameterError(
                f"per={per!r} is not a unit; use one of {', '.join(map(repr, UNITS))}."
                + did_you_mean(str(per), UNITS)
            )
        return int(getattr(self, per + "s"))

    def perplexity(self, per: str = "token") -> float:
        """Return exp(nats / units).

        Raises
        ------
        TextError
            If nothing was scored.
        """
        units = self.count(per)
        if units == 0:
            raise TextError("perplexity of no texts: 0 texts came, at least one is needed.")
        return perplexity(self.nats, units)

    def bits(self, per: str) -> float:
        """Return the bits that one unit costs: nats / ln 2 / units."""
        return self.nats / math.log(2) / self.count(per)


def perplexity(nats: float, units: int) -> float:
    """Return exp(nats / units), infinity where that exceeds a float."""
    try:
        return math.exp(nats / units)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A corpus's figures, as `LSTMLanguageModel.evaluate` returns them.

    Parameters
    ----------
    n_texts : int
        Number of texts.
    n_tokens, n_words, n_chars, n_bytes : int
        Number of units, one end mark a text included in each.
    nats : float
        Minus the log-probability of the corpus, in nats.
    perplexity, word_perplexity : float
        exp(nats / units) for tokens and for words between white space.
    bits_per_char, bits_per_byte : float
        nats / ln 2 / units: what a compressor built on the model would need. Comparable between
        models of different lossless tokenizers.
    accuracy : float
        Share of tokens that the model thought likeliest at their place.
    unknown_rate : float
        Share of tokens that were the unknown token; where it is not 0, figures of models with
        different vocabularies don't compare.
    """

    n_texts: int
    n_tokens: int
    n_words: int
    n_chars: int
    n_bytes: int
    nats: float
    perplexity: float
    word_perplexity: float
    bits_per_char: float
    bits_per_byte: float
    accuracy: float
    unknown_rate: float

    @classmethod
    def from_tally(cls, tally: Tally) -> "Evaluation":
        """Divide the sums of a tally.

        Parameters
        ----------
        tally : Tally
            Of at least one text.
        """
        return cls(
            n_texts=tally.texts,
            n_tokens=tally.tokens,
            n_words=tally.words,
            n_chars=tally.chars,
            n_bytes=tally.bytes,
            nats=tally.nats,
            perplexity=tally.perplexity("token"),
            word_perplexity=tally.perplexity("word"),
            bits_per_char=tally.bits("char"),
            bits_per_byte=tally.bits("byte"),
            accuracy=tally.correct / tally.tokens,
            unknown_rate=tally.unknown / tally.tokens,
        )
