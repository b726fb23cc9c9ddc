"""A training batch is its texts: its loss is theirs added up, and so is its gradient (float64)."""

import copy

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches
from tiny import fitted
from torch import Tensor

from lstmlm.batches import Corpus, Rows, cut_in_lanes, shuffled_groups, walk
from lstmlm.config import TrainConfig
from lstmlm.model import RecurrentLM
from lstmlm.text import END
from lstmlm.training import window_loss

PLAIN = TrainConfig()
PENALISED = TrainConfig(activation_penalty=2.0, temporal_penalty=1.0)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def exact(request, cell):
    """A row's estimator in float64."""
    estimator = copy.deepcopy(fitted(**cell, tie_weights=request.param, max_epochs=3))
    estimator.module_.double()
    return estimator


def gradients(model: RecurrentLM, loss: Tensor) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if grad is None else grad.to_dense()
        for (name, parameter), grad in zip(named.items(), found, strict=True)
    }


def total(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def groups_of(corpus: Corpus, width: int, seed: int) -> list[Rows]:
    rows = cut_in_lanes(corpus, n_lanes=2, warm_up=width)
    return list(shuffled_groups(rows, 2, width, np.random.default_rng(seed)))


def text_ids(corpus: Corpus, rows: Rows) -> list[list[int]]:
    """Return the ids of a group's texts, without their end marks."""
    return [
        corpus.ids[begin : end - 1].tolist()
        for begin, end in zip(rows.begins, rows.ends, strict=True)
    ]


def assert_gradients_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, grad in ours.items():
        # Sums of a few hundred float64 products in another order; they cancel down to 1e-3.
        torch.testing.assert_close(grad, theirs[name], rtol=1e-9, atol=1e-12, msg=name)


@settings(max_examples=8)
@given(batch=batches(max_size=6), seed=st.integers(0, 9))
def test_a_batch_is_its_texts_added_one_by_one(exact, batch, seed):
    model = exact.module_
    corpus = Corpus.of(exact.tokenizer_.encode(batch), END)
    width = int((corpus.ends - corpus.begins).max())  # every text fits in one window
    log_probs, n_texts = 0.0, 0
    for rows in groups_of(corpus, width, seed):
        (window,) = walk(rows, width)
        state = model.zero_state(len(rows.begins))
        loss = window_loss(model, corpus.ids, window, state, PLAIN).nats
        losses = [plain.loss(model, ids) for ids in text_ids(corpus, rows)]
        # float64 sums in another order.
        assert loss.item() == pytest.approx(sum(part.item() for part in losses), rel=1e-12)
        expected = total([gradients(model, part) for part in losses])
        assert_gradients_equal(gradients(model, loss), expected)
        log_probs -= loss.item()
        n_texts += len(losses)
    assert n_texts == len(batch)
    # score_samples keeps a token's nats as a float32, which rounds them by 6e-8 relative.
    assert log_probs == pytest.approx(exact.score_samples(batch).sum(), rel=1e-7)


@settings(max_examples=8)
@given(
    batch=batches(max_size=6),
    width=st.integers(1, 12),
    first=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_windows_that_carry_their_state_add_up_to_the_texts(exact, batch, width, first, seed):
    model = exact.module_
    corpus = Corpus.of(exact.tokenizer_.encode(batch), END)
    log_probs = 0.0
    for rows in groups_of(corpus, width, seed):
        state = model.zero_state(len(rows.begins))
        for window in walk(rows, width, first=min(first, width)):
            loss = window_loss(model, corpus.ids, window, state, PLAIN)
            state = loss.state.detach()
            log_probs -= loss.nats.item()
    # As above: float32 is what score_samples keeps.
    assert log_probs == pytest.approx(exact.score_samples(batch).sum(), rel=1e-7)


@settings(max_examples=5)
@given(batch=batches(min_size=2, max_size=4), width=st.integers(1, 12))
def test_truncated_gradients_with_penalties_are_those_of_the_texts_alone(exact, batch, width):
    model = exact.module_

    def gradient(texts: list[str]) -> dict[str, Tensor]:
        corpus = Corpus.of(exact.tokenizer_.encode(texts), END)
        parts = []
        for rows in groups_of(corpus, width, seed=0):
            state = model.zero_state(len(rows.begins))
            for window in walk(rows, width):
                loss = window_loss(model, corpus.ids, window, state, PENALISED)
                parts.append(gradients(model, loss.nats + loss.penalty))
                state = loss.state.detach()
        return total(parts)

    assert_gradients_equal(gradient(batch), total([gradient([text]) for text in batch]))
