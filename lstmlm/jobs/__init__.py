"""Texts in files, and jobs that score them: in shards, by many workers, killed and gone on with.

`read_rows` reads texts from files of all kinds. `score_files` plans a job (`lstmlm.jobs.plan`),
leads it through workers, and says in `lstmlm.jobs.targets` how far it got.
"""

from lstmlm.jobs.outputs import as_json, figures_of, finite
from lstmlm.jobs.reading import STDIN, BadRow, Piece, Row, list_files, read_piece, read_rows
from lstmlm.jobs.running import Progress, score_files, score_pieces
from lstmlm.jobs.scoring import score_rows, tally_files
from lstmlm.jobs.settings import JSONL, PARQUET, ScoreSettings
from lstmlm.jobs.targets import Summary

__all__ = [
    "JSONL",
    "PARQUET",
    "STDIN",
    "BadRow",
    "Piece",
    "Progress",
    "Row",
    "ScoreSettings",
    "Summary",
    "as_json",
    "figures_of",
    "finite",
    "list_files",
    "read_piece",
    "read_rows",
    "score_files",
    "score_pieces",
    "score_rows",
    "tally_files",
]
