"""The scikit-learn face of the library."""

from lstmlm.estimator.generations import Generation
from lstmlm.estimator.language_model import LSTMLanguageModel

__all__ = ["Generation", "LSTMLanguageModel"]
