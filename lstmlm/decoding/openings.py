"""Text that breaks off anywhere: which ids may lie at its end, and how likely each way is.

A text that stops inside a word, or behind a space, was not cut into ids as the whole will be: the
ids of ``The quick bro`` are not the first ids of ``The quick brown``. But of the ids of any longer
text all those up to some place are the ids of the text up to there, and the next one reaches
beyond the end (Token healing; all places are weighed here, where Hugging Face's and guidance's
implementations back up over one id).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from lstmlm.decoding.beginnings import Beginnings, Reading
from lstmlm.decoding.sampling import read_prompts
from lstmlm.model import RecurrentLM
from lstmlm.scoring import inference
from lstmlm.text import CharClass, Ids, Tokenizer, char_class, given_and_held, readable

WORD_ENDS = 0.05  # probability from which a prompt is taken to end with a word


class Opening(NamedTuple):
    """A way in which a text that breaks off may be cut.

    Parameters
    ----------
    ids : tuple of int
        The ids up to some place.
    begun : bytes
        What stands behind it: the next id's bytes begin with it and go on. Empty at the end, where
        any id may follow.
    """

    ids: tuple[int, ...]
    begun: bytes


class Places(NamedTuple):
    """Openings that were read.

    Parameters
    ----------
    openings : list of B Openings
    readings : list of B Readings
        Of the openings' ids, and what follows; of the last one only if `step` is None.
    masses : ndarray of float64, shape (B,)
        The log-probability of each opening together with what it says of the next id.
    step : (Reading, int) or None
        What is to be read on, and by which id, for the last opening.
    """

    openings: list[Opening]
    readings: list[Reading]
    masses: NDArray[np.float64]
    step: tuple[Reading, int] | None = None

    @property
    def whole(self) -> float:
        """The log-probability of all openings together."""
        return float(np.logaddexp.reduce(self.masses))


def openings(tokenizer: Tokenizer, text: str) -> list[Opening]:
    """Return all ways to cut a text that breaks off; the last one is cut at its end.

    Parameters
    ----------
    tokenizer : Tokenizer
        One of the library's own kinds; of a foreign one the text is taken as it is cut.
    text : str
        Its end, from a safe cut on.
    """
    text = tokenizer.normalized(readable(text))
    if tokenizer.kind not in ("bpe", "word") or not text:
        return [Opening(tuple(tokenizer.encode([text])[0].tolist()), b"")]
    cuts = range(len(text)) if tokenizer.kind == "bpe" else [0]
    behind = [text[cut:].encode() for cut in cuts]
    near = [
        cut for cut, rest in zip(cuts, behind, strict=True) if len(rest) <= tokenizer.lexicon.reach
    ]
    encoded = tokenizer.encode([*(text[:cut] for cut in near), text])
    found: dict[Opening, None] = {}
    for cut, ids in zip([*near, len(text)], encoded, strict=True):
        begun = text[cut:].encode()
        for way in _inside_last(ids.tolist(), text[cut - 1 : cut].encode(), begun, tokenizer):
            if not way.begun or len(tokenizer.lexicon.longer(way.begun)):
                found[way] = None
    ways = list(found)
    if len(ways) > 1 and tokenizer.unknown_id in ways[-1].ids:
        ways.pop()  # the beginning of a known word is hardly ever an unknown one
    return ways


def _inside_last(
    ids: list[int], last: bytes, begun: bytes, tokenizer: Tokenizer
) -> Iterator[Opening]:
    """Yield the openings cut inside the last character of some ids, and behind it."""
    pieces, n_bytes = tokenizer.lexicon.pieces, 0
    for at in range(len(ids) - 1, -1, -1):
        n_bytes += len(pieces[ids[at]])
        if n_bytes >= len(last):
            break
        yield Opening(tuple(ids[:at]), last[-n_bytes:] + begun)
    yield Opening(tuple(ids), begun)


def read_openings(
    beginnings: Beginnings, ways: list[Opening], *, last_later: bool = False
) -> Places:
    """Read openings; what was read for the call before, and isn't of use for them, is forgotten.

    With `last_later` the one that is cut at the text's end is left to be read with what comes
    next, if a step leads to it: of someone who is typing it is the only one that isn't known.
    """
    beginnings.forget()
    step = None
    if last_later and not ways[-1].begun:
        beginnings.follow(beginnings.read(way.ids for way in ways[:-1]))
        step = beginnings.step_to(ways[-1].ids)
    now = ways[:-1] if step else ways
    readings = beginnings.follow(beginnings.read(way.ids for way in now))
    masses = [one.log_prob for one in readings]
    for row, way in enumerate(now):
        if way.begun:
            following = cast(Tensor, readings[row].following)
            longer = beginnings.tokenizer.lexicon.longer(way.begun)
            ids = torch.tensor(longer, device=following.device)
            masses[row] += float(following[ids].double().logsumexp(0))
    if step:
        masses.append(step[0].log_prob + float(cast(Tensor, step[0].following)[step[1]]))
    return Places(ways, readings, np.array(masses), step)


class Start(NamedTuple):
    """From where a prompt is continued.

    Parameters
    ----------
    ids : ndarray of integers
        The prompt's ids, but perhaps the last ones.
    after : str
        Text that is read for good: a prompt, or what of it has certain ids.
    held : str
        What of the prompt is behind it.
    n_held : int
        How many of the ids are of that.
    firsts : ndarray of int64, or None
        The ids that may follow: those that go on from what is left of the prompt; None for all.
    """

    ids: Ids
    after: str
    held: str = ""
    n_held: int = 0
    firsts: NDArray[np.int64] | None = None


def starts_of(
    model: RecurrentLM, tokenizer: Tokenizer, prompt: str, *, heal: bool = True
) -> tuple[list[Start], NDArray[np.float64]]:
    """Return from where a prompt that may break off inside a word, or behind a space, can go on.

    A prompt whose last word may well have ended there is taken as it is. Else each of its openings
    is a start: one that is drawn by its probability is the beginning of a text that is drawn from
    all of the model's texts that begin like the prompt.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    prompt : str
        The beginning of a text.
    heal : bool
        Whether it may break off; else it is taken as it is.

    Returns
    -------
    starts : list of Start
    probs : ndarray of float64, shape (n_starts,)
        Their probabilities.
    """
    whole = [Start(tokenizer.encode([prompt])[0], prompt)], np.ones(1)
    if not heal or tokenizer.kind not in ("bpe", "word"):
        return whole
    read, held = given_and_held(tokenizer, prompt)
    ways = openings(tokenizer, held)
    if len(ways) == 1 and not ways[0].begun:
        return whole
    certain = tokenizer.encode([read])[0]
    with inference(model):
        state = read_prompts(model, [certain])[1]
    places = read_openings(Beginnings(model, tokenizer, state), ways)
    if _has_ended(places, tokenizer, held):
        return whole
    starts = [
        Start(
            np.concatenate([certain, np.array(way.ids, dtype=certain.dtype)]),
            read,
            tokenizer.normalized(readable(held)),
            len(way.ids),
            tokenizer.lexicon.longer(way.begun) if way.begun else None,
        )
        for way in ways
    ]
    probs: NDArray[np.float64] = softmax(places.masses)
    return starts, probs


def _has_ended(places: Places, tokenizer: Tokenizer, text: str) -> bool:
    """Return whether a text may well have ended with a word, rather than inside of one."""
    of = char_class(text[-1])
    if places.openings[-1].begun or of == CharClass.SPACE:
        return False
    share = float(places.masses[-1]) - places.whole
    if tokenizer.kind == "bpe" and of != CharClass.UNSPACED:
        following = cast(Tensor, places.readings[-1].following)
        ends = torch.tensor(tokenizer.lexicon.ending[of], device=following.device)
        share += float(following[ends].double().logsumexp(0))
    return share >= math.log(WORD_ENDS)


def log_probs_of(beginnings: Beginnings, text: str, ends: Sequence[str]) -> NDArray[np.float64]:
    """Return the log-probability of each of several continuations of a text, in nats.

    Parameters
    ----------
    beginnings : Beginnings
        From what was read of the text.
    text : str
        Its end, which was not read since more text may change its ids.
    ends : sequence of str
        What may follow; each is read together with the end of the text.
    """
    encoded = beginnings.tokenizer.encode([text + end for end in ends])
    places = read_openings(beginnings, openings(beginnings.tokenizer, text))
    readings = beginnings.read(tuple(ids.tolist()) for ids in encoded)
    return np.array([one.log_prob - places.whole for one in readings])
