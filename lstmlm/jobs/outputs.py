"""What a job writes: rows with their figures, as JSON Lines or Parquet."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lstmlm.jobs.files import open_new
from lstmlm.jobs.reading import Row, parquet
from lstmlm.jobs.settings import JSONL
from lstmlm.scoring import ScoredText
from lstmlm.text import readable


def figures_of(scored: ScoredText, row: Row, *, tokens: bool) -> dict[str, Any]:
    """Return a row of results: the input's own fields, and the text's figures."""
    figures = {
        **(row.fields or {"text": row.text}),
        "log_prob": scored.log_prob,
        "n_tokens": len(scored.log_probs),
        "perplexity": scored.perplexity,
        "bits_per_char": scored.bits_per_char,
    }
    if tokens:
        figures |= {
            "tokens": scored.tokens,
            "token_log_probs": [round(float(value), 6) for value in scored.log_probs],
        }
    return figures


def as_json(fields: dict[str, Any]) -> str:
    """Write JSON as one reads it; escaped where it holds what UTF-8 cannot, a lone surrogate.

    What JSON has no form for, as a date in a Parquet file, is written as its text.
    """
    written = json.dumps(fields, ensure_ascii=False, default=str)
    return json.dumps(fields, default=str) if readable(written) != written else written


def finite(value: Any) -> Any:
    """Return figures as JSON can hold them: None for what is infinite or no number."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def rows_file(path: Path, output_format: str) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Give what adds a row to a file, which appears under its name when it is complete."""
    with open_new(path) as file:
        if output_format == JSONL:
            yield lambda row: file.write(as_json(row).encode() + b"\n")
        else:
            rows: list[dict[str, Any]] = []
            yield rows.append
            write_table(file, rows)


def write_table(file: BinaryIO, rows: list[dict[str, Any]]) -> None:
    """Write rows as a Parquet file, whose columns are all that any of them has."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    readable_rows = [{name: _readable(row.get(name)) for name in names} for row in rows]
    parquet().write_table(pa.Table.from_pylist(readable_rows), file)


def _readable(value: Any) -> Any:
    """Return a value without lone surrogates, which Parquet's UTF-8 can't hold."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_readable(part) for part in value]
    if isinstance(value, dict):
        return {name: _readable(part) for name, part in value.items()}
    return value


def join(parts: Iterable[Path], target: BinaryIO, output_format: str) -> None:
    """Put files of rows one behind another."""
    if output_format == JSONL:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    target.write(block)
        return
    import pyarrow as pa

    paths = list(parts)
    schemas = [parquet().read_schema(path) for path in paths]
    schema = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
    with parquet().ParquetWriter(target, schema) as writer:
        for path in paths:
            table = parquet().read_table(path)
            missing = [name for name in schema.names if name not in table.column_names]
            for name in missing:
                table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
            writer.write_table(table.select(schema.names).cast(schema))
