"""Pictures, with matplotlib, which the extra ``plot`` brings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lstmlm.errors import MissingExtraError, ParameterError
from lstmlm.measures import perplexity
from lstmlm.training import Epoch, kept_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, HELDOUT, RATE = "#1f77b4", "#d95f02", "#8c8c8c"  # apart also to the colour-blind
RATE_SHARE = 0.25  # of the height: the learning rate's band, below the losses'


def plot_epochs(history: Sequence[Epoch], early_stopping: bool, ax: Any = None) -> "Axes":
    """Draw losses and learning rate by epoch; see `LSTMLanguageModel.plot_history`.

    Parameters
    ----------
    history : sequence of Epoch
        At least one.
    early_stopping : bool
        Whether the best epoch's weights were kept, not the last one's.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    """
    if not history:
        raise ParameterError(
            "history_ is empty: no epoch was trained, so there is nothing to draw. Fit with "
            "max_epochs of at least 1 and enough max_seconds."
        )
    losses = _axes(ax)
    kept = kept_epoch(history, early_stopping)
    lines = [_draw_loss(losses, history), *_draw_heldout(losses, history, kept)]
    _make_room_below(losses, history)
    lines.append(_draw_rate(losses, history))
    losses.legend(
        handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False
    )
    return losses


def plot_matrix(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    ax: Any = None,
) -> "Axes":
    """Draw a matrix of shares, the darker the larger.

    Parameters
    ----------
    values : ndarray, shape (n_rows, n_columns)
        From 0 to 1.
    rows, columns : sequence of str
        What stands beside each row and over each column; an end mark is ``""``.
    row_label, column_label : str
        What rows and columns are.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    """
    axes = _axes(ax, size=(1.5 + 0.28 * len(columns), 1.5 + 0.28 * len(rows)))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), [_visible(text) for text in columns])
    axes.set_yticks(range(len(rows)), [_visible(text) for text in rows])
    if max(map(len, columns)) > 2:
        axes.tick_params(axis="x", rotation=90)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(column_label)
    axes.set_ylabel(row_label)
    return axes


def _visible(text: str) -> str:
    """Return a token as it can be seen: white space, and the end mark, by signs."""
    if not text:
        return "∎"
    shown = text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return shown.replace("$", r"\$")


def _axes(ax: Any, size: tuple[float, float] | None = None) -> "Axes":
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise MissingExtraError(
            "a plot needs matplotlib, which isn't installed; pip install 'lstmlm[plot]' brings it."
        ) from error
    if ax is None:
        return pyplot.subplots(figsize=size, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise ParameterError(
            f"ax is a {type(ax).__name__}; give a matplotlib Axes, such as the second of what "
            "pyplot.subplots() returns, or None."
        )
    return ax


def _draw_loss(ax: "Axes", history: Sequence[Epoch]) -> Any:
    """Draw the training's loss, and label the axes."""
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch.epoch for epoch in history]
    ax.set_xlabel(f"epoch ({_duration(history[-1].seconds)} in all)")
    ax.set_ylabel("loss (nats a token)", loc="top")
    ax.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(axis="y", alpha=0.3)
    ax.spines["top"].set_visible(False)
    values = [epoch.train_loss for epoch in history]
    return ax.plot(numbers, values, color=TRAIN, label="training", **_marks(history))[0]


def _draw_heldout(ax: "Axes", history: Sequence[Epoch], kept: Epoch | None) -> list[Any]:
    """Draw the held-out loss, if there is any, and ring the epoch whose weights were kept."""
    scored = [(e.epoch, e.heldout_loss) for e in history if e.heldout_loss is not None]
    if kept is None or kept.heldout_loss is None:
        return []
    (line,) = ax.plot(
        *zip(*scored, strict=True), color=HELDOUT, label="held-out", **_marks(history)
    )
    ax.plot(kept.epoch, kept.heldout_loss, "o", color=HELDOUT, markersize=11, fillstyle="none")
    figure = perplexity(kept.heldout_loss, 1)
    ax.set_title(f"held-out perplexity {figure:,.1f} after epoch {kept.epoch}", pad=26)
    return [line]


def _make_room_below(ax: "Axes", history: Sequence[Epoch]) -> None:
    """Leave the lowest third to the learning rate, so that no line crosses another's band."""
    losses = [e.train_loss for e in history]
    losses += [e.heldout_loss for e in history if e.heldout_loss is not None]
    low, high = min(losses), max(losses)
    span = max(high - low, 0.01 * high)
    ax.set_ylim(low - 0.6 * span, high + 0.1 * span)
    ax.set_yticks(
        [tick for tick in ax.get_yticks() if low - 0.25 * span < tick < high + 0.1 * span]
    )


def _draw_rate(losses: "Axes", history: Sequence[Epoch]) -> Any:
    """Draw the learning rate on an axis of its own, below the losses."""
    ax = losses.twinx()
    rates = [epoch.learning_rate for epoch in history]
    (line,) = ax.plot(
        [epoch.epoch for epoch in history], rates, "--", color=RATE, label="learning rate",
        **_marks(history, size=3),
    )  # fmt: skip
    highest = max(rates) or 1.0
    ax.set_ylim(-0.05 * highest, highest / RATE_SHARE)
    ticks = [0.0, highest / 2, highest]
    ax.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    ax.set_ylabel("learning rate", color=RATE, loc="bottom")
    ax.tick_params(axis="y", colors=RATE)
    ax.spines["top"].set_visible(False)
    return line


def _marks(history: Sequence[Epoch], size: float = 5) -> dict[str, Any]:
    """Mark each epoch where they are few; a single one shows only so."""
    return {"marker": "o", "markersize": size} if len(history) <= 30 else {}


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
