"""The settings of a fit, and what it leaves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lstmlm.config import ModelConfig, PairModelConfig, TextConfig, TrainConfig
from lstmlm.model import RecurrentLM
from lstmlm.text import ForeignTokenizer, Tokenizer
from lstmlm.training import Epoch


@dataclass(frozen=True)
class Plan:
    """All settings of a fit: as given, with ``"auto"`` among them, or as settled.

    Parameters
    ----------
    tokenizer : str or ForeignTokenizer
        The kind of tokenizer to learn, or one to take.
    text : TextConfig
    model : ModelConfig
    train : TrainConfig
    """

    tokenizer: str | ForeignTokenizer
    text: TextConfig
    model: ModelConfig
    train: TrainConfig

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Plan":
        """Take the settings from a larger mapping."""
        return cls(
            tokenizer=params["tokenizer"],
            text=TextConfig.of(params),
            model=model_config(params),
            train=TrainConfig.of(params),
        )

    def as_params(self) -> dict[str, Any]:
        """Return the settings by name."""
        kind = self.tokenizer if isinstance(self.tokenizer, str) else self.tokenizer.kind
        return {"tokenizer": kind, **asdict(self.text), **asdict(self.model),
                **asdict(self.train)}  # fmt: skip


def model_config(params: Mapping[str, Any]) -> ModelConfig:
    """Take the network's settings from a larger mapping; of pairs they say if it has attention."""
    return (PairModelConfig if "attention" in params else ModelConfig).of(params)


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Parameters
    ----------
    tokenizer : Tokenizer
    module : RecurrentLM
    plan : Plan
        The settings, none ``"auto"``.
    history : list of Epoch
    """

    tokenizer: Tokenizer
    module: RecurrentLM
    plan: Plan
    history: list[Epoch]
