"""What the picture of a training holds; how it looks was looked at."""

import builtins
from dataclasses import replace

import matplotlib
import pytest
from sklearn.exceptions import NotFittedError

from lstmlm import LSTMLanguageModel, MissingExtraError, ParameterError
from lstmlm.training import Epoch, kept_epoch

matplotlib.use("Agg")
from matplotlib import pyplot

TEXTS = ["the cat sat on the mat", "a dog lay on the log"] * 20
HISTORY = [
    Epoch(epoch, 30.0 * epoch, 1000, 6 - 0.5 * epoch, 5 + 0.1 * abs(epoch - 3), 0.004 / epoch)
    for epoch in range(1, 6)
]


@pytest.fixture
def fitted():
    yield LSTMLanguageModel(max_epochs=3, hidden_size=8, random_state=0).fit(TEXTS)
    pyplot.close("all")


@pytest.fixture
def drawn(fitted):
    """Draw a history and return the axes of the losses and of the learning rate."""

    def draw(history, early_stopping=True):
        fitted.history_ = history
        fitted.params_ = fitted.params_ | {"early_stopping": early_stopping}
        ax = fitted.plot_history()
        ax.figure.canvas.draw()
        return ax, ax.figure.axes[-1]

    return draw


def lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ring(ax):
    (found,) = [line for line in ax.get_lines() if line.get_fillstyle() == "none"]
    return found.get_xydata().tolist()[0]


def test_the_lines_are_the_history(fitted, tmp_path):
    ax = fitted.plot_history()
    history = fitted.history_
    assert lines(ax)["training"] == [[e.epoch, e.train_loss] for e in history]
    assert lines(ax)["held-out"] == [[e.epoch, e.heldout_loss] for e in history]
    rate = ax.figure.axes[-1]
    assert lines(rate)["learning rate"] == [[e.epoch, e.learning_rate] for e in history]
    assert legend(ax) == ["training", "held-out", "learning rate"]
    assert (ax.get_ylabel(), rate.get_ylabel()) == ("loss (nats a token)", "learning rate")
    ax.figure.savefig(tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("early_stopping", "kept"), [(True, 3), (False, 5)])
def test_the_epoch_whose_weights_were_kept_is_ringed_and_named(drawn, early_stopping, kept):
    ax, _ = drawn(HISTORY, early_stopping)
    assert ring(ax) == [kept, HISTORY[kept - 1].heldout_loss]
    perplexity = {3: "148.4", 5: "181.3"}[kept]  # exp(5), exp(5.2)
    assert ax.get_title() == f"held-out perplexity {perplexity} after epoch {kept}"
    assert ax.get_xlabel() == "epoch (2.5 min in all)"


def test_nothing_held_out(drawn):
    ax, _ = drawn([replace(epoch, heldout_loss=None) for epoch in HISTORY])
    assert legend(ax) == ["training", "learning rate"]
    assert ax.get_title() == ""


@pytest.mark.parametrize("heldout_loss", [None, 5.5, 5.6])
def test_one_epoch_is_seen(drawn, heldout_loss):
    ax, rate = drawn([replace(HISTORY[0], heldout_loss=heldout_loss)])
    for axes in (ax, rate):
        for line in axes.get_lines():
            ((x, y),) = line.get_xydata()
            assert line.get_marker() == "o"
            assert axes.get_xlim()[0] < x < axes.get_xlim()[1]
            assert axes.get_ylim()[0] < y < axes.get_ylim()[1]
    assert [tick for tick in ax.get_xticks() if 0.5 < tick < 1.5] == [1]
    assert len(ax.get_yticks()) >= 1


@pytest.mark.parametrize("n_epochs", [1, 2, 7, 200])
def test_epochs_are_whole_and_the_rate_stays_below_the_losses(drawn, n_epochs):
    history = [replace(HISTORY[0], epoch=e, train_loss=3 / e) for e in range(1, n_epochs + 1)]
    ax, rate = drawn(history)
    assert all(tick == round(tick) for tick in ax.get_xticks())
    in_pixels = [
        axes.transData.transform(line.get_xydata())[:, 1]
        for axes in (ax, rate)
        for line in axes.get_lines()
    ]
    assert max(in_pixels[-1]) < min(map(min, in_pixels[:-1]))


def test_a_learning_rate_of_zero(drawn):
    _, rate = drawn([replace(epoch, learning_rate=0.0) for epoch in HISTORY])
    assert rate.get_ylim()[0] < 0 < rate.get_ylim()[1]


def test_axes_of_the_callers_own(fitted):
    figure, axes = pyplot.subplots(1, 2)
    assert fitted.plot_history(axes[1]) is axes[1]
    assert lines(axes[0]) == {}
    assert pyplot.get_fignums() == [figure.number]
    with pytest.raises(ParameterError) as caught:
        fitted.plot_history(axes)
    assert str(caught.value) == (
        "ax is a ndarray; give a matplotlib Axes, such as the second of what pyplot.subplots() "
        "returns, or None."
    )


def test_no_fit_and_no_epoch(fitted):
    with pytest.raises(NotFittedError, match="This LSTMLanguageModel instance is not fitted yet"):
        LSTMLanguageModel().plot_history()
    with pytest.raises(ParameterError) as caught:
        fitted.set_params(max_epochs=0).fit(TEXTS).plot_history()
    assert str(caught.value) == (
        "history_ is empty: no epoch was trained, so there is nothing to draw. Fit with max_epochs "
        "of at least 1 and enough max_seconds."
    )
    assert pyplot.get_fignums() == []


def test_without_matplotlib(fitted, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as caught:
        fitted.plot_history()
    assert str(caught.value) == (
        "a plot needs matplotlib, which isn't installed; pip install 'lstmlm[plot]' brings it."
    )


def test_the_kept_epoch():
    assert kept_epoch([], early_stopping=True) is None
    assert kept_epoch(HISTORY, early_stopping=True).epoch == 3
    assert kept_epoch(HISTORY, early_stopping=False).epoch == 5
    alike = [replace(epoch, heldout_loss=5.0) for epoch in HISTORY]
    assert kept_epoch(alike, early_stopping=True).epoch == 1  # a tie is no improvement
    unscored = [replace(epoch, heldout_loss=None) for epoch in HISTORY]
    assert kept_epoch(unscored, early_stopping=True).epoch == 5
