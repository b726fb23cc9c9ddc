"""What "auto" becomes: sane, monotone, and never in the way of what was given."""

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import TEXTS

from lstmlm import LSTMLanguageModel
from lstmlm.config import AUTO, ModelConfig, TextConfig, TrainConfig
from lstmlm.defaults import (
    ADAPTIVE_FROM,
    DECAY_PASSES,
    INPUT_NOISE,
    MIN_STEPS,
    NOISY_PASSES,
    WEIGHTS_A_TOKEN,
    WIDE_PASSES,
    WIDTHS,
    Circumstances,
    cutoffs,
    passes,
    resolve,
    resolve_text,
    wants_first_rows,
)
from lstmlm.fitting import network
from lstmlm.nn import processors

sizes = st.integers(1, 10**9)
vocab_sizes = st.integers(2, 2**20)
contexts = st.sampled_from(["document", "stream"])


def case_of(
    n_tokens,
    vocab_size=1000,
    mean_length=20.0,
    fast_bf16=False,
    longest_pair=0,
    by_word=False,
    flops=5e11,
):
    return Circumstances(
        n_tokens=n_tokens,
        vocab_size=vocab_size,
        mean_length=mean_length,
        fast_bf16=fast_bf16,
        flops=flops,
        longest_pair=longest_pair,
        by_word=by_word,
    )


FACTS = ("mean_length", "fast_bf16", "longest_pair", "by_word", "flops")


def settled(*case, **given_values):
    facts = {name: given_values.pop(name) for name in FACTS if name in given_values}
    configs = ModelConfig.of(given_values), TrainConfig.of(given_values)
    return resolve(*configs, case_of(*case, **facts))


def model(*case, **given_values):
    return settled(*case, **given_values)[0]


def training(*case, **given_values):
    return settled(*case, **given_values)[1]


@given(sizes, vocab_sizes, st.floats(1, 1e6), st.booleans(), contexts)
def test_nothing_stays_auto(n_tokens, vocab_size, mean_length, fast_bf16, context):
    network, pace = settled(n_tokens, vocab_size, mean_length, fast_bf16=fast_bf16, context=context)
    values = asdict(network) | asdict(pace)
    assert [name for name, value in values.items() if value == AUTO] == []
    assert resolve_text(TextConfig(), n_tokens).vocab_size != AUTO


@given(sizes, sizes, vocab_sizes)
def test_more_text_gets_no_smaller_a_network(n_tokens, more, vocab_size):
    small, large = model(n_tokens, vocab_size), model(n_tokens + more, vocab_size)
    assert small.hidden_size <= large.hidden_size
    assert small.embedding_dim <= large.embedding_dim <= large.hidden_size
    sizes_alike = {"hidden_size": 256, "embedding_dim": 128, "max_epochs": 3}
    few, many = (model(n, vocab_size, **sizes_alike) for n in (n_tokens, n_tokens + more))
    assert few.dropout >= many.dropout


@given(sizes, vocab_sizes, st.floats(1, 1e5), st.floats(1, 1e5))
def test_more_time_gets_more_dropout(n_tokens, vocab_size, seconds, more):
    short, long = (
        model(n_tokens, vocab_size, max_seconds=time) for time in (seconds, seconds + more)
    )
    assert 0 <= short.dropout <= long.dropout <= 0.4
    assert short.dropout_input <= long.dropout_input <= 0.6


def test_dropout_follows_how_often_the_text_is_read():
    wikitext = 2_088_628, 33_278
    assert [model(*wikitext, max_epochs=n).dropout for n in (1, 3, 6, 15, 100)] == [
        *(0.1, 0.2, 0.28, 0.4, 0.4)
    ]
    whole = model(*wikitext, max_epochs=2, max_seconds=1e9)
    assert whole.dropout == 0.16  # whichever limit is met first


def test_dropout_follows_how_much_text_a_weight_has():
    quarter = model(520_000, 23_166, max_epochs=6)
    assert quarter.dropout == quarter.dropout_input == 0.4
    assert model(20_000_000, 33_278, max_epochs=6).dropout < 0.1


def test_seconds_for_many_passes_over_a_million_words_buy_a_wide_network():
    wikitext = 2_088_628, 33_278
    network, pace = settled(*wikitext, max_seconds=3600.0)
    assert (network.hidden_size, network.embedding_dim) == (1024, 400)
    assert (network.dropout, network.dropout_input, pace.batch_size) == (0.4, 0.6, 64)
    assert passes(network, pace, case_of(*wikitext)) >= WIDE_PASSES
    assert training(*wikitext, max_seconds=3600.0, by_word=True).input_noise == 0.0
    for otherwise in (
        model(*wikitext, max_seconds=1_200.0),  # five passes
        model(*wikitext, max_epochs=60),
        model(WIDTHS[0].n_tokens - 1, 33_278, max_seconds=3600.0),
        model(2_088_628, 60, max_seconds=3600.0),  # characters
        model(*wikitext, longest_pair=40, max_seconds=3600.0),
    ):
        assert otherwise.hidden_size == 512


def test_a_slow_processor_or_little_time_gets_a_narrower_network():
    wikitext = 2_088_628, 33_278

    def width(*case, flops, seconds=150.0, **given_values):
        network = model(*case, flops=flops, max_seconds=seconds, **given_values)
        return network.hidden_size, network.embedding_dim

    one_thread = 3.3e10  # of a Zen 1, on which these were measured
    assert width(*wikitext, flops=one_thread) == (256, 128)
    assert width(1_003_854, 65, flops=one_thread) == (256, 64)
    assert width(*wikitext, flops=one_thread, seconds=5.0) == (128, 128)
    assert width(*wikitext, flops=5e11) == (512, 224)
    assert width(*wikitext, flops=one_thread, hidden_size=512) == (512, 224)
    assert width(*wikitext, flops=one_thread, longest_pair=40) == (512, 224)
    assert model(*wikitext, flops=math.inf, max_epochs=1).hidden_size == 512


@given(sizes, vocab_sizes, st.floats(1, 1e5), st.floats(1, 1e5))
def test_more_time_gets_no_narrower_a_network(n_tokens, vocab_size, seconds, more):
    short, long = (
        model(n_tokens, vocab_size, max_seconds=time) for time in (seconds, seconds + more)
    )
    assert short.hidden_size <= long.hidden_size


def test_neighbours_are_counted_where_there_are_words_and_time():
    assert wants_first_rows(10_000, None)
    assert wants_first_rows(10_000, 600.0)
    assert not wants_first_rows(10_000, 5.0)  # it takes some seconds
    assert not wants_first_rows(60, None)  # of characters


@pytest.mark.parametrize(
    ("measured", "given_values"),
    [
        (11_700, {"n_tokens": 2_088_628, "vocab_size": 33_278}),  # WikiText-2, 20 lanes, two cores
        (69_000, {"n_tokens": 1_003_854, "vocab_size": 66}),  # tinyshakespeare
    ],
)
def test_the_guess_of_the_speed_is_no_worse_than_a_guess(measured, given_values):
    case = Circumstances(mean_length=20.0, fast_bf16=True, flops=5e11, **given_values)
    lanes = 20 if case.vocab_size > 66 else 32
    pace = TrainConfig(max_seconds=100.0, batch_size=lanes)
    sizes, pace = resolve(ModelConfig(hidden_size=512), pace, case)
    guessed = passes(sizes, pace, case) * case.n_tokens / 100
    assert measured / 1.5 < guessed < measured * 1.5


def test_words_are_read_in_as_many_lanes_as_leave_steps_enough():
    wikitext = 2_088_628, 33_278
    found = [training(*wikitext, max_seconds=s).batch_size for s in (5.0, 30.0, 100.0, 250.0, 9e9)]
    assert found[0] == 20 < found[2] < found[3] == found[4] == 64
    assert found == sorted(found)
    assert training(*wikitext, max_epochs=3).batch_size == 64
    assert training(*wikitext, max_epochs=3, batch_size=7).batch_size == 7
    assert training(1_000_000, 33_278, max_epochs=3).batch_size == 32
    assert training(260_000, 33_278, max_epochs=3).batch_size == 20
    assert training(2_088_628, 60, max_epochs=3).batch_size == 32  # of characters


def test_few_characters_are_read_in_fewer_lanes_at_a_higher_rate():
    shakespeare = 1_003_854, 65
    little, much = (training(*shakespeare, max_seconds=seconds) for seconds in (0.01, 600.0))
    assert (little.batch_size, little.learning_rate) == (16, 0.006)
    assert (much.batch_size, much.learning_rate) == (32, 0.004)
    between = training(*shakespeare, max_epochs=3)
    assert (between.batch_size, between.learning_rate) == (24, 0.005)
    assert training(*shakespeare, max_epochs=3, batch_size=7).batch_size == 7


def test_weights_forget_over_some_passes_unless_there_is_but_one():
    once, often = training(10**6, max_epochs=1), training(10**6, max_epochs=8)
    steps = 10**6 / (often.batch_size * often.bptt_length)
    forgotten = often.learning_rate * often.weight_decay * steps * DECAY_PASSES
    assert once.weight_decay == 0.01
    assert forgotten == pytest.approx(1, rel=0.05)
    assert training(10**6, max_epochs=8, learning_rate=0.0).weight_decay == 0.01


@given(sizes, sizes, vocab_sizes)
def test_more_text_is_read_less_often_and_less_of_it_is_held_out(n_tokens, more, vocab_size):
    small, large = training(n_tokens, vocab_size), training(n_tokens + more, vocab_size)
    assert small.max_epochs >= large.max_epochs >= 1
    assert small.batch_size <= large.batch_size
    assert 0.1 >= small.validation_fraction >= large.validation_fraction > 0


@given(sizes, vocab_sizes, st.floats(1, 1e6))
def test_an_epoch_has_steps_enough_to_learn_from(n_tokens, vocab_size, mean_length):
    pace = training(n_tokens, vocab_size, mean_length)
    steps = n_tokens // (pace.batch_size * pace.bptt_length)
    assert pace.batch_size == 1 or steps >= MIN_STEPS


def test_two_percent_are_held_out_where_there_is_plenty_but_no_more_than_is_soon_read():
    assert training(500_000).validation_fraction == 0.02
    assert training(10_000_000).validation_fraction == 0.02
    assert training(500_000_000).validation_fraction == pytest.approx(200_000 / 500_000_000)


@given(sizes, sizes)
def test_more_text_gets_no_fewer_bpe_types(n_chars, more):
    small, large = (resolve_text(TextConfig(), n).vocab_size for n in (n_chars, n_chars + more))
    assert 320 <= small <= large <= 32_768


@given(vocab_sizes)
def test_cutoffs_rise_inside_the_vocabulary(vocab_size):
    edges = [0, *cutoffs(vocab_size), vocab_size]
    assert len(edges) > 2
    assert edges == sorted(set(edges))


def test_the_output_layer_follows_the_vocabulary():
    assert model(10**6, ADAPTIVE_FROM - 1).output == "softmax"
    assert model(10**6, ADAPTIVE_FROM).output == "adaptive"


def test_bf16_only_where_the_machine_has_it():
    assert training(1000, fast_bf16=True).precision == "bf16"
    assert training(1000, fast_bf16=False).precision == "float32"


def test_a_limit_of_seconds_lifts_the_auto_limit_of_epochs():
    assert training(1000, max_seconds=5.0).max_epochs is None
    assert training(1000, max_seconds=5.0, max_epochs=3).max_epochs == 3
    assert training(1000, max_epochs=None).max_epochs is None


def test_words_of_a_large_vocabulary_are_read_with_noise_if_they_are_read_often():
    few_weights = {"embedding_dim": 64, "hidden_size": 32}  # a quarter of those by the rules

    def noise(passes, vocab_size=30_000, by_word=True, **given_values):
        given_values = {"by_word": by_word, "max_epochs": passes} | given_values
        return training(10**6, vocab_size, **given_values).input_noise

    weights = 4 * 512 * (512 + 224) + 224 * (30_000 + 512)
    often = math.ceil(NOISY_PASSES * WEIGHTS_A_TOKEN / (weights / 10**6))
    assert (noise(often - 1), noise(often)) == (0.0, INPUT_NOISE)
    assert noise(often, **few_weights) == 0.0
    assert noise(60, by_word=False) == 0.0
    assert noise(60, ADAPTIVE_FROM - 1) == 0.0
    assert noise(60, longest_pair=40) == 0.0


def test_a_window_holds_texts_a_little_longer_than_itself():
    assert training(1000, mean_length=60.2).bptt_length == 60
    assert training(1000, mean_length=71.0).bptt_length == 35
    assert training(1000, mean_length=60.2, context="stream").bptt_length == 35


GIVEN_MODEL = {
    "output": "adaptive",
    "embedding_dim": 7,
    "hidden_size": 9,
    "num_layers": 3,
    "cell": "gru",
    "peephole": "full",
    "dropout_embedding": 0.15,
    "dropout_weight": 0.25,
    "tie_weights": False,
    "dropout": 0.25,
    "dropout_input": 0.0,
}
GIVEN_TRAINING = {
    "context": "stream",
    "max_epochs": 4,
    "max_seconds": 9.0,
    "batch_size": 3,
    "bptt_length": 5,
    "learning_rate": 0.5,
    "weight_decay": 0.1,
    "clip_norm": None,
    "activation_penalty": 2.0,
    "temporal_penalty": 1.0,
    "input_noise": 0.3,
    "early_stopping": False,
    "validation_fraction": 0.3,
    "n_iter_no_change": 2,
    "precision": "float32",
}


@given(sizes, vocab_sizes, st.floats(1, 1e6), st.booleans())
def test_what_is_given_is_kept(n_tokens, vocab_size, mean_length, fast_bf16):
    network, pace = settled(
        *(n_tokens, vocab_size, mean_length),
        fast_bf16=fast_bf16,
        **GIVEN_MODEL,
        **GIVEN_TRAINING,
    )
    assert asdict(network) == GIVEN_MODEL
    assert asdict(pace) == GIVEN_TRAINING
    assert resolve_text(TextConfig(vocab_size=999), n_tokens).vocab_size == 999


def test_the_tests_above_give_every_setting():
    assert GIVEN_MODEL.keys() == ModelConfig.rules().keys()
    assert GIVEN_TRAINING.keys() == TrainConfig.rules().keys()


@given(st.integers(1, 2_000))
def test_the_embedding_is_no_wider_than_the_layers(hidden_size):
    network = model(10**6, 1000, hidden_size=hidden_size)
    limit = 128 if hidden_size < 512 else 224 if hidden_size < 1024 else 400
    assert network.embedding_dim == min(hidden_size, limit)


@pytest.mark.parametrize("tokenizer", ["bpe", "char", "word"])
def test_a_fits_params_hold_no_auto(tokenizer):
    params = LSTMLanguageModel(tokenizer=tokenizer, max_epochs=0).fit(TEXTS).params_
    assert [name for name, value in params.items() if value == AUTO] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_timed_where_seconds_limit_a_fit(dtype, monkeypatch):
    assert 0 < processors.measured_flops(dtype) < math.inf
    monkeypatch.setattr(network, "has_matrix_units", lambda: False)
    monkeypatch.setattr(network, "has_fast_bf16", lambda device: dtype == torch.bfloat16)
    text = ["it was a dark and stormy night " * 2_000]

    def width(flops, **limits):
        monkeypatch.setattr(network, "measured_flops", {dtype: flops}.__getitem__)
        lm = LSTMLanguageModel(tokenizer="char", precision="float32", **limits).fit(text)
        return lm.params_["hidden_size"]

    assert width(1e7, max_seconds=2.0) == 128
    assert width(1e12, max_seconds=2.0) == 256
    assert width(None, max_epochs=0) == 256  # nothing is timed
