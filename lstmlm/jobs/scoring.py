"""Rows of files through a model, one after the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from lstmlm.estimator import LSTMLanguageModel
from lstmlm.estimator.reading import scorer_of
from lstmlm.jobs.reading import Row, list_files, read_rows
from lstmlm.measures import Tally
from lstmlm.scoring import ScoredText

TALLY_BATCH = 2048  # texts of a file that are read together at most


def score_rows(
    estimator: LSTMLanguageModel, rows: Iterable[Row], batch_size: int
) -> Iterator[tuple[ScoredText, Row]]:
    """Score rows lazily and in order, each as a document, whatever the model's context.

    Parameters
    ----------
    estimator : LSTMLanguageModel
        A fitted one.
    rows : iterable of Row
        What to score.
    batch_size : int
        Rows that are read ahead at most.

    Yields
    ------
    scored : ScoredText
    row : Row
    """
    scorer = scorer_of(estimator, stream=False)
    read: deque[Row] = deque()

    def texts() -> Iterator[str]:
        for row in rows:
            read.append(row)
            yield row.text

    for scored in scorer.pipe(texts(), batch_size):
        yield scored, read.popleft()


def tally_files(
    estimator: LSTMLanguageModel,
    inputs: Iterable[str],
    *,
    field: str | None = None,
    whole_files: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Tally]]:
    """Add up the figures of each file; each starts from a fresh state.

    Within a file the model's own context holds: with "stream" the state goes on from text to text,
    as in `LSTMLanguageModel.evaluate`.

    Parameters
    ----------
    estimator : LSTMLanguageModel
        A fitted one.
    inputs, field, whole_files
        See `read_rows`.
    watch : callable
        Called after each text that was read.

    Yields
    ------
    path : str
        A file, or ``-`` for standard input.
    tally : Tally
        Of 0 texts where the file is empty.

    Raises
    ------
    InputFileError
        See `read_rows`; for a file that isn't there before the first is read.
    """
    stream = estimator.params_["context"] == "stream"
    scorer = scorer_of(estimator, stream=stream)

    def texts(path: str) -> Iterator[str]:
        for row in read_rows([path], field=field, whole_files=whole_files):
            yield row.text
            watch()

    for path in [path for name in inputs for path in list_files(name)]:
        yield path, scorer.tally(texts(path), TALLY_BATCH, accuracy=True)
