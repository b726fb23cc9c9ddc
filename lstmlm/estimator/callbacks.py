"""scikit-learn's callbacks (from its version 1.9 on) in a fit.

A fit is a task with a subtask for each epoch. With scikit-learn 1.8, which has no callbacks, the
same calls do nothing and the estimator has no ``set_callbacks``.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from lstmlm.fitting import Fitted, snapshot
from lstmlm.training import Report

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:

    class _NoTask:
        """A task that nobody looks at."""

        def subcontext(self, **options: Any) -> "_NoTask":
            return self

        def call_on_fit_task_begin(self, **shown: Any) -> "_NoTask":
            return self

        def call_on_fit_task_end(self, **shown: Any) -> bool:
            return False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """What an estimator's fit asks of scikit-learn's class of this name."""

        def _init_callback_context(self, **options: Any) -> _NoTask:
            return _NoTask()

    def _with_callbacks(method: Method) -> Method:
        """Call a method, from as deep a frame as scikit-learn's decorator does."""

        @functools.wraps(method)
        def managed(estimator: Any, *args: Any, **kwargs: Any) -> Any:
            return method(estimator, *args, **kwargs)

        return cast(Method, managed)


__all__ = ["CallbackSupportMixin", "FitTasks", "with_callbacks"]


def with_callbacks(method: Method) -> Method:
    """Tear the callbacks down when a method that began tasks ends, however it ends."""
    return cast(Method, _with_callbacks(method))


class FitTasks:
    """The tasks of one fit as its callbacks see them: the fit itself and each epoch.

    A callback's ``fitted_estimator`` is the estimator as it would be if the fit had stopped there,
    with the best weights so far. As ``X`` it gets the texts, unless they come from an iterator,
    which can't be read again; as ``y`` what `fit` got, else the texts too: they are what a language
    model predicts, and scikit-learn's `ScoringMonitor` scores nothing without a ``y``.

    Parameters
    ----------
    estimator : LSTMLanguageModel
        What is fitted.
    texts : iterable of str
        What it is fitted on.
    y : object
        What came with them.
    """

    def __init__(self, estimator: Any, texts: Iterable[str], y: Any) -> None:
        self._estimator = estimator
        shown = None if iter(texts) is texts else texts
        self._data = {"estimator": estimator, "X": shown, "y": shown if y is None else y}
        self._fit: Any = None
        self._epoch: Any = None
        self._epochs_begun = 0

    def __call__(self, report: Report, fitted: Fitted) -> bool:
        """Tell of a task that begins or ends; return whether a callback wants the fit to stop."""
        if report.epoch != self._epochs_begun:
            self._begin_epoch(report.epoch, fitted)
        if report.ended is None:
            return False
        stops = self._epoch.call_on_fit_task_end(
            **self._data,
            reconstruction_attributes=lambda: self._attributes(snapshot(fitted, report)),
        )
        return bool(stops)

    def finish(self, fitted: Fitted) -> None:
        """Tell that the fit has ended; the estimator has adopted what it left."""
        self._begin_fit(fitted)
        self._fit.call_on_fit_task_end(**self._data, reconstruction_attributes={})

    def _begin_fit(self, fitted: Fitted) -> None:
        """Begin the fit's task, once it is known how many epochs it may have."""
        if self._fit is None:
            self._fit = self._estimator._init_callback_context(
                max_subtasks=fitted.plan.train.max_epochs
            )
            self._fit.call_on_fit_task_begin(**self._data)

    def _begin_epoch(self, number: int, fitted: Fitted) -> None:
        self._begin_fit(fitted)
        self._epochs_begun = number
        self._epoch = self._fit.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._data)

    def _attributes(self, fitted: Fitted) -> dict[str, Any]:
        """Return the attributes that the estimator would adopt."""
        blank = object.__new__(type(self._estimator))
        blank._adopt(fitted)
        return dict(vars(blank))
