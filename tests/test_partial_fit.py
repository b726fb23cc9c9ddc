import copy
import pickle

import pytest
import torch
from tiny import CHINESE, TEXTS, unfitted

from lstmlm import DivergenceError, LSTMLanguageModel, TextError
from lstmlm.optim import WARM_UP_STEPS

FIRST, SECOND = TEXTS[::2], TEXTS[1::2]


def weights(lm: LSTMLanguageModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in lm.module_.parameters()]


def same_weights(one: LSTMLanguageModel, other: LSTMLanguageModel) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


@pytest.fixture(params=["lstm", "gru", "peephole_lstm"])
def lm(request):
    return unfitted(tokenizer="bpe", cell=request.param, early_stopping=True, max_epochs=7)


def test_each_call_reads_its_texts_once(lm):
    lm.partial_fit(FIRST).partial_fit(iter(SECOND))
    n_tokens = [
        sum(len(ids) + 1 for ids in lm.tokenizer_.encode(texts)) for texts in (FIRST, SECOND)
    ]
    assert [epoch.tokens for epoch in lm.history_] == n_tokens
    assert [epoch.epoch for epoch in lm.history_] == [1, 2]
    assert [epoch.heldout_loss for epoch in lm.history_] == [None, None]
    assert lm.n_epochs_ == 2


def test_it_learns_from_call_to_call():
    lm = unfitted(tokenizer="char", learning_rate=0.01).partial_fit(FIRST)
    figures = [lm.perplexity(TEXTS)]
    for _ in range(4):
        figures.append(lm.partial_fit(TEXTS).perplexity(TEXTS))
    assert figures == sorted(figures, reverse=True)
    assert figures[-1] < 0.7 * figures[0]


def test_the_vocabulary_is_that_of_the_first_call():
    lm = unfitted(tokenizer="char").partial_fit(["abc abc"] * 5)
    vocabulary = lm.tokenizer_.backend.get_vocab()
    lm.partial_fit(CHINESE)
    assert lm.tokenizer_.backend.get_vocab() == vocabulary
    assert lm.evaluate(CHINESE).unknown_rate > 0.5


def test_the_rate_warms_up_over_all_calls_and_stays():
    lm = unfitted(tokenizer="char", learning_rate=0.01, batch_size=64, bptt_length=1000)
    rates = [lm.partial_fit(TEXTS).history_[-1].learning_rate for _ in range(3)]
    assert rates[0] < rates[1] < rates[2] < 0.01
    lm = unfitted(tokenizer="char", learning_rate=0.01, batch_size=1, bptt_length=2)
    rates = [lm.partial_fit(TEXTS).history_[-1].learning_rate for _ in range(2)]
    assert sum(map(len, TEXTS)) / 2 > WARM_UP_STEPS
    assert rates == [0.01, 0.01]


def test_the_same_calls_give_the_same_weights(lm):
    other = copy.deepcopy(lm)
    lm.partial_fit(FIRST).partial_fit(SECOND)
    other.partial_fit(FIRST)
    revived = pickle.loads(pickle.dumps(other)).partial_fit(SECOND)
    assert same_weights(lm, revived)
    assert same_weights(lm, other.partial_fit(SECOND))


def test_the_optimisers_state_is_kept(lm):
    lm.partial_fit(FIRST)
    forgetful = copy.deepcopy(lm)
    forgetful._momentum = None
    assert not same_weights(lm.partial_fit(SECOND), forgetful.partial_fit(SECOND))


def test_each_call_draws_from_a_stream_of_its_own():
    lm = unfitted(tokenizer="char", learning_rate=0.0, dropout=0.5)
    losses = [lm.partial_fit(TEXTS).history_[-1].train_loss for _ in range(2)]
    assert losses[0] != losses[1]  # dropout alone tells the calls apart


def test_after_fit_it_goes_on_from_the_best_weights(lm):
    lm.fit(FIRST)
    epochs, before = lm.n_epochs_, lm.perplexity(SECOND)
    lm.partial_fit(SECOND)
    assert lm.n_epochs_ == epochs + 1
    assert lm.perplexity(SECOND) < before


def test_fit_after_it_begins_afresh(lm):
    plain = copy.deepcopy(lm).fit(FIRST)
    assert same_weights(lm.partial_fit(SECOND).fit(FIRST), plain)
    assert lm._momentum is None


def test_a_kept_model_goes_on(lm, tmp_path):
    lm.partial_fit(FIRST).save(tmp_path / "model")
    loaded = LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    before = loaded.perplexity(SECOND)
    assert loaded.partial_fit(SECOND).perplexity(SECOND) < before


def test_a_failed_call_leaves_everything_as_it_was(lm):
    lm.partial_fit(FIRST)
    kept = copy.deepcopy(lm)
    with pytest.raises(TextError):
        lm.partial_fit([])
    with pytest.raises(DivergenceError):
        lm.set_params(learning_rate=1e30, clip_norm=None).partial_fit(SECOND)
    lm.set_params(**kept.get_params())
    assert same_weights(lm.partial_fit(SECOND), kept.partial_fit(SECOND))


def test_a_stream_is_read_as_one():
    lm = unfitted(tokenizer="char", context="stream").partial_fit(FIRST).partial_fit(SECOND)
    assert lm.perplexity(TEXTS) < lm.vocab_size_
