"""An estimator to and from a model folder."""

import copy
import math
import os
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, ClassVar, Self, cast

import numpy as np
import tokenizers
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lstmlm.attending import make_network
from lstmlm.config import DecodeConfig, TextConfig
from lstmlm.errors import ModelFolderError, ParameterError
from lstmlm.fitting import Fitted, Plan, allocate, choose_device, describe_architecture
from lstmlm.model import RecurrentLM
from lstmlm.storage import TensorReader, load_folder, save_folder
from lstmlm.text import FOREIGN, KINDS, UNKNOWN, Kind, Tokenizer, foreign_tokenizer
from lstmlm.training import Epoch

RANKS = "tokenizer.ranks"  # the tensor of the tokenizer's ids


class KeepsModel(BaseEstimator):
    """The part of `LSTMLanguageModel` that goes to and from files."""

    module_: RecurrentLM
    device_: torch.device
    _kept_as: ClassVar[str] = "LSTMLanguageModel"  # what a folder says it holds, of subclasses too

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder that `load` reads; an older model there is replaced.

        Parameters
        ----------
        folder : path
            Its name. The folder is written under a temporary name and renamed.

        Raises
        ------
        ModelFolderError
            If something is there that is not a model; nothing is written then.
        """
        check_is_fitted(self)
        _save(self, folder)

    def quantize(self) -> Self:
        """Return a copy with weights in int8, for scoring, streaming and generation on the CPU.

        Each row of weights is rounded to whole numbers from -127 to 127 times a scale, and so is
        each row of activations when it is multiplied with them. A stream is read several times as
        fast, and the model takes a quarter of the memory. Its figures differ by a few thousandths:
        compare `perplexity` before and after. The copy can be saved, but not trained further.

        Returns
        -------
        LSTMLanguageModel

        Raises
        ------
        ParameterError
            If it is quantized already.
        """
        check_is_fitted(self)
        copied: Self = _quantized(self)
        return copied

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device = "auto") -> Self:
        """Read a model that `save` wrote. No code in the folder is run.

        Parameters
        ----------
        folder : path
            Its name.
        device : str or torch.device, default "auto"
            Where the model shall work; one that was quantized does on the CPU.

        Returns
        -------
        LSTMLanguageModel

        Raises
        ------
        ModelFolderError
            If the folder is no model, or was cut off or altered.
        ParameterError
            If the device can't be used.
        """
        params, fitted = _load(folder, choose_device(device), cls)
        estimator = cls(**params | {"device": device})
        estimator._adopt(fitted)
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if "module_" in state and state["device_"].type != "cpu":
            state |= {"module_": copy.deepcopy(self.module_).cpu()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "module_" in state and self.device_.type != "cpu":
            self.device_ = choose_device("auto")
            self.module_.to(self.device_)

    def _adopt(self, fitted: Fitted) -> None:
        """Take over what a fit or a folder gave: all attributes at once."""
        self.tokenizer_ = fitted.tokenizer
        self.vocab_size_ = fitted.tokenizer.vocab_size
        self.params_ = fitted.plan.as_params()
        self.n_epochs_ = len(fitted.history)
        self.history_ = fitted.history
        self.module_ = fitted.module
        self.device_ = fitted.module.device


def _save(estimator: Any, folder: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a model folder."""
    config = {
        "estimator": estimator._kept_as,
        "params": {name: _as_json(value) for name, value in estimator.get_params().items()},
        "settled": estimator.params_,
        "vocab_size": estimator.vocab_size_,
        **estimator.module_.of_vocabulary,  # another version may make something else of it
        "quantized": estimator.module_.quantized,
        "history": [asdict(epoch) for epoch in estimator.history_],
    }
    tensors = estimator.module_.tensors()
    ranks = estimator.tokenizer_.ranks
    # A copy: joblib may have mapped them read-only. Holes among the backend's ids have no rank.
    ranks = torch.tensor(ranks[ranks > 0])
    save_folder(folder, config, estimator.tokenizer_.backend.to_str(), tensors | {RANKS: ranks})


def _quantized(estimator: Any) -> Any:
    """Return a copy of a fitted estimator, on the CPU, with a quantized network."""
    module = estimator.module_
    if module.quantized:
        raise ParameterError("the model is quantized already.")
    plan = Plan.of(estimator.params_)
    architecture = describe_architecture(plan.model, estimator.vocab_size_)
    architecture |= module.of_vocabulary | {"quantized": True}
    small = module.quantize(into=allocate(architecture))
    copied = copy.copy(estimator)
    copied._adopt(Fitted(estimator.tokenizer_, small, plan, estimator.history_))
    return copied.set_params(device="cpu")


def _load(
    folder: str | os.PathLike[str], device: torch.device, kind: type[KeepsModel]
) -> tuple[dict[str, Any], Fitted]:
    """Read a model folder of a kind of estimator: its parameters, and what its fit left.

    Raises
    ------
    ModelFolderError
        If the folder is no model, or its parts don't fit together.
    """
    config, tokenizer_json, read_tensors = load_folder(folder)
    name = str(config.get("estimator", "LSTMLanguageModel"))  # not in folders of the first version
    if name != kind._kept_as:
        raise ModelFolderError(f"{folder} holds a {name}; load it with {name}.load.")
    try:
        settled = config["settled"]
        plan = Plan.of(settled)
        vocab_size = TextConfig(vocab_size=config["vocab_size"]).vocab_size
        architecture = describe_architecture(plan.model, int(vocab_size)) | _kept_rules(config)
        history = [Epoch(**epoch) for epoch in config["history"]]
        params = dict(config["params"])
        if "auto" in plan.as_params().values():
            raise ParameterError('a setting is still "auto"')
        if unknown := params.keys() - set(kind._get_param_names()):
            raise ParameterError(f"unknown parameters {sorted(unknown)}")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"the settings in {folder} are not a model's: {error!r}.") from error
    module, ranks = _read_module(architecture, read_tensors)
    tokenizer = _read_tokenizer(tokenizer_json, settled["tokenizer"], ranks, folder)
    if params.get("tokenizer") is None and tokenizer.kind == FOREIGN:
        params["tokenizer"] = tokenizer.backend  # it was given as an object
    module.to("cpu" if module.quantized else device)
    return params, Fitted(tokenizer, module, plan, history)


def _kept_rules(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an architecture that followed from the vocabulary when it was fitted."""
    cutoffs, scale = config["cutoffs"], float(config["embedding_scale"])
    edges = [0, *map(int, cutoffs), int(config["vocab_size"])]
    if any(low >= high for low, high in pairwise(edges)) or not 0 < scale < math.inf:
        raise ParameterError(f"cutoffs {cutoffs} or embedding_scale {scale} fit no network")
    rules = {"cutoffs": edges[1:-1], "embedding_scale": scale}
    # What follows is not in folders of the first version.
    tail_width = config.get("tail_width")
    if not (tail_width is None or (isinstance(tail_width, int) and tail_width > 0)):
        raise ParameterError(f"tail_width {tail_width} fits no network")
    return rules | {"tail_width": tail_width, "quantized": bool(config.get("quantized", False))}


def _read_module(
    architecture: dict[str, Any], read_tensors: TensorReader
) -> tuple[RecurrentLM, Tensor]:
    with torch.device("meta"):
        sketch = make_network(architecture)
    shapes = {name: tuple(tensor.shape) for name, tensor in sketch.tensors().items()}
    tensors = read_tensors(shapes | {RANKS: (architecture["vocab_size"] - 1,)})
    ranks = tensors.pop(RANKS)
    module = allocate(architecture)
    with torch.no_grad():
        for name, tensor in module.tensors().items():
            tensor.copy_(tensors[name])
    return module, ranks


def _read_tokenizer(
    tokenizer_json: bytes, kind: str, ranks: Tensor, folder: str | os.PathLike[str]
) -> Tokenizer:
    """Put the ids of a model's rows to its Rust tokenizer's types, in the order of theirs."""
    try:
        if kind == FOREIGN:
            tokenizer: Tokenizer = foreign_tokenizer(tokenizer_json.decode(), "tokenizer.json")
        else:
            backend = tokenizers.Tokenizer.from_buffer(tokenizer_json)
            tokenizer = Tokenizer(backend, cast(Kind, kind), np.zeros(0, dtype=np.int32))
    except Exception as error:  # the Rust library raises this very class
        raise ModelFolderError(f"tokenizer.json in {folder} can't be read: {error}.") from error
    vocab = tokenizer.backend.get_vocab()
    types = np.unique(np.array([*vocab.values()], dtype=np.int64))
    fits = (
        kind in (*KINDS, FOREIGN)
        and (kind in ("bpe", FOREIGN) or UNKNOWN in vocab)
        and ranks.dtype == torch.int32
        and len(types) == len(ranks)
        and (kind == FOREIGN or np.array_equal(types, np.arange(len(vocab))))
        and np.array_equal(np.sort(ranks.numpy()), np.arange(1, len(types) + 1))
    )
    if not fits:
        raise ModelFolderError(f"the tokenizer in {folder} does not fit its model.")
    by_type = np.zeros(types[-1] + 1, dtype=np.int32)
    by_type[types] = ranks.numpy()
    return replace(tokenizer, ranks=by_type)


def _as_json(value: Any) -> Any:
    """Return a parameter as JSON holds it; a random number generator is left out."""
    if isinstance(value, DecodeConfig):
        return asdict(value)
    if isinstance(value, torch.device | os.PathLike):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | dict | None) else None
