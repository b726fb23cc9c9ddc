"""From texts to a trained model: what ``fit`` does, without scikit-learn.

Texts are read (and spooled, if they come but once), a tokenizer is learned, ids are written to a
file, ``"auto"`` is settled, text is held out, the network is built and trained.
"""

from lstmlm.fitting.fits import Momentum, Resume, fit_language_model, fit_partially
from lstmlm.fitting.network import (
    allocate,
    choose_device,
    describe_architecture,
    has_fast_bf16,
    snapshot,
)
from lstmlm.fitting.plan import Fitted, Plan, model_config
from lstmlm.fitting.preparing import rereadable

__all__ = [
    "Fitted",
    "Momentum",
    "Plan",
    "Resume",
    "allocate",
    "choose_device",
    "describe_architecture",
    "fit_language_model",
    "fit_partially",
    "has_fast_bf16",
    "model_config",
    "rereadable",
    "snapshot",
]
