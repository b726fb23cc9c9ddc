"""The pipeline component."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import get_minor_version_range

import lstmlm
from lstmlm import Completion, LSTMLanguageModel, ParameterError, ScoredText
from spacy_lstmlm.attributes import keep, set_attributes
from spacy_lstmlm.training import LearnsText

ASSIGNED = [
    "doc._.lm_log_prob",
    "doc._.lm_perplexity",
    "doc._.lm_bits_per_char",
    "doc._.lm_completions",
    "span._.lm_log_prob",
    "span._.lm_perplexity",
    "token._.lm_log_prob",
    "token._.lm_surprisal",
]


REQUIREMENT = f"lstmlm[spacy]{get_minor_version_range(lstmlm.__version__)}"


class Said(NamedTuple):
    """What a model, known by its fingerprint, says of a Doc."""

    model: str
    scored: ScoredText | None
    completions: list[Completion] | None


@Language.factory(
    "lstmlm",
    assigns=ASSIGNED,
    default_config={
        "model": None,
        "device": None,
        "batch_size": 256,
        "max_batch_tokens": 50_000,
        "attr_prefix": "lm",
        "score": True,
        "complete": False,
        "n_completions": 5,
        "max_new_tokens": 32,
        "scorer": {"@scorers": "lstmlm.lm_scorer.v1"},
    },
    default_score_weights={"lm_score": 1.0, "lm_perplexity": None, "lm_bits_per_char": None},
)
def make_language_model(
    nlp: Language,
    name: str,
    model: str | None,
    device: str | None,
    batch_size: int,
    max_batch_tokens: int,
    attr_prefix: str,
    score: bool,
    complete: bool,
    n_completions: int,
    max_new_tokens: int,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "LanguageModel":
    """Make the component as a config describes it: see `LanguageModel`."""
    # nlp.meta would say what components there are now, and not what the saved pipeline had.
    meta = nlp._meta
    # `spacy package` looks for requirements, but finds none of packages without a top_level.txt.
    if REQUIREMENT not in meta.setdefault("requirements", []):
        meta["requirements"].append(REQUIREMENT)
    # What was saved with a pipeline comes after this, and the folder may be on another machine.
    saved = name in meta.get("components", ())
    return LanguageModel(
        name,
        folder=model,
        load=not (saved and model is not None and not Path(model).exists()),
        device=device,
        batch_size=batch_size,
        max_batch_tokens=max_batch_tokens,
        attr_prefix=attr_prefix,
        score=score,
        complete=complete,
        n_completions=n_completions,
        max_new_tokens=max_new_tokens,
        scorer=scorer,
    )


class LanguageModel(LearnsText):
    """Says how surprising Docs, Spans and Tokens are, and what could come next.

    Parameters
    ----------
    name : str
        The component's name in its pipeline.
    folder : path, optional
        A model folder, as `lstmlm.LSTMLanguageModel.save` writes them; without one the component
        needs `initialize`, or a pipeline's saved data.
    load : bool, default True
        Whether to read it now; else it is left to `initialize`.
    device : str, optional
        Where the model works: "cpu", "cuda", "auto"; None is where spaCy works.
    batch_size : int, default 256
        Docs that are read side by side at most.
    max_batch_tokens : int, default 50,000
        spaCy tokens of these together; a longer Doc is read alone, in windows.
    attr_prefix : str, default "lm"
        What the attributes' names begin with.
    score, complete : bool
        Whether to score each Doc, and to complete it.
    n_completions : int, default 5
        Completions of a Doc.
    max_new_tokens : int, default 32
        Pieces of a completion at most.
    scorer : callable, optional
        Makes an evaluation's scores of Examples.

    Attributes
    ----------
    model : LSTMLanguageModel or None
        The estimator.

    Raises
    ------
    lstmlm.ModelFolderError
        If the folder is no model.
    lstmlm.ParameterError
        If a setting is out of its range.
    """

    def __init__(
        self,
        name: str = "lstmlm",
        *,
        folder: str | Path | None = None,
        load: bool = True,
        device: str | None = None,
        batch_size: int = 256,
        max_batch_tokens: int = 50_000,
        attr_prefix: str = "lm",
        score: bool = True,
        complete: bool = False,
        n_completions: int = 5,
        max_new_tokens: int = 32,
        scorer: Callable[..., dict[str, Any]] | None = None,
    ) -> None:
        for setting, value in {
            "batch_size": batch_size,
            "max_batch_tokens": max_batch_tokens,
            "n_completions": n_completions,
            "max_new_tokens": max_new_tokens,
        }.items():
            if value < 1:
                raise ParameterError(f"{setting}={value} is not valid; {setting} is at least 1.")
        self.name = name
        self.device = device
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens
        self.attr_prefix = attr_prefix
        self.scores, self.completes = score, complete
        self.n_completions = n_completions
        self.max_new_tokens = max_new_tokens
        self.scorer = scorer
        self.cfg = {"attr_prefix": attr_prefix}  # what `score` hands to the scorer
        self._folder = None if folder is None else str(folder)
        self._process = os.getpid()
        self._pending, self._losses = [], []
        self.model = None
        if folder is not None and load:
            self._take(LSTMLanguageModel.load(folder, self._device()))
        set_attributes(attr_prefix)

    def __call__(self, doc: Doc) -> Doc:
        """Score and complete one Doc."""
        return next(self.pipe([doc]), doc)

    def pipe(self, stream: Iterable[Doc], *, batch_size: int | None = None) -> Iterator[Doc]:
        """Score and complete Docs as they come, in order.

        Parameters
        ----------
        stream : iterable of Doc
            May be endless.
        batch_size : int, optional
            Docs that are read ahead at most, if that is less than the component's own.

        Yields
        ------
        Doc
            A Doc that fails goes to the error handler instead, alone.
        """
        handle = self.get_error_handler()
        for docs in self._batches(stream, min(batch_size or self.batch_size, self.batch_size)):
            try:
                said: Iterable[Said | Exception] = self.predict(docs)
            except Exception as error:
                said = (self._said_alone(doc) for doc in docs) if len(docs) > 1 else [error]
            for doc, one in zip(docs, said, strict=True):
                if isinstance(one, Exception):
                    handle(self.name, self, [doc], one)
                    continue
                self.set_annotations([doc], [one])
                yield doc

    def predict(self, docs: Iterable[Doc]) -> list[Said]:
        """Return what the model says of Docs, and leave them as they are.

        Parameters
        ----------
        docs : iterable of Doc
            Whose texts are read, each as a document of its own.

        Returns
        -------
        list of Said
            For `set_annotations`.

        Raises
        ------
        ValueError
            If the component has no model.
        RuntimeError
            If the model is on a GPU and this process was forked.
        """
        model = self._ready()
        texts = [doc.text for doc in docs]
        scored: Sequence[ScoredText | None] = [None] * len(texts)
        found: Sequence[list[Completion] | None] = [None] * len(texts)
        if self.scores:
            scored = list(model.pipe(texts, batch_size=max(1, len(texts)), context="document"))
        if self.completes:
            n, longest = self.n_completions, self.max_new_tokens
            found = [model.complete(text, n, max_new_tokens=longest) for text in texts]
        fingerprint = model.fingerprint_
        return [Said(fingerprint, *both) for both in zip(scored, found, strict=True)]

    def set_annotations(self, docs: Iterable[Doc], scores: Iterable[Said]) -> None:
        """Keep with each Doc what `predict` said of it.

        Parameters
        ----------
        docs : iterable of Doc
            The Docs.
        scores : iterable of Said
            Of each.
        """
        for doc, said in zip(docs, scores, strict=True):
            keep(doc, self.attr_prefix, *said)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        set_attributes(self.attr_prefix)

    def _batches(self, docs: Iterable[Doc], size: int) -> Iterator[list[Doc]]:
        batch: list[Doc] = []
        n_tokens = 0
        for doc in docs:
            if batch and n_tokens + len(doc) > self.max_batch_tokens:
                yield batch
                batch, n_tokens = [], 0
            batch.append(doc)
            n_tokens += len(doc)
            if len(batch) >= size or n_tokens >= self.max_batch_tokens:
                yield batch
                batch, n_tokens = [], 0
        if batch:
            yield batch

    def _said_alone(self, doc: Doc) -> Said | Exception:
        try:
            return self.predict([doc])[0]
        except Exception as error:
            return error
