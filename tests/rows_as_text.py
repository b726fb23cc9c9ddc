"""`LSTMLanguageModel` for rows of numbers, so that scikit-learn's whole suite can be run on it.

Rows go through scikit-learn's own validation and become texts; predicted texts become the
sums of their characters. All the rest, from parameters to pickles, is the language model's own.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from lstmlm import LSTMLanguageModel


def texts_of(rows: NDArray[Any]) -> list[str]:
    """Return each row's numbers in words of a few digits."""
    return [" ".join(f"{number:.1f}" for number in row) for row in rows.tolist()]


class RowsAsText(LSTMLanguageModel):
    # Parameters keep the names by which the language model's routing of metadata knows them.

    def fit(self, texts: Any, y: Any = None, validation: Any = None) -> Self:
        return super().fit(texts_of(validate_data(self, texts)), y, validation)

    def partial_fit(self, texts: Any, y: Any = None) -> Self:
        begins = not hasattr(self, "module_")
        return super().partial_fit(texts_of(validate_data(self, texts, reset=begins)))

    def predict(self, prompts: Any) -> NDArray[np.int64]:
        # Of a whole row the end alone would be predicted: all rows have as many numbers.
        begun = [text.rpartition(" ")[0] for text in self._read(prompts)]
        predicted = super().predict(begun)
        return np.array([sum(map(ord, text)) for text in predicted], dtype=np.int64)

    def score(self, texts: Any, y: Any = None) -> float:
        return super().score(self._read(texts))

    def score_samples(self, texts: Any) -> NDArray[np.float64]:
        return super().score_samples(self._read(texts))

    def transform(self, texts: Any) -> NDArray[np.float32]:
        return super().transform(self._read(texts))

    def fit_transform(self, texts: Any, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        return self.fit(texts, y, **fit_params).transform(texts)

    def _read(self, rows: Any) -> list[str]:
        check_is_fitted(self)
        return texts_of(validate_data(self, rows, reset=False))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = False
        tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags
