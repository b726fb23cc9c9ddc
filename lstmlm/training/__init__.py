"""Training by truncated back-propagation through time (Williams and Peng 1990)."""

from lstmlm.training.loop import train
from lstmlm.training.loss import WindowLoss, window_loss
from lstmlm.training.records import Epoch, Report, kept_epoch
from lstmlm.training.weights import put_weights

__all__ = ["Epoch", "Report", "WindowLoss", "kept_epoch", "put_weights", "train", "window_loss"]
