"""What could come next: tokens, words or lines, the likeliest first.

Words and lines are searched for by a beam over the state. A word has ended if the next id begins
something else, so that its probability holds that of its end; the same letters cut into other ids
are one suggestion, whose probabilities add up.
"""

import codecs
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from lstmlm.config import Rule
from lstmlm.decoding.beginnings import Beginnings, Reading
from lstmlm.decoding.openings import Opening, openings, read_openings
from lstmlm.nn.threads import one_thread
from lstmlm.scoring import inference
from lstmlm.text import END, FOREIGN, UNKNOWN, WHITE_SPACE, CharClass, Tokenizer, char_class

Unit = Literal["token", "word", "line"]
UNITS: tuple[Unit, ...] = ("token", "word", "line")
_N_RULE = Rule(help="How many suggestions.", kind=int, low=1)
_UNIT_RULE = Rule(help="What to suggest.", kind=str, choices=UNITS)
COMPLETING = ("max_new_tokens", "num_beams", "bad_words", "choices")  # options of suggestions
MIN_BEAMS = 16  # hypotheses that a search for suggestions keeps at least,
AT_A_TIME = 7  # and reads side by side: with the last opening eight


class Completion(NamedTuple):
    """What could come next.

    Parameters
    ----------
    text : str
        What to append.
    log_prob : float
        Its log-probability given the text before it, in nats.
    """

    text: str
    log_prob: float


class NextToken(NamedTuple):
    """A token that may come next.

    Parameters
    ----------
    text : str
        Its text; the end mark's is ``""``.
    prob : float
        Its probability.
    """

    text: str
    prob: float


class _Growing(NamedTuple):
    """A suggestion that goes on: its bytes, what was read of it but its last id, and that."""

    data: bytes
    log_prob: float
    reading: Reading
    token: int


@dataclass
class _Search:
    """What a search has found."""

    n: int
    wanted: Callable[[str], bool]
    of_tokens: bool = False  # which may be white space
    found: dict[str, float] = field(default_factory=dict)

    def add(self, data: bytes, log_prob: float) -> None:
        """Take a suggestion that has ended, if its characters are whole.

        Other ids of the same text add to its probability.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return
        if log_prob > -math.inf and self._is_seen(text) and self.wanted(text):
            before = self.found.get(text, -math.inf)
            high, low = max(before, log_prob), min(before, log_prob)
            self.found[text] = high + math.log1p(math.exp(low - high))

    def _is_seen(self, text: str) -> bool:
        return bool(text if self.of_tokens else text.strip(WHITE_SPACE))

    def best(self) -> list[Completion]:
        """Return the n likeliest, the likeliest first."""
        ranked = sorted(self.found.items(), key=lambda one: -one[1])
        return [Completion(*one) for one in ranked[: self.n]]

    @property
    def least(self) -> float:
        """What a log-probability must exceed to be among the n highest."""
        if len(self.found) < self.n:
            return -math.inf
        return sorted(self.found.values())[-self.n]

    def may_gain(self, live: list[_Growing]) -> list[_Growing]:
        """Return what can still go on to one of the n likeliest."""
        least = self.least
        return [one for one in live if one.log_prob > least]


def check_suggestions(n: object, unit: object) -> None:
    """Check how many suggestions are wanted, and of what.

    Raises
    ------
    ParameterError
        If the number is none from 1 on, or there is no such unit.
    """
    _N_RULE.check("n", n)
    _UNIT_RULE.check("unit", unit)


def suggest(
    beginnings: Beginnings,
    text: str,
    n: int,
    *,
    unit: Unit = "word",
    num_beams: int = 1,
    max_new_tokens: int = 100,
    wanted: Callable[[str], bool] = lambda text: True,
) -> list[Completion]:
    """Return the n likeliest continuations of a text, the likeliest first.

    Parameters
    ----------
    beginnings : Beginnings
        From what was read of the text.
    text : str
        Its end, which was not read since more text may change its ids.
    n : int
        How many.
    unit : {"token", "word", "line"}
        What to suggest: the rest of it, if the text has begun one.
    num_beams : int
        Hypotheses that are kept; 16 at least, and twice `n`.
    max_new_tokens : int
        Tokens of a suggestion at most.
    wanted : callable
        Says which suggestions may be given.
    """
    tokenizer = beginnings.tokenizer
    search = _Search(n, wanted, of_tokens=unit == "token")
    if tokenizer.kind == FOREIGN:
        return _next_of_foreign(beginnings, text, search)
    with one_thread, inference(beginnings.model):  # of numpy's, for which torch's would wait
        ways = openings(tokenizer, text)
        later = unit != "token" and max_new_tokens > 1
        places = read_openings(beginnings, ways, last_later=later)
        n_beams = max(num_beams, MIN_BEAMS, 2 * n)

        def first(ways: list[Opening], readings: list[Reading]) -> list[_Growing]:
            glue = tokenizer.glue if text else b""
            found = _first(ways, readings, tokenizer, places.whole, 2 * n_beams, glue=glue)
            return found if unit == "token" else _without_ended(found, search, unit, tokenizer)

        live = first(ways[: len(places.readings)], places.readings)
        if unit == "token":
            for one in live:
                search.add(one.data, one.log_prob)
            return search.best()
        ending = _ending(tokenizer, unit).to(beginnings.model.device)
        last = places.step and _Last(places.step, lambda reading: first(ways[-1:], [reading]))
        for n_tokens in range(1, max_new_tokens + 1):
            live = search.may_gain(live[:n_beams])
            if n_tokens == max_new_tokens or not (live or last):
                break
            live, last = _read_on(beginnings, live, last, ending, search, 2 * n_beams), None
            live = _without_ended(live, search, unit, tokenizer)
        for one in live:
            search.add(one.data, one.log_prob)
    return search.best()


class _Last(NamedTuple):
    """An opening that is read with the first suggestions: a step to it, and what goes on there."""

    step: tuple[Reading, int]
    going: Callable[[Reading], list[_Growing]]


def _first(
    ways: list[Opening],
    readings: list[Reading],
    tokenizer: Tokenizer,
    whole: float,
    most: int,
    *,
    glue: bytes,
) -> list[_Growing]:
    """Return what a first id can make of openings, the likeliest first."""
    found: list[tuple[float, int, int]] = []
    for row, (way, reading) in enumerate(zip(ways, readings, strict=True)):
        following = cast(Tensor, reading.following)
        ids = torch.tensor(tokenizer.lexicon.longer(way.begun), device=following.device)
        values, at = following[ids].topk(min(most, len(ids)))
        values = values.double() + (reading.log_prob - whole)
        likeliest = zip(values.tolist(), ids[at].tolist(), strict=True)
        found += [(value, row, token) for value, token in likeliest]
    return [
        _Growing(_rest(ways[row], token, tokenizer, glue), value, readings[row], token)
        for value, row, token in sorted(found, key=lambda one: -one[0])[:most]
    ]


def _rest(way: Opening, token: int, tokenizer: Tokenizer, glue: bytes) -> bytes:
    """Return what an id adds to a text: of one that has begun, what is left of it."""
    piece = tokenizer.lexicon.pieces[token]
    return piece[len(way.begun) :] if way.begun else glue + piece


def _without_ended(
    live: list[_Growing], search: _Search, unit: Unit, tokenizer: Tokenizer
) -> list[_Growing]:
    """Hand over what has ended whatever comes next; return what has not."""
    one_word = unit == "word" and tokenizer.kind == "word"
    going: list[_Growing] = []
    for one in live:
        if unit == "line" and b"\n" in one.data:
            search.add(one.data[: one.data.index(b"\n")], one.log_prob)
        elif unit == "word" and (one_word or _class_at_end(one.data) == CharClass.UNSPACED):
            search.add(one.data, one.log_prob)
        elif _may_be_text(one.data):
            going.append(one)
    return going


def _read_on(
    beginnings: Beginnings,
    live: list[_Growing],
    last: _Last | None,
    ending: Tensor,
    search: _Search,
    most: int,
) -> list[_Growing]:
    """Read on what goes on, the likeliest first, until no other can gain.

    What has ended says how likely a suggestion must be: most of what goes on is less likely.
    """
    grown: list[_Growing] = []
    while live or last:
        part, live = search.may_gain(live[:AT_A_TIME]), live[AT_A_TIME:]
        steps = [(one.reading, one.token) for one in part] + ([last.step] if last else [])
        if not steps:
            break
        readings = beginnings.read_next(steps)
        if part:
            of_part = readings[: len(part)]
            grown += _grown(part, of_part, ending, beginnings.tokenizer, search, most)
        if last:
            live = sorted(live + last.going(readings[-1]), key=lambda one: -one.log_prob)
            last = None
    return sorted(grown, key=lambda one: -one.log_prob)[:most]


def _grown(
    live: list[_Growing],
    readings: list[Reading],
    ending: Tensor,
    tokenizer: Tokenizer,
    search: _Search,
    most: int,
) -> list[_Growing]:
    """End suggestions by the share that their end has, and let the likeliest go on by an id."""
    following = torch.stack([cast(Tensor, reading.following) for reading in readings])
    classes = [_class_at_end(one.data) for one in live]
    ends = ending[torch.tensor(classes, device=ending.device)]
    over = following.exp().mul_(ends).sum(1).log()
    for one, of, share in zip(live, classes, over.tolist(), strict=True):
        if of != CharClass.PART:
            search.add(one.data, one.log_prob + share)
    before = torch.tensor([[one.log_prob] for one in live], device=ends.device)
    scores = following.masked_fill_(ends, -math.inf).add_(before)
    values, places = scores.flatten().topk(min(most, scores.numel()))
    grown, least = list[_Growing](), search.least
    for value, place in zip(values.tolist(), places.tolist(), strict=True):
        if value <= least:
            break
        row, token = divmod(place, scores.shape[1])
        piece = tokenizer.glue + tokenizer.lexicon.pieces[token]
        grown.append(_Growing(live[row].data + piece, value, readings[row], token))
    return grown


def _ending(tokenizer: Tokenizer, unit: Unit) -> Tensor:
    """Return which ids end a suggestion, by the class of its last character, shape (classes, V)."""
    if unit == "word":
        return torch.tensor(tokenizer.lexicon.ending)
    ending = torch.tensor(tokenizer.lexicon.line_ending)
    return ending.expand(max(CharClass) + 1, -1)


def _class_at_end(data: bytes) -> CharClass:
    """Return the class of the last character; PART where it is not whole."""
    start = max(0, len(data) - 4)
    while start < len(data) - 1 and data[start] & 0xC0 == 0x80:
        start += 1
    try:
        return char_class(data[start:].decode()[-1])
    except UnicodeDecodeError:
        return CharClass.PART


def _may_be_text(data: bytes) -> bool:
    """Return whether bytes are characters, the last one perhaps not whole."""
    try:
        codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _next_of_foreign(beginnings: Beginnings, text: str, search: _Search) -> list[Completion]:
    """Return the likeliest next tokens, of a tokenizer of whose types no more is known."""
    tokenizer = beginnings.tokenizer
    (ids,) = tokenizer.encode([text])
    following = _following(beginnings, tuple(ids.tolist())).double()
    values, order = following.sort(descending=True, stable=True)
    for value, token in zip(values.tolist(), order.tolist(), strict=True):
        decoder = tokenizer.decoder(after=text)
        piece = decoder.feed(token)
        if token not in (END, tokenizer.unknown_id) and piece and not decoder.finish():
            search.add(piece.encode(), value)
            if len(search.found) == search.n:
                break
    return search.best()


def _following(beginnings: Beginnings, ids: tuple[int, ...]) -> Tensor:
    """Return the log-probabilities of what may follow some ids, shape (V,)."""
    (reading,) = beginnings.follow(beginnings.read([ids]))
    return cast(Tensor, reading.following)


def next_tokens(beginnings: Beginnings, k: int, *, after: str) -> list[NextToken]:
    """Return the k likeliest next tokens, the end mark and the unknown token among them.

    Parameters
    ----------
    beginnings : Beginnings
        From what was read.
    k : int
        How many; fewer where the vocabulary has no more.
    after : str
        The text that they continue, as far as it decides on a space before them.
    """
    tokenizer, probs = beginnings.tokenizer, _following(beginnings, ()).double().exp()
    values, ids = probs.topk(min(k, len(probs)))
    return [
        NextToken(_spelled(tokenizer, token, after), value)
        for value, token in zip(values.tolist(), ids.tolist(), strict=True)
    ]


def _spelled(tokenizer: Tokenizer, token: int, after: str) -> str:
    if token == END:
        return ""
    if token == tokenizer.unknown_id:
        return UNKNOWN
    decoder = tokenizer.decoder(after=after)
    return decoder.feed(token) + decoder.finish()
