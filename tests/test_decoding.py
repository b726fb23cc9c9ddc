import math
from itertools import pairwise, product

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny import TEXTS, fitted, network, unfitted

from lstmlm import DecodeConfig, ParameterError, TextError, TextTypeError
from lstmlm.decoding import generate_ids, make_processors, sampling, search_ids
from lstmlm.decoding.processors import (
    BadWords,
    Forbid,
    MinNewTokens,
    MinP,
    NoRepeatNgram,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)
from lstmlm.decoding.sampling import Draw, read_prompts
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
    """Return the ids that each prompt is continued with, an end mark last if there is one."""
    named = {name: options.pop(name) for name in {"seed", "first_row"} & options.keys()}
    more = {name: options.pop(name) for name in {"forbidden", "own"} & options.keys()}
    arrays = [np.array(prompt, dtype=np.int32) for prompt in prompts]
    config = DecodeConfig(**{"max_new_tokens": 12} | options)
    processors = make_processors(config, start=1 + max(map(len, prompts), default=0), **more)
    rows = [[] for _ in prompts]
    for step in generate_ids(model, arrays, config.max_new_tokens, processors=processors,
                             do_sample=config.do_sample, **named):  # fmt: skip
        for row, token_id in zip(step.rows, step.ids.tolist(), strict=True):
            rows[row].append(token_id)
    return rows if config.max_new_tokens else []


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
    arrays = [np.array(prompt, dtype=np.int32) for prompt in PROMPTS]
    steps = list(generate_ids(model, arrays, 200, seed=1))
    assert 2 < len(steps) < 200
    assert steps[0].rows.tolist() == list(range(len(PROMPTS)))
    for step, following in pairwise(steps):
        assert following.rows.tolist() == step.rows[step.ids != END].tolist()
    assert (steps[-1].ids == END).all()


def test_a_row_that_its_reader_wants_no_more_of_ends():
    model = network()
    arrays = [np.array(prompt, dtype=np.int32) for prompt in PROMPTS]
    whole = written(model, seed=1)
    rows = [[] for _ in PROMPTS]
    for step in generate_ids(model, arrays, 12, seed=1):
        for row, token_id in zip(step.rows, step.ids.tolist(), strict=True):
            rows[row].append(token_id)
            if len(rows[row]) == 1 + row % 3:
                step.ended.add(row)
    assert rows == [ids[: 1 + row % 3] for row, ids in enumerate(whole)]


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
    monkeypatch.setattr(sampling, "READ_TOKENS", read_tokens)
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
        (MinP(0.5), [[0, 0.4, 0.2, 0.3], [0.25] * 4]),
        (MinP(1.0), [[0, 0.4, 0, 0], [0.25] * 4]),
        (RepetitionPenalty(2.0), [[0.1, 0.4, 0.04, 0.09], [0.25, 0.0625, 0.25, 0.25]]),
        (NoRepeatNgram(1), [[0.1, 0.4, 0, 0], [0.25, 0, 0.25, 0.25]]),
        (NoRepeatNgram(2), [[0.1, 0.4, 0, 0.3], [0.25, 0, 0.25, 0.25]]),
        (NoRepeatNgram(3), [[0.1, 0.4, 0, 0.3], [0.25, 0, 0.25, 0.25]]),
        (NoRepeatNgram(6), [[0.1, 0.4, 0.2, 0.3], [0.25] * 4]),
        (MinNewTokens(3, 3), [[0, 0.4, 0.2, 0.3], [0, 0.25, 0.25, 0.25]]),
        (MinNewTokens(2, 3), [[0.1, 0.4, 0.2, 0.3], [0.25] * 4]),
    ],
    ids=str,
)
def test_a_processor_changes_logits_and_leaves_its_argument(process, expected):
    ids, before = torch.tensor([[END, 3, 2, 3, 3], [END, 1, 1, 1, 1]]), LOGITS.clone()
    ids[0] = torch.tensor([3, 2, 3, 3, 2]) if isinstance(process, NoRepeatNgram) else ids[0]
    if isinstance(process, NoRepeatNgram) and process.n == 2:
        ids[0] = torch.tensor([2, 2, 3, 3, 2])
        expected[0] = [0.1, 0.4, 0, 0]  # 2 2 and 2 3 have been
    if isinstance(process, NoRepeatNgram) and process.n == 3:
        ids[0] = torch.tensor([3, 3, 2, 3, 3])
    torch.testing.assert_close(process(ids, LOGITS).exp(), torch.tensor(expected))
    assert torch.equal(LOGITS, before)


def test_end_marks_before_a_prompt_are_no_run():
    ids = torch.tensor([[END, END, END, 1]])
    logits = torch.zeros(1, 4)
    for n in (1, 2, 3):
        process = NoRepeatNgram(n)
        assert not process(ids, logits)[0, END].isneginf()
    assert torch.equal(
        RepetitionPenalty(3.0)(ids, LOGITS[:1])[0, [END, 2, 3]], LOGITS[0, [0, 2, 3]]
    )


@pytest.mark.parametrize(("glue", "text"), [(b"", b"ab"), (b" ", b"a b")])
def test_bad_words_are_completed_by_no_id(glue, text):
    pieces = [b"", b"a", b"b", b"ab", b"xabx", b"ba"]
    process = BadWords((text.decode(),), pieces, glue)
    never = [3, 4] if not glue else []
    after_a = [2, 5]  # b and ba
    for ids, banned in (([END, 2], never), ([2, 1], never + after_a), ([END, END], never)):
        found = process(torch.tensor([ids]), torch.zeros(1, 6)).isneginf()[0].nonzero().flatten()
        assert sorted(banned) == found.tolist()


def test_processors_act_in_order_and_only_when_asked_for():
    everything = DecodeConfig(
        temperature=0.5, top_k=3, top_p=0.5, min_p=0.1, repetition_penalty=1.2,
        no_repeat_ngram_size=3, bad_words="b", min_new_tokens=2,
    )  # fmt: skip
    pieces, own = (b"", b"a"), Temperature(3.0)
    assert make_processors(everything, forbidden=[4], start=7, pieces=pieces, own=[own]) == [
        Forbid((4,)), RepetitionPenalty(1.2), NoRepeatNgram(3), BadWords(("b",), pieces, b""),
        MinNewTokens(2, 7), own, Temperature(0.5), TopK(3), TopP(0.5), MinP(0.1)]  # fmt: skip
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
    # A prompt's last word is taken as whole: healed, it may be the beginning of a likelier one.
    texts = lm.generate(BEGINNINGS, do_sample=False, max_new_tokens=15, token_healing=False)
    for text, beginning, row in zip(texts, BEGINNINGS, rows, strict=True):
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
    monkeypatch.setattr("lstmlm.estimator.generations.GENERATE_BATCH", 2)
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
        "'temprature' is not an option of generation; the options are max_new_tokens, "
        "min_new_tokens, do_sample, num_return_sequences, temperature, top_k, top_p, min_p, "
        "repetition_penalty, no_repeat_ngram_size, bad_words, stop_strings, "
        "choices, regex, line_lengths, token_healing, num_beams, length_penalty. "
        "Did you mean 'temperature'?"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature=0 is not valid; temperature is a number greater than 0."),
        ({"top_k": -1}, "top_k=-1 is not valid; top_k is an integer at least 0."),
        ({"top_p": 1.5}, "top_p=1.5 is not valid; top_p is a number greater than 0 and at most 1."),
        ({"do_sample": "no"}, "do_sample='no' is not valid; do_sample is True or False."),
        ({"min_p": 2}, "min_p=2 is not valid; min_p is a number at least 0 and at most 1."),
        (
            {"bad_words": ["a", ""]},
            "bad_words=['a', ''] is not valid; bad_words is a str that is not empty, or several, "
            "or None.",
        ),
        (
            {"num_return_sequences": 2, "do_sample": False},
            "num_return_sequences=2 needs do_sample=True or num_beams: the likeliest tokens give a "
            "single text.",
        ),
        (
            {"num_return_sequences": 3, "num_beams": 2},
            "num_return_sequences=3 is more than num_beams=2.",
        ),
        (
            {"min_new_tokens": 9, "max_new_tokens": 8},
            "min_new_tokens=9 is more than max_new_tokens=8.",
        ),
        (
            {"logits_processor": 3},
            "logits_processor=3 is not valid; it is a callable (ids, logits) -> logits, or "
            "several.",
        ),
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


# ---- what a text may and must have ----


@WRITERS
def test_several_texts_to_a_prompt_lie_together(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    texts = lm.generate(BEGINNINGS, num_return_sequences=3, random_state=1, max_new_tokens=8)
    assert len(texts) == 3 * len(BEGINNINGS)
    assert len(set(texts[:3])) > 1
    repeated = [prompt for prompt in BEGINNINGS for _ in range(3)]
    assert texts == lm.generate(repeated, random_state=1, max_new_tokens=8)
    lm.set_params(generation_config={"num_return_sequences": 3})
    assert lm.predict(BEGINNINGS).shape == (len(BEGINNINGS),)
    lm.set_params(generation_config=None)


@WRITERS
@pytest.mark.parametrize("do_sample", [True, False])
def test_a_record_has_each_tokens_log_probability(tokenizer, do_sample):
    lm = fitted(tokenizer=tokenizer)
    options = {"do_sample": do_sample, "random_state": 3, "max_new_tokens": 6}
    records = lm.generate_records(BEGINNINGS, temperature=1.4, **options)
    assert [r.text for r in records] == lm.generate(BEGINNINGS, temperature=1.4, **options)
    for record in records:
        assert "".join(record.tokens) == record.text
        assert len(record.tokens) == len(record.log_probs)
        assert record.log_prob == pytest.approx(record.log_probs.sum())
    greedy = lm.generate_records(["the cat"], do_sample=False, max_new_tokens=4)[0]
    table, _ = plain.read(lm.module_, lm.tokenizer_.encode(["the cat"])[0].tolist())
    assert greedy.log_probs[0] == pytest.approx(float(table[-1].max()), abs=1e-5)


@WRITERS
def test_bad_words_never_come(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    options = {"random_state": 5, "max_new_tokens": 40, "num_return_sequences": 20}
    free = lm.generate(["the", ""], **options)
    bad = ["cat", "o", "t s"]
    assert all(any(word in text for text in free) for word in bad)
    for prompt, text in zip(
        ["the"] * 20 + [""] * 20, lm.generate(["the", ""], bad_words=bad, **options), strict=True
    ):
        whole = prompt + text
        assert not any(word in whole for word in bad)


@WRITERS
def test_a_text_ends_with_a_stop_string(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    options = {"random_state": 5, "max_new_tokens": 40}
    stops = ["at", "n t", "o"]
    free = lm.generate([""] * 30, **options)
    stopped = lm.generate([""] * 30, stop_strings=stops, **options)
    n_stopped = 0
    for whole, text in zip(free, stopped, strict=True):
        ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
        assert text == whole[: min(ends)] if ends else text == whole
        n_stopped += bool(ends)
    assert n_stopped > 5
    for row in range(3):
        pieces = list(lm.generate_stream("", stop_strings=stops, random_state=row))
        assert ["".join(pieces)] == lm.generate([""], stop_strings=stops, random_state=row)


def test_a_long_stop_string_at_the_very_beginning_ends_a_text():
    lm = fitted(tokenizer="char")
    ids = lm.tokenizer_.encode(["the cat"])[0].tolist()

    def dictated(read, logits):
        nth = min(read.shape[1] - 1, len(ids) - 1)  # an end mark stands before all else
        return torch.full_like(logits, -torch.inf).index_fill(1, torch.tensor([ids[nth]]), 0.0)

    options = {"logits_processor": dictated, "max_new_tokens": 20}
    for length in range(1, 8):
        stop = "the cat"[:length]
        assert lm.generate([""], stop_strings=[stop], **options) == [stop]
        assert "".join(lm.generate_stream("", stop_strings=[stop], **options)) == stop


@WRITERS
def test_a_text_has_its_least_length_and_repeats_no_run(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    options = {"random_state": 2, "max_new_tokens": 25}
    records = lm.generate_records([""] * 10, min_new_tokens=25, **options)
    assert {len(record.tokens) for record in records} == {25}
    seen = []

    def look(ids, logits):
        seen.append(ids)
        return logits

    records = lm.generate_records(
        [""] * 10, no_repeat_ngram_size=2, logits_processor=look, **options
    )
    assert len(seen) == max(len(record.tokens) for record in records)
    for row in seen[-1].tolist():
        pairs = [pair for pair in pairwise(row) if END not in pair]
        assert len(set(pairs)) == len(pairs)


def test_a_row_for_which_nothing_is_left_ends():
    lm = fitted(tokenizer="char")

    def nothing(ids, logits):
        return torch.full_like(logits, -torch.inf)

    assert lm.generate(["a", "b"], logits_processor=[nothing], min_new_tokens=5) == ["", ""]
    assert lm.generate(["a"], logits_processor=nothing, do_sample=False) == [""]


def test_processors_are_for_streams_too():
    lm = fitted(tokenizer="char")
    only = lm.tokenizer_.encode(["t"])[0][0]

    def write(ids, logits):
        return torch.full_like(logits, -torch.inf).index_fill(1, torch.tensor([int(only)]), 0.0)

    assert list(lm.generate_stream("a", logits_processor=write, max_new_tokens=4)) == ["t"] * 4


# ---- beams ----


def searched(model, prompts, n=12, **options):
    arrays = [np.array(prompt, dtype=np.int32) for prompt in prompts]
    return search_ids(model, arrays, n, **options)


@on_networks
def test_one_beam_is_greedy(settings):
    model = network(**settings)
    for length_penalty in (-1.0, 0.0, 1.0, 3.0):
        found = searched(model, PROMPTS, num_beams=1, length_penalty=length_penalty)
        assert [list(best.ids) for (best,) in found] == written(model, do_sample=False)


@on_networks
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
def test_beams_that_keep_everything_find_the_best_of_all(settings, length_penalty):
    model, n = network(**settings).double(), 3
    with torch.no_grad():
        model.head.bias[END] += 1
    whole = []
    for length in range(1, n + 1):
        for ids in product(range(9), repeat=length):
            if END in ids[:-1] or (length < n and ids[-1] != END):
                continue
            table, _ = plain.read(model, [2, *ids[:-1]])
            total = sum(float(row[i]) for row, i in zip(table[1:], ids, strict=True))
            whole.append((total / length**length_penalty, ids, total))
    whole.sort(reverse=True)
    (found,) = searched(model, [[2]], n, num_beams=9**n, length_penalty=length_penalty)
    assert [best.ids for best in found[:50]] == [ids for _, ids, _ in whole[:50]]
    for best, (_, _, total) in zip(found[:50], whole[:50], strict=True):
        assert math.fsum(best.log_probs) == pytest.approx(total, rel=1e-9)
        assert best.total == pytest.approx(total, rel=1e-9)


@settings(max_examples=15)
@given(
    prompts=st.lists(st.lists(st.integers(1, 8), max_size=6), min_size=1, max_size=5),
    num_beams=st.integers(1, 5),
)
def test_a_prompts_search_does_not_depend_on_the_others(prompts, num_beams):
    model = network().double()
    together = searched(model, prompts, num_beams=num_beams)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = searched(model, [prompt], num_beams=num_beams)
        assert [best.ids for best in alone] == [best.ids for best in found]
        for best in found:  # its log-probabilities are those of its ids, read one after another
            table, _ = plain.read(model, [*prompt, *best.ids[:-1]])
            expected = [
                float(row[i]) for row, i in zip(table[len(prompt) :], best.ids, strict=True)
            ]
            assert best.log_probs == pytest.approx(expected, rel=1e-9)


@WRITERS
def test_a_search_finds_texts_likelier_than_the_greedy_one(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    options = {"max_new_tokens": 12, "length_penalty": 0.0}
    found = lm.generate_records(BEGINNINGS, num_beams=6, num_return_sequences=2, **options)
    greedy = lm.generate_records(BEGINNINGS, do_sample=False, max_new_tokens=12)
    assert len(found) == 2 * len(BEGINNINGS)
    gained = [best.log_prob - one.log_prob for best, one in zip(found[::2], greedy, strict=True)]
    assert np.mean(gained) >= 0
    assert max(gained) > 0
    for best, second in zip(found[::2], found[1::2], strict=True):
        assert best.log_prob >= second.log_prob
        assert best.tokens != second.tokens
    assert [one.text for one in found[::2]] == lm.generate(BEGINNINGS, num_beams=6, **options)
    lm.set_params(generation_config={"num_beams": 3})
    assert lm.predict(BEGINNINGS).tolist() == lm.generate(BEGINNINGS, num_beams=1, do_sample=False)
    lm.set_params(generation_config=None)


@WRITERS
def test_a_search_keeps_to_what_a_text_may_and_must_have(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 20}
    for text in lm.generate(["the", ""], bad_words=["cat", "o"], **options):
        assert "cat" not in text
        assert "o" not in text
    records = lm.generate_records(["the", ""], stop_strings=["e"], min_new_tokens=3, **options)
    assert any(record.text.endswith("e") for record in records)
    for record in records:
        assert "e" not in record.text[:-1]
        assert record.text.endswith("e") or len(record.tokens) >= 3


def test_a_search_can_not_be_streamed():
    with pytest.raises(ParameterError, match="num_beams=2 gives a text as a whole"):
        fitted(tokenizer="char").generate_stream("a", num_beams=2)
