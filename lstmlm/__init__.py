"""LSTM language models of your own text: train, score, generate, as a scikit-learn estimator."""

from lstmlm import metrics
from lstmlm.config import DecodeConfig
from lstmlm.errors import (
    CheckpointError,
    DivergenceError,
    LstmlmError,
    MissingExtraError,
    ModelFolderError,
    ParameterError,
    TextError,
    TextTypeError,
)
from lstmlm.estimator import LSTMLanguageModel
from lstmlm.measures import Evaluation
from lstmlm.scoring import ScoredText
from lstmlm.training import Epoch

__all__ = [
    "CheckpointError",
    "DecodeConfig",
    "DivergenceError",
    "Epoch",
    "Evaluation",
    "LSTMLanguageModel",
    "LstmlmError",
    "MissingExtraError",
    "ModelFolderError",
    "ParameterError",
    "ScoredText",
    "TextError",
    "TextTypeError",
    "metrics",
]
__version__ = "0.1.0"
