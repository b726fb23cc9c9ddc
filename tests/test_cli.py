"""The command line as it is called: arguments in; status, standard output and error out."""

import contextlib
import gzip
import inspect
import io
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

import pytest
import typer
from tiny import TEXTS

from lstmlm import LSTMLanguageModel, cli
from lstmlm.cli.training import FIT_RULES
from lstmlm.config import DecodeConfig
from lstmlm.jobs import finite

LINES = [text for text in TEXTS if "\n" not in text]
HELDOUT = ["the cat sat on the log", "a dog"]
SMALL = {
    "tokenizer": "word",
    "hidden_size": 16,
    "embedding_dim": 8,
    "max_epochs": 1,
    "batch_size": 4,
    "dropout": 0.0,
    "early_stopping": False,
    "random_state": 1,
}
FLAGS = [
    *("--tokenizer", "word", "--hidden-size", "16", "--embedding-dim", "8", "--max-epochs", "1"),
    *("--batch-size", "4", "--dropout", "0", "--no-early-stopping", "--random-state", "1"),
]


@dataclass
class Done:
    """How a call of the command line ended."""

    status: int
    out: str
    err: str

    @property
    def rows(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def lstmlm(monkeypatch, capsys):
    """Run ``lstmlm ...`` in this process, from `sys.argv` to the exit status."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["lstmlm", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = 0
        with contextlib.suppress(SystemExit):
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code or 0
                raise
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def estimator():
    return LSTMLanguageModel(**SMALL).fit(LINES)


@pytest.fixture(scope="module")
def model(estimator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    estimator.save(folder)
    return folder


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(line + "\n" for line in LINES), "utf-8")
    return path


def as_json(texts, field="text"):
    return "".join(
        json.dumps({"id": number, field: text}) + "\n" for number, text in enumerate(texts)
    )


def process(*args, **options):
    """Start ``lstmlm ...`` as a process of its own."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-m", "lstmlm", *args]
    return subprocess.Popen(command, bufsize=0, **pipes | options)


# ---- train ----


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_train_does_what_fit_does(lstmlm, corpus, model, tmp_path):
    done = lstmlm("train", corpus, "--out", tmp_path / "new", *FLAGS)
    assert (done.status, done.out) == (0, "")
    epoch, last = done.err.splitlines()
    assert re.fullmatch(r"epoch   1  0:\d\d  [\d,]+ tokens/s  perplexity [\d,]+\.\d\d", epoch)
    n_ids = LSTMLanguageModel.load(model).vocab_size_
    assert last == f"{tmp_path / 'new'}: {n_ids:,} ids, 1 epochs."
    assert weights_of(tmp_path / "new") == weights_of(model)
    trained = LSTMLanguageModel.load(tmp_path / "new").get_params()
    assert {name: trained[name] for name in SMALL} == SMALL


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["a.txt.gz"], []),
        (["a.jsonl"], []),
        (["a.ndjson.gz"], ["--field", "body"]),
        (["folder"], []),
        (["half.txt", "a.jsonl"], []),
        (["-"], []),
        (["-"], ["--field", "body"]),
    ],
    ids=" ".join,
)
def test_train_reads_the_same_from_everywhere(lstmlm, model, tmp_path, names, options):
    field = options[1] if options else "text"
    plain, rows = "".join(line + "\n" for line in LINES), as_json(LINES, field)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(plain.encode()))
    (tmp_path / "a.jsonl").write_text(rows if len(names) == 1 else as_json(LINES[9:]))
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "half.txt").write_text("".join(line + "\r\n" for line in LINES[:9]), "utf-8")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "1.txt").write_text("\n".join(LINES[:7]), "utf-8")
    (tmp_path / "folder" / "sub" / "2.jsonl").write_text(as_json(LINES[7:]))
    inputs = [name if name == "-" else tmp_path / name for name in names]
    stdin = (rows if options else plain).encode()
    done = lstmlm("train", *inputs, *options, "--out", tmp_path / "new", *FLAGS, stdin=stdin)
    assert done.status == 0, done.err
    assert weights_of(tmp_path / "new") == weights_of(model)


def test_train_with_held_out_text(lstmlm, corpus, tmp_path):
    (tmp_path / "heldout.txt").write_text("\n".join(HELDOUT), "utf-8")
    done = lstmlm(
        "train", corpus, "--validation", tmp_path / "heldout.txt", "--out", tmp_path / "new", *FLAGS
    )
    assert done.status == 0
    epoch, last = done.err.splitlines()
    trained = LSTMLanguageModel.load(tmp_path / "new")
    figure = f"held-out perplexity {trained.perplexity(HELDOUT):,.2f}"
    assert epoch.endswith("  " + figure.replace(" perplexity", ""))
    assert last == f"{tmp_path / 'new'}: {trained.vocab_size_:,} ids, 1 epochs, {figure}."


def test_train_takes_auto_and_none(lstmlm, corpus, tmp_path):
    done = lstmlm(
        "train", corpus, "--out", tmp_path / "new", *FLAGS,
        "--clip-norm", "none", "--learning-rate", "auto", "--max-seconds", "none",
        "--lowercase", "--no-tie-weights", "--context", "stream", "--max-epochs", "0",
    )  # fmt: skip
    assert done.status == 0, done.err
    trained = LSTMLanguageModel.load(tmp_path / "new")
    assert done.err == f"{tmp_path / 'new'}: {trained.vocab_size_:,} ids, 0 epochs.\n"
    params = trained.get_params()
    expected = {"clip_norm": None, "learning_rate": "auto", "max_seconds": None, "lowercase": True}
    expected |= {"tie_weights": False, "context": "stream", "max_epochs": 0}
    assert {name: params[name] for name in expected} == expected


def test_train_takes_a_file_as_one_text(lstmlm, corpus, tmp_path):
    done = lstmlm("train", corpus, "--whole-files", "--out", tmp_path / "new", *FLAGS)
    assert done.status == 0
    expected = LSTMLanguageModel(**SMALL).fit([corpus.read_text("utf-8")])
    expected.save(tmp_path / "expected")
    assert weights_of(tmp_path / "new") == weights_of(tmp_path / "expected")


# A second fit of the same estimator is what warm_start is about; a command fits one but once.
NO_FLAGS = {"n_jobs", "warm_start"}


def test_train_has_a_flag_for_every_parameter():
    command = typer.main.get_command(cli.app).commands["train"]
    flags = {option.name for option in command.params if isinstance(option, typer.core.TyperOption)}
    parameters = set(inspect.signature(LSTMLanguageModel).parameters) - NO_FLAGS
    assert flags - parameters == {"out", "validation", "field", "whole_files"}
    assert parameters - flags == set()


def test_train_keeps_the_defaults_of_generation_and_may_be_silent(lstmlm, corpus, tmp_path):
    config = '{"temperature": 0.5, "top_k": 3}'
    done = lstmlm(
        "train", corpus, "--out", tmp_path / "new", *FLAGS,
        "--generation-config", config, "--verbose", "0",
    )  # fmt: skip
    assert (done.status, done.out, done.err) == (0, "", "")
    params = LSTMLanguageModel.load(tmp_path / "new").get_params()
    assert params["generation_config"] == {"temperature": 0.5, "top_k": 3}


def test_train_without_early_stopping_names_the_last_weights_figure(lstmlm, corpus, tmp_path):
    (tmp_path / "heldout.txt").write_text("mat the on sat cat the\n" * 9)  # the more it learns ...
    done = lstmlm(
        "train", corpus, "--validation", tmp_path / "heldout.txt", "--out", tmp_path / "new",
        *FLAGS, "--max-epochs", "60", "--learning-rate", "0.03",
    )  # fmt: skip
    trained = LSTMLanguageModel.load(tmp_path / "new")
    losses = [epoch.heldout_loss for epoch in trained.history_]
    assert min(losses) + 0.1 < losses[-1]  # ... the worse it gets, and the last weights are kept
    figure = f"held-out perplexity {math.exp(losses[-1]):,.2f}"
    assert done.err.splitlines()[-1].endswith(f", 60 epochs, {figure}.")


def test_train_takes_a_folder_for_checkpoints(lstmlm, corpus, tmp_path):
    folder = tmp_path / "checkpoints"
    done = lstmlm("train", corpus, "--out", tmp_path / "new", *FLAGS, "--checkpoint-dir", folder)
    assert done.status == 0, done.err
    assert LSTMLanguageModel.load(tmp_path / "new").checkpoint_dir == str(folder)
    (tmp_path / "file").write_text("mine")
    done = lstmlm(
        "train", corpus, "--out", tmp_path / "no", *FLAGS, "--checkpoint-dir", tmp_path / "file"
    )
    assert done.status == 2
    assert re.fullmatch(r"lstmlm: .*file.*\n", done.err)


def test_ctrl_c_ends_a_training_and_the_model_is_written(corpus, tmp_path):
    running = process(
        "train", str(corpus), "--out", str(tmp_path / "new"), "--max-seconds", "100",
        "--hidden-size", "16", "--n-iter-no-change", "1000000",
    )  # fmt: skip
    try:
        running.stderr.readline()  # an epoch's line
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out) == (0, b"")
    *_, warned, last = errors.decode().splitlines()
    said = r"lstmlm: fit was interrupted in epoch \d+; the best weights so far, those after epoch "
    assert re.fullmatch(said + r"\d+, are kept\.", warned)
    assert last.startswith(f"{tmp_path / 'new'}: ")
    assert LSTMLanguageModel.load(tmp_path / "new").n_epochs_ >= 1


def test_train_refuses_to_overwrite_before_it_has_trained(lstmlm, corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    done = lstmlm("train", corpus, "--out", tmp_path / "mine", *FLAGS)
    assert done.status == 2
    assert done.err == (
        f"lstmlm: {tmp_path / 'mine'} is there already and is no model folder; nothing was "
        "written. Give a new name, or remove it first.\n"
    )


# ---- score ----


def figures(estimator, texts):
    return [
        {
            "log_prob": scored.log_prob,
            "n_tokens": len(scored.log_probs),
            "perplexity": scored.perplexity,
            "bits_per_char": scored.bits_per_char,
        }
        for scored in estimator.pipe(texts)
    ]


def test_score_writes_a_row_a_line_in_order(lstmlm, estimator, model, corpus):
    done = lstmlm("score", model, corpus)
    assert (done.status, done.err) == (0, "")
    expected = figures(estimator, LINES)
    assert done.rows == [{"text": text, **row} for text, row in zip(LINES, expected, strict=True)]
    assert sum(row["log_prob"] for row in done.rows) == pytest.approx(
        estimator.score_samples(LINES).sum(),
        rel=1e-6,  # the same float32 figures, batched in another way
    )


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_score_keeps_a_rows_fields(lstmlm, model, tmp_path, name):
    rows = [
        {"id": 7, "body": "the cat\nsat\u2028", "more": [None, {"a": 1.5}], "text": "no"},
        {"body": "", "é": "漢 👩‍👩‍👧"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = lstmlm(
        "score", model, tmp_path / "in.jsonl", "--field", "body", "--out", tmp_path / name
    )
    assert (done.status, done.err) == (0, "")
    assert done.out.split()[:2] == ["rows", "2"]
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "rt", encoding="utf-8", newline="") as file:
        written = [json.loads(line) for line in file.read().split("\n")[:-1]]
    assert [list(row) for row in written] == [
        [*row, "log_prob", "n_tokens", "perplexity", "bits_per_char"] for row in rows
    ]
    for row, given in zip(written, rows, strict=True):
        assert {name: row[name] for name in given} == given
    assert written[1]["n_tokens"] == 1


def test_score_gives_one_figure_for_a_whole_file(lstmlm, estimator, model, corpus):
    done = lstmlm("score", model, corpus, "--whole-files")
    text = corpus.read_text("utf-8")
    assert done.rows == [{"text": text, **figures(estimator, [text])[0]}]


def test_score_of_nothing_is_an_empty_file(lstmlm, model, tmp_path):
    (tmp_path / "in.txt").write_text("")
    assert lstmlm("score", model, tmp_path / "in.txt", "--out", tmp_path / "out.jsonl").status == 0
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_score_does_not_write_over_what_is_there(lstmlm, model, corpus, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    done = lstmlm("score", model, corpus, "--out", out)
    message = (
        f"{out} is there already and is no job's; nothing was written. Give a new name, or remove "
        "it first."
    )
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")
    assert out.read_text() == "old\n"


def test_score_puts_bad_rows_aside(lstmlm, model, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "fine"}\n{"text": 3}\n{"text": "too"}\n')
    error = f"{path}:2: the field 'text' is a int; a string is needed."
    done = lstmlm("score", model, path)
    assert (done.status, done.err) == (0, f"lstmlm: {error}\n")
    assert [row["text"] for row in done.rows] == ["fine", "too"]
    done = lstmlm("score", model, path, "--out", tmp_path / "out")
    assert (done.status, done.err) == (0, "")
    rows, failures, *_ = (line.split() for line in done.out.splitlines())
    assert (rows[:2], failures[:2]) == (["rows", "2"], ["failures", "1"])
    (row,) = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
    assert row == {"file": str(path), "at": 17, "error": error}


def test_score_goes_on_with_a_job(lstmlm, model, corpus, tmp_path):
    score = ["score", model, corpus, "--out", tmp_path / "out", "--shard-bytes", "60"]
    assert lstmlm(*score, "--jobs", "2").status == 0
    done = lstmlm(*score)
    assert done.status == 2
    assert "go on with it with --resume" in done.err
    assert lstmlm(*score, "--resume").status == 0


def test_score_splits_rows_by_perplexity(lstmlm, estimator, model, corpus, tmp_path):
    perplexities = [row["perplexity"] for row in figures(estimator, LINES)]
    limit = sorted(perplexities)[len(LINES) // 2] + 0.01
    expected = [text for text, one in zip(LINES, perplexities, strict=True) if one <= limit]
    done = lstmlm("score", model, corpus, "--max-perplexity", limit)
    assert [row["text"] for row in done.rows] == expected
    out = tmp_path / "out.jsonl"
    done = lstmlm("score", model, corpus, "--max-perplexity", limit, "--out", out)
    kept = [json.loads(line)["text"] for line in out.read_text("utf-8").splitlines()]
    assert kept == expected
    assert f"rejected {len(LINES) - len(expected)}" in " ".join(done.out.split())


def test_score_writes_standard_input_to_a_file(lstmlm, model, tmp_path):
    out = tmp_path / "out.jsonl"
    done = lstmlm("score", model, "-", "--out", out, stdin=b"the cat\nthe dog\n")
    assert done.status == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [
        "the cat",
        "the dog",
    ]
    done = lstmlm("score", model, "-", "--out", tmp_path / "b.jsonl", "--resume", stdin=b"a\n")
    assert "reads standard input can't be gone on with" in done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "--resume needs an --out to go on with."),
        (["--max-perplexity", "-1"], "max_perplexity=-1.0 is not valid; "),
        (["--format", "csv"], "format='csv' is not valid; format is 'jsonl' or 'parquet'."),
        (["--scheduler", "tcp://127.0.0.1:1", "--out", "new"], "--scheduler needs --backend dask."),
        (["--backend", "abacus", "--out", "new"], "--backend abacus is none of joblib's: "),
    ],
)
def test_score_with_a_wrong_option(lstmlm, model, corpus, flags, message):
    done = lstmlm("score", model, corpus, *flags)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"lstmlm: {message}")
    assert done.err.count("\n") == 1


def test_score_writes_what_json_can_hold_and_utf8_cannot(lstmlm, estimator, model, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "the cat \\ud800", "id": "\\udfff"}')
    done = lstmlm("score", model, tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    assert (done.status, done.err) == (0, "")
    written = json.loads((tmp_path / "out.jsonl").read_bytes())
    assert (written["text"], written["id"]) == ("the cat \ud800", "\udfff")
    assert written["log_prob"] == figures(estimator, ["the cat \ufffd"])[0]["log_prob"]


def answer(running, line):
    """Send a line to a process and return the row that it answers before the next line is sent."""
    running.stdin.write(line.encode() + b"\n")
    ready, _, _ = select.select([running.stdout], [], [], 120)
    assert ready, "no result came while the next line was awaited"
    return json.loads(running.stdout.readline())


def test_score_answers_a_line_before_the_next_one_is_sent(estimator, model):
    running = process("score", str(model), "-")
    try:
        for text in ("the cat", "", "漢字 the dog"):
            assert answer(running, text) == {"text": text, **figures(estimator, [text])[0]}
        rest, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (rest, errors, running.returncode) == (b"", b"", 0)


def test_an_interruption_is_quiet(model):
    running = process("score", str(model), "-")
    try:
        answer(running, "the cat")
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (rest, errors, running.returncode) == (b"", b"", 130)


def test_a_reader_who_has_seen_enough_is_no_fault(model, tmp_path):
    many = tmp_path / "many.txt"
    many.write_text("the cat sat on the mat\n" * 3000)
    running = process("score", str(model), str(many))
    try:
        assert json.loads(running.stdout.readline())["text"] == "the cat sat on the mat"
        running.stdout.close()
        errors = running.stderr.read()
        status = running.wait(timeout=60)
    finally:
        running.kill()
        running.wait()
        running.stdin.close()
        running.stderr.close()
    assert (status, errors) == (0, b"")


# ---- evaluate ----


@pytest.fixture
def files(tmp_path):
    """Write three files of texts, an empty one among them."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("".join(f"{line}\n" for line in LINES[:9]), "utf-8")
    (folder / "b.jsonl").write_text(as_json(LINES[9:]))
    (folder / "none.txt").write_text("")
    return folder


# Sums of the same float32 figures, added up file by file; a perplexity is an exponential of one.
SUMS = {"rel": 1e-6}


def test_evaluate_gives_what_evaluate_gives(lstmlm, estimator, model, files):
    done = lstmlm("evaluate", model, files, "--json")
    assert (done.status, done.err) == (0, "")
    assert done.rows == [pytest.approx(asdict(estimator.evaluate(LINES)), **SUMS)]
    (alone,) = lstmlm("evaluate", model, files / "a.txt", "--json").rows
    assert alone == pytest.approx(asdict(estimator.evaluate(LINES[:9])))


def test_evaluate_by_file(lstmlm, estimator, model, files):
    done = lstmlm("evaluate", model, files, "--json", "--by-file")
    (total,) = done.rows
    a, b, none = total.pop("files")
    assert total == pytest.approx(asdict(estimator.evaluate(LINES)), **SUMS)
    assert a.pop("file") == str(files / "a.txt")
    assert a == pytest.approx(asdict(estimator.evaluate(LINES[:9])))
    assert b.pop("file") == str(files / "b.jsonl")
    assert b == pytest.approx(asdict(estimator.evaluate(LINES[9:])))
    assert none.pop("file") == str(files / "none.txt")
    assert none.keys() == total.keys()
    assert {name: value for name, value in none.items() if value is not None} == dict.fromkeys(
        ("n_texts", "n_tokens", "n_words", "n_chars", "n_bytes", "nats"), 0
    )


def test_evaluate_reads_as_score_does(lstmlm, estimator, model, tmp_path):
    (tmp_path / "in.jsonl").write_text(as_json(LINES, "body"))
    fields = lstmlm("evaluate", model, tmp_path / "in.jsonl", "--field", "body", "--json")
    assert fields.rows == [pytest.approx(asdict(estimator.evaluate(LINES)))]
    stdin = "".join(line + "\n" for line in LINES).encode()
    piped = lstmlm("evaluate", model, "-", "--json", stdin=stdin)
    assert piped.rows == fields.rows
    whole = lstmlm("evaluate", model, "-", "--whole-files", "--json", stdin=stdin)
    assert whole.rows == [pytest.approx(asdict(estimator.evaluate([stdin.decode()])))]


def test_evaluate_carries_a_streams_state_through_each_file(lstmlm, corpus, tmp_path):
    stream = LSTMLanguageModel(**SMALL | {"context": "stream", "max_epochs": 5}).fit(LINES)
    stream.save(tmp_path / "stream")
    (found,) = lstmlm("evaluate", tmp_path / "stream", corpus, "--json").rows
    assert found == pytest.approx(asdict(stream.evaluate(LINES)))
    fresh = -sum(stream.score_samples([line])[0] for line in LINES)
    assert abs(found["nats"] - fresh) > 0.01  # far more than rounding: lines are no documents here
    (twice,) = lstmlm("evaluate", tmp_path / "stream", corpus, corpus, "--json").rows
    assert twice["nats"] == pytest.approx(2 * found["nats"])


def test_evaluate_writes_tables(lstmlm, estimator, model, files):
    figures = estimator.evaluate(LINES)
    done = lstmlm("evaluate", model, files)
    table = {}
    for line in done.out.splitlines():
        label, value = line[:10].strip(), line[10:].split()
        table[label or list(table)[-1] + " 2"] = value
    assert table["texts"] == [f"{figures.n_texts:,}"]
    assert table["tokens"][0] == f"{figures.n_tokens:,}"
    assert table["perplexity"] == [f"{figures.perplexity:,.3f}", "a", "token"]
    assert table["perplexity 2"] == [f"{figures.word_perplexity:,.3f}", "a", "word"]
    assert table["bits"] == [f"{figures.bits_per_char:.3f}", "a", "character"]
    assert table["accuracy"][:2] == [f"{100 * figures.accuracy:.2f}", "%"]
    assert [line for line in done.out.splitlines() if line != line.rstrip()] == []
    rows = [line.split() for line in lstmlm("evaluate", model, files, "--by-file").out.splitlines()]
    assert [row[0] for row in rows] == ["file", *map(str, sorted(files.iterdir())), "all"]
    assert rows[3][1:] == ["0", "0", *"------"]
    assert rows[4][1:4] == [
        f"{figures.n_texts}",
        f"{figures.n_tokens}",
        f"{figures.perplexity:.3f}",
    ]


def test_evaluate_on_nothing(lstmlm, model, files):
    done = lstmlm("evaluate", model, files / "none.txt", "--by-file")
    message = "perplexity of no texts: 0 texts came, at least one is needed."
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")


def test_evaluate_misses_a_file_before_it_reads_any(lstmlm, model, files, tmp_path):
    (files / "a.txt").write_bytes(b"\xff")
    done = lstmlm("evaluate", model, files / "a.txt", tmp_path / "gone.txt")
    message = f"{tmp_path / 'gone.txt'}: no such file or folder."
    assert (done.status, done.err) == (2, f"lstmlm: {message}\n")


def test_json_has_no_infinity():
    figures = {"word_perplexity": math.inf, "files": [{"nats": math.nan, "n_texts": 1}], "a": "b"}
    assert finite(figures) == {
        "word_perplexity": None, "files": [{"nats": None, "n_texts": 1}], "a": "b"
    }  # fmt: skip


# ---- info ----


def test_info_says_what_a_model_is(lstmlm, model, estimator):
    done = lstmlm("info", model, "--json")
    assert (done.status, done.err) == (0, "")
    (facts,) = done.rows
    assert facts == {
        "folder": str(model),
        "format_version": 1,
        "n_bytes": sum(path.stat().st_size for path in model.iterdir()),
        "n_parameters": sum(p.numel() for p in estimator.module_.parameters()),
        "vocab_size": estimator.vocab_size_,
        "settings": estimator.params_,
        "n_epochs": 1,
        "n_tokens_trained": estimator.history_[0].tokens,
        "seconds": estimator.history_[0].seconds,
        "kept_epoch": 1,
        "heldout_perplexity": None,
        "history": [asdict(estimator.history_[0])],
    }


def test_info_in_words(lstmlm, model, estimator):
    out = lstmlm("info", model).out
    facts = dict(line.split(maxsplit=1) for line in out.split("\n\n")[0].splitlines())
    assert facts["folder"].startswith(f"{model}, ")
    assert facts["folder"].endswith(" kB, format 1")
    assert facts["cell"] == "lstm, 1 layer of 16 units"
    assert facts["embedding"] == "8 wide"
    assert facts["tokenizer"] == f"word, {estimator.vocab_size_} ids"
    assert facts["parameters"] == f"{sum(p.numel() for p in estimator.module_.parameters()):,}"
    assert re.fullmatch(r"1 epoch, \d+ tokens in 0:\d\d", facts["trained"])
    assert facts["held-out"] == "nothing"
    heading, epoch = out.split("\n\n")[1].splitlines()
    assert heading.split() == [
        "epoch",
        "time",
        "tokens",
        "perplexity",
        "held-out",
        "learning",
        "rate",
    ]
    assert epoch.split()[::2] == ["1", str(estimator.history_[0].tokens), "-"]


def test_info_of_a_long_training_shows_a_few_epochs_and_the_kept_one(lstmlm, tmp_path):
    lm = LSTMLanguageModel(**SMALL).fit(LINES)
    first = lm.history_[0]
    losses = [3 + 0.01 * abs(epoch - 77) for epoch in range(1, 201)]
    lm.history_ = [replace(first, epoch=e, heldout_loss=x) for e, x in enumerate(losses, 1)]
    lm.n_epochs_ = 200
    for early_stopping, kept in ((True, 77), (False, 200)):
        lm.params_ = lm.params_ | {"early_stopping": early_stopping}
        lm.save(tmp_path / "long")
        facts, history = lstmlm("info", tmp_path / "long").out.split("\n\n")
        figure = f"{math.exp(losses[kept - 1]):,.2f}"
        assert (
            facts.splitlines()[-1].split(maxsplit=1)[1] == f"perplexity {figure} after epoch {kept}"
        )
        shown = [int(line.split()[0]) for line in history.splitlines()[1:]]
        assert {1, kept, 200} <= set(shown)
        assert len(shown) <= 15


def test_info_names_the_form_of_the_peepholes(lstmlm, tmp_path):
    params = SMALL | {"cell": "peephole_lstm", "peephole": "full", "num_layers": 2}
    LSTMLanguageModel(**params).fit(LINES).save(tmp_path / "m")
    out = lstmlm("info", tmp_path / "m").out
    assert re.search(r"^cell +peephole_lstm \(full\), 2 layers of 16 units$", out, re.MULTILINE)


def test_info_on_no_training(lstmlm, tmp_path):
    LSTMLanguageModel(**SMALL | {"max_epochs": 0, "lowercase": True}).fit(LINES).save(
        tmp_path / "m"
    )
    out = lstmlm("info", tmp_path / "m").out
    assert re.search(r"^trained +not at all: the weights are random$", out, re.MULTILINE)
    assert re.search(r"^tokenizer +word, \d+ ids, lower case$", out, re.MULTILINE)
    assert "learning rate" not in out
    assert lstmlm("info", tmp_path / "m", "--json").rows[0]["kept_epoch"] is None


def test_names_are_shown_as_they_are(lstmlm, model, corpus, tmp_path):
    """rich would take [bold] for a style and :smile: for a picture."""
    odd = tmp_path / "odd [bold] :smile:"
    shutil.copytree(model, odd)
    shutil.copy(corpus, tmp_path / "[red] :cat:.txt")
    assert lstmlm("info", odd).out.startswith(f"folder      {odd}, ")
    by_file = lstmlm("evaluate", odd, tmp_path / "[red] :cat:.txt", "--by-file")
    assert by_file.out.splitlines()[1].startswith(f"{tmp_path / '[red] :cat:.txt'}  ")
    done = lstmlm("train", corpus, "--out", odd, *FLAGS, "--max-epochs", "0")
    assert done.err.startswith(f"{odd}: ")


@pytest.mark.parametrize("args", [["info"], ["evaluate", "{corpus}", "--json"]])
def test_a_result_that_no_one_reads_is_no_fault(model, corpus, args):
    command, *rest = (arg.format(corpus=corpus) for arg in args)
    reading, writing = os.pipe()
    os.close(reading)
    # Where Python buffers, the fault comes to light when all is written.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    running = process(command, str(model), *rest, stdout=writing, env=buffered)
    os.close(writing)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, b"")


# ---- generate ----


def test_generate_writes_the_prompt_and_the_rest(lstmlm, estimator, model):
    options = {"max_new_tokens": 9, "temperature": 0.7, "top_k": 5, "top_p": 0.9}
    flags = ["--max-new-tokens", "9", "--temperature", "0.7", "--top-k", "5", "--top-p", "0.9"]
    done = lstmlm("generate", model, "the cat", "a dog", *flags, "--random-state", "3")
    assert (done.status, done.err) == (0, "")
    expected = [
        prompt + estimator.generate([prompt], random_state=3, **options)[0]
        for prompt in ("the cat", "a dog")
    ]
    assert done.out == "".join(text + "\n" for text in expected)


def test_generate_greedily_and_from_nothing(lstmlm, estimator, model):
    done = lstmlm("generate", model, "--no-do-sample", "--max-new-tokens", "7")
    assert done.status == 0
    assert done.out == estimator.generate(do_sample=False, max_new_tokens=7)[0] + "\n"


def test_generate_writes_several_texts_and_takes_several_strings(lstmlm, estimator, model):
    options = {"num_return_sequences": 3, "bad_words": ["a", "on"], "stop_strings": ["e"]}
    flags = ["--num-return-sequences", "3", "--bad-words", "a", "--bad-words", "on"]
    done = lstmlm("generate", model, "the ", *flags, "--stop-strings", "e", "--random-state", "3")
    assert (done.status, done.err) == (0, "")
    texts = estimator.generate(["the "], random_state=3, **options)
    assert done.out == "".join(f"the {text}\n" for text in texts)


def test_generate_writes_nothing_before_options_are_checked(lstmlm, model):
    done = lstmlm("generate", model, "the cat", "--min-new-tokens", "9", "--max-new-tokens", "8")
    message = "lstmlm: min_new_tokens=9 is more than max_new_tokens=8.\n"
    assert (done.status, done.out, done.err) == (2, "", message)


def test_generate_reads_prompts_a_line_each(lstmlm, model):
    flags = ["--no-do-sample", "--max-new-tokens", "5"]
    done = lstmlm("generate", model, "-", *flags, stdin=b"the cat\r\n\nthe dog\n")
    assert done.status == 0
    assert done.out == lstmlm("generate", model, "the cat", "", "the dog", *flags).out


def test_complete_suggests_what_the_model_does(lstmlm, estimator, model):
    done = lstmlm("complete", model, "the c", "a dog ", "-n", "3", "--max-new-tokens", "9")
    expected = [
        f"{math.exp(log_prob):7.2%}  {prefix}{text}".replace("\n", "\\n")
        for prefix in ("the c", "a dog ")
        for text, log_prob in estimator.complete(prefix, 3, max_new_tokens=9)
    ]
    assert (done.status, done.out.splitlines(), done.err) == (0, expected, "")


def test_complete_gives_objects_for_lines(lstmlm, estimator, model):
    flags = ("--unit", "line", "--json", "--bad-words", "z", "--max-new-tokens", "5")
    done = lstmlm("complete", model, "-", *flags, stdin="the c\n床\n".encode())
    assert done.status == 0
    objects = list(map(json.loads, done.out.splitlines()))
    assert [one["prefix"] for one in objects] == ["the c", "床"]
    for one in objects:
        found = estimator.complete(one["prefix"], unit="line", bad_words=["z"], max_new_tokens=5)
        assert one["completions"] == [
            {"text": text, "log_prob": pytest.approx(value)} for text, value in found
        ]


def test_complete_with_a_wrong_value(lstmlm, model):
    done = lstmlm("complete", model, "the", "--unit", "words")
    assert (done.status, done.out) == (2, "")
    assert "Did you mean 'word'?" in done.err
    assert lstmlm("complete", model, "the", "--temperature", "1").status == 2


def test_generate_repeats_with_a_random_state_alone(lstmlm, model):
    def written(*flags):
        return lstmlm("generate", model, "--max-new-tokens", "60", *flags).out

    assert written("--random-state", "3") == written("--random-state", "3")
    assert len({written() for _ in range(4)} | {written("--random-state", "4")}) > 1


def test_output_is_utf8_whatever_the_locale(model):
    running = process(
        "generate", str(model), "漢 👩‍👩‍👧", b"caf\xe9", "--max-new-tokens", "0",
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    out, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (0, b"")
    first, second = out.splitlines()
    assert first == "漢 👩‍👩‍👧".encode()
    assert second.startswith(b"caf")
    assert second.decode("utf-8")


# ---- what the user can mend ----


WRONG_VALUES = [
    (
        ["--hidden-size", "0"],
        "--hidden-size=0 is not valid; --hidden-size is an integer at least 1 and at most 65536, "
        'or "auto".',
    ),
    (
        ["--hidden-size", "many"],
        "--hidden-size='many' is not valid; --hidden-size is an integer at least 1 and at most "
        '65536, or "auto".',
    ),
    (
        ["--num-layers", "1.5"],
        "--num-layers='1.5' is not valid; --num-layers is an integer at least 1 and at most 64, or "
        '"auto".',
    ),
    (
        ["--dropout", "nan"],
        '--dropout=nan is not valid; --dropout is a number at least 0 and less than 1, or "auto".',
    ),
    (
        ["--tokenizer", "cahr"],
        "tokenizer='cahr' is not valid; tokenizer is 'bpe' or 'char' or 'word', or the path of a "
        "tokenizer.json that is there, or a tokenizers.Tokenizer. Did you mean 'char'?",
    ),
    (
        ["--generation-config", "warm"],
        "--generation-config='warm' is not valid; it is a JSON object, such as "
        """'{"temperature": 0.8}'.""",
    ),
    (
        ["--generation-config", '{"topk": 1}'],
        "'topk' is not an option of generation; the options are max_new_tokens, min_new_tokens, "
        "do_sample, num_return_sequences, temperature, top_k, top_p, min_p, repetition_penalty, "
        "no_repeat_ngram_size, bad_words, stop_strings, choices, regex, line_lengths, "
        "token_healing, num_beams, length_penalty. "
        "Did you mean 'top_k'?",
    ),
    (
        ["--verbose", "loud"],
        "--verbose='loud' is not valid; --verbose is an integer at least 0.",
    ),
    (
        ["--weight-decay", "none"],
        "--weight-decay='none' is not valid; --weight-decay is a number at least 0, or \"auto\".",
    ),
    (
        ["--max-epochs", "none"],
        "max_epochs=None sets no limit; give max_seconds or a number of epochs.",
    ),
]


@pytest.mark.parametrize(("flags", "message"), WRONG_VALUES, ids=lambda part: " ".join(part)[:30])
def test_train_with_a_wrong_value(lstmlm, corpus, tmp_path, flags, message):
    done = lstmlm("train", corpus, "--out", tmp_path / "new", *FLAGS, *flags)
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")
    assert not (tmp_path / "new").exists()


def test_train_on_nothing(lstmlm, tmp_path):
    (tmp_path / "in.txt").write_text("")
    done = lstmlm("train", tmp_path / "in.txt", "--out", tmp_path / "new", *FLAGS)
    assert (done.status, done.err) == (2, "lstmlm: fit needs at least one text; 0 texts came.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_train_with_nothing_held_out(lstmlm, corpus, tmp_path):
    (tmp_path / "in.txt").write_text("")
    done = lstmlm(
        "train", corpus, "--validation", tmp_path / "in.txt", "--out", tmp_path / "new", *FLAGS
    )
    message = "validation holds 0 texts; at least one is needed, or None."
    assert (done.status, done.err) == (2, f"lstmlm: {message}\n")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_inputs_that_cant_be_read(lstmlm, model, tmp_path, command):
    (tmp_path / "latin.txt").write_bytes("fine\ncafé\n".encode("latin-1"))
    before = {
        "train": ["train", "--out", tmp_path / "new", *FLAGS],
        "evaluate": ["evaluate", model],
    }[command]
    for name, message in (
        ("missing.txt", "{path}: no such file or folder."),
        ("latin.txt", "{path}:2 is not UTF-8 (byte 3 is 0xe9); convert the file to UTF-8 first."),
    ):
        done = lstmlm(*before, tmp_path / name)
        expected = message.format(path=tmp_path / name)
        assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["latin.txt"]


@pytest.mark.parametrize("command", ["score", "evaluate", "generate", "complete"])
def test_a_model_that_is_none(lstmlm, corpus, tmp_path, command):
    done = lstmlm(command, tmp_path / "no model", corpus)
    message = f"{tmp_path / 'no model'} is no folder; give a folder that save() wrote."
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")
    done = lstmlm(command, tmp_path, corpus)
    message = f"{tmp_path} is no model folder: it has no MANIFEST.json."
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")


def test_outputs_that_cant_be_written(lstmlm, model, corpus, tmp_path):
    for name, message in (
        ("out.csv", "--out {out} must be a folder, or end in .jsonl, .jsonl.gz or .parquet."),
        ("no/out.jsonl", "--out {out}: there is no folder {out.parent}."),
    ):
        out = tmp_path / name
        done = lstmlm("score", model, corpus, "--out", out)
        assert (done.status, done.err) == (2, f"lstmlm: {message.format(out=out)}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--temperature", "0"],
            "--temperature=0.0 is not valid; --temperature is a number greater than 0.",
        ),
        (
            ["--top-p", "2"],
            "--top-p=2.0 is not valid; --top-p is a number greater than 0 and at most 1.",
        ),
        (
            ["--top-k", "auto"],
            "--top-k='auto' is not valid; --top-k is an integer at least 0.",
        ),
    ],
)
def test_generate_with_a_wrong_value(lstmlm, model, flags, message):
    done = lstmlm("generate", model, *flags)
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        (["train", "{corpus}", "--out", "{new}", "--hiden-size", "3"], "--hiden-size"),
        (["train", "{corpus}"], "--out"),
        (["train", "--out", "{new}"], "texts"),
        (["trian", "{corpus}"], "trian"),
        (["train", "{corpus}", "--out"], "--out"),
        (["train", "{corpus}", "--out", "{new}", "--random-state", "x"], "--random-state"),
        (["train", "{corpus}", "--out", "{new}", "--random-state", "-1"], "--random-state"),
        (["train", "{corpus}", "--out", "{new}", "--device", "abacus"], "device='abacus'"),
        (["score", "{model}", "{corpus}", "--device", "abacus"], "device='abacus'"),
        (["score", "{model}"], "inputs"),
        (["score", "{model}", "{corpus}", "--jobs"], "--jobs"),
        (["generate", "{model}", "--random-state", "1.5"], "--random-state"),
        (["generate", "{model}", "--random-state", "4294967296"], "--random-state"),
        (["demo", "--seconds", "soon"], "--seconds"),
        (["demo", "--seconds", "0"], "seconds"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_a_wrong_call_is_one_line(lstmlm, model, corpus, tmp_path, args, culprit):
    places = {"model": model, "corpus": corpus, "new": tmp_path / "new"}
    done = lstmlm(*(arg.format(**places) for arg in args))
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(r"lstmlm: .+\n", done.err)
    assert culprit in done.err.lower()
    assert not (tmp_path / "new").exists()


# ---- help ----


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_help_names_the_commands(lstmlm):
    for args in (["--help"], []):
        done = lstmlm(*args)
        assert done.err == ""
        for command in ("train", "score", "evaluate", "generate", "info", "demo"):
            assert re.search(rf"^\W*{command}\b", plain(done.out), re.MULTILINE)
    assert lstmlm("--help").status == 0


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("train", [FIT_RULES]),
        ("generate", [DecodeConfig.rules()]),
        ("score", []),
        ("evaluate", []),
        ("info", []),
        ("demo", []),
    ],
)
def test_help_names_every_setting(lstmlm, command, groups):
    done = lstmlm(command, "--help")
    assert (done.status, done.err) == (0, "")
    shown = " ".join(plain(done.out).split())
    for name, rule in ((name, rule) for group in groups for name, rule in group.items()):
        flag = name.replace("_", "-")
        assert re.search(rf"--{flag}\b", shown), name
        assert rule.help in shown
        if rule.kind is bool:
            assert f"--no-{flag}" in shown
        else:
            assert f"[{rule.due()}]" in shown, name
