"""What needs a CUDA GPU; each test is skipped where there is none."""

import math
import pickle

import joblib
import numpy as np
import pytest
import torch
from tiny import TEXTS, fitted, unfitted

from lstmlm import LSTMLanguageModel

pytestmark = pytest.mark.gpu
HEADS = pytest.mark.parametrize("output", ["softmax", "adaptive"])

# A model trained on a GPU and loaded on the CPU scores the same to 1e-4: other kernels add
# float32 products in another order.
SAME = {"rtol": 1e-4, "atol": 1e-5}


CELLS = pytest.mark.parametrize(
    ("cell", "peephole"),
    [("lstm", "diagonal"), ("gru", "diagonal"), ("peephole_lstm", "diagonal"),
     ("peephole_lstm", "full")],
)  # fmt: skip


@pytest.fixture(params=["softmax", "adaptive"])
def lm(request):
    return fitted(tokenizer="bpe", output=request.param, device="cuda")


@CELLS
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_cell_trains_with_dropped_weights_and_scores_as_on_the_cpu(
    cell, peephole, precision, tmp_path
):
    lm = unfitted(tokenizer="char", cell=cell, peephole=peephole, precision=precision)
    lm.set_params(device="cuda", dropout_weight=0.2, dropout_embedding=0.1, temporal_penalty=1.0)
    lm.fit(TEXTS).save(tmp_path / "model")
    kept = LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(kept.score_samples(TEXTS), lm.score_samples(TEXTS), **SAME)
    assert lm.history_[-1].train_loss < lm.history_[0].train_loss


def test_partial_fits_and_checkpoints(tmp_path):
    lm = unfitted(tokenizer="char", device="cuda", checkpoint_dir=tmp_path).fit(TEXTS)
    assert list(tmp_path.iterdir()) == []
    before = lm.perplexity(TEXTS)
    revived = pickle.loads(pickle.dumps(lm.partial_fit(TEXTS)))
    assert revived.partial_fit(TEXTS).perplexity(TEXTS) < before


@HEADS
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("context", ["document", "stream"])
def test_both_heads_train(output, precision, context):
    lm = unfitted(tokenizer="char", output=output, precision=precision, context=context)
    lm.set_params(device="cuda", dropout=0, dropout_input=0, max_epochs=40, learning_rate=0.01)
    lm.fit(["abcdefgh"] * 50)
    assert lm.device_.type == lm.module_.device.type == "cuda"
    assert lm.perplexity(["abcdefgh"] * 3) < 1.05  # 1 is certainty
    assert lm.predict(["abc"]).tolist() == ["defgh"]


def test_auto_takes_the_gpu():
    assert unfitted(tokenizer="char", device="auto", max_epochs=1).fit(TEXTS).device_.type == "cuda"


def test_a_saved_model_scores_the_same_on_the_cpu(lm, tmp_path):
    lm.save(tmp_path / "model")
    kept = LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    assert kept.device_.type == kept.module_.device.type == "cpu"
    np.testing.assert_allclose(kept.score_samples(TEXTS), lm.score_samples(TEXTS), **SAME)
    for ours, theirs in zip(lm.pipe(TEXTS), kept.pipe(TEXTS), strict=True):
        np.testing.assert_allclose(theirs.log_probs, ours.log_probs, **SAME)
    assert kept.predict(["the", ""]).tolist() == lm.predict(["the", ""]).tolist()


def test_a_model_of_the_cpu_scores_the_same_on_the_gpu(tmp_path):
    lm = fitted(tokenizer="bpe")
    lm.save(tmp_path / "model")
    kept = LSTMLanguageModel.load(tmp_path / "model", device="cuda")
    np.testing.assert_allclose(kept.score_samples(TEXTS), lm.score_samples(TEXTS), **SAME)
    assert kept.generate(["the"], random_state=1) == kept.generate(["the"], random_state=1)


def test_a_pickle_holds_the_model_for_any_machine(lm, tmp_path):
    pickled = pickle.dumps(lm)
    assert b"cuda:0" not in pickled  # no tensor asks for a GPU
    kept = pickle.loads(pickled)
    assert kept.device_.type == "cuda"  # there is one here
    assert lm.module_.device.type == "cuda"  # the original stayed
    np.testing.assert_array_equal(kept.score_samples(TEXTS), lm.score_samples(TEXTS))
    joblib.dump(lm, tmp_path / "model.joblib")
    kept = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(kept.score_samples(TEXTS), lm.score_samples(TEXTS))


def test_company_does_not_matter(lm):
    alone = [lm.score_samples([text])[0] for text in TEXTS]
    # DESIGN.md: 1e-5 relative on every path; the absolute part is a float32 logit's rounding.
    np.testing.assert_allclose(lm.score_samples(TEXTS), alone, rtol=1e-5, atol=5e-6)


def test_generation_pieces_are_the_text(lm):
    (text,) = lm.generate(["the"], random_state=3)
    assert "".join(lm.generate_stream("the", random_state=3)) == text


def test_scoring_leaves_the_users_tf32_settings_alone(lm):
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    lm.score(TEXTS)
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def test_scores_do_not_follow_the_users_tf32_settings(lm, monkeypatch):
    expected = lm.score_samples(TEXTS)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # TF32
    try:
        found = lm.score_samples(TEXTS)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(precision)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6)


def test_a_budget_of_seconds_is_kept_there_too():
    lm = unfitted(tokenizer="char", device="cuda", max_epochs="auto", max_seconds=2.0).fit(TEXTS)
    assert lm.history_[-1].learning_rate == pytest.approx(0.02 * 0.02)  # 2 % of the largest
    assert math.isfinite(lm.score(TEXTS))
