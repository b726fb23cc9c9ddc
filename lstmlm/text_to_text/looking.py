"""Where a completion looks in its prompt."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from lstmlm.attending import AttendingLM
from lstmlm.errors import ParameterError
from lstmlm.model import RecurrentLM
from lstmlm.plotting import plot_matrix
from lstmlm.scoring import inference
from lstmlm.text import END, Tokenizer
from lstmlm.text_to_text.pairs import checked_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes


class ShowsAttention(BaseEstimator):
    """The part of `LSTMTextToText` that shows where it looks."""

    module_: RecurrentLM
    tokenizer_: Tokenizer
    device_: torch.device

    def predict(self, prompts: "Iterable[str]") -> NDArray[np.object_]:
        """Write completions."""
        raise NotImplementedError

    def attention_weights(self, prompt: str, completion: str | None = None) -> NDArray[np.float32]:
        """Return how a completion looks back at its prompt.

        Parameters
        ----------
        prompt : str
        completion : str, optional
            None takes the one that `predict` writes.

        Returns
        -------
        ndarray of float32, shape (n_completion_tokens + 1, n_prompt_tokens + 1)
            A row for each token of the completion and its end mark: the share of each of the
            prompt's tokens, and of the end mark behind it. A row sums to 1.

        Raises
        ------
        ParameterError
            If the model was fitted without attention.
        """
        return self._attention(prompt, completion)[0]

    def plot_attention(
        self, prompt: str, completion: str | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Draw how a completion looks back at its prompt: the darker, the more.

        Parameters
        ----------
        prompt : str
        completion : str, optional
            None takes the one that `predict` writes.
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The prompt's tokens lie along it, the completion's go down.

        Raises
        ------
        ParameterError
            If the model was fitted without attention, or `ax` is no Axes.
        MissingExtraError
            If matplotlib isn't installed.
        """
        weights, read, written = self._attention(prompt, completion)
        return plot_matrix(weights, written, read, "completion", "prompt", ax)

    def _attention(
        self, prompt: str, completion: str | None
    ) -> tuple[NDArray[np.float32], list[str], list[str]]:
        """Return the weights, and what the prompt's and the completion's tokens say."""
        check_is_fitted(self)
        if not isinstance(self.module_, AttendingLM):
            raise ParameterError("the model has no attention; fit it with attention=True.")
        if completion is None:
            (completion,) = self.predict([prompt])
        checked_pairs([prompt], [completion])
        read, written = self.tokenizer_.encode_with_spans([prompt, str(completion)])
        ids = np.concatenate([[END], read[0], [END], written[0]]).astype(np.int64)
        with inference(self.module_):
            on_device = torch.from_numpy(ids).to(self.device_)
            found = self.module_.attention_weights(on_device, len(read[0]) + 1)
        weights: NDArray[np.float32] = found.float().cpu().numpy()
        texts = [
            [text[start:end] for start, end in spans.tolist()] + [""]
            for text, (_, spans) in zip((prompt, str(completion)), (read, written), strict=True)
        ]
        return weights, texts[0], texts[1]
