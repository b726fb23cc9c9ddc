"""Pieces, and the characters by which they belong to tokens.

A piece is a token of the language model's own. It belongs to the spaCy token that holds its first
character other than white space; a piece of white space alone goes to the next token with such a
character. What follows the last one, and the end mark, stay with the Doc. So what all tokens own
and what stays add up to the Doc's own figure, for any tokenizer and any text.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Unicode's White_Space, and no more than that: str.isspace counts U+001C to U+001F as well.
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_IS_WHITE = np.zeros(0x3002, dtype=np.bool_)  # by code point; none that are higher is
_IS_WHITE[[ord(one) for one in _WHITE_SPACE]] = True


class Sum(NamedTuple):
    """Some pieces taken together: their log-probabilities' sum in nats, and how many they are."""

    nats: float
    n_pieces: int

    @property
    def perplexity(self) -> float:
        """Return exp of minus the mean log-probability a piece."""
        try:
            return math.exp(-self.nats / self.n_pieces)
        except OverflowError:
            return math.inf


class Pieces(NamedTuple):
    """What a Doc keeps of its scores.

    Parameters
    ----------
    n_chars : int
        Characters of the Doc's text.
    owners : ndarray of int32, shape (n_pieces,)
        The character by which each piece belongs to a token, never falling; `n_chars` stands for
        none: the Doc's alone.
    log_probs : ndarray of float32, shape (n_pieces,)
        In nats; the end mark's last.
    """

    n_chars: int
    owners: NDArray[np.int32]
    log_probs: NDArray[np.float32]

    def total(self) -> Sum:
        """Return the sum over all pieces, the end mark among them."""
        return _sum(self.log_probs)

    def between(self, start: int, end: int) -> Sum | None:
        """Return the sum over the pieces that belong to some characters; None if none do."""
        first, last = self._edges([start, min(end, self.n_chars)])
        return _sum(self.log_probs[first:last]) if first < last else None

    def by_token(self, starts: Iterable[int]) -> list[float | None]:
        """Return the log-probability of each token, None for one that owns nothing.

        Parameters
        ----------
        starts : iterable of int
            Where each token of the Doc starts.
        """
        edges = pairwise(self._edges([*starts, self.n_chars]))
        return [_sum(self.log_probs[a:b]).nats if a < b else None for a, b in edges]

    def _edges(self, chars: list[int]) -> list[int]:
        """Return how many pieces belong to characters before each of some."""
        wanted = np.array(chars, dtype=self.owners.dtype)  # else all owners would be converted
        edges: list[int] = self.owners.searchsorted(wanted).tolist()
        return edges


def owning_characters(text: str, starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the character by which each piece belongs to a token.

    Parameters
    ----------
    text : str
        The Doc's text.
    starts : ndarray of int64, shape (n_pieces,)
        Where in it each piece starts, never falling.

    Returns
    -------
    ndarray of int32, shape (n_pieces,)
        The first character other than white space from there on; ``len(text)`` if there is none.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    seen = np.flatnonzero(~_IS_WHITE[np.minimum(codes, len(_IS_WHITE) - 1)])
    return np.append(seen, len(text))[seen.searchsorted(starts)].astype(np.int32)


def _sum(log_probs: NDArray[np.float32]) -> Sum:
    return Sum(float(log_probs.sum(dtype=np.float64)), len(log_probs))
