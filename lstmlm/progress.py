"""A training's reports, shown on a terminal or in a notebook."""

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from lstmlm.measures import perplexity
from lstmlm.training import Epoch, Report

LINE_EVERY = 0.05  # share of the training between two epochs' lines


class TrainingProgress:
    """Shows the epoch, tokens a second, perplexities and the time left; used as a context.

    A bar that moves goes to a terminal or a notebook, and everywhere a line for each epoch; of very
    many epochs only some get one.

    Parameters
    ----------
    enabled : bool
        False to show nothing.
    console : rich.console.Console, optional
        Where to write; standard error by default.
    """

    def __init__(self, *, enabled: bool, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._moves = self._console.is_terminal or self._console.is_jupyter
        self._enabled = enabled
        self._heldout: float | None = None
        self._next_line = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not (enabled and self._moves),
            transient=True,
        )
        self._task = self._progress.add_task("reading text", total=None, figures="")

    def __enter__(self) -> "TrainingProgress":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, report: Report) -> None:
        """Show where a training stands."""
        if math.isnan(report.train_loss):  # an epoch begins: nothing to show yet
            return
        if report.ended is not None:
            self._heldout = report.ended.heldout_loss
            if self._enabled and report.progress >= self._next_line:
                line = _line(report.ended, report)
                self._console.print(line, highlight=False, soft_wrap=True)
                self._next_line = min(1.0, report.progress + LINE_EVERY)
        self._progress.update(
            self._task,
            description=f"epoch {report.epoch}",
            total=1.0,
            completed=report.progress,
            figures=_figures(report, self._heldout),
        )


def _figures(report: Report, heldout: float | None) -> str:
    left = report.seconds / report.progress - report.seconds if report.progress else 0.0
    parts = [
        f"{report.tokens / max(report.seconds, 1e-9):,.0f} tokens/s",
        f"perplexity {perplexity(report.train_loss, 1):,.1f}",
        "" if heldout is None else f"held-out {perplexity(heldout, 1):,.1f}",
        f"{clock(left)} left",
    ]
    return " · ".join(part for part in parts if part)


def _line(epoch: Epoch, report: Report) -> str:
    parts = [
        f"epoch {epoch.epoch:>3}",
        f"{clock(epoch.seconds)}",
        f"{report.tokens / max(report.seconds, 1e-9):,.0f} tokens/s",
        f"perplexity {perplexity(epoch.train_loss, 1):,.2f}",
    ]
    if epoch.heldout_loss is not None:
        parts.append(f"held-out {perplexity(epoch.heldout_loss, 1):,.2f}")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, hours before them where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
