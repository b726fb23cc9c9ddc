"""A component's model: where it comes from, where it is kept, and in which process it works."""

import os
from collections.abc import Iterable
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import srsly
import torch
from spacy import util
from spacy.pipeline import TrainablePipe
from thinc.api import CupyOps, get_current_ops

from lstmlm import LSTMLanguageModel
from spacy_lstmlm.attributes import remember


class HoldsModel(TrainablePipe):
    """The part of `LanguageModel` that has the model."""

    model: LSTMLanguageModel | None
    device: str | None
    _folder: str | None  # of the config
    _process: int | None  # that the model is fit to work in; None is one yet to come

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write the model to a folder, in the format of `lstmlm.LSTMLanguageModel.save`.

        Parameters
        ----------
        path : path
            The component's folder; ``model`` in it becomes the model's.
        exclude : iterable of str
            ``"model"`` leaves it out.
        """
        util.to_disk(path, {"model": self.model.save} if self.model else {}, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        """Read the model that `to_disk` wrote. No code is run.

        Parameters
        ----------
        path : path
            The component's folder.
        exclude : iterable of str
            ``"model"`` leaves it out.

        Returns
        -------
        LanguageModel

        Raises
        ------
        lstmlm.ModelFolderError
            If the model was cut off or altered.
        """

        def load(folder: Path) -> None:
            if folder.exists():
                self._take(LSTMLanguageModel.load(folder, self._device()))

        util.from_disk(path, {"model": load}, exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return the model folder's files as bytes.

        Parameters
        ----------
        exclude : iterable of str
            ``"model"`` leaves them out.
        """
        packed: bytes = util.to_bytes({"model": self._packed} if self.model else {}, exclude)
        return packed

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Read the model that `to_bytes` returned. No code is run.

        Parameters
        ----------
        bytes_data : bytes
            What it returned.
        exclude : iterable of str
            ``"model"`` leaves it out.

        Returns
        -------
        LanguageModel

        Raises
        ------
        lstmlm.ModelFolderError
            If the model was cut off or altered.
        """
        util.from_bytes(bytes_data, {"model": self._unpack}, exclude)
        return self

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._process = os.getpid() if parent_process() is None else None
        if self.model is not None:
            remember(self.model)

    def _take(self, model: LSTMLanguageModel) -> None:
        self.model = model.set_params(n_jobs=None)  # spaCy has processes of its own
        remember(model)

    def _device(self) -> str:
        """Return where the model shall work."""
        if self.device is not None:
            return self.device
        ops = get_current_ops()
        return f"cuda:{ops.device_id}" if isinstance(ops, CupyOps) else "cpu"

    def _ready(self) -> LSTMLanguageModel:
        """Return the model, fit for this process."""
        if self.model is None:
            raise ValueError(
                f"component '{self.name}' has no model yet: give it a folder, config="
                '{"model": "folder"}, or call nlp.initialize() and train it.'
                if self._folder is None
                else f"component '{self.name}' has no model: {self._folder} isn't there, and "
                "nothing was loaded in its place."
            )
        if self._process != os.getpid():  # a worker
            if self._process is not None and self.model.device_.type == "cuda":
                raise RuntimeError(
                    f"component '{self.name}' has its model on a GPU, which a forked process can't "
                    'use; set device="cpu", or multiprocessing.set_start_method("spawn").'
                )
            # Where torch has had threads before the fork, the child would wait for them for ever;
            # and workers share the cores anyway.
            torch.set_num_threads(1)
            self._process = os.getpid()
        return self.model

    def _packed(self) -> bytes:
        with TemporaryDirectory() as folder:
            self._ready().save(Path(folder) / "model")
            files = {one.name: one.read_bytes() for one in (Path(folder) / "model").iterdir()}
        packed: bytes = srsly.msgpack_dumps(files)
        return packed

    def _unpack(self, packed: bytes) -> None:
        files: dict[str, bytes] = srsly.msgpack_loads(packed)
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / Path(name).name).write_bytes(content)
            self._take(LSTMLanguageModel.load(folder, self._device()))
