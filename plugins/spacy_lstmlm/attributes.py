"""What the component adds to spaCy's Doc, Span and Token, and where it keeps it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from spacy.tokens import Doc, Span, Token

from lstmlm import Completion, LSTMLanguageModel, ParameterError, ScoredText
from spacy_lstmlm.align import Pieces, Sum, owning_characters

Extended = type[Doc] | type[Span] | type[Token]

# Every model that a component of this process has; the Docs know theirs by its fingerprint.
_models: WeakSet[LSTMLanguageModel] = WeakSet()


def remember(model: LSTMLanguageModel) -> None:
    """Let Docs find a model for as long as something else holds it."""
    _models.add(model)


def keep(
    doc: Doc,
    prefix: str,
    model: str,
    scored: ScoredText | None,
    completions: list[Completion] | None,
) -> None:
    """Keep what a model of some fingerprint said of a Doc.

    It is one entry of ``doc.user_data``, of plain numbers, strings and arrays, so that
    `Doc.to_bytes`, DocBin and worker processes take it along.
    """
    entry: dict[str, Any] = {"model": model, "n_chars": n_chars(doc)}
    if scored is not None:
        entry["owners"] = owning_characters(scored.text, scored.spans[:, 0])
        entry["log_probs"] = scored.log_probs
    if completions is not None:
        entry["completions"] = [tuple(one) for one in completions]
    doc.user_data[_key(prefix)] = entry


def pieces_of(doc: Doc, prefix: str) -> Pieces | None:
    """Return a Doc's scores, or None."""
    entry = _entry(doc, prefix)
    if "log_probs" not in entry:
        return None
    return Pieces(entry["n_chars"], entry["owners"], entry["log_probs"])


def n_chars(doc: Doc) -> int:
    """Return how long a Doc's text is, without making it."""
    last = doc[-1] if len(doc) else None
    return 0 if last is None else last.idx + len(last) + len(last.whitespace_)


def set_attributes(prefix: str) -> None:
    """Make the attributes of a prefix known to spaCy, which keeps one list for the whole process.

    Raises
    ------
    ParameterError
        If the prefix is no name, or another package's attribute has a name that is needed.
    """
    if not prefix.isidentifier():
        raise ParameterError(
            f"attr_prefix={prefix!r} is not valid; attr_prefix begins the names of attributes, as "
            '"lm" does in doc._.lm_perplexity.'
        )
    missing = []
    for kind, name, extension in _extensions(prefix):
        if not kind.has_extension(name):
            missing.append((kind, name, extension))
        elif extension not in kind.get_extension(name)[1:3]:  # its method and getter
            raise ParameterError(
                f"{kind.__name__}._.{name} is there already and not this component's; choose "
                f'another attr_prefix than "{prefix}".'
            )
    for kind, name, extension in missing:
        if isinstance(extension, Complete):
            kind.set_extension(name, method=extension)
        else:
            kind.set_extension(name, getter=extension)


@dataclass(frozen=True)
class Figure:
    """A getter: what one figure of a prefix is of a Doc, Span or Token."""

    prefix: str
    of: Callable[[Any, str], Any]

    def __call__(self, obj: Doc | Span | Token) -> Any:
        """Return the figure, or None where nothing was scored."""
        return self.of(obj, self.prefix)


@dataclass(frozen=True)
class Complete:
    """Return the n likeliest continuations of the text up to the Doc's or the Span's end.

    Each is a `lstmlm.Completion`: `text`, which is to be appended, and `log_prob`. Options are
    those of `lstmlm.LSTMLanguageModel.complete`, such as ``unit="line"``.
    """

    prefix: str

    def __call__(self, obj: Doc | Span, n: int = 5, **options: Any) -> list[Completion]:
        """Complete the text with the model that the Doc was processed with."""
        text = obj.doc.text[: obj.end_char] if isinstance(obj, Span) else obj.text
        found: list[Completion] = self._model(obj.doc).complete(text, n, **options)
        return found

    def _model(self, doc: Doc) -> LSTMLanguageModel:
        wanted = doc.user_data.get(_key(self.prefix), {}).get("model")
        if wanted is None:
            raise ValueError(
                f"this Doc doesn't know a model: no component with attr_prefix={self.prefix!r} "
                "has processed it; make it with nlp(text), or run nlp.pipe over it."
            )
        for model in list(_models):
            if model.fingerprint_ == wanted:
                return model
        raise ValueError(
            f"the model that processed this Doc ({wanted[:12]}...) isn't loaded in this process, "
            "or was trained further since; load its pipeline, or process the Doc again."
        )


def _key(prefix: str) -> str:
    return f"lstmlm:{prefix}"


def _entry(doc: Doc, prefix: str) -> dict[str, Any]:
    """Return what is kept of a Doc: nothing if it was copied from a longer one by `Span.as_doc`."""
    entry: dict[str, Any] = doc.user_data.get(_key(prefix), {})
    return entry if entry.get("n_chars") == n_chars(doc) else {}


def _total(doc: Doc, prefix: str) -> Sum | None:
    pieces = pieces_of(doc, prefix)
    return None if pieces is None else pieces.total()


def _owned(doc: Doc, prefix: str, start: int, end: int) -> Sum | None:
    pieces = pieces_of(doc, prefix)
    return None if pieces is None else pieces.between(start, end)


def _extensions(prefix: str) -> list[tuple[Extended, str, Figure | Complete]]:
    figures: list[tuple[Extended, str, Callable[[Any, str], Any]]] = [
        (Doc, "log_prob", _doc_log_prob),
        (Doc, "perplexity", _doc_perplexity),
        (Doc, "bits_per_char", _doc_bits_per_char),
        (Doc, "completions", _doc_completions),
        (Span, "log_prob", _span_log_prob),
        (Span, "perplexity", _span_perplexity),
        (Token, "log_prob", _token_log_prob),
        (Token, "surprisal", _token_surprisal),
    ]
    return [
        *((kind, f"{prefix}_{name}", Figure(prefix, of)) for kind, name, of in figures),
        (Doc, f"{prefix}_complete", Complete(prefix)),
        (Span, f"{prefix}_complete", Complete(prefix)),
    ]


def _doc_log_prob(doc: Doc, prefix: str) -> float | None:
    total = _total(doc, prefix)
    return None if total is None else total.nats


def _doc_perplexity(doc: Doc, prefix: str) -> float | None:
    total = _total(doc, prefix)
    return None if total is None else total.perplexity


def _doc_bits_per_char(doc: Doc, prefix: str) -> float | None:
    total = _total(doc, prefix)
    return None if total is None else -total.nats / math.log(2) / (n_chars(doc) + 1)


def _doc_completions(doc: Doc, prefix: str) -> list[Completion] | None:
    kept = _entry(doc, prefix).get("completions")
    return None if kept is None else [Completion(*one) for one in kept]


def _span_log_prob(span: Span, prefix: str) -> float | None:
    owned = _owned(span.doc, prefix, span.start_char, span.end_char)
    return None if owned is None else owned.nats


def _span_perplexity(span: Span, prefix: str) -> float | None:
    owned = _owned(span.doc, prefix, span.start_char, span.end_char)
    return None if owned is None else owned.perplexity


def _token_log_prob(token: Token, prefix: str) -> float | None:
    owned = _owned(token.doc, prefix, token.idx, token.idx + len(token))
    return None if owned is None else owned.nats


def _token_surprisal(token: Token, prefix: str) -> float | None:
    owned = _owned(token.doc, prefix, token.idx, token.idx + len(token))
    return None if owned is None else -owned.nats / math.log(2)
