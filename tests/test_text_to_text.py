"""From prompts to completions."""

import math
import re
from functools import cache

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from lstmlm import (
    LSTMLanguageModel,
    LSTMTextToText,
    ModelFolderError,
    ParameterError,
    TextError,
    TextTypeError,
)
from lstmlm.attending import AttendingLM
from lstmlm.config import PairModelConfig, TrainConfig
from lstmlm.nn.attention import Attention
from lstmlm.text import END

PROMPTS = ["one", "two", "three", "the cat", "床前明月", "", "a dog and a cat", "🙂 x"] * 6
COMPLETIONS = ["1", "2 .", "3!", "le chat", "moon", "nothing", "", "a smile"] * 6
SIZES = {
    "embedding_dim": 12,
    "hidden_size": 20,
    "max_epochs": 12,
    "learning_rate": 0.02,
    "dropout": 0.1,
    "dropout_input": 0.1,
    "batch_size": 8,
    "early_stopping": False,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}
VARIANTS = [
    {"tokenizer": tokenizer, "attention": attention}
    for tokenizer in ("bpe", "char", "word")
    for attention in (False, True)
] + [
    {"tokenizer": "char", "attention": True, "cell": cell, "num_layers": 2, "output": output}
    for cell, output in (("gru", "softmax"), ("peephole_lstm", "adaptive"))
]
on_variants = pytest.mark.parametrize(
    "params", VARIANTS, ids=lambda p: "-".join(map(str, p.values()))
)


def unfitted(**params):
    return LSTMTextToText(**SIZES | params)


@cache
def _fitted(params):
    return unfitted(**dict(params)).fit(PROMPTS, COMPLETIONS)


def fitted(**params):
    return _fitted(tuple(params.items()))


def by_the_equations(model, prompt, completion):
    """Each log-probability of a completion, one token at a time, attention from its equations."""
    module, tokenizer = model.module_, model.tokenizer_
    read, written = (tokenizer.encode([text])[0].tolist() for text in (prompt, completion))
    ids, found, memory = [END, *read, END, *written], [], []
    state = module.zero_state(1)
    with torch.inference_mode():
        for place, token in enumerate(ids):
            output, state = module.read(torch.tensor([[token]]), state)
            h = output[0, 0]
            if 1 <= place <= len(read) + 1:
                memory.append(h)
            if place <= len(read):
                continue
            if isinstance(module, AttendingLM):
                w_a, w_c = module.attention.score.weight, module.attention.combine.weight
                shares = torch.stack([(w_a @ h) @ m for m in memory]).softmax(0)
                c = sum(share * m for share, m in zip(shares, memory, strict=True))
                h = torch.tanh(w_c @ torch.cat([c, h]))
            target = [*written, END][place - len(read) - 1]
            found.append(float(module.head.log_probs(module.project(h[None]))[0, target]))
    return found


# ---- figures ----


@on_variants
def test_scores_are_those_of_the_equations(params):
    model = fitted(**params)
    samples = model.score_samples(PROMPTS[:8], COMPLETIONS[:8])
    expected = [
        sum(by_the_equations(model, *p)) for p in zip(PROMPTS[:8], COMPLETIONS[:8], strict=True)
    ]
    assert samples == pytest.approx(expected, rel=1e-4, abs=1e-5)
    tokens = sum(1 + len(model.tokenizer_.encode([text])[0]) for text in COMPLETIONS[:8])
    assert model.perplexity(PROMPTS[:8], COMPLETIONS[:8]) == pytest.approx(
        math.exp(-sum(expected) / tokens), rel=1e-4
    )
    assert model.score(PROMPTS[:8], COMPLETIONS[:8]) == -model.perplexity(
        PROMPTS[:8], COMPLETIONS[:8]
    )


@on_variants
def test_a_pair_s_score_does_not_depend_on_its_company(params):
    model = fitted(**params)
    together = model.score_samples(PROMPTS[:8], COMPLETIONS[:8])
    alone = [
        model.score_samples([p], [c])[0] for p, c in zip(PROMPTS[:8], COMPLETIONS[:8], strict=True)
    ]
    assert together == pytest.approx(np.array(alone), rel=1e-5, abs=1e-5)


def test_every_unit_has_its_perplexity():
    model = fitted(tokenizer="char", attention=True)
    pairs = ["one", "two"], ["1 a", "é"]
    nats = -model.score_samples(*pairs).sum()
    for unit, count in {"token": 6, "char": 6, "word": 5, "byte": 7}.items():
        assert model.perplexity(*pairs, per=unit) == pytest.approx(math.exp(nats / count))


@on_variants
def test_greedy_is_teacher_forced(params):
    model = fitted(**params)
    records = model.generate_records(PROMPTS[:8], do_sample=False, max_new_tokens=30)
    assert [r.text for r in records] == list(model.predict(PROMPTS[:8]))
    for prompt, record in zip(PROMPTS[:8], records, strict=True):
        if record.tokens[-1] == "":  # it ended itself
            expected = model.score_samples([prompt], [record.text])[0]
            assert record.log_prob == pytest.approx(expected, rel=1e-3, abs=1e-4)


@on_variants
def test_beams_have_the_log_probability_of_their_text(params):
    model = fitted(**params)
    options = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 30}
    records = model.generate_records(PROMPTS[:5], **options)
    for number, record in enumerate(records):
        prompt = PROMPTS[number // 3]
        if record.tokens[-1] == "" and "\ufffd" not in record.text:
            expected = model.score_samples([prompt], [record.text])[0]
            assert record.log_prob <= expected + 1e-3  # other ids may spell the same text


@on_variants
def test_a_batch_is_as_one_by_one(params):
    model = fitted(**params)
    for options in ({"do_sample": False}, {"num_beams": 3}):
        together = model.generate(PROMPTS[:8], **options)
        assert together == [model.generate([prompt], **options)[0] for prompt in PROMPTS[:8]]
    for prompt in PROMPTS[:8]:
        pieces = model.generate_stream(prompt, random_state=4)
        assert "".join(pieces) == model.generate([prompt], random_state=4)[0]


# ---- learning ----


@pytest.mark.parametrize("attention", [False, True])
def test_pairs_are_learned(attention):
    model = unfitted(
        tokenizer="char", attention=attention, max_epochs=60, hidden_size=48, dropout=0.0
    )
    model.fit(PROMPTS, COMPLETIONS)
    assert list(model.predict(PROMPTS[:8])) == COMPLETIONS[:8]


def test_strings_are_reversed_with_attention():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdef"), rng.integers(1, 7))) for _ in range(3000)]
    model = LSTMTextToText(
        tokenizer="char", attention=True, hidden_size=64, embedding_dim=32, learning_rate=5e-3,
        max_epochs=14, dropout=0.0, dropout_input=0.0, weight_decay=0.01, random_state=0,
    ).fit(words[:2800], [word[::-1] for word in words[:2800]])  # fmt: skip
    right = [a == b[::-1] for a, b in zip(model.predict(words[2800:]), words[2800:], strict=True)]
    assert np.mean(right) > 0.9


def test_the_loss_counts_completions_alone():
    model = unfitted(tokenizer="char", max_epochs=1, batch_size=1000)
    model.fit(["x" * 50] * 8 + ["y"] * 8, ["1"] * 16)
    assert model.history_[0].tokens == 32


def test_the_same_seed_gives_the_same_weights():
    one, two = (unfitted(attention=True).fit(PROMPTS, COMPLETIONS) for _ in range(2))
    for name, weight in one.module_.named_parameters():
        assert torch.equal(weight, dict(two.module_.named_parameters())[name])


def test_pairs_that_are_held_out_are_whole_pairs():
    model = unfitted(tokenizer="char", early_stopping=True, validation_fraction=0.2, max_epochs=2)
    model.fit(PROMPTS, COMPLETIONS)
    assert all(epoch.heldout_loss is not None for epoch in model.history_)
    given_pairs = unfitted(tokenizer="char", early_stopping=True, max_epochs=2)
    given_pairs.fit(PROMPTS, COMPLETIONS, validation=(PROMPTS[:8], COMPLETIONS[:8]))
    expected = -given_pairs.score_samples(PROMPTS[:8], COMPLETIONS[:8]).sum()
    tokens = sum(1 + len(text) for text in COMPLETIONS[:8])
    best = min(epoch.heldout_loss for epoch in given_pairs.history_)
    assert best == pytest.approx(expected / tokens, rel=1e-5)


def test_with_attention_pairs_are_read_whole():
    model = unfitted(tokenizer="char", attention=True, bptt_length=4, max_epochs=1)
    model.fit(PROMPTS, COMPLETIONS)
    longest = max(len(p) + len(c) + 2 for p, c in zip(PROMPTS, COMPLETIONS, strict=True))
    assert model.params_["bptt_length"] == longest
    without = unfitted(tokenizer="char", bptt_length=4, max_epochs=1).fit(PROMPTS, COMPLETIONS)
    assert without.params_["bptt_length"] == 4


def test_long_pairs_are_scored_whole():
    model = fitted(tokenizer="char", attention=True)
    prompt, completion = "a dog " * 150, "le chat " * 100
    samples = model.score_samples([prompt, "one"], [completion, "1"])
    assert samples[0] == pytest.approx(sum(by_the_equations(model, prompt, completion)), rel=1e-4)


# ---- attention ----


@given(st.integers(1, 4), st.integers(1, 5), st.data())
@settings(max_examples=25)
def test_attention_looks_at_what_is_there(n_rows, n_places, data):
    attention = Attention(3)
    attention.initialise(torch.Generator().manual_seed(0))
    lengths = torch.tensor([data.draw(st.integers(1, n_places)) for _ in range(n_rows)])
    generator = torch.Generator().manual_seed(1)
    memory = torch.randn(n_rows, n_places, 3, generator=generator)
    outputs = torch.randn(n_rows, 2, 3, generator=generator)
    weights = attention.weights(outputs, memory, lengths)
    assert torch.allclose(weights.sum(-1), torch.ones(n_rows, 2))
    other = memory.clone()
    for row, length in enumerate(lengths.tolist()):
        assert not weights[row, :, length:].any()
        other[row, length:] = 99.0
    assert torch.allclose(attention(outputs, memory, lengths), attention(outputs, other, lengths))


def test_the_weights_are_those_of_the_equations():
    model = fitted(tokenizer="char", attention=True)
    weights = model.attention_weights("two", "2 .")
    assert weights.shape == (4, 4)
    assert weights.sum(1) == pytest.approx(np.ones(4))
    module = model.module_
    ids = [END, *model.tokenizer_.encode(["two"])[0], END, *model.tokenizer_.encode(["2 ."])[0]]
    with torch.inference_mode():
        outputs, _ = module.read(torch.tensor([list(map(int, ids))]), module.zero_state(1))
        h, memory = outputs[0, 5], outputs[0, 1:5]
        expected = (memory @ (module.attention.score.weight @ h)).softmax(0)
    assert weights[1] == pytest.approx(expected.numpy(), abs=1e-5)
    assert model.attention_weights("two").shape[1] == 4


def test_a_plot_of_the_attention():
    model = fitted(tokenizer="char", attention=True)
    ax = model.plot_attention("a dog", "le chat")
    assert [label.get_text() for label in ax.get_xticklabels()] == list("a␣dog∎")
    assert [label.get_text() for label in ax.get_yticklabels()] == list("le␣chat∎")
    shown = np.asarray(ax.images[0].get_array())
    assert shown == pytest.approx(model.attention_weights("a dog", "le chat"))


def test_without_attention_there_are_no_weights():
    with pytest.raises(ParameterError, match="fit it with attention=True"):
        fitted(tokenizer="char", attention=False).attention_weights("one")


# ---- at home in scikit-learn, kept, quantized ----


def test_a_grid_search_and_a_clone():
    search = GridSearchCV(
        unfitted(tokenizer="char", max_epochs=3),
        {"attention": [False, True], "hidden_size": [8, 20]},
        cv=2,
    ).fit(PROMPTS, COMPLETIONS)
    assert set(search.best_params_) == {"attention", "hidden_size"}
    expected = search.best_estimator_.predict(PROMPTS[:3])
    assert list(search.predict(PROMPTS[:3])) == list(expected)
    scores = cross_val_score(clone(search.best_estimator_), PROMPTS, COMPLETIONS, cv=2)
    assert (scores < -1).all()


@on_variants
def test_a_model_is_kept(params, tmp_path):
    model = fitted(**params)
    model.save(tmp_path / "model")
    again = LSTMTextToText.load(tmp_path / "model", device="cpu")
    assert list(again.predict(PROMPTS[:8])) == list(model.predict(PROMPTS[:8]))
    assert again.score(PROMPTS, COMPLETIONS) == model.score(PROMPTS, COMPLETIONS)
    assert again.get_params() | {"device": "cpu"} == model.get_params()
    with pytest.raises(ModelFolderError, match="holds a LSTMTextToText; load it with"):
        LSTMLanguageModel.load(tmp_path / "model")


def test_a_subclass_is_kept_as_what_it_is_one_of(tmp_path):
    class Own(LSTMLanguageModel):
        pass

    Own(max_epochs=0).fit(PROMPTS).save(tmp_path / "model")
    for kind in (Own, LSTMLanguageModel):
        assert type(kind.load(tmp_path / "model")) is kind


def test_a_language_model_is_not_taken_for_one_of_pairs(tmp_path):
    LSTMLanguageModel(max_epochs=0).fit(PROMPTS).save(tmp_path / "model")
    with pytest.raises(ModelFolderError, match="holds a LSTMLanguageModel; load it with"):
        LSTMTextToText.load(tmp_path / "model")


@pytest.mark.parametrize("attention", [False, True])
def test_a_quantized_model_of_pairs(attention, tmp_path):
    model = fitted(tokenizer="char", attention=attention)
    small = model.quantize()
    assert small.score(PROMPTS, COMPLETIONS) == pytest.approx(
        model.score(PROMPTS, COMPLETIONS), rel=0.02
    )
    small.save(tmp_path / "small")
    again = LSTMTextToText.load(tmp_path / "small")
    assert list(again.predict(PROMPTS[:8])) == list(small.predict(PROMPTS[:8]))


def test_parameters_have_the_defaults_of_the_settings():
    defaults = LSTMTextToText().get_params()
    for config in (PairModelConfig(), TrainConfig()):
        for name in config.rules():
            if name not in ("context",):
                assert defaults[name] == getattr(config, name), name


# ---- options ----


@pytest.mark.parametrize("attention", [False, True])
def test_constraints_hold_for_completions(attention):
    model = fitted(tokenizer="char", attention=attention)
    texts = model.generate(["床前", "one"], line_lengths=4, max_new_tokens=20, random_state=0)
    assert [len(text) for text in texts] == [4, 4]
    for text in model.generate(PROMPTS[:5], regex="[a-z]{3} ?[123]", random_state=0):
        assert re.fullmatch("[a-z]{3} ?[123]", text)
    chosen = model.generate(["two"], choices=["2 .", "zzz"], do_sample=False)
    best = max(["2 .", "zzz"], key=lambda text: model.score_samples(["two"], [text])[0])
    assert chosen == [best]


# ---- wrong input ----


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ((["a", "b"], ["1"]), TextError, "2 prompts and 1 completions came"),
        (([], []), TextError, "0 pairs came"),
        (("abc", ["1"]), TextError, "string object received"),
        ((["a"], None), TextError, "completions are needed"),
        ((["a"], [1]), TextTypeError, r"completions\[0\] is 1 \(int\)"),
        (([b"a"], ["1"]), TextTypeError, r"prompts\[0\] is b'a'"),
    ],
    ids=str,
)
def test_pairs_that_are_none(pairs, error, message):
    model = fitted(tokenizer="char", attention=True)
    for use in (unfitted().fit, model.score, model.score_samples, model.perplexity):
        with pytest.raises(error, match=message):
            use(*pairs)


def test_before_fit():
    for use in (
        lambda: unfitted().predict(["a"]),
        lambda: unfitted().score(["a"], ["b"]),
        lambda: unfitted().generate_stream("a"),
        lambda: unfitted().attention_weights("a"),
    ):
        with pytest.raises(NotFittedError):
            use()


def test_wrong_parameters():
    with pytest.raises(ParameterError, match="attention='yes' is not valid; attention is True or"):
        unfitted(attention="yes").fit(PROMPTS, COMPLETIONS)
    with pytest.raises(ParameterError, match="Did you mean 'temperature'"):
        fitted(tokenizer="char", attention=True).generate(["one"], temprature=1)
    with pytest.raises(TextTypeError, match="generate_stream takes one str"):
        fitted(tokenizer="char", attention=True).generate_stream(["one"])


def test_the_plain_reading_of_pairs_is_that_of_texts():
    """Without attention a pair is a text after a text, each followed by an end mark."""
    model = fitted(tokenizer="char", attention=False)
    read, written = model.tokenizer_.encode(["one", "1"])
    values, _ = plain.log_probs(model.module_, [*read, END, *written])
    # What is learned by heart costs next to nothing: the difference of logits of 10 or more, of
    # which float32 keeps 1e-6 each.
    assert model.score_samples(["one"], ["1"])[0] == pytest.approx(
        sum(values[len(read) + 1 :]), rel=1e-5, abs=5e-6
    )
