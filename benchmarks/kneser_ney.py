"""The peer that needs no training: an n-gram model with interpolated modified Kneser-Ney smoothing.

Chen and Goodman (1998), section 3 and equations 26 to 28, with the counts as KenLM's builder takes
them (Heafield et al. 2013): of the highest order and of what begins a sentence how often it occurs,
of all else how many types stand before it; the unigrams are mixed with the uniform distribution
over the vocabulary, the unknown word among it.

An n-gram is known by its id among those of its order, so that all counts are arrays. On WikiText-2,
of order 5, every line a sentence, it gives KenLM's test perplexity of 220.1.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
BEGIN, END, UNKNOWN = 0, 1, 2  # ids of the sentence's marks and of what was never seen
FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])


@dataclass(frozen=True)
class Order:
    """The n-grams of one order, sorted by key, and what smoothing needs of them.

    Parameters
    ----------
    keys : ndarray, shape (n,)
        First word and the rest's id among the next lower order, as one number.
    mass : ndarray, shape (n,)
        What each n-gram's discounted count is of all counts after its context.
    back_off : ndarray, shape (number of contexts,)
        What the lower order's probability is multiplied with after each context; 1 where the
        context was never seen.
    """

    keys: Ints
    mass: Floats
    back_off: Floats


class KneserNey:
    """An n-gram model of sentences.

    Parameters
    ----------
    sentences : sequence of sequences of str
        Words, or characters, without marks.
    order : int
        Words of the longest n-grams.
    """

    def __init__(self, sentences: Sequence[Sequence[str]], order: int = 5) -> None:
        self.order = order
        self.ids: dict[str, int] = {}
        for sentence in sentences:
            for word in sentence:
                self.ids.setdefault(word, len(self.ids) + 3)
        words, place = self._laid_out(sentences)
        grams, keys, samples = _numbered(words, place, order)
        self.orders: list[Order] = []
        for k in range(order):
            counts = _counts(k, order, words, grams, samples)
            self.orders.append(_smoothed(k, counts, keys[k], grams, samples[k]))

    @property
    def vocab_size(self) -> int:
        """Words that may come next: those seen, the end mark and the unknown word."""
        return len(self.ids) + 2

    def log_probs(self, sentences: Sequence[Sequence[str]]) -> Floats:
        """Return each word's log-probability in nats, in order, a sentence's end mark after it."""
        words, place = self._laid_out(sentences)
        probs = np.full(len(words), 1 / self.vocab_size)
        grams, n_below = np.zeros(len(words), dtype=np.int64), 1  # of the order below, ending here
        for k, order in enumerate(self.orders):
            contexts = np.where(place >= k, np.roll(grams, 1), -1)
            known = (place >= k) & (grams >= 0)
            grams = _find(order.keys, _key(words, grams, k, n_below), known)
            n_below = len(order.keys)
            mass = np.where(grams >= 0, order.mass[grams], 0.0)
            probs = mass + np.where(contexts >= 0, order.back_off[contexts], 1.0) * probs
        return np.log(probs[place > 0])

    def nats(self, sentences: Sequence[Sequence[str]]) -> float:
        """Return the mean loss a word, end marks counted."""
        return -float(self.log_probs(sentences).mean())

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """Return the perplexity a word, end marks counted."""
        return math.exp(self.nats(sentences))

    def arpa(self) -> Iterator[str]:
        """Yield the lines of the model in ARPA's format, as KenLM reads it.

        A word "<unk>" of the text stands for what was never seen, too.
        """
        written = ["<s>", "</s>", "<unk>", *self.ids]
        unseen = [] if "<unk>" in self.ids else [UNKNOWN]
        sizes = [len(order.keys) for order in self.orders]
        yield "\\data\\"
        for k, size in enumerate(sizes):
            yield f"ngram {k + 1}={size + len(unseen) * (k == 0)}"
        # Of the n-grams of the order below: their words, probabilities and beginnings.
        texts, probs = [""], np.array([1 / self.vocab_size])
        begins, n_below = np.zeros(1, dtype=np.int64), 1
        for k, order in enumerate(self.orders):
            firsts, rest = np.divmod(order.keys, len(probs))
            contexts = np.zeros(len(firsts), dtype=np.int64)
            if k:
                wanted = firsts * n_below + begins[rest]
                contexts = np.searchsorted(self.orders[k - 1].keys, wanted)
            n_below, begins = len(probs), contexts
            probs = order.mass + order.back_off[contexts] * probs[rest]
            texts = [f"{written[w]} {texts[r]}".rstrip() for w, r in zip(firsts, rest, strict=True)]
            after = np.ones(len(texts)) if k + 1 == self.order else self.orders[k + 1].back_off
            yield f"\n\\{k + 1}-grams:"
            if k == 0:
                probs[order.keys == BEGIN] = 1e-99
                for word in unseen:
                    yield f"{math.log10(order.back_off[0] / self.vocab_size)}\t{written[word]}\t0"
            for prob, text, back_off in zip(np.log10(probs), texts, np.log10(after), strict=True):
                yield f"{prob:.7g}\t{text}" + ("" if k + 1 == self.order else f"\t{back_off:.7g}")
        yield "\n\\end\\"

    def _laid_out(self, sentences: Sequence[Sequence[str]]) -> tuple[Ints, Ints]:
        """Return all words end to end with their marks, and each one's place in its sentence."""
        words: list[int] = []
        place: list[int] = []
        for sentence in sentences:
            words += [BEGIN, *(self.ids.get(word, UNKNOWN) for word in sentence), END]
            place += range(len(sentence) + 2)
        return np.array(words, dtype=np.int64), np.array(place, dtype=np.int64)


def _key(words: Ints, below: Ints, k: int, n_below: int) -> Ints:
    """Return the keys of the n-grams of k + 1 words that end at each place."""
    return np.roll(words, k) * n_below + np.maximum(below, 0)


def _find(keys: Ints, wanted: Ints, known: NDArray[np.bool_]) -> Ints:
    """Return the ids of n-grams by their keys, -1 for those that aren't there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(known & (keys[at] == wanted), at, -1)


def _numbered(words: Ints, place: Ints, order: int) -> tuple[list[Ints], list[Ints], list[Ints]]:
    """Give the n-grams of each order ids.

    Returns
    -------
    grams : list of ndarray
        For each order the id of the n-gram that ends at each place, -1 where none does.
    keys : list of ndarray
        For each order the n-grams' keys, sorted.
    samples : list of ndarray
        For each order a place where each n-gram ends.
    """
    grams: list[Ints] = []
    keys: list[Ints] = []
    samples: list[Ints] = []
    below, n_below = np.zeros(len(words), dtype=np.int64), 1
    for k in range(order):
        at = np.flatnonzero(place >= k)
        unique, first, inverse = np.unique(
            _key(words, below, k, n_below)[at], return_index=True, return_inverse=True
        )
        below = np.full(len(words), -1, dtype=np.int64)
        below[at] = inverse
        n_below = len(unique)
        grams.append(below)
        keys.append(unique)
        samples.append(at[first])
    return grams, keys, samples


def _counts(k: int, order: int, words: Ints, grams: list[Ints], samples: list[Ints]) -> Ints:
    """Return the counts that smoothing goes by, of the n-grams of k + 1 words."""
    counts = np.bincount(grams[k][grams[k] >= 0], minlength=len(samples[k]))
    if k + 1 < order:
        types_before = np.bincount(grams[k][samples[k + 1]], minlength=len(samples[k]))
        begins = words[samples[k] - k] == BEGIN
        counts = np.where(begins, counts, types_before)
    if k == 0:
        counts[words[samples[0]] == BEGIN] = 0  # which is never predicted
    return counts


def _smoothed(k: int, counts: Ints, keys: Ints, grams: list[Ints], samples: Ints) -> Order:
    contexts = grams[k - 1][samples - 1] if k else np.zeros(len(samples), dtype=np.int64)
    n_contexts = int(grams[k - 1].max()) + 1 if k else 1
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    sums = np.bincount(contexts, weights=counts, minlength=n_contexts)
    taken = np.bincount(contexts, weights=discounts, minlength=n_contexts)
    seen = sums > 0
    mass = (counts - discounts) / np.where(seen, sums, 1)[contexts]
    return Order(keys, mass, np.where(seen, taken / np.where(seen, sums, 1), 1.0))


def _discounts(counts: Ints) -> Floats:
    """Return what is taken from counts of 0, 1, 2, and 3 or more (equation 26).

    Where too few n-grams are rare for that, as single characters are, it is what KenLM's builder
    takes with --discount_fallback.
    """
    n = np.bincount(counts[counts > 0], minlength=5).astype(np.float64)[1:5]
    with np.errstate(divide="ignore", invalid="ignore"):
        y = n[0] / (n[0] + 2 * n[1])
        taken = np.array([0.0, *(i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3))])
    return taken if (taken >= 0).all() else FALLBACK
