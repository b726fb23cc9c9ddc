"""An estimator to and from a model folder."""

import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from typing import Any, cast

import numpy as np
import tokenizers
import torch
from torch import Tensor

from lstmlm.config import DecodeConfig, TextConfig
from lstmlm.errors import ModelFolderError, ParameterError
from lstmlm.fitting import Fitted, Plan, allocate, describe_architecture
from lstmlm.model import RecurrentLM
from lstmlm.storage import TensorReader, load_folder, save_folder
from lstmlm.text import KINDS, UNKNOWN, Kind, Tokenizer
from lstmlm.training import Epoch

RANKS = "tokenizer.ranks"  # the tensor of the tokenizer's ids


def save_estimator(estimator: Any, folder: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a model folder."""
    config = {
        "params": {name: _as_json(value) for name, value in estimator.get_params().items()},
        "settled": estimator.params_,
        "vocab_size": estimator.vocab_size_,
        # What lstmlm.defaults made of the vocabulary; another version may make something else.
        "cutoffs": estimator.module_.cutoffs,
        "embedding_scale": estimator.module_.embedding_scale,
        "history": [asdict(epoch) for epoch in estimator.history_],
    }
    tensors = dict(estimator.module_.named_parameters())  # names a shared one once
    ranks = torch.tensor(
        estimator.tokenizer_.ranks
    )  # a copy: joblib may have mapped them read-only
    save_folder(folder, config, estimator.tokenizer_.backend.to_str(), tensors | {RANKS: ranks})


def load_estimator(
    folder: str | os.PathLike[str], device: torch.device, known: Iterable[str]
) -> tuple[dict[str, Any], Fitted]:
    """Read a model folder: the estimator's parameters (of the known names), and what its fit left.

    Raises
    ------
    ModelFolderError
        If the folder is no model, or its parts don't fit together.
    """
    config, tokenizer_json, read_tensors = load_folder(folder)
    try:
        settled = config["settled"]
        plan = Plan.of(settled)
        vocab_size = TextConfig(vocab_size=config["vocab_size"]).vocab_size
        architecture = describe_architecture(plan.model, int(vocab_size)) | _kept_rules(config)
        history = [Epoch(**epoch) for epoch in config["history"]]
        params = dict(config["params"])
        if "auto" in plan.as_params().values():
            raise ParameterError('a setting is still "auto"')
        if unknown := params.keys() - set(known):
            raise ParameterError(f"unknown parameters {sorted(unknown)}")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"the settings in {folder} are not a model's: {error!r}.") from error
    module, ranks = _read_module(architecture, read_tensors)
    tokenizer = _read_tokenizer(tokenizer_json, plan.tokenizer, ranks, folder)
    return params, Fitted(tokenizer, module.to(device), plan, history)


def _kept_rules(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an architecture that followed from the vocabulary when it was fitted."""
    cutoffs, scale = config["cutoffs"], float(config["embedding_scale"])
    edges = [0, *map(int, cutoffs), int(config["vocab_size"])]
    if any(low >= high for low, high in pairwise(edges)) or not 0 < scale < math.inf:
        raise ParameterError(f"cutoffs {cutoffs} or embedding_scale {scale} fit no network")
    return {"cutoffs": edges[1:-1], "embedding_scale": scale}


def _read_module(
    architecture: dict[str, Any], read_tensors: TensorReader
) -> tuple[RecurrentLM, Tensor]:
    with torch.device("meta"):
        sketch = RecurrentLM(**architecture)
    shapes = {name: tuple(p.shape) for name, p in sketch.named_parameters()}
    tensors = read_tensors(shapes | {RANKS: (architecture["vocab_size"] - 1,)})
    ranks = tensors.pop(RANKS)
    module = allocate(architecture)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors[name])
    return module, ranks


def _read_tokenizer(
    tokenizer_json: bytes, kind: str, ranks: Tensor, folder: str | os.PathLike[str]
) -> Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_buffer(tokenizer_json)
    except Exception as error:  # the Rust library raises this very class
        raise ModelFolderError(f"tokenizer.json in {folder} can't be read: {error}.") from error
    vocab = backend.get_vocab()
    n_types = np.arange(len(ranks))
    fits = (
        kind in KINDS
        and (kind == "bpe" or UNKNOWN in vocab)
        and ranks.dtype == torch.int32
        and np.array_equal(np.sort(list(vocab.values())), n_types)
        and np.array_equal(np.sort(ranks.numpy()), n_types + 1)
    )
    if not fits:
        raise ModelFolderError(f"the tokenizer in {folder} does not fit its model.")
    return Tokenizer(backend, cast(Kind, kind), ranks.numpy())


def _as_json(value: Any) -> Any:
    """Return a parameter as JSON holds it; a random number generator is left out."""
    if isinstance(value, DecodeConfig):
        return asdict(value)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | dict | None) else None
