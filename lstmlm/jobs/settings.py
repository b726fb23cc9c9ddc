"""What a job's results depend on, besides its model and its inputs."""

from dataclasses import dataclass

from lstmlm.config import Rule

JSONL, PARQUET = "jsonl", "parquet"

_RULES = {
    "max_perplexity": Rule(
        help="Rows above it go to the rejected ones.", kind=float, low=0.0, optional=True
    ),
    "format": Rule(help="Of the results.", kind=str, choices=(JSONL, PARQUET)),
    "shard_bytes": Rule(help="Bytes of input a shard.", kind=int, low=1, optional=True),
}


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How rows are read, and what is written of them.

    Parameters
    ----------
    field : str, optional
        The field of a JSON or Parquet row that holds its text; else "text".
    whole_files : bool
        Take each file as one text.
    max_perplexity : float, optional
        Rows above this perplexity a token go to outputs of their own, the rejected ones.
    tokens : bool
        Whether each row gets its tokens and their log-probabilities too.
    format : {"jsonl", "parquet"}
        Of the results.
    shard_bytes : int, optional
        Bytes of input that make a shard; else it follows from the whole.

    Raises
    ------
    ParameterError
        If a setting is out of its range.
    """

    field: str | None = None
    whole_files: bool = False
    max_perplexity: float | None = None
    tokens: bool = False
    format: str = JSONL
    shard_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            rule.check(name, getattr(self, name))
