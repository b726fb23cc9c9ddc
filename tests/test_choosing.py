"""Choosing an id with no more of the output layer than it takes is choosing it from the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import network

from lstmlm.nn.choosing import BLOCK, HeadScores, _drawn, can_choose, choose
from lstmlm.nn.stepping import gru_state, lstm_state, product
from lstmlm.scoring import inference
from lstmlm.text import END

LARGE = {"vocab_size": 700, "embedding_dim": 96, "hidden_size": 130, "num_layers": 1}
HEADS = [{"output": "softmax"}, {"output": "adaptive", "cutoffs": [50, 300], "tail_width": 40}]
on_heads = pytest.mark.parametrize("head", HEADS, ids=lambda head: head["output"])
numbers = st.floats(0, 1, exclude_max=True)


def features(model, n_rows=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, model.head.width, generator=generator)


@on_heads
@given(st.lists(numbers, min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_an_id_is_drawn_by_the_inverse_of_the_whole_distribution(head, uniform, seed):
    model = network(**LARGE, **head)
    x = features(model, len(uniform), seed)
    with inference(model):
        table = model.head.log_probs(x).double().numpy()
        ids, log_probs = choose(HeadScores(model.head, x), uniform)
    sums = np.exp(table).cumsum(1)
    for row, (token, number) in enumerate(zip(ids.tolist(), uniform, strict=True)):
        below = sums[row, token - 1] if token else 0.0
        assert below - 1e-5 <= number * sums[row, -1] <= sums[row, token] + 1e-5
        assert log_probs[row] == pytest.approx(table[row, token], abs=1e-4)


@on_heads
@pytest.mark.parametrize("without", [(), (3,), (END, 7)])
def test_the_likeliest_id_is_that_of_the_whole(head, without):
    for seed in range(40):
        model = network(seed, **LARGE, **head)
        x = features(model, 3, seed)
        with inference(model):
            table = model.head.log_probs(x)
            ids, log_probs = choose(HeadScores(model.head, x), None, without)
        allowed = table.clone()
        allowed[:, list(without)] = -torch.inf
        assert ids.tolist() == allowed.argmax(1).tolist()
        assert log_probs == pytest.approx(
            table.gather(1, torch.tensor(ids)[:, None])[:, 0].numpy(), abs=1e-4
        )


@on_heads
def test_what_is_left_out_is_never_drawn(head):
    model = network(**LARGE, **head)
    with inference(model):
        x = features(model).expand(400, -1)
        likeliest = int(choose(HeadScores(model.head, x[:1]), None)[0][0])
        without = (likeliest,) if can_choose(model.head, (likeliest,)) else (1,)
        uniform = np.linspace(0, 1, 400, endpoint=False)
        ids, log_probs = choose(HeadScores(model.head, x), uniform.tolist(), without)
        table = model.head.log_probs(x[:1])[0]
    assert without[0] not in ids
    assert log_probs == pytest.approx(table[torch.tensor(ids)].numpy(), abs=1e-4)


def test_an_id_of_a_tail_is_left_out_by_the_long_way():
    head = network(**LARGE, output="adaptive", cutoffs=[50, 300]).head
    assert can_choose(head, (49,))
    assert not can_choose(head, (50,))


@given(st.integers(1, 3 * BLOCK), numbers, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_column_is_found_through_the_sums_of_blocks(n, number, seed):
    rng = np.random.default_rng(seed)
    shares = rng.random((2, n)) * (rng.random((2, n)) < 0.5)
    shares[:, rng.integers(n)] = 1.0
    with np.errstate(divide="ignore"):
        logits = np.log(shares).astype(np.float32)  # of what has no share, minus infinity
    columns, log_probs, left = _drawn(logits, [number, 0.0])
    whole = shares.sum(1)
    assert (shares[[0, 1], columns] > 0).all()
    assert np.exp(log_probs) == pytest.approx(shares[[0, 1], columns] / whole, rel=1e-5)
    assert all(0 <= rest < 1 for rest in left)
    exact = shares[0].cumsum()
    assert exact[columns[0]] - shares[0, columns[0]] - 1e-4 <= number * whole[0]
    assert number * whole[0] <= exact[columns[0]] + 1e-4


# ---- single rows by numpy ----


@pytest.mark.parametrize("peepholes", [False, True])
def test_a_row_s_state_is_that_of_many_rows(peepholes):
    generator = torch.Generator().manual_seed(0)
    gates, cell = (torch.randn(2, n, generator=generator) * 3 for n in (4 * 200, 200))
    weights = torch.randn(3, 200, generator=generator) if peepholes else None
    with torch.inference_mode():
        hidden, after = lstm_state(gates, cell, weights)
        for row in range(2):
            one = slice(row, row + 1)
            found = lstm_state(gates[one], cell[one], weights)
            assert torch.allclose(found[0], hidden[one], atol=1e-6)
            assert torch.allclose(found[1], after[one], atol=1e-6)
        x, h = gates[:, :600], gates[:, 200:]
        state = cell[:, :200]
        together = gru_state(x, h, state)
        assert torch.allclose(gru_state(x[:1], h[:1], state[:1]), together[:1], atol=1e-6)


@pytest.mark.parametrize("wide", [True, False], ids=["avx512", "avx2"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 32, 33])
@pytest.mark.parametrize("n_rows", [400, 9_000])  # with one thread of numpy's, and with all
def test_few_rows_products_are_torch_s(n_rows, count, wide, monkeypatch):
    monkeypatch.setattr("lstmlm.nn.stepping.has_avx512", lambda: wide)
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(n_rows, 500, generator=generator), torch.randn(n_rows)
    x = torch.randn(count, 500, generator=generator)
    with torch.inference_mode():
        found = product(x, weight, bias)
        small = product(x, weight[:2], None, beside=weight)
    expected = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    assert found.is_contiguous()
    assert torch.allclose(found.double(), expected, atol=1e-4)
    assert torch.allclose(small, found[:, :2] - bias[:2], atol=1e-4)
