import copy
import math
import subprocess
import sys
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import texts
from tiny import CHINESE, TEXTS, fitted, network

from lstmlm import ParameterError, ScoredText, TextError, TextTypeError, scoring
from lstmlm.defaults import scoring_precision
from lstmlm.estimator.workers import TASKS_AHEAD
from lstmlm.model import RecurrentLM
from lstmlm.scoring import inference, pools
from lstmlm.text import WHITE_SPACE


@pytest.fixture(scope="module")
def lm():
    return fitted(tokenizer="bpe")


def scored(text: str, *tokens: tuple[int, int, float]) -> ScoredText:
    """Make a scored text of tokens given as start, end and log-probability; the end mark has -9."""
    spans = [(start, end) for start, end, _ in tokens] + [(len(text), len(text))]
    return ScoredText(
        text,
        [text[start:end] for start, end in spans],
        np.array(spans, dtype=np.int64),
        np.array([nats for _, _, nats in tokens] + [-9.0], dtype=np.float32),
    )


# ---- ScoredText ----


def test_figures_of_a_scored_text():
    text = scored("ab c", (0, 2, -1.0), (2, 3, -0.5), (3, 4, -3.5))
    assert text.log_prob == -14.0
    assert text.perplexity == math.exp(14 / 4)
    assert text.bits_per_char == pytest.approx(14 / math.log(2) / 5)
    # log_probs are float32.
    assert text.surprisals.tolist() == pytest.approx(np.log2(np.exp([1, 0.5, 3.5, 9])), rel=1e-6)
    assert text.surprisals.dtype == np.float32


def test_perplexity_beyond_a_float_is_infinite():
    nats = np.array([-800], dtype=np.float32)
    text = ScoredText("", [""], np.zeros((1, 2), dtype=np.int64), nats)
    assert text.perplexity == math.inf


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("", [], []),
        ("  ", [(0, 2, -1.0)], []),
        ("cat", [(0, 1, -1.0), (1, 3, -2.0)], [("cat", -3.0)]),
        ("a cat", [(0, 1, -1.0), (1, 5, -2.0)], [("a", -1.0), ("cat", -2.0)]),
        # White space alone goes to the next word; what follows the last word to none.
        (" a\n cat ", [(0, 1, -1.0), (1, 2, -2.0), (2, 4, -4.0), (4, 7, -8.0), (7, 8, -16.0)],
         [("a", -3.0), ("cat", -12.0)]),
        # A token that runs over white space belongs to the word that it starts in.
        ("a b c", [(0, 3, -1.0), (3, 5, -2.0)], [("a", -1.0), ("b", 0.0), ("c", -2.0)]),
        # Bytes of one character have one span.
        ("é 🙂", [(0, 1, -1.0), (0, 1, -2.0), (1, 3, -4.0), (2, 3, -8.0)],
         [("é", -3.0), ("🙂", -12.0)]),
        # Only Unicode's White_Space parts words: U+001C doesn't, the ideographic space does.
        ("a\x1cb\u3000c", [(0, 3, -1.0), (3, 5, -2.0)], [("a\x1cb", -1.0), ("c", -2.0)]),
    ],
)  # fmt: skip
def test_words(text, tokens, expected):
    assert scored(text, *tokens).words() == expected


@settings(max_examples=50)
@given(text=texts())
def test_words_and_the_rest_add_up_to_the_text(lm, text):
    (one,) = lm.pipe([text])
    spaced = "".join(" " if character in WHITE_SPACE else character for character in text)
    words = one.words()
    assert [word for word, _ in words] == list(filter(None, spaced.split(" ")))
    end = len(spaced.rstrip(" "))
    rest = [
        float(log_prob)
        for token, (start, _), log_prob in zip(one.tokens, one.spans, one.log_probs, strict=True)
        if start + len(token) - len(token.lstrip(WHITE_SPACE)) >= end
    ]
    # Sums of the same floats in another order.
    assert math.fsum([nats for _, nats in words] + rest) == pytest.approx(one.log_prob, rel=1e-12)


def test_tokens_of_text_that_no_one_wrote(lm):
    (one,) = lm.pipe(["\ud800\0 🙂"])
    assert one.text == "\ud800\0 🙂"  # as it came, the lone surrogate too
    assert one.tokens[0] == "\ud800"
    assert set(one.tokens) <= {"\ud800", "\0", " ", " 🙂", "🙂", ""}
    assert np.isfinite(one.log_probs).all()
    assert one.log_probs.dtype == np.float32
    assert one.spans.dtype == np.int64


# ---- pipe ----


def test_each_result_comes_before_the_next_text_is_asked_for(lm):
    asked: list[int] = []

    def endless() -> Any:
        for number in count():
            asked.append(number)
            yield f"text {number}"

    results = lm.pipe(endless(), batch_size=1)
    assert asked == []
    for number in range(5):
        assert next(results).text == f"text {number}"
        assert asked == list(range(number + 1))


@pytest.mark.parametrize("batch_size", [2, 7, 256])
def test_an_endless_stream_is_read_ahead_by_a_batch_at_most(lm, batch_size):
    asked = count()
    results = lm.pipe((f"text {next(asked)}" for _ in count()), batch_size=batch_size)
    assert [one.text for one in islice(results, 20)] == [f"text {i}" for i in range(20)]
    assert next(asked) < 20 + batch_size


def test_long_texts_are_read_ahead_less(lm, monkeypatch):
    monkeypatch.setattr(scoring, "POOL_CHARS", 10)
    asked = count()
    results = lm.pipe("a" * 6 for _ in iter(lambda: next(asked), None))
    next(results)
    assert next(asked) == 2


def test_what_came_with_a_text_comes_back_with_its_scores(lm):
    companions: list[Any] = [{"id": 1}, None, ["unhashable"]]
    pairs = list(lm.pipe(zip(TEXTS, companions, strict=False), as_tuples=True, batch_size=2))
    assert [companion for _, companion in pairs] == companions
    assert all(ours is theirs for (_, ours), theirs in zip(pairs, companions, strict=True))
    alone = list(lm.pipe(TEXTS[:3], batch_size=2))
    for (one, _), other in zip(pairs, alone, strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.log_probs, other.log_probs)


def test_what_is_no_text_raises_where_it_stands(lm):
    results = lm.pipe(["one", None, "three"], batch_size=1)
    assert next(results).text == "one"
    with pytest.raises(TextTypeError) as caught:
        next(results)
    assert str(caught.value) == (
        "texts[1] is None (NoneType); every text must be a str: leave it out or replace it by a "
        "str."
    )


def test_an_error_handler_gets_what_is_no_text(lm):
    errors: list[tuple[Any, Exception]] = []
    results = lm.pipe(
        ["one", 2, b"three", "four"], error_handler=lambda item, error: errors.append((item, error))
    )
    assert [one.text for one in results] == ["one", "four"]
    assert [(item, type(error), str(error)) for item, error in errors] == [
        (
            2,
            TextTypeError,
            "texts[1] is 2 (int); every text must be a str: leave it out or replace it by a str.",
        ),
        (
            b"three",
            TextTypeError,
            "texts[2] is b'three' (bytes); every text must be a str: decode it first.",
        ),
    ]


def test_an_error_handler_keeps_companions_with_their_texts(lm):
    errors = []
    items = [("one", 1), (None, 2), ("three", 3), 4, ("five", 5)]
    results = lm.pipe(items, as_tuples=True, error_handler=lambda *both: errors.append(both))
    assert [(one.text, companion) for one, companion in results] == [
        ("one", 1), ("three", 3), ("five", 5)]  # fmt: skip
    assert [item for item, _ in errors] == [(None, 2), 4]


def test_an_error_handler_may_raise(lm):
    def handler(item: Any, error: Exception) -> None:
        raise RuntimeError("enough") from error

    with pytest.raises(RuntimeError, match=r"^enough$"):
        list(lm.pipe(["one", None], error_handler=handler))


@pytest.mark.parametrize("item", ["ab", 4, ("a", "b", "c")])
def test_what_is_no_pair_is_an_error(lm, item):
    with pytest.raises(TextTypeError) as caught:
        list(lm.pipe([("one", 1), item], as_tuples=True))
    assert str(caught.value) == (
        f"texts[1] is {item!r} ({type(item).__name__}); with as_tuples=True every item must be a "
        "(text, anything) pair."
    )


def test_wrong_arguments_are_refused_at_the_call(lm):
    with pytest.raises(ParameterError) as caught:
        lm.pipe(["one"], batch_size=0)
    assert str(caught.value) == "batch_size=0 is not valid; batch_size is an integer at least 1."
    with pytest.raises(TextError) as text_error:
        lm.pipe("one")
    assert str(text_error.value) == (
        "Iterable over raw text documents expected, string object received. Put a single text in a "
        "list: [text]."
    )


def test_a_pipe_may_be_left_and_another_begun(lm):
    first, second = lm.pipe(TEXTS, batch_size=2), lm.pipe(TEXTS, batch_size=2)
    mixed = [next(pipe).log_prob for _ in range(4) for pipe in (first, second)]
    expected = lm.score_samples(TEXTS[:4])
    # float32 sums in other batches.
    assert mixed == pytest.approx(np.repeat(expected, 2).tolist(), rel=1e-5)


# ---- pools and contexts ----


def test_pools_are_closed_by_texts_or_characters(monkeypatch):
    monkeypatch.setattr(scoring, "POOL_CHARS", 5)
    assert list(pools(["a", "bb", "ccc", "dddddd", "", "e"], batch_size=2)) == [
        ["a", "bb"], ["ccc", "dddddd"], ["", "e"]]  # fmt: skip
    assert list(pools(["aaaaaa", "b", "c", "d"], batch_size=3)) == [["aaaaaa"], ["b", "c", "d"]]
    assert list(pools([], batch_size=3)) == []


def test_inference_has_no_gradients_and_leaves_no_trace():
    model = network()
    with inference(model):
        features, _ = model(torch.tensor([[1, 2]]), model.zero_state(1))
        assert not features.requires_grad
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_scoring_makes_no_gradients_and_moves_no_weights(lm):
    before = [parameter.detach().clone() for parameter in lm.module_.parameters()]
    lm.evaluate(CHINESE)
    for parameter, value in zip(lm.module_.parameters(), before, strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter, value)


def test_scores_hold_a_bounded_number_of_logits(lm, monkeypatch):
    """Chunks of a few rows give the figures of one chunk."""
    expected = lm.evaluate(TEXTS)
    monkeypatch.setattr("lstmlm.nn.losses.CHUNK_LOGITS", 5 * lm.vocab_size_)
    found = lm.evaluate(TEXTS)
    assert found.nats == pytest.approx(expected.nats, rel=1e-6)  # float32 products of other shapes
    assert found.accuracy == expected.accuracy


# ---- precision ----


def test_medium_products_are_used_only_where_they_are_exact(monkeypatch):
    left, right = (
        torch.randn(300, 700, generator=torch.Generator().manual_seed(n)) for n in (1, 2)
    )
    exact = left.double() @ right.double().T
    model = network()
    on_cuda = torch.cuda.is_available()  # where medium would mean TF32
    for answer, setting in ((True, "highest" if on_cuda else "medium"), (False, "highest")):
        monkeypatch.setattr(scoring, "medium_is_exact", lambda answer=answer: answer)
        with inference(model):
            assert torch.get_float32_matmul_precision() == setting
    monkeypatch.undo()
    with inference(model):
        assert (left @ right.T - exact).norm() < 1e-6 * exact.norm()
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_last_to_leave_sets_the_users_products_back():
    products = scoring._ExactProducts()
    products.__enter__()
    products.__enter__()
    products.__exit__()  # the first thread, while the second computes
    assert products.inside == 1
    products.__exit__()
    assert torch.get_float32_matmul_precision() == "highest"


def test_whether_medium_is_exact_is_measured(monkeypatch):
    scoring.medium_is_exact.cache_clear()
    product = torch.Tensor.__matmul__

    def rough(left, right):
        if left.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            left, right = left.bfloat16().float(), right.bfloat16().float()
        return product(left, right)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", rough)
        assert not scoring.medium_is_exact()
    scoring.medium_is_exact.cache_clear()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("output", ["softmax", "adaptive"])
def test_bf16_scores_are_near_those_of_float32_and_do_not_depend_on_company(output):
    lm = fitted(tokenizer="word", output=output)
    exact = lm.score_samples(TEXTS)
    rough = clone_in(lm, "bf16").score_samples(TEXTS)
    assert not np.array_equal(exact, rough)
    # 8 bits a product, in texts of few tokens that the network knows by heart.
    np.testing.assert_allclose(rough, exact, rtol=2e-2)
    assert rough.sum() == pytest.approx(exact.sum(), rel=2e-3)
    alone = np.concatenate([clone_in(lm, "bf16").score_samples([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, rough, rtol=1e-3)


def clone_in(lm, precision):
    """Return a fitted model that scores in another precision; `lm` is shared with other tests."""
    return copy.copy(lm).set_params(precision=precision)


def test_auto_scores_in_bf16_only_what_is_costly_where_that_is_fast():
    def chosen(setting, n_products, fast):
        return scoring_precision(setting, n_products, fast_bf16=fast)

    assert chosen("auto", 10**7, True) == "bf16"
    assert chosen("auto", 10**6, True) == chosen("auto", 10**7, False) == "float32"
    assert [chosen(given, 10**7, True) for given in ("float32", "bf16")] == ["float32", "bf16"]


def test_the_products_of_a_token_are_counted():
    model = RecurrentLM(
        vocab_size=50, embedding_dim=4, hidden_size=6, num_layers=2, output="adaptive", cutoffs=[9]
    )
    layers = 24 * (4 + 6) + 24 * (6 + 6)
    assert model.n_products == layers + 6 * 4 + (9 + 1) * 4
    model = RecurrentLM(vocab_size=50, embedding_dim=4, hidden_size=6, num_layers=1)
    assert model.n_products == 24 * (4 + 6) + 6 * 4 + 50 * 4


FIRST = """
import torch
torch.set_num_threads(2)
torch.ones(2000, 500) @ torch.ones(500, 2000)  # its threads begin
import lstmlm
rows = torch.randn(609, 400)
print(torch.equal(rows.logsumexp(-1), rows.logsumexp(-1)))
"""


def test_the_first_log_likelihoods_of_a_process_are_no_less_exact_than_later_ones():
    """Without what `lstmlm.nn` does at its import, one process in ten says False, under load."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE
        )
        for _ in range(8)
    ]
    assert [process.communicate()[0] for process in started] == [b"True\n"] * 8


# ---- by workers ----


@pytest.fixture(scope="module")
def two_workers(lm):
    return copy.copy(lm).set_params(n_jobs=2)


def test_workers_give_the_same_in_the_same_order(lm, two_workers):
    texts = TEXTS * 3
    pairs = [(text, number) for number, text in enumerate(texts)]
    found = list(two_workers.pipe(iter(pairs), batch_size=7, as_tuples=True))
    assert [number for _, number in found] == list(range(len(texts)))
    expected = lm.pipe(texts, batch_size=7)
    for (one, _), other in zip(found, expected, strict=True):
        assert (one.text, one.tokens) == (other.text, other.tokens)
        np.testing.assert_allclose(one.log_probs, other.log_probs, rtol=1e-5, atol=5e-6)


def test_workers_read_a_bounded_number_ahead(two_workers):
    asked = count()
    piped = two_workers.pipe((TEXTS[next(asked) % len(TEXTS)] for _ in count()), batch_size=2)
    next(piped)
    assert next(asked) <= 2 * 2 * TASKS_AHEAD + 1
    piped.close()


def test_workers_leave_out_what_the_error_handler_takes(two_workers):
    refused = []
    found = two_workers.pipe(
        ["a cat", 3, "a dog"], error_handler=lambda text, error: refused.append(text)
    )
    assert [scored.text for scored in found] == ["a cat", "a dog"]
    assert refused == [3]
