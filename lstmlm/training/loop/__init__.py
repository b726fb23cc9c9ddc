"""Training by truncated back-propagation through time (Williams and Peng 1990).

`train` is a generator: it moves the weights and yields a `Report` when an epoch begins, every few
steps, and when the epoch has ended. Who has seen enough stops iterating; the model then holds the
best weights so far.
"""

from lstmlm.training.loop.run import train
from lstmlm.training.loop.trainer import Trainer

__all__ = ["Trainer", "train"]
