"""A single row is continued as many are."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from tiny import int8_by, network

from lstmlm.continuing import TURN_AFTER, ManyRows, RowWeights, SingleRow, rows_to_continue
from lstmlm.model import RecurrentLM
from lstmlm.scoring import inference

SIZES = {"vocab_size": 700, "embedding_dim": 96, "hidden_size": 130}
CELLS = [
    {"cell": "lstm"},
    {"cell": "gru"},
    {"cell": "peephole_lstm", "peephole": "diagonal"},
    {"cell": "peephole_lstm", "peephole": "full"},
]
BODIES = [{}, {"num_layers": 1, "tie_weights": False, "embedding_scale": 4.0}, {"hidden_size": 96}]
HEADS = [
    {"output": "softmax"},
    {"output": "adaptive", "cutoffs": [50, 300], "tail_width": 40},
]


def small_network(**architecture) -> RecurrentLM:
    model = network(**SIZES | architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.2  # gates of many units then are not all open or shut
    return model


def in_int8(model: RecurrentLM, **architecture) -> RecurrentLM:
    return model.quantize(into=network(**SIZES | architecture, quantized=True)).eval()


@pytest.mark.parametrize("kind", ["float32", "instructions", "NumKong", "floats"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["output"])
@pytest.mark.parametrize("body", BODIES, ids=["projected", "untied, scaled", "as wide"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: " ".join(cell.values()))
def test_a_single_row_has_the_scores_of_one_of_many(cell, body, head, kind, monkeypatch):
    architecture, int8 = cell | body | head, kind != "float32"
    model = small_network(**architecture)
    if int8:
        model = in_int8(model, **architecture)
        int8_by(kind, monkeypatch)
    ids = np.random.default_rng(0).integers(0, 700, (2, 12))
    with inference(model):
        features, state = model.begin(torch.zeros(2, 1, dtype=torch.int64))
        many = ManyRows(model, features, state)
        single = SingleRow(RowWeights(model), state.select(torch.tensor([1])))
        for column in ids.T:
            many.read(column)
            single.read(column[1:])
            # Sums in another order; in int8 a number on the edge may be rounded to its neighbour.
            close = {"atol": 0.02 if int8 else 1e-5, "rtol": 1e-4}
            np.testing.assert_allclose(single.features, many.features[1:], **close)
            np.testing.assert_allclose(single.of_head(), many.scores.of_head()[1:], **close)
            log_probs = model.head.log_probs(many.features)[1].numpy()
            of_some = [single.log_prob(token) for token in (0, 49, 50, 299, 300, 699)]
            np.testing.assert_allclose(of_some, log_probs[[0, 49, 50, 299, 300, 699]], **close)
            for k in range(len(single.edges) - 2):
                found, due = single.of_tail(k, [0]), many.scores.of_tail(k, [1])
                np.testing.assert_allclose(found, due, **close)
        for part, due in zip(single.state, many.state, strict=True):
            np.testing.assert_allclose(part, due[:, 1:], **close)


def test_a_large_softmax_is_turned_for_long_texts_and_scores_as_before(monkeypatch):
    monkeypatch.setattr("lstmlm.continuing.MOST_WEIGHTS", 700 * 96)
    model = small_network(cell="lstm", output="softmax")
    with inference(model):
        features, state = model.begin(torch.zeros(1, 1, dtype=torch.int64))

        def scores_of_a_text() -> list[np.ndarray]:
            single = SingleRow(RowWeights(model), state)
            return [single.of_head()[0] for _ in range(TURN_AFTER + 2)]

        for _ in range(2):
            due = model.head.log_probs(features)[0].numpy()
            first, *_, last = scores_of_a_text()
            assert not np.array_equal(first, last)  # other sums, the same scores
            for found in (first, last):
                np.testing.assert_allclose(log_softmax(found), due, rtol=1e-5)
            assert all(map(np.array_equal, scores_of_a_text(), scores_of_a_text()))
            with torch.no_grad():
                model.head.weight[3] *= 2  # nothing of before may be left


@pytest.mark.parametrize("int8", [False, True])
def test_a_network_that_was_made_in_inference_mode_is_continued(int8, monkeypatch):
    monkeypatch.setattr("lstmlm.continuing.MOST_WEIGHTS", 700 * 96)
    int8_by("NumKong", monkeypatch)
    architecture = {"cell": "lstm", "output": "softmax"}
    with torch.inference_mode():
        model = small_network(**architecture)
        if int8:
            model = in_int8(model, **architecture)
        features, state = model.begin(torch.zeros(1, 1, dtype=torch.int64))
        single = SingleRow(RowWeights(model), state)
        due = model.head.log_probs(features)[0].numpy()
        for _ in range(TURN_AFTER + 2):
            np.testing.assert_allclose(log_softmax(single.of_head()[0]), due, atol=1e-5)


def test_what_was_begun_side_by_side_is_not_changed():
    model = small_network(cell="lstm")
    with inference(model):
        features, state = model.begin(torch.zeros(1, 1, dtype=torch.int64))
        before = [part.clone() for part in (features, *state)]
        single = rows_to_continue(model, features, state, short=True)
        for token in (5, 6, 7):
            single.read(np.array([token]))
    assert isinstance(single, SingleRow)
    assert all(map(torch.equal, (features, *state), before))


def test_only_a_row_alone_goes_the_short_way():
    model = small_network(cell="lstm")
    with inference(model):
        two = model.begin(torch.zeros(2, 1, dtype=torch.int64))
        one = model.begin(torch.zeros(1, 1, dtype=torch.int64))
    assert isinstance(rows_to_continue(model, *two, short=True), ManyRows)
    assert isinstance(rows_to_continue(model, *one, short=False), ManyRows)
