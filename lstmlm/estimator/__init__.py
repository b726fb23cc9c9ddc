"""The scikit-learn face of the library."""

from lstmlm.estimator.language_model import LSTMLanguageModel

__all__ = ["LSTMLanguageModel"]
