"""What spaCy's configs name beside the component: the scorer, and a reader of text lines.

The entry points in ``pyproject.toml`` give them their names.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Example

from spacy_lstmlm.align import Sum
from spacy_lstmlm.attributes import pieces_of


def make_scorer() -> Callable[..., dict[str, Any]]:
    """Return `score_texts`."""
    return score_texts


def score_texts(
    examples: Iterable[Example], *, attr_prefix: str = "lm", **options: Any
) -> dict[str, Any]:
    """Say how well Examples' texts were foreseen; their other annotations don't matter.

    Parameters
    ----------
    examples : iterable of Example
        Whose predicted Docs the component has scored; others are left out.
    attr_prefix : str, default "lm"
        The component's.
    **options
        Of other scorers; not looked at.

    Returns
    -------
    dict
        ``lm_score``, exp of the mean log-probability a character, each text's end mark counted as
        one: in (0, 1], greater is better. ``lm_perplexity``, a piece; ``lm_bits_per_char``. All are
        None where nothing was scored. "lm" is `attr_prefix`.
    """
    kept = [pieces_of(example.predicted, attr_prefix) for example in examples]
    found = [pieces for pieces in kept if pieces is not None]
    totals = [pieces.total() for pieces in found]
    nats = math.fsum(total.nats for total in totals)
    n_chars = sum(pieces.n_chars + 1 for pieces in found)
    figures: dict[str, float | None] = {"score": None, "perplexity": None, "bits_per_char": None}
    if found:
        figures["score"] = math.exp(nats / n_chars)
        figures["perplexity"] = Sum(nats, sum(total.n_pieces for total in totals)).perplexity
        figures["bits_per_char"] = -nats / math.log(2) / n_chars
    return {f"{attr_prefix}_{name}": figure for name, figure in figures.items()}


def make_line_reader(path: str, limit: int = 0) -> Callable[[Language], Iterator[Example]]:
    """Return a corpus reader of plain text: each line that isn't blank becomes an Example.

    Parameters
    ----------
    path : str
        A file in UTF-8, or a folder whose ``*.txt`` are read in the order of their names.
    limit : int, default 0
        Lines at most; 0 is no limit.
    """

    def read(nlp: Language) -> Iterator[Example]:
        for line in islice(read_lines(path), limit or None):
            yield Example(nlp.make_doc(line), nlp.make_doc(line))

    return read


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield each line that isn't blank, of a file or of all of a folder's ``*.txt``.

    Raises
    ------
    FileNotFoundError
        If there is nothing of that name, or no such file in the folder.
    """
    path = Path(path)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(
            f"{path} is {'a folder without *.txt files' if path.is_dir() else 'not there'}; name a "
            "text file, or a folder that holds some."
        )
    for file in files:
        with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            yield from (text for line in lines if (text := line.rstrip("\r\n")).strip())
