"""scikit-learn's callbacks: when each is called, what it is shown, and how it stops a fit."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import TEXTS, unfitted

from lstmlm import DivergenceError, LSTMLanguageModel, TextError

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.8 has no callbacks")

# Held-out text of another kind: what is learned of the first makes the second less likely.
ALTERNATING, OTHERWISE = ["abababab"] * 20, ["bbaa", "aabb"]


class Recorder:
    """Notes each call, and answers yes at the end of one epoch, if it is given."""

    def __init__(self, stop_after=None):
        self.calls, self.data, self.fitted = [], [], []
        self.stop_after = stop_after

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.calls.append(f"begin {context.task_name} {context.task_id} of {context.max_subtasks}")
        self.data.append((X, y))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name} {context.task_id}")
        self.data.append((X, y))
        self.fitted.append(fitted_estimator)
        return context.task_name == "epoch" and context.task_id == self.stop_after

    def teardown(self, estimator, context):
        self.calls.append("teardown")


class Failing(Recorder):
    def on_fit_task_end(self, estimator, context):
        raise RuntimeError("this callback fails")


def small(**changes):
    return unfitted(**{"tokenizer": "char", "max_epochs": 3} | changes)


def weights(lm):
    return dict(lm.module_.named_parameters())


def same_weights(one, other):
    return all(map(torch.equal, weights(one).values(), weights(other).values()))


def rising(recorder, **changes):
    """Fit where the held-out text soon gets worse."""
    params = {"max_epochs": 60, "n_iter_no_change": 60, "dropout": 0, "dropout_input": 0}
    lm = small(**params | {"early_stopping": True} | changes).set_callbacks(recorder)
    return lm.fit(ALTERNATING, validation=OTHERWISE)


def test_a_fit_is_a_task_with_one_for_each_epoch():
    recorder = Recorder()
    assert small().set_callbacks(recorder).fit(TEXTS)
    epochs = [f"{when} epoch {i}" for i in range(3) for when in ("begin", "end")]
    epochs = [call + " of 0" if call.startswith("begin") else call for call in epochs]
    assert recorder.calls == ["setup", "begin fit 0 of 3", *epochs, "end fit 0", "teardown"]


@pytest.mark.parametrize(
    ("params", "subtasks"),
    [
        ({"max_epochs": "auto"}, 60),
        ({"max_epochs": "auto", "max_seconds": 0.2}, None),
        ({"max_epochs": 2, "max_seconds": 100}, 2),
        ({"max_epochs": 0}, 0),
    ],
)
def test_the_number_of_epochs_is_told_where_it_is_known(params, subtasks):
    recorder = Recorder()
    lm = small(**params).set_callbacks(recorder).fit(TEXTS)
    assert recorder.calls[1] == f"begin fit 0 of {subtasks}"
    assert recorder.calls[-2:] == ["end fit 0", "teardown"]
    assert sum(call.startswith("begin epoch") for call in recorder.calls) == lm.n_epochs_


def test_callbacks_change_no_weight():
    lm = small().set_callbacks(Recorder()).fit(TEXTS)
    assert same_weights(lm, small().fit(TEXTS))
    assert {"_callback_fit_ctx", "_skl_callbacks_to_teardown"}.isdisjoint(vars(lm))


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_callback_gets_the_estimator_as_it_would_be_if_the_fit_had_stopped(early_stopping):
    recorder = Recorder()
    lm = small(early_stopping=early_stopping, max_epochs=4).set_callbacks(recorder)
    lm.fit(TEXTS, validation=TEXTS[:5])
    for n_epochs, then in enumerate(recorder.fitted[:-1], 1):
        stopping = Recorder(stop_after=n_epochs - 1)
        stopped = clone(lm).set_callbacks(stopping).fit(TEXTS, validation=TEXTS[:5])
        assert then is not lm
        assert then.n_epochs_ == len(then.history_) == stopped.n_epochs_ == n_epochs
        assert same_weights(then, stopped)
        assert then.score(TEXTS) == stopped.score(TEXTS)
        assert then.predict(["the"]) == stopped.predict(["the"])
    assert len({then.score(TEXTS) for then in recorder.fitted}) == 4  # the last stands twice
    assert same_weights(recorder.fitted[-1], lm)


def test_a_callback_that_stops_leaves_the_best_weights_so_far():
    whole = Recorder()
    losses = [epoch.heldout_loss for epoch in rising(whole).history_]
    best = losses.index(min(losses))
    stopping = Recorder(stop_after=best + 3)
    lm = rising(stopping)
    assert [epoch.heldout_loss for epoch in lm.history_] == losses[: best + 4]
    assert stopping.calls[-3:] == [f"end epoch {best + 3}", "end fit 0", "teardown"]
    tally = lm.evaluate(OTHERWISE)
    # Held-out text is read in other batches of float32.
    assert tally.nats / tally.n_tokens == pytest.approx(losses[best], rel=1e-5)
    assert losses[best] != pytest.approx(losses[best + 3], rel=1e-3)
    assert same_weights(lm, whole.fitted[best])
    assert same_weights(lm, whole.fitted[best + 3])  # what callbacks saw was the best so far, too
    assert all(parameter.grad is None for parameter in lm.module_.parameters())
    assert not lm.module_.training


def test_without_early_stopping_a_stopped_fit_keeps_what_it_had_reached():
    lm = rising(Recorder(stop_after=30), early_stopping=False)
    tally = lm.evaluate(OTHERWISE)
    assert lm.n_epochs_ == 31
    assert tally.nats / tally.n_tokens == pytest.approx(lm.history_[-1].heldout_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("texts", "y", "shown"),
    [
        (TEXTS, None, (TEXTS, TEXTS)),
        (TEXTS, [1] * len(TEXTS), (TEXTS, [1] * len(TEXTS))),
        (iter(TEXTS), None, (None, None)),
    ],
)
def test_callbacks_see_the_texts_if_they_can_be_read_again(texts, y, shown):
    recorder = Recorder()
    small(max_epochs=1).set_callbacks(recorder).fit(texts, y)
    assert recorder.data == [shown] * 4


def test_a_callback_that_fails_leaves_the_estimator_as_it_was():
    lm = small().fit(TEXTS)
    before = lm.score_samples(TEXTS)
    failing = Failing()
    with pytest.raises(RuntimeError, match=r"^this callback fails$"):
        lm.set_callbacks(failing).fit(TEXTS[:5])
    assert failing.calls[-1] == "teardown"
    assert np.array_equal(lm.score_samples(TEXTS), before)
    assert "_callback_fit_ctx" not in vars(lm)


def test_callbacks_are_torn_down_where_a_fit_fails():
    recorder = Recorder()
    lm = small(learning_rate=1e30).set_callbacks(recorder)
    with pytest.raises(DivergenceError):
        lm.fit(TEXTS)
    assert recorder.calls[0] == "setup"
    assert recorder.calls[-1] == "teardown"
    untouched = Recorder()
    with pytest.raises(TextError):
        small().set_callbacks(untouched).fit([])
    assert untouched.calls == []  # no task had begun


def test_what_is_no_callback():
    with pytest.raises(TypeError, match="callbacks must be instances following"):
        small().set_callbacks(Recorder)


def test_callbacks_go_with_clones_and_pickles():
    lm = small(max_epochs=1).set_callbacks(Recorder())
    assert pickle.loads(pickle.dumps(lm)).fit(TEXTS)._skl_callbacks[0].calls[-1] == "teardown"
    clone(lm).fit(TEXTS)
    assert lm._skl_callbacks[0].calls[-1] == "teardown"


def test_scoring_monitor_logs_each_epoch():
    monitor = callback.ScoringMonitor(
        scoring={"score": score, "nats": lambda lm, texts, y: lm.evaluate(texts).nats}
    )
    lm = small().set_callbacks(monitor).fit(TEXTS)
    log = monitor.get_logs()
    assert log.estimator_name == "LSTMLanguageModel"
    rows = {row["task_id_path"]: row for row in log.data}
    assert list(rows) == [(0,), (0, 0), (0, 1), (0, 2)]
    assert rows[0,]["score"] == rows[0, 2]["score"] == lm.score(TEXTS)
    assert rows[0,]["nats"] == lm.evaluate(TEXTS).nats
    assert rows[0, 0]["score"] < rows[0, 1]["score"] < rows[0, 2]["score"]


def score(lm, texts, y=None):
    return lm.score(texts)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scoring_monitor_in_a_grid_search_over_a_pipeline(n_jobs):
    monitor = callback.ScoringMonitor(scoring={"score": score})
    lm = small(max_epochs=2).set_callbacks(monitor)
    pipeline = make_pipeline(FunctionTransformer(), lm)
    grid = {"lstmlanguagemodel__hidden_size": [4, 8]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(TEXTS)
    log = monitor.get_logs()
    assert log.estimator_name == "GridSearchCV"
    assert len([row for row in log.data if row["task_name"] == "epoch"]) == (2 * 2 + 1) * 2
    refitted = max(log.data, key=lambda row: row["task_id_path"])
    assert refitted["score"] == search.best_estimator_.score(TEXTS)


def test_progress_bar_shows_the_epochs_within_a_pipeline(capsys):
    pipeline = make_pipeline("passthrough", small())
    pipeline.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(TEXTS)
    shown = capsys.readouterr().out
    assert "Pipeline - fit" in shown
    assert "fit-final-estimator | LSTMLanguageModel - fit" in shown
    assert "100%" in shown


def test_progress_bar_beside_our_own(capsys):
    small(verbose=1).set_callbacks(callback.ProgressBar()).fit(TEXTS)
    captured = capsys.readouterr()
    assert "LSTMLanguageModel - fit" in captured.out
    assert "epoch   3" in captured.err


WITHOUT_CALLBACKS = """
import sys
import sklearn.pipeline
sys.modules["sklearn.callback"] = None  # so that importing it fails, as with scikit-learn 1.8
from lstmlm import LSTMLanguageModel

lm = LSTMLanguageModel(tokenizer="word", hidden_size=8, max_epochs=2, random_state=0)
assert not hasattr(lm, "set_callbacks")
texts = ["a b a b"] * 20
print(lm.fit(texts).score(texts), lm.n_epochs_)
"""


def test_without_scikit_learns_callbacks_the_fit_is_the_same():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_CALLBACKS],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lm = LSTMLanguageModel(tokenizer="word", hidden_size=8, max_epochs=2, random_state=0)
    assert done.stdout.split() == [str(lm.fit(["a b a b"] * 20).score(["a b a b"] * 20)), "2"]
