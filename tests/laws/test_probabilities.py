"""What a head says are probabilities, and its short cuts say the same as its whole table."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from strategies import batches, texts
from torch import Tensor

from lstmlm import LSTMLanguageModel
from lstmlm.text import END


def places(lm: LSTMLanguageModel, text: str) -> tuple[Tensor, Tensor]:
    """Return the features before each token of a text and its end mark, and those tokens' ids."""
    (ids,) = lm.tokenizer_.encode([text])
    marked = torch.tensor([END, *ids.tolist(), END])
    with torch.no_grad():
        features, _ = lm.module_(marked[None, :-1], lm.module_.zero_state(1))
    return features[0], marked[1:]


@settings(max_examples=15)
@given(text=texts())
def test_probabilities_sum_to_one(lm, text):
    features, _ = places(lm, text)
    log_probs = lm.module_.head.log_probs(features)
    assert log_probs.shape == (len(features), lm.vocab_size_)
    # Each log-probability is off by the rounding of a float32 near 10: 1e-6, and so is their sum.
    torch.testing.assert_close(
        log_probs.double().exp().sum(-1),
        torch.ones(len(features), dtype=torch.float64),
        rtol=5e-6,
        atol=0,
    )


@settings(max_examples=15)
@given(text=texts())
def test_nll_loss_and_best_are_read_off_the_log_probs(lm, text):
    features, targets = places(lm, text)
    head = lm.module_.head
    log_probs = head.log_probs(features)
    nll = -log_probs.gather(1, targets[:, None]).squeeze(1)
    # The same float32 sums in another order; the logits they come from reach 10.
    torch.testing.assert_close(head.nll(features, targets), nll, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(head.loss(features, targets), nll.sum(), rtol=1e-5, atol=5e-6)
    assert head.best(features).tolist() == log_probs.argmax(-1).tolist()


@pytest.fixture(scope="module")
def uniform_lm(lm):
    uniform = copy.deepcopy(lm)
    with torch.no_grad():
        for parameter in uniform.module_.head.parameters():
            parameter.zero_()
    return uniform


@settings(max_examples=10)
@given(batch=batches(max_size=4))
def test_a_uniform_head_has_the_vocabulary_size_as_perplexity(uniform_lm, batch):
    # log V, near 6, is rounded to a float32 (by 5e-7), for a tail as a sum of two such numbers.
    assert uniform_lm.perplexity(batch) == pytest.approx(uniform_lm.vocab_size_, rel=2e-6)
    n_tokens = [len(ids) + 1 for ids in uniform_lm.tokenizer_.encode(batch)]
    expected = [-n * math.log(uniform_lm.vocab_size_) for n in n_tokens]
    assert uniform_lm.score_samples(batch).tolist() == pytest.approx(expected, rel=1e-6)
