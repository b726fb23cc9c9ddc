"""Sums and the figures that follow from them."""

import math
from dataclasses import astuple, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstmlm import Evaluation, ParameterError, TextError
from lstmlm.measures import UNITS, Tally, perplexity

COUNTS = [field.name for field in fields(Tally) if field.name != "nats"]
# Whole numbers of nats, so that adding them in another order gives the same float.
tallies = st.builds(
    Tally,
    nats=st.integers(0, 10**6).map(float),
    **{name: st.integers(0, 10**9) for name in COUNTS},
)
TALLY = Tally(nats=12.0, texts=1, tokens=4, words=3, chars=8, bytes=16, correct=1, unknown=2)


@given(tallies, tallies, tallies)
def test_tallies_add_up(a, b, c):
    assert a + Tally() == a
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert astuple(a + b) == tuple(x + y for x, y in zip(astuple(a), astuple(b), strict=True))


def test_figures_by_hand():
    assert TALLY.perplexity() == TALLY.perplexity("token") == math.exp(3)
    assert TALLY.perplexity("word") == math.exp(4)
    assert TALLY.perplexity("char") == math.exp(1.5)
    assert TALLY.perplexity("byte") == math.exp(0.75)
    assert TALLY.bits("char") == 1.5 / math.log(2)


@given(nats=st.floats(0, 1e4), units=st.integers(1, 1000))
def test_bits_and_perplexity_tell_the_same(nats, units):
    tally = Tally(nats=nats, tokens=units)
    # exp and log2 each round once, in the last of 16 digits; numbers here go up to about 1,000.
    if nats / units < 700:
        assert math.log2(tally.perplexity()) == pytest.approx(
            tally.bits("token"), rel=1e-12, abs=1e-12
        )


def test_perplexity_beyond_a_float_is_infinite():
    assert perplexity(710.0, 1) == math.inf
    assert Tally(nats=1e6, tokens=1).perplexity() == math.inf


@pytest.mark.parametrize("unit", UNITS)
def test_perplexity_of_nothing(unit):
    with pytest.raises(TextError) as caught:
        Tally().perplexity(unit)
    assert str(caught.value) == "perplexity of no texts: 0 texts came, at least one is needed."


@pytest.mark.parametrize(
    ("unit", "suggestion"),
    [("tokens", " Did you mean 'token'?"), ("char ", " Did you mean 'char'?"), (None, ""), (3, "")],
)
def test_units_that_are_none(unit, suggestion):
    with pytest.raises(ParameterError) as caught:
        TALLY.count(unit)
    due = "use one of 'token', 'word', 'char', 'byte'."
    assert str(caught.value) == f"per={unit!r} is not a unit; {due}{suggestion}"


def test_evaluation_divides_once():
    evaluation = Evaluation.from_tally(TALLY)
    assert evaluation == Evaluation(
        n_texts=1,
        n_tokens=4,
        n_words=3,
        n_chars=8,
        n_bytes=16,
        nats=12.0,
        perplexity=math.exp(3),
        word_perplexity=math.exp(4),
        bits_per_char=1.5 / math.log(2),
        bits_per_byte=0.75 / math.log(2),
        accuracy=0.25,
        unknown_rate=0.5,
    )


def test_evaluation_of_nothing():
    with pytest.raises(TextError) as caught:
        Evaluation.from_tally(Tally())
    assert str(caught.value) == "perplexity of no texts: 0 texts came, at least one is needed."
