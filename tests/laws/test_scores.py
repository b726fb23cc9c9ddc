"""A text's figures are those of a loop that reads it token by token, whatever the road to them."""

import copy
import math
import re
from dataclasses import fields
from typing import Any

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches, texts
from tiny import CHINESE, EMOJI, ENGLISH, TEXTS

from lstmlm import Evaluation, scoring

PARAGRAPH = " ".join([*ENGLISH, *CHINESE, *EMOJI])
WHITE_SPACE = re.compile(  # Unicode's property; Python's \s also takes U+001C..U+001F
    "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)


def same(expected: Any) -> Any:
    # DESIGN.md: float32 figures agree to 1e-5 relative on every path. What is nearly certain has
    # few nats beside its logits, which reach 10 and there lie 1e-6 apart: hence the absolute part.
    return pytest.approx(expected, rel=1e-5, abs=5e-6)


@settings(max_examples=20)
@given(batch=batches(), order=st.randoms(use_true_random=False), batch_size=st.integers(1, 9))
def test_company_order_and_batch_size_do_not_matter(lm, batch, order, batch_size):
    alone = {text: lm.score_samples([text])[0] for text in batch}
    shuffled = order.sample(batch, len(batch))
    expected = [alone[text] for text in shuffled]
    assert lm.score_samples(shuffled).tolist() == same(expected)
    piped = list(lm.pipe(shuffled, batch_size=batch_size))
    assert [scored.text for scored in piped] == shuffled
    assert [scored.log_prob for scored in piped] == same(expected)


@settings(max_examples=25)
@given(text=texts())
def test_a_text_is_scored_as_by_a_plain_loop(lm, text):
    (ids,) = lm.tokenizer_.encode([text])
    expected, _ = plain.log_probs(lm.module_, ids)
    (scored,) = lm.pipe([text])
    assert scored.log_probs.tolist() == same(expected)
    assert lm.score_samples([text]).tolist() == same([math.fsum(expected)])


@settings(max_examples=15)
@given(batch=batches(max_size=5), width=st.integers(1, 20), rows=st.integers(1, 3))
def test_windows_do_not_matter(lm, batch, width, rows):
    whole = lm.score_samples(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "WINDOW_WIDTH", width)
        patch.setattr(scoring, "WINDOW_ROWS", rows)
        assert lm.score_samples(batch).tolist() == same(whole.tolist())
        assert lm.evaluate(batch).nats == same(-whole.sum())


def test_a_text_longer_than_a_window_is_scored_as_by_a_plain_loop(lm):
    (ids,) = lm.tokenizer_.encode([PARAGRAPH])
    long = PARAGRAPH * (1 + 2 * scoring.WINDOW_WIDTH // len(ids))
    (ids,) = lm.tokenizer_.encode([long])
    assert len(ids) > 1.9 * scoring.WINDOW_WIDTH  # copies may merge where they meet
    texts = ["a cat", long, "", long]
    exact = copy.deepcopy(lm)
    exact.module_.double()
    expected, _ = plain.log_probs(exact.module_, ids)
    for scored in [one for one in exact.pipe(texts) if one.text == long]:
        # A figure is kept as a float32, which rounds it by 6e-8 relative.
        assert scored.log_probs.tolist() == pytest.approx(expected, rel=1e-7)
    # In float32 a thousand steps of a network of 16 units may carry a rounding on from token to
    # token; the text's figure is what the promise is about.
    assert [scored.log_prob for scored in lm.pipe(texts)] == same(lm.score_samples(texts).tolist())
    assert lm.score_samples([long]).tolist() == same([math.fsum(expected)])
    assert lm.score_samples(texts)[0] == same(lm.score_samples(["a cat"])[0])


@settings(max_examples=15)
@given(batch=batches(max_size=6), batch_size=st.integers(1, 4), width=st.integers(1, 20))
def test_a_stream_is_scored_as_by_a_plain_loop(stream_lm, batch, batch_size, width):
    expected: list[float] = []
    state = None
    for ids in stream_lm.tokenizer_.encode(batch):
        scores, state = plain.log_probs(stream_lm.module_, ids, state)
        expected.append(math.fsum(scores))
    assert stream_lm.score_samples(batch).tolist() == same(expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "WINDOW_WIDTH", width)
        patch.setattr("lstmlm.estimator.reading.SCORE_BATCH", batch_size)
        piped = stream_lm.pipe(batch, batch_size=batch_size)
        assert [scored.log_prob for scored in piped] == same(expected)
        assert stream_lm.score_samples(batch).tolist() == same(expected)
        assert stream_lm.evaluate(batch).nats == same(-math.fsum(expected))


def test_a_stream_remembers_its_texts_and_each_call_starts_fresh(stream_lm):
    first, second = stream_lm.score_samples(["the cat sat", "the cat sat"])
    assert abs(first - second) > 1e-3  # far more than rounding: the state was carried
    assert stream_lm.score_samples(["the cat sat"]).tolist() == same([first])


@settings(max_examples=20)
@given(batch=batches())
def test_evaluation_is_the_sum_of_its_texts(lm, batch):
    ids = lm.tokenizer_.encode(batch)
    tables = [plain.read(lm.module_, text_ids)[0] for text_ids in ids]
    targets = [[*text_ids.tolist(), 0] for text_ids in ids]
    guessed = [
        int(row.argmax()) == target
        for table, text_targets in zip(tables, targets, strict=True)
        for row, target in zip(table, text_targets, strict=True)
    ]
    unknown = lm.tokenizer_.unknown_id
    figures = lm.evaluate(batch)
    n_tokens = sum(map(len, targets))
    nats = -lm.score_samples(batch).sum()
    assert {field.name: getattr(figures, field.name) for field in fields(Evaluation)} == same(
        {
            "n_texts": len(batch),
            "n_tokens": n_tokens,
            "n_words": sum(len(list(filter(None, WHITE_SPACE.split(t)))) + 1 for t in batch),
            "n_chars": sum(len(text) + 1 for text in batch),
            "n_bytes": sum(len(text.encode("utf-8", "surrogatepass")) + 1 for text in batch),
            "nats": nats,
            "perplexity": math.exp(nats / figures.n_tokens),
            "word_perplexity": lm.perplexity(batch, per="word"),
            "bits_per_char": nats / math.log(2) / figures.n_chars,
            "bits_per_byte": nats / math.log(2) / figures.n_bytes,
            "accuracy": sum(guessed) / n_tokens,
            "unknown_rate": sum(text.count(unknown) for text in targets) / n_tokens,
        }
    )


@settings(max_examples=15)
@given(batch=batches(max_size=4))
def test_perplexity_is_exp_of_the_nats_a_unit(lm, batch):
    figures = lm.evaluate(batch)
    for per in ("token", "word", "char", "byte"):
        nats_a_unit = figures.nats / getattr(figures, f"n_{per}s")
        try:
            expected = math.exp(nats_a_unit)
        except OverflowError:  # a long string of unlikely tokens without a space is one word
            expected = math.inf
        # The exponent carries the nats' error of 1e-5 relative, times the nats a unit.
        assert lm.perplexity(batch, per=per) == pytest.approx(
            expected, rel=1e-5 * max(1.0, nats_a_unit)
        )
    assert lm.score(batch) == -lm.perplexity(batch)


def test_the_empty_text_has_one_scored_token(lm):
    (scored,) = lm.pipe([""])
    assert scored.tokens == [""]
    assert scored.spans.tolist() == [[0, 0]]
    assert scored.log_probs.shape == (1,)
    assert lm.evaluate([""]).n_tokens == 1
    assert lm.score_samples(["", ""]).tolist() == same([scored.log_prob] * 2)


@settings(max_examples=25)
@given(text=texts())
def test_tokens_are_the_text_between_their_spans_and_cover_it(lm, text):
    (scored,) = lm.pipe([text])
    assert scored.text == text
    assert scored.tokens == [text[start:end] for start, end in scored.spans.tolist()]
    assert scored.spans[-1].tolist() == [len(text), len(text)]
    assert len(scored.tokens) == len(scored.spans) == len(scored.log_probs)
    covered = {at for start, end in scored.spans.tolist() for at in range(start, end)}
    left_out = "".join(text[at] for at in sorted(set(range(len(text))) - covered))
    if lm.params_["tokenizer"] == "word":
        left_out = WHITE_SPACE.sub("", left_out)
    assert left_out == ""


def test_no_texts_have_no_scores(lm):
    scores = lm.score_samples([])
    assert scores.dtype == np.float64
    assert scores.shape == (0,)
    assert list(lm.pipe([])) == []


def test_scores_are_the_same_from_any_iterable(lm):
    expected = lm.score_samples(TEXTS).tolist()
    assert lm.score_samples(iter(TEXTS)).tolist() == expected
    assert lm.score_samples(tuple(TEXTS)).tolist() == expected
    assert lm.score_samples(np.array(TEXTS, dtype=object)).tolist() == expected
