"""The estimator's method that draws how its training went."""

from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from lstmlm.plotting import plot_epochs
from lstmlm.training import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ShowsTraining(BaseEstimator):
    """The part of `LSTMLanguageModel` that shows its training."""

    history_: list[Epoch]
    params_: dict[str, Any]

    def plot_history(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the training: loss by epoch, in training and on held-out text, and learning rate.

        The training's loss is a mean over the epoch, under dropout and while the weights moved; the
        held-out loss is measured after it, with whole weights. So the first often lies above the
        second. A ring marks the epoch whose weights the model has.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a new figure, as scikit-learn's displays do.

        Returns
        -------
        matplotlib.axes.Axes
            That of the losses, in nats a token. The learning rate has an axis of its own beside it,
            ``ax.figure.axes[-1]``; ``ax.figure.savefig("history.png")`` writes the picture.

        Raises
        ------
        NotFittedError
            Before `fit`.
        MissingExtraError
            If matplotlib isn't installed.
        ParameterError
            If no epoch was trained, or `ax` is no Axes.
        """
        check_is_fitted(self)
        return plot_epochs(self.history_, self.params_["early_stopping"], ax)
