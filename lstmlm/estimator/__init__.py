"""The scikit-learn face of the library."""

from lstmlm.estimator.language_model import LSTMLanguageModel
from lstmlm.estimator.writing import Generation

__all__ = ["Generation", "LSTMLanguageModel"]
