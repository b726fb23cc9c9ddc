from itertools import product

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny import TEXTS, fitted, network, unfitted

from lstmlm import DecodeConfig, ParameterError, TextError, TextTypeError, decoding
from lstmlm.decoding import (
    Draw,
    Forbid,
    Temperature,
    TopK,
    TopP,
    generate_ids,
    make_processors,
    read_prompts,
)
from lstmlm.text import END, UNKNOWN

PROMPTS = [[], [3], [1, 2], [], [4, 4, 4, 4, 4, 4], [3], [8, 1], [5, 6, 7]]
NETWORKS = [
    {"seed": seed, "output": output, "cutoffs": [3, 6] if output == "adaptive" else None}
    for seed, output in product(range(3), ("softmax", "adaptive"))
]
on_networks = pytest.mark.parametrize(
    "settings", NETWORKS, ids=[f"{one['output']}-{one['seed']}" for one in NETWORKS]
)


def written(model, prompts=PROMPTS, **options):
    """Return the ids that each prompt is continued with, cut after an end mark."""
    given = {"forbidden", "seed", "first_row"} & options.keys()
    named = {name: options.pop(name) for name in given}
    arrays = [np.array(prompt, dtype=np.int32) for prompt in prompts]
    config = DecodeConfig(**{"max_new_tokens": 12} | options)
    columns = [column.tolist() for column in generate_ids(model, arrays, config, **named)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


# ---- greedy ----


@on_networks
def test_greedy_is_a_plain_loop_of_argmax(settings):
    model = network(**settings)
    assert written(model, do_sample=False) == [plain.greedy(model, p, 12) for p in PROMPTS]


@on_networks
def test_greedy_passes_over_forbidden_ids(settings):
    model = network(**settings)
    free = written(model, do_sample=False)
    forbidden = sorted({row[0] for row in free} - {END})
    expected = [plain.greedy(model, prompt, 12, forbidden) for prompt in PROMPTS]
    assert written(model, do_sample=False, forbidden=forbidden) == expected != free


@on_networks
@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-5}], ids=str)
def test_sampling_from_the_likeliest_id_alone_is_greedy(settings, options):
    model = network(**settings)
    assert written(model, **options) == written(model, do_sample=False)


def test_greedy_looks_at_none_of_the_sampling_options():
    model = network()
    options = {"temperature": 5.0, "top_k": 3, "top_p": 0.5, "seed": 7}
    assert written(model, do_sample=False, **options) == written(model, do_sample=False)


# ---- sampling ----


def distribution(log_probs, temperature=1.0, top_k=0, top_p=1.0):
    """What sampling should follow, for one place, in NumPy."""
    probs = np.exp(log_probs / temperature)
    if top_k:
        probs[probs < np.sort(probs)[-top_k]] = 0
    probs /= probs.sum()
    if top_p < 1:
        order = np.argsort(-probs)
        n_kept = 1 + int(np.sum(np.cumsum(probs[order]) < top_p))
        probs[order[n_kept:]] = 0
    return probs / probs.sum()


def assert_follows(counts, probs):
    """Chi-squared test, rare events taken together; with fixed seeds it never fails by chance."""
    assert counts[probs == 0].sum() == 0
    expected = probs * counts.sum()
    rare = expected < 5
    bins = [np.append(values[~rare], values[rare].sum()) for values in (counts, expected)]
    observed, expected = (values[bins[1] > 0] for values in bins)
    if len(observed) > 1:
        assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
    assert counts.sum() > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.7},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.8},
    ],
    ids=str,
)
@pytest.mark.parametrize("output", ["softmax", "adaptive"])
def test_sampled_ids_are_as_frequent_as_probable(output, options):
    model = network(output=output, cutoffs=[3, 6])
    prompt, n = [2, 5], 5000
    rows = written(model, [prompt] * n, max_new_tokens=1, seed=11, **options)
    counts = np.bincount([row[0] for row in rows], minlength=9)
    table, _ = plain.read(model, prompt)
    assert_follows(counts, distribution(table[-1].double().numpy(), **options))


def test_sampled_pairs_are_as_frequent_as_probable():
    model, n = network(), 10_000
    counts = np.zeros((9, 9))
    for row in written(model, [[]] * n, max_new_tokens=2, seed=5):
        counts[row[0], row[-1]] += 1  # (END, END) for a row that ended at once
    probs = np.zeros((9, 9))
    table, _ = plain.read(model, [])
    first = table[-1].double().exp().numpy()
    for token in range(1, 9):
        table, _ = plain.read(model, [token])
        probs[token] = first[token] * table[-1].double().exp().numpy()
    probs[END, END] = first[END]
    assert_follows(counts.ravel(), probs.ravel())


def test_forbidden_ids_are_never_drawn_and_the_others_keep_their_shares():
    model = network()
    rows = written(model, [[]] * 4000, max_new_tokens=1, seed=3, forbidden=(2, 5))
    table, _ = plain.read(model, [])
    probs = table[-1].double().exp().numpy()
    probs[[2, 5]] = 0
    assert_follows(np.bincount([row[0] for row in rows], minlength=9), probs / probs.sum())


def test_top_k_and_top_p_do_not_count_forbidden_ids():
    model = network()
    likeliest = plain.greedy(model, [], 1)
    allowed = plain.greedy(model, [], 1, forbidden=likeliest)
    for options in ({"top_k": 1}, {"top_p": 1e-9}):
        rows = written(model, [[]], max_new_tokens=1, forbidden=likeliest, **options)
        assert rows == [allowed]


def test_a_row_ends_at_the_end_mark_and_the_columns_when_all_have_ended():
    model = network()
    with torch.no_grad():
        model.head.bias[END] += 4
    config = DecodeConfig(max_new_tokens=200)
    arrays = [np.array(prompt, dtype=np.int32) for prompt in PROMPTS]
    columns = np.stack(list(generate_ids(model, arrays, config, seed=1)))
    lengths = (columns != END).sum(axis=0)
    assert len(set(lengths.tolist())) > 2  # rows of several lengths
    assert len(columns) == lengths.max() + 1 < 200
    for row, length in zip(columns.T, lengths, strict=True):
        assert (row[:length] != END).all()
        assert (row[length:] == END).all()


@pytest.mark.parametrize("do_sample", [True, False])
def test_max_new_tokens_is_a_limit(do_sample):
    model = network()
    with torch.no_grad():
        model.head.bias[END] -= 50
    assert {len(row) for row in written(model, max_new_tokens=7, do_sample=do_sample)} == {7}
    assert written(model, max_new_tokens=0, do_sample=do_sample) == []
    assert written(model, [], max_new_tokens=7, do_sample=do_sample) == []


# ---- rows are independent ----


@settings(max_examples=15)
@given(
    prompts=st.lists(st.lists(st.integers(1, 8), max_size=6), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    do_sample=st.booleans(),
)
def test_a_row_does_not_depend_on_the_others(prompts, seed, do_sample):
    model = network().double()  # no two ids are as likely as each other up to rounding
    together = written(model, prompts, seed=seed, do_sample=do_sample)
    alone = [
        written(model, [prompt], seed=seed, first_row=row, do_sample=do_sample)[0]
        for row, prompt in enumerate(prompts)
    ]
    assert together == alone


def test_rows_draw_numbers_of_their_own():
    rows = written(network(), [[]] * 20, seed=0)
    assert len({tuple(row) for row in rows}) > 10
    assert written(network(), [[]] * 20, seed=0) == rows
    assert written(network(), [[]] * 20, seed=1) != rows


@pytest.mark.parametrize("read_tokens", [1, 3, 8, 10**6])
def test_prompts_are_read_as_by_a_plain_loop_in_any_pieces(monkeypatch, read_tokens):
    monkeypatch.setattr(decoding, "READ_TOKENS", read_tokens)
    model = network().double()
    prompts = [*PROMPTS, [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]]
    arrays = [np.array(prompt, dtype=np.int32) for prompt in prompts]
    features, state = read_prompts(model, arrays)
    for row, prompt in enumerate(prompts):
        table, after = plain.read(model, prompt)
        torch.testing.assert_close(model.head.log_probs(features)[row], table[-1])  # float64
        torch.testing.assert_close(state.hidden[:, row], after.hidden[:, 0])
        torch.testing.assert_close(state.cell[:, row], after.cell[:, 0])


# ---- the draw ----


@given(
    logits=st.lists(st.floats(-30, 30), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    row=st.integers(0, 99),
)
def test_a_draw_inverts_the_cumulative_distribution(logits, seed, row):
    draw, stream = Draw(seed, [row]), np.random.default_rng([seed, row])
    probs = torch.tensor(logits, dtype=torch.float64).softmax(0)
    for _ in range(3):
        (chosen,) = draw(torch.tensor([logits], dtype=torch.float64), np.array([0])).tolist()
        uniform = stream.random()
        # Where the number falls, up to the rounding of float64 sums.
        assert float(probs[:chosen].sum()) <= uniform + 1e-12
        assert float(probs[: chosen + 1].sum()) >= uniform - 1e-12


class Stream:
    """Random numbers that are always the same one."""

    def __init__(self, uniform):
        self.uniform = uniform

    def random(self):
        return self.uniform


def drawn(uniform, logits):
    """Return the id that a random number draws: those asked about are too rare to wait for."""
    draw = Draw(0, [0])
    draw._streams = [Stream(uniform)]
    (chosen,) = draw(torch.tensor([logits]), np.array([0])).tolist()
    return chosen


@pytest.mark.parametrize("logits", [[0.0] * 4, [-torch.inf, 0.0, 0.0, -torch.inf]])
def test_the_outermost_numbers_draw_an_id_that_may_be_drawn(logits):
    likely = [i for i, logit in enumerate(logits) if logit == 0]
    assert drawn(0.0, logits) == likely[0]
    assert drawn(1 - 2**-53, logits) == likely[-1]


def test_a_random_number_is_not_rounded():
    below = 0.5 - 2**-40  # a float32 would make 0.5 of it
    assert [drawn(uniform, [0.0, 0.0]) for uniform in (below, 0.5)] == [0, 1]


# ---- processors ----

LOGITS = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]]).log()
NO = -torch.inf


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (Forbid((1, 3)), [[0.1, 0, 0.2, 0], [0.25, 0, 0.25, 0]]),
        (TopK(2), [[0, 0.4, 0, 0.3], [0.25] * 4]),  # ties with the last are kept
        (TopK(10), [[0.1, 0.4, 0.2, 0.3], [0.25] * 4]),
        (TopP(0.3), [[0, 0.4, 0, 0], [0.25, 0.25, 0, 0]]),
        (TopP(0.65), [[0, 0.4, 0, 0.3], [0.25, 0.25, 0.25, 0]]),
        (TopP(0.95), [[0.1, 0.4, 0.2, 0.3], [0.25] * 4]),
        (Temperature(0.5), [[0.01, 0.16, 0.04, 0.09], [0.0625] * 4]),
    ],
    ids=str,
)
def test_a_processor_changes_logits_and_leaves_its_argument(process, expected):
    before = LOGITS.clone()
    torch.testing.assert_close(process(LOGITS).exp(), torch.tensor(expected))
    assert torch.equal(LOGITS, before)


def test_processors_act_in_order_and_only_when_asked_for():
    everything = DecodeConfig(temperature=0.5, top_k=3, top_p=0.5)
    assert make_processors(everything, forbidden=[4]) == [
        Forbid((4,)), Temperature(0.5), TopK(3), TopP(0.5)]  # fmt: skip
    assert make_processors(DecodeConfig()) == []
    greedy = DecodeConfig(do_sample=False, temperature=0.5, top_k=3, top_p=0.5)
    assert make_processors(greedy, forbidden=[4]) == [Forbid((4,))]


# ---- the estimator's methods ----

WRITERS = pytest.mark.parametrize("tokenizer", ["bpe", "char", "word"])
BEGINNINGS = ["", "the cat", "明月", "the", "🙂", "the cat sat on the mat and the dog"]


@WRITERS
def test_generated_text_is_the_ids_decoded(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    encoded = [ids.tolist() for ids in lm.tokenizer_.encode(BEGINNINGS)]
    forbidden = [] if lm.tokenizer_.unknown_id is None else [lm.tokenizer_.unknown_id]
    rows = [plain.greedy(lm.module_, ids, 15, forbidden) for ids in encoded]
    for text, beginning, row in zip(
        lm.generate(BEGINNINGS, do_sample=False, max_new_tokens=15), BEGINNINGS, rows, strict=True
    ):
        decoder = lm.tokenizer_.decoder(after=beginning)
        assert text == "".join(decoder.feed(token) for token in row if token != END)
    assert len({len(row) for row in rows}) > 1


@WRITERS
@pytest.mark.parametrize("options", [{}, {"do_sample": False}, {"temperature": 1.3, "top_k": 20}])
def test_the_pieces_of_a_stream_are_the_text(tokenizer, options):
    lm = fitted(tokenizer=tokenizer)
    for prompt in BEGINNINGS:
        pieces = list(lm.generate_stream(prompt, random_state=4, max_new_tokens=30, **options))
        (text,) = lm.generate([prompt], random_state=4, max_new_tokens=30, **options)
        assert "".join(pieces) == text
        assert all(pieces)
        assert "\ufffd" not in text or tokenizer != "char"
    assert list(lm.generate_stream(random_state=4)) == list(lm.generate_stream("", random_state=4))


@WRITERS
def test_prompts_are_continued_in_batches_as_together(tokenizer, monkeypatch):
    lm = fitted(tokenizer=tokenizer)
    together = lm.generate(BEGINNINGS, random_state=1, max_new_tokens=15)
    monkeypatch.setattr("lstmlm.estimator.writing.GENERATE_BATCH", 2)
    assert lm.generate(BEGINNINGS, random_state=1, max_new_tokens=15) == together
    assert lm.generate(BEGINNINGS[:3], random_state=1, max_new_tokens=15) == together[:3]
    changed = ["another", *BEGINNINGS[1:]]
    assert lm.generate(changed, random_state=1, max_new_tokens=15)[1:] == together[1:]


def test_predict_is_greedy():
    lm = fitted(tokenizer="char")
    predicted = lm.predict(BEGINNINGS)
    assert predicted.dtype == object
    assert predicted.tolist() == lm.generate(BEGINNINGS, do_sample=False)
    assert lm.predict([]).shape == (0,)


def test_no_prompts_are_one_empty_prompt():
    lm = fitted(tokenizer="char")
    assert lm.generate(random_state=2) == lm.generate([""], random_state=2)
    assert lm.generate([], random_state=2) == []


def test_the_random_state_decides():
    lm = fitted(tokenizer="char")
    first = lm.generate(BEGINNINGS, random_state=1)
    assert lm.generate(BEGINNINGS, random_state=1) == first
    assert lm.generate(BEGINNINGS, random_state=2) != first
    assert lm.generate(BEGINNINGS, random_state=np.random.RandomState(1)) == first
    # None is the estimator's own, an int.
    assert lm.generate(BEGINNINGS) == lm.generate(BEGINNINGS, random_state=0)


def test_the_unknown_token_is_never_written():
    lm = unfitted(tokenizer="word", max_epochs=60).fit(["<unk> the <unk> cat <unk>"] * 20)
    unknown = lm.tokenizer_.unknown_id
    assert plain.greedy(lm.module_, [], 1) == [unknown]  # it is what the network would write
    for options in ({}, {"do_sample": False}, {"temperature": 3.0}, {"top_k": 1}, {"top_p": 0.1}):
        assert UNKNOWN not in " ".join(lm.generate([""] * 20, **options))


def test_words_are_spaced_after_the_prompt():
    lm = fitted(tokenizer="word")
    for prompt, (text,) in (
        (prompt, lm.generate([prompt], random_state=3, max_new_tokens=5))
        for prompt in ("", "the", "the ", "the\n")
    ):
        assert text.startswith(" ") == (prompt == "the" and text != "")
        assert (prompt + text).split() == prompt.split() + text.split()


def test_options_of_the_call_go_before_the_estimators():
    lm = unfitted(tokenizer="char", generation_config={"max_new_tokens": 3, "do_sample": False})
    lm.fit(TEXTS)
    assert lm.generate(["the"]) == lm.generate(["the"], max_new_tokens=3, do_sample=False)
    assert len(lm.generate(["the"])[0]) == 3
    assert len(lm.generate(["the"], max_new_tokens=5)[0]) == 5
    assert lm.generate(["the"], max_new_tokens=0) == [""]
    assert list(lm.generate_stream("the", max_new_tokens=0)) == []


def test_a_misspelt_option_gets_a_suggestion():
    with pytest.raises(ParameterError) as caught:
        fitted(tokenizer="char").generate(["the"], temprature=0.5)
    assert str(caught.value) == (
        "'temprature' is not an option of generation; the options are max_new_tokens, do_sample, "
        "temperature, top_k, top_p. Did you mean 'temperature'?"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature=0 is not valid; temperature is a number greater than 0."),
        ({"top_k": -1}, "top_k=-1 is not valid; top_k is an integer at least 0."),
        ({"top_p": 1.5}, "top_p=1.5 is not valid; top_p is a number greater than 0 and at most 1."),
        ({"do_sample": "no"}, "do_sample='no' is not valid; do_sample is True or False."),
    ],
)
def test_an_option_out_of_range_is_refused_before_anything_is_written(options, message):
    for call in (fitted(tokenizer="char").generate, fitted(tokenizer="char").generate_stream):
        with pytest.raises(ParameterError) as caught:
            call(**options)
        assert str(caught.value) == message


def test_prompts_must_be_texts():
    lm = fitted(tokenizer="char")
    with pytest.raises(TextError) as caught:
        lm.generate("the cat")
    assert str(caught.value) == (
        "Iterable over raw text documents expected, string object received. Put a single text in a "
        "list: [text]."
    )
    with pytest.raises(TextTypeError) as type_error:
        lm.generate(["the", 3])
    assert str(type_error.value) == (
        "texts[1] is 3 (int); every text must be a str: leave it out or replace it by a str."
    )
    with pytest.raises(TextTypeError) as stream_error:
        lm.generate_stream(["the"])
    assert str(stream_error.value) == (
        "prompt is a list; generate_stream takes one str. For several prompts use generate."
    )
