"""The estimator's parameters as they were given, to what a fit works with."""

import os
from pathlib import Path
from typing import Any

from lstmlm.config import DecodeConfig, Rule, TextConfig, TrainConfig
from lstmlm.errors import ParameterError, did_you_mean
from lstmlm.fitting import Plan, Resume, model_config
from lstmlm.storage import read_tokenizer_json
from lstmlm.text import KINDS, ForeignTokenizer, foreign_tokenizer, written_form

_WARM_START_RULE = Rule(help="Go on from the last fit.", kind=bool)
_VERBOSE_RULE = Rule(help="0: silent; 1: show the training's progress.", kind=int, low=0)


def plan_of(estimator: Any) -> Plan:
    """Check all parameters of an estimator, and return what its `fit` is to do.

    Raises
    ------
    ParameterError
        If one is unknown or out of its range.
    """
    _VERBOSE_RULE.check("verbose", estimator.verbose)
    _WARM_START_RULE.check("warm_start", getattr(estimator, "warm_start", False))
    if not isinstance(getattr(estimator, "checkpoint_dir", None), str | os.PathLike | None):
        raise ParameterError(
            f"checkpoint_dir={estimator.checkpoint_dir!r} is not valid; checkpoint_dir is the path "
            "of a folder, or None."
        )
    DecodeConfig.merged(estimator.generation_config)
    values = estimator.get_params(deep=False)
    return Plan(
        tokenizer=given_tokenizer(estimator.tokenizer),
        text=TextConfig.of(values),
        model=model_config(values),
        train=TrainConfig.of(values),
    )


def resume_of(estimator: Any) -> Resume | None:
    """Return where checkpoints go, if any are to be kept."""
    if estimator.checkpoint_dir is None:
        return None
    return Resume(Path(estimator.checkpoint_dir), any_seed=estimator.random_state is None)


def given_tokenizer(tokenizer: Any) -> str | ForeignTokenizer:
    """Return the kind of tokenizer to learn, or the foreign tokenizer to take.

    Parameters
    ----------
    tokenizer : str, path or tokenizers.Tokenizer
        A kind; the path of a ``tokenizer.json`` or of a folder that holds one; or a tokenizer,
        which is copied. A fast tokenizer of transformers stands for the one that it wraps.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    if isinstance(tokenizer, str) and tokenizer in KINDS:
        return str(tokenizer)
    if not isinstance(tokenizer, str | os.PathLike):
        return foreign_tokenizer(written_form(tokenizer), f"a {type(tokenizer).__name__}")
    path = Path(tokenizer)
    if (written := read_tokenizer_json(path)) is not None:
        return foreign_tokenizer(written, repr(str(path)))
    raise ParameterError(
        f"tokenizer={str(tokenizer)!r} is not valid; tokenizer is {' or '.join(map(repr, KINDS))}, "
        "or the path of a tokenizer.json that is there, or a tokenizers.Tokenizer."
        + did_you_mean(str(tokenizer), KINDS)
    )
