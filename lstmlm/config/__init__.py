"""Every setting of the library: its default, its range and what it means, once.

The estimator's parameters and the command line's options carry the same names; their defaults are
tested equal to, or generated from, the dataclasses here. A value may be ``"auto"`` where its rule
says so: `lstmlm.defaults` replaces those when a corpus is known.
"""

from lstmlm.config.decoding import DecodeConfig
from lstmlm.config.fitting import ModelConfig, PairModelConfig, TextConfig, TrainConfig
from lstmlm.config.rules import AUTO, Auto, Rule, Settings, setting

__all__ = [
    "AUTO",
    "Auto",
    "DecodeConfig",
    "ModelConfig",
    "PairModelConfig",
    "Rule",
    "Settings",
    "TextConfig",
    "TrainConfig",
    "setting",
]
