"""File jobs: shards, workers, interruptions, and what is said where something is wrong."""

import gzip
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import run
from tiny import TEXTS, fitted

from lstmlm import JobError, LSTMLanguageModel, ModelFolderError
from lstmlm.errors import InputFileError
from lstmlm.jobs import BadRow, Piece, Progress, ScoreSettings, read_piece, score_files
from lstmlm.jobs.reading import MAX_ROW_BYTES
from lstmlm.jobs.targets import RECORDS

LINES = [text.replace("\n", " ") for text in TEXTS]
SMALL = ScoreSettings(shard_bytes=200)


@pytest.fixture(scope="module")
def lm() -> LSTMLanguageModel:
    return fitted(tokenizer="word")


@pytest.fixture(scope="module")
def model(lm, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    lm.save(folder)
    return folder


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), "utf-8")
    return path


def rows_in(folder: Path, pattern: str = "part-*.jsonl") -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(folder.glob(pattern))
        for line in path.read_text("utf-8").splitlines()
    ]


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# ---- what is written ----


def test_rows_have_the_figures_of_pipe_in_the_order_of_the_input(lm, model, corpus, tmp_path):
    summary = score_files(model, [str(corpus)], tmp_path / "out", SMALL)
    rows = rows_in(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-*"))) > 5
    assert [row["text"] for row in rows] == LINES
    expected = [scored.log_prob for scored in lm.pipe(LINES)]
    assert [row["log_prob"] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert (summary.rows, summary.rejected, summary.failures) == (len(LINES), 0, 0)
    assert summary.tally.perplexity() == pytest.approx(lm.perplexity(LINES), rel=1e-5)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["summary"]["rows"] == len(LINES)
    assert not (tmp_path / "out" / RECORDS).exists()


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_neither_workers_nor_backends_show_in_the_bytes(model, corpus, tmp_path, backend):
    score_files(model, [str(corpus)], tmp_path / "one", SMALL, n_jobs=1)
    with joblib.parallel_config(backend=backend):
        score_files(model, [str(corpus)], tmp_path / "two", SMALL, n_jobs=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


class ListsOnly(joblib.parallel.SequentialBackend):
    """A backend that can't return a generator, as Ray's and Spark's can't."""

    supports_return_generator = False


def test_a_backend_that_returns_lists_alone_will_do(model, corpus, tmp_path):
    joblib.register_parallel_backend("lists", ListsOnly)
    score_files(model, [str(corpus)], tmp_path / "one", SMALL)
    with joblib.parallel_config(backend="lists"):
        score_files(model, [str(corpus)], tmp_path / "two", SMALL, n_jobs=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20),
    size=st.integers(1, 60),
)
@settings(max_examples=60)
def test_any_cut_in_bytes_gives_every_line_once(tmp_path_factory, lines, size):
    path = tmp_path_factory.mktemp("cut") / "a.txt"
    content = "\n".join(lines).encode()
    path.write_bytes(content)
    whole = [row.text for row in read_piece(Piece(str(path)))]
    pieces = [Piece(str(path), begin, begin + size) for begin in range(0, len(content) + 1, size)]
    assert [row.text for piece in pieces for row in read_piece(piece)] == whole


@pytest.mark.parametrize("ending", ["txt", "txt.gz", "txt.zst", "jsonl", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("out", ["out", "out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_forms_of_input_and_output(model, tmp_path, ending, out):
    path, fields = tmp_path / f"in.{ending}", {}
    if ending == "parquet":
        table = pa.table({"id": range(len(LINES)), "text": LINES})
        pq.write_table(table, path, row_group_size=5)
        fields = {"id": 3}
    else:
        lines = [json.dumps({"id": i, "text": t}) for i, t in enumerate(LINES)]
        fields = {"id": 3} if "jsonl" in ending else {}
        data = "".join(f"{line}\n" for line in (lines if fields else LINES)).encode()
        pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(ending.rpartition(".")[2])
        path.write_bytes(pack(data) if pack else data)
    score_files(model, [str(path)], tmp_path / out, SMALL)
    if out == "out":
        rows = rows_in(tmp_path / out)
    elif out == "out.parquet":
        rows = pq.read_table(tmp_path / out).to_pylist()
    else:
        opened = gzip.open if out.endswith("gz") else open
        with opened(tmp_path / out, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    assert [row["text"] for row in rows] == LINES
    assert {name: rows[3][name] for name in fields} == fields
    assert rows[3]["perplexity"] > 1
    left = {"in." + ending, out} | ({f"{out}.manifest.json"} if out != "out" else set())
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_folder_of_parquet(model, corpus, tmp_path):
    score_files(model, [str(corpus)], tmp_path / "out", replace(SMALL, format="parquet"))
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert [row["text"] for part in parts for row in pq.read_table(part).to_pylist()] == LINES


def test_columns_of_tokens(lm, model, corpus, tmp_path):
    score_files(model, [str(corpus)], tmp_path / "out", replace(SMALL, tokens=True))
    for row, scored in zip(rows_in(tmp_path / "out"), lm.pipe(LINES), strict=True):
        assert row["tokens"] == scored.tokens
        assert row["token_log_probs"] == pytest.approx(scored.log_probs.tolist(), abs=1e-4)


@pytest.mark.parametrize("out", ["out", "out.jsonl"])
def test_rows_above_a_perplexity_go_to_outputs_of_their_own(lm, model, corpus, tmp_path, out):
    perplexities = {
        text: scored.perplexity for text, scored in zip(LINES, lm.pipe(LINES), strict=True)
    }
    limit = sorted(perplexities.values())[len(perplexities) // 2] + 0.01
    asked = replace(SMALL, max_perplexity=limit)
    summary = score_files(model, [str(corpus)], tmp_path / out, asked)
    if out == "out":
        kept = rows_in(tmp_path / out)
        rejected = rows_in(tmp_path / out, "rejected/part-*.jsonl")
    else:
        kept = rows_in(tmp_path, "out.jsonl")
        rejected = rows_in(tmp_path, "out.rejected.jsonl")
    assert [row["text"] for row in kept] == [t for t in LINES if perplexities[t] <= limit]
    assert [row["text"] for row in rejected] == [t for t in LINES if perplexities[t] > limit]
    assert summary.rejected == len(rejected) > 0


def test_small_files_share_a_shard_and_patterns_name_files(model, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / "in" / f"{number:02}.txt").write_text(f"the cat {number}\n")
    score_files(model, [str(tmp_path / "in" / "*.txt")], tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-*"))) == 1
    texts = [row["text"] for row in rows_in(tmp_path / "out")]
    assert texts == [f"the cat {number}" for number in range(20)]


def test_progress_counts_bytes(model, corpus, tmp_path):
    seen: list[Progress] = []
    score_files(model, [str(corpus)], tmp_path / "out", SMALL, watch=seen.append)
    size = corpus.stat().st_size
    assert [seen[0].bytes_done, seen[-1].bytes_done] == [0, size]
    assert all(at.bytes_in_all == size for at in seen)
    assert seen[-1].shards_done == seen[-1].shards_in_all == len(seen) - 1


# ---- going on ----


def test_a_job_begins_where_there_is_nothing_and_a_finished_one_is_left(model, corpus, tmp_path):
    first = score_files(model, [str(corpus)], tmp_path / "out", SMALL, resume=True)
    before = contents(tmp_path / "out")
    again = score_files(model, [str(corpus)], tmp_path / "out", SMALL, resume=True)
    assert (again, contents(tmp_path / "out")) == (first, before)


@pytest.mark.parametrize("out", ["out", "out.jsonl"])
def test_what_is_there_is_not_written_over(model, corpus, tmp_path, out):
    score_files(model, [str(corpus)], tmp_path / out, SMALL)
    with pytest.raises(JobError, match=r"holds a job already; go on with it with --resume"):
        score_files(model, [str(corpus)], tmp_path / out, SMALL)
    other = tmp_path / "other.jsonl" if "." in out else tmp_path / "other"
    if "." in out:
        other.write_text("mine\n")
    else:
        other.mkdir()
        (other / "mine.txt").write_text("mine\n")
    before = contents(tmp_path)
    for resume in (False, True):
        with pytest.raises(JobError, match="is there already and is no job's"):
            score_files(model, [str(corpus)], other, SMALL, resume=resume)
    assert contents(tmp_path) == before


def interrupted(model: Path, corpus: Path, out: Path) -> None:
    """Leave a job after its third shard."""

    def stop(at: Progress) -> None:
        if at.shards_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_files(model, [str(corpus)], out, SMALL, n_jobs=1, watch=stop)


@pytest.mark.parametrize("out", ["out", "out.jsonl"])
def test_finished_shards_are_not_scored_again(model, corpus, tmp_path, out):
    if out == "out":
        score_files(model, [str(corpus)], tmp_path / "whole" / out, SMALL)
    (tmp_path / "cut").mkdir()
    interrupted(model, corpus, tmp_path / "cut" / out)
    seen: list[Progress] = []
    score_files(model, [str(corpus)], tmp_path / "cut" / out, SMALL, resume=True, watch=seen.append)
    assert seen[0].shards_done == 3
    if out == "out":
        assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    else:
        assert [row["text"] for row in rows_in(tmp_path / "cut", "out.jsonl")] == LINES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model", "was begun with another model"),
        ("settings", "was begun with another settings"),
        ("inputs", r"was begun with another inputs \(or they were changed since\)"),
    ],
)
def test_another_job_is_not_gone_on_with(model, corpus, tmp_path, change, message):
    interrupted(model, corpus, tmp_path / "out")
    asked = SMALL
    if change == "model":
        model = tmp_path / "model"
        fitted(tokenizer="word", random_state=3).save(model)
    elif change == "settings":
        asked = replace(SMALL, tokens=True)
    else:
        corpus.write_text("the cat\n")
    before = contents(tmp_path / "out")
    with pytest.raises(JobError, match=message):
        score_files(model, [str(corpus)], tmp_path / "out", asked, resume=True)
    assert contents(tmp_path / "out") == before


def test_a_model_that_is_exchanged_during_a_job(lm, corpus, tmp_path):
    folder = tmp_path / "model"
    lm.save(folder)

    def exchange(at: Progress) -> None:
        if at.shards_done == 0:
            fitted(tokenizer="word", random_state=3).save(folder)

    with (
        joblib.parallel_config(backend="multiprocessing"),
        pytest.raises(ModelFolderError, match="holds another model than when the job began"),
    ):
        score_files(folder, [str(corpus)], tmp_path / "out", SMALL, n_jobs=2, watch=exchange)
    lm.save(folder)
    score_files(folder, [str(corpus)], tmp_path / "out", SMALL, resume=True)
    assert [row["text"] for row in rows_in(tmp_path / "out")] == LINES


# ---- kills ----

KILLED = """
import os, sys
import torch
from lstmlm.jobs import ScoreSettings, score_files
import joblib
torch.set_num_threads(1)
model, corpus, out = sys.argv[1:]
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.setsid()
        with joblib.parallel_config(backend="multiprocessing"):
            score_files(model, [corpus], out, ScoreSettings(shard_bytes=120), n_jobs=2, resume=True)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_job_that_is_killed_again_and_again_loses_and_doubles_nothing(model, corpus, tmp_path):
    """Twenty kills of a process and its two workers, at random moments of the job."""
    corpus.write_text("".join(f"{number} {line}\n" for number in range(8) for line in LINES))
    asked = ScoreSettings(shard_bytes=120)
    began = time.monotonic()
    score_files(model, [str(corpus)], tmp_path / "whole", asked, n_jobs=1)
    length = time.monotonic() - began
    assert len(list((tmp_path / "whole").glob("part-*"))) >= 50
    rng, kills, out = random.Random(0), 0, tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(model), str(corpus), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        while kills < 20:
            starter.stdin.write("begin\n")
            starter.stdin.flush()
            child = int(starter.stdout.readline())
            time.sleep(rng.uniform(0.05, length / 3))
            os.killpg(child, signal.SIGKILL)
            status = int(starter.stdout.readline())
            kills += status == signal.SIGKILL
            if status == 0:  # it was finished before: begin another one
                assert contents(out) == contents(tmp_path / "whole")
                for path in sorted(out.rglob("*"), reverse=True):
                    path.unlink() if path.is_file() else path.rmdir()
        starter.stdin.close()
    score_files(model, [str(corpus)], out, asked, resume=True)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_a_killed_worker_was_writing_is_gone_at_the_end(model, corpus, tmp_path):
    out = tmp_path / "out"

    def watch(at):
        (out / ".unfinished-part-00000.jsonl-abc").write_text('{"text": "the')

    score_files(model, [str(corpus)], out, n_jobs=1, watch=watch)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "part-00000.jsonl"]


DASK = """
import os, signal, sys, threading, time
import joblib
from distributed import Client, LocalCluster
from lstmlm.jobs import ScoreSettings, score_files

if __name__ == "__main__":
    model, corpus, out = sys.argv[1:]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                      silence_logs=50) as cluster, Client(cluster) as client:
        victim = next(iter(client.run(os.getpid).values()))
        killed = []

        def watch(at):
            if at.shards_done >= 5 and not killed:
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)

        with joblib.parallel_config(backend="dask"):
            score_files(model, [corpus], out, ScoreSettings(shard_bytes=120), n_jobs=2,
                        watch=watch)
    print(len(killed))
"""


def test_a_dask_worker_that_is_killed_loses_nothing(model, corpus, tmp_path):
    asked = ScoreSettings(shard_bytes=120)
    score_files(model, [str(corpus)], tmp_path / "whole", asked, n_jobs=1)
    script = tmp_path / "cluster.py"
    script.write_text(DASK)
    done = run(script, model, corpus, tmp_path / "out", strict=False)
    assert done.stdout == "1\n", done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


# ---- what is wrong ----


def test_bad_rows_are_put_aside_with_their_place(model, tmp_path):
    path = tmp_path / "in.jsonl"
    good, bad = '{"text": "the cat"}\n', '{"text": 3}\n'
    path.write_bytes((good + bad + good).encode() + b"\xff\n" + b"[1]\n" + good.encode())
    summary = score_files(model, [str(path)], tmp_path / "out")
    assert (summary.rows, summary.failures) == (3, 3)
    errors = rows_in(tmp_path / "out", "errors.jsonl")
    begins = [len(good), len(good + bad + good), len(good + bad + good) + 2]
    assert [(row["file"], row["at"]) for row in errors] == [(str(path), at) for at in begins]
    assert errors[0]["error"] == f"{path}:2: the field 'text' is a int; a string is needed."


def test_places_are_bytes_where_a_shard_begins_inside_a_file(model, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "the cat"}\n' * 9 + '{"text": 3}\n')
    score_files(model, [str(path)], tmp_path / "out", ScoreSettings(shard_bytes=50))
    (error,) = rows_in(tmp_path / "out", "errors.jsonl")
    assert error["error"].startswith(f"{path}, byte 180: the field 'text' is a int")
    assert error["at"] == 180


def test_a_row_of_many_megabytes_is_put_aside(model, tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"the cat\n" + b"x" * (MAX_ROW_BYTES + 1) + b"\nthe dog\n")
    for size in (None, 1 << 20):
        out = tmp_path / f"out-{size}"
        summary = score_files(model, [str(path)], out, ScoreSettings(shard_bytes=size))
        assert [row["text"] for row in rows_in(out)] == ["the cat", "the dog"]
        assert summary.failures == 1
        (error,) = rows_in(out, "errors.jsonl")
        assert "has 16,777,218 bytes; a row may have 16 MiB at most" in error["error"]


@pytest.mark.parametrize("ending", ["txt.gz", "txt.zst"])
def test_a_packed_file_that_is_cut_off_gives_the_rows_that_it_has(model, tmp_path, ending):
    pack = gzip.compress if ending.endswith("gz") else zstandard.compress
    lines = "".join(f"the cat {random.Random(i).random()}\n" for i in range(2000)).encode()
    (tmp_path / f"a.{ending}").write_bytes(pack(lines)[:-200])
    (tmp_path / "b.txt").write_text("the dog\n")
    inputs = [str(tmp_path / f"a.{ending}"), str(tmp_path / "b.txt")]
    summary = score_files(model, inputs, tmp_path / "out")
    assert rows_in(tmp_path / "out")[-1]["text"] == "the dog"
    if ending.endswith("gz"):
        assert summary.failures == 1
        (error,) = rows_in(tmp_path / "out", "errors.jsonl")
        assert error["at"] is None
        assert "can't be read" in error["error"]


def test_parquet_faults_end_a_job_before_it_begins(model, tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"body": LINES}), path)
    with pytest.raises(InputFileError, match="has no field 'text'; it has 'body'"):
        score_files(model, [str(path)], tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputFileError, match="can't be read"):
        score_files(model, [str(path)], tmp_path / "out", ScoreSettings(field="body"))
    assert not (tmp_path / "out").exists()


def test_a_field_of_what_has_none_ends_a_job_before_it_begins(model, tmp_path):
    (tmp_path / "in.txt").write_text("the cat\n")
    with pytest.raises(InputFileError, match=r"field='body' names .+in\.txt\) none is either"):
        score_files(model, [str(tmp_path)], tmp_path / "out", ScoreSettings(field="body"))
    assert not (tmp_path / "out").exists()


def test_a_wrong_field_ends_a_job_before_it_begins(model, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"txt": "the cat"}\n')
    with pytest.raises(InputFileError, match=r"has no field 'text'.+Did you mean 'txt'"):
        score_files(model, [str(path)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_null_in_parquet_is_a_bad_row(model, tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["the cat", None, "the dog"]}), path)
    summary = score_files(model, [str(path)], tmp_path / "out")
    assert (summary.rows, summary.failures) == (2, 1)
    assert list(read_piece(Piece(str(path))))[1] == BadRow(
        str(path), 2, f"{path}, row 2: the field 'text' is a NoneType; a string is needed."
    )


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_that_the_system_cant_read_is_put_aside(model, corpus, tmp_path):
    path = "/proc/self/mem"  # nothing is mapped at its beginning
    summary = score_files(model, [path, str(corpus)], tmp_path / "out")
    assert (summary.rows, summary.failures) == (len(LINES), 1)
    (error,) = rows_in(tmp_path / "out", "errors.jsonl")
    assert error == {
        "file": path,
        "at": None,
        "error": f"{path} can't be read: [Errno 5] Input/output error.",
    }


SMALL_DISK = "mkdir -p {disk} && mount -t tmpfs -o size=256k tmpfs {disk} && {command}"


def in_namespace(command: str) -> list[str]:
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", command]


def can_mount(tmp_path: Path) -> bool:
    try:
        command = SMALL_DISK.format(disk=tmp_path / "tried", command="true")
        return subprocess.run(in_namespace(command), capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_leaves_what_is_finished(model, corpus, tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("needs the right to mount a small disk")
    corpus.write_text(corpus.read_text("utf-8") * 40)
    score = (
        f"{shlex.quote(sys.executable)} -m lstmlm score {model} {corpus} "
        f"--out {tmp_path}/disk/out --shard-bytes 2000 --jobs 1"
    )
    look = f"echo status $?; ls {tmp_path}/disk/out/.shards | wc -l; ls -A {tmp_path}/disk/out"
    command = SMALL_DISK.format(disk=tmp_path / "disk", command=f"({score}; {look})")
    done = subprocess.run(in_namespace(command), capture_output=True, text=True, timeout=120)
    status, n_finished, *files = done.stdout.splitlines()
    assert status == "status 2"
    assert done.stderr.startswith(f"lstmlm: the disk that holds {tmp_path}/disk/out")
    assert done.stderr.endswith(
        " is full. What is finished is kept: make room and run the same command again with "
        "--resume.\n"
    )
    assert int(n_finished) > 3
    assert not [name for name in files if name.startswith(".unfinished")]
