"""LSTM language models of your own text: train, score, generate, as a scikit-learn estimator."""

from lstmlm import metrics
from lstmlm.config import DecodeConfig
from lstmlm.decoding import Completion, NextToken
from lstmlm.detector import PerplexityDetector
from lstmlm.errors import (
    CheckpointError,
    DivergenceError,
    JobError,
    LstmlmError,
    MissingExtraError,
    ModelFolderError,
    ParameterError,
    SessionClosedError,
    SessionStateError,
    TextError,
    TextTypeError,
)
from lstmlm.estimator import Generation, LSTMLanguageModel
from lstmlm.measures import Evaluation
from lstmlm.scoring import ScoredText
from lstmlm.session import ScoredToken, Session, Sessions
from lstmlm.text_to_text import LSTMTextToText
from lstmlm.training import Epoch

__all__ = [
    "CheckpointError",
    "Completion",
    "DecodeConfig",
    "DivergenceError",
    "Epoch",
    "Evaluation",
    "Generation",
    "JobError",
    "LSTMLanguageModel",
    "LSTMTextToText",
    "LstmlmError",
    "MissingExtraError",
    "ModelFolderError",
    "NextToken",
    "ParameterError",
    "PerplexityDetector",
    "ScoredText",
    "ScoredToken",
    "Session",
    "SessionClosedError",
    "SessionStateError",
    "Sessions",
    "TextError",
    "TextTypeError",
    "metrics",
]
__version__ = "0.1.0"
