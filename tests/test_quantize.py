"""`quantize`: int8 weights for reading, streaming and writing."""

import copy
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from tiny import ENGLISH, TEXTS, fitted, int8_by, network

from lstmlm import LSTMLanguageModel, ModelFolderError, ParameterError
from lstmlm.nn.int8 import Int8Matrix, quantised, sums_of_row, whole_sums

KINDS = [
    {"cell": "lstm", "output": "softmax"},
    {"cell": "gru", "output": "adaptive"},
    {"cell": "peephole_lstm", "peephole": "diagonal", "output": "softmax"},
    {"cell": "peephole_lstm", "peephole": "full", "output": "adaptive"},
    {"cell": "lstm", "output": "adaptive", "tie_weights": False},
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def lm(request) -> LSTMLanguageModel:
    return fitted(tokenizer="word", **request.param)


@pytest.fixture(scope="module")
def small(lm) -> LSTMLanguageModel:
    return lm.quantize()


def test_a_product_is_that_of_the_rounded_numbers():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*s, generator=generator) for s in ((5, 40), (30, 40), (30,)))
    (q_x, s_x), (q_w, s_w) = quantised(x), quantised(weight)
    expected = (q_x.double() @ q_w.double().T) * s_x.double() * s_w.double().T + bias.double()
    matrix = Int8Matrix(30, 40).take(weight)
    found = matrix.rows.product(x, bias)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    for row in range(5):  # to the last bit
        assert torch.equal(matrix.rows.product(x[row : row + 1], bias)[0], found[row])
    assert (found - (x @ weight.T + bias)).norm() < 0.02 * found.norm()
    chosen = matrix.rows.chosen(x, torch.arange(5)) + bias[:5]
    torch.testing.assert_close(chosen, found.diagonal())
    torch.testing.assert_close(matrix.rows.product(torch.zeros(1, 40), bias)[0], bias)


@pytest.mark.parametrize("in_int8", [True, False])
@pytest.mark.parametrize(
    ("n", "width", "columns"),
    [(1, 40, 30), (1, 100, 3_000), (3, 40, 30), (5, 300, 3_000), (1, 1_500, 200), (3, 1_500, 500)],
)
def test_sums_are_whole_on_every_processor(n, width, columns, in_int8, monkeypatch):
    monkeypatch.setattr("lstmlm.nn.int8.has_int8_products", lambda: in_int8)
    generator = torch.Generator().manual_seed(0)
    q, values = (
        torch.randint(-127, 128, (rows, width), dtype=torch.int8, generator=generator)
        for rows in (n, columns)
    )
    q[0] = values[:2] = 127  # the largest sum there is: in float32 it is not whole beyond 2^24
    values[1, -1] = 126
    exact = (q.long() @ values.long().T).float()
    assert torch.equal(whole_sums(q, values).float(), exact)


@pytest.mark.parametrize("way", ["instructions", "NumKong", "floats", "blocks"])
@pytest.mark.parametrize(
    ("width", "columns"), [(40, 30), (200, 3_001), (650, 17), (16, 16), (1, 1), (1_500, 500)]
)
def test_sums_of_a_row_are_whole_whatever_multiplies_it(width, columns, way, monkeypatch):
    int8_by(way, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    q, values = (
        torch.randint(-127, 128, (rows, width), dtype=torch.int8, generator=generator)
        for rows in (1, columns)
    )
    q[0], values[:2] = -127, 127  # the largest sum there is
    values[-1, -1] = 126
    sums = sums_of_row(values)
    for row in (q[0], q[0], -q[0]):
        exact = (values.double() @ row.double()).float()
        np.testing.assert_array_equal(sums(row.float().numpy()), exact)


def test_what_is_laid_out_for_rows_is_kept_until_the_weights_change(monkeypatch):
    int8_by("NumKong", monkeypatch)
    matrix, part = Int8Matrix(30, 40).take(torch.eye(30, 40)), slice(5, 20)
    sums = matrix.rows[part].sums_of_row()
    assert matrix.rows[part].sums_of_row() is sums is not matrix.rows[:15].sums_of_row()
    assert matrix.rows[2:][3:18].sums_of_row() is sums
    matrix.take(torch.eye(30, 40).flip(0))
    x = np.arange(40, dtype=np.float32)
    np.testing.assert_array_equal(matrix.rows[part].sums_of_row()(x), 127 * x[24:9:-1])


def test_figures_are_near_those_of_the_model(lm, small):
    assert small.perplexity(TEXTS) == pytest.approx(lm.perplexity(TEXTS), rel=0.02)
    for one, other in zip(small.pipe(TEXTS), lm.pipe(TEXTS), strict=True):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=0.3)


def test_a_text_has_one_figure_whatever_its_company(small):
    together = small.score_samples(TEXTS)
    alone = [small.score_samples([text])[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_log_probabilities_sum_to_one(small):
    module = small.module_
    features = torch.randn(7, module.head.width)
    sums = module.head.log_probs(features).exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones(7))
    targets = torch.arange(7) * 3
    chosen = module.head.log_probs(features).gather(1, targets.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(-module.head.nll(features, targets), chosen)
    best = module.head.log_probs(features).argmax(-1)
    assert torch.equal(module.head.best(features), best)


def test_it_streams_and_writes(small):
    session = small.session()
    tokens = session.feed(ENGLISH[0]) + session.end_text()
    (scored,) = small.pipe([ENGLISH[0]])
    np.testing.assert_allclose([t.log_prob for t in tokens], scored.log_probs, rtol=1e-4, atol=1e-5)
    assert isinstance(small.generate(["the cat"], max_new_tokens=5, random_state=0)[0], str)
    assert small.transform(ENGLISH).shape == (len(ENGLISH), 16 + 6)


def test_it_is_a_quarter_of_the_size(small):
    large, little = (
        sum(t.numel() * t.element_size() for t in lm.module_.tensors().values())
        for lm in (fitted(tokenizer="word", hidden_size=64, embedding_dim=64),
                   fitted(tokenizer="word", hidden_size=64, embedding_dim=64).quantize())
    )  # fmt: skip
    assert little < 0.35 * large


def test_it_can_be_kept(small, tmp_path):
    small.save(tmp_path / "small")
    for other in (LSTMLanguageModel.load(tmp_path / "small"), pickle.loads(pickle.dumps(small))):
        assert other.module_.quantized
        assert other.score_samples(TEXTS).tolist() == small.score_samples(TEXTS).tolist()
        other.session(small.session().state)  # it is the same model


def test_a_damaged_folder_is_refused(small, tmp_path):
    small.save(tmp_path / "small")
    config = tmp_path / "small" / "config.json"
    config.write_text(config.read_text().replace('"quantized": true', '"quantized": false'))
    manifest = tmp_path / "small" / "MANIFEST.json"
    facts = json.loads(manifest.read_text())
    data = config.read_bytes()
    facts["files"]["config.json"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    manifest.write_text(json.dumps(facts))
    with pytest.raises(ModelFolderError, match=r"does not fit config\.json"):
        LSTMLanguageModel.load(tmp_path / "small")


def test_the_model_itself_stays_as_it_is(lm):
    before = copy.deepcopy(lm.module_.state_dict())
    lm.quantize()
    after = lm.module_.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_it_cant_be_trained_further_or_quantized_again(small):
    for train in (small.partial_fit, copy.deepcopy(small).set_params(warm_start=True).fit):
        with pytest.raises(ParameterError, match="a quantized model can't be trained further"):
            train(TEXTS)
    with pytest.raises(ParameterError, match="quantized already"):
        small.quantize()


def test_it_scores_under_bf16_too(small):
    texts = ["the cat sat on the mat", "a dog"]
    exact = small.score_samples(texts)
    rounded = copy.copy(small).set_params(precision="bf16")
    assert rounded.score_samples(texts) == pytest.approx(exact, rel=0.05)
    assert rounded.score_samples(texts[:1]) == pytest.approx(exact[:1], rel=0.05)


def test_narrow_tails_are_as_narrow_in_int8():
    sizes = {"vocab_size": 700, "embedding_dim": 96, "hidden_size": 130, "output": "adaptive"}
    architecture = sizes | {"cutoffs": [50, 300], "tail_width": 40}
    model = network(**architecture)
    small = model.quantize(into=network(**architecture, quantized=True)).eval()
    x = torch.randn(20, 96, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        exact, rounded = model.head.log_probs(x), small.head.log_probs(x)
    assert (exact - rounded).abs().mean() < 0.01 * exact.std()
