"""The command line as it is called: arguments in; status, standard output and error out."""

import contextlib
import gzip
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
from tiny import TEXTS

from lstmlm import LSTMLanguageModel, cli
from lstmlm.cli.training import FIT_RULES
from lstmlm.config import DecodeConfig

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
    assert (done.status, done.out, done.err) == (0, "", "")
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


def test_score_replaces_an_older_file_when_it_is_complete(lstmlm, model, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    done = lstmlm("score", model, tmp_path / "bad.jsonl", "--out", out)
    assert done.status == 2
    assert done.err == (
        f"lstmlm: {tmp_path / 'bad.jsonl'}:2: the field 'text' is a int; a string is needed.\n"
    )
    assert out.read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "out.jsonl"]
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n')
    assert lstmlm("score", model, tmp_path / "bad.jsonl", "--out", out).status == 0
    assert json.loads(out.read_text())["text"] == "fine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "out.jsonl"]


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


def test_generate_reads_prompts_a_line_each(lstmlm, model):
    flags = ["--no-do-sample", "--max-new-tokens", "5"]
    done = lstmlm("generate", model, "-", *flags, stdin=b"the cat\r\n\nthe dog\n")
    assert done.status == 0
    assert done.out == lstmlm("generate", model, "the cat", "", "the dog", *flags).out


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
        "--tokenizer='cahr' is not valid; --tokenizer is 'bpe' or 'char' or 'word'. "
        "Did you mean 'char'?",
    ),
    (
        ["--weight-decay", "none"],
        "--weight-decay='none' is not valid; --weight-decay is a number at least 0.",
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


@pytest.mark.parametrize("command", ["train", "score"])
def test_inputs_that_cant_be_read(lstmlm, model, tmp_path, command):
    (tmp_path / "latin.txt").write_bytes("fine\ncafé\n".encode("latin-1"))
    before = {
        "train": ["train", "--out", tmp_path / "new", *FLAGS],
        "score": ["score", model, "--out", tmp_path / "new.jsonl"],
    }[command]
    for name, message in (
        ("missing.txt", "{path}: no such file or folder."),
        ("latin.txt", "{path}:2 is not UTF-8 (byte 3 is 0xe9); convert the file to UTF-8 first."),
    ):
        done = lstmlm(*before, tmp_path / name)
        expected = message.format(path=tmp_path / name)
        assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["latin.txt"]


@pytest.mark.parametrize("command", ["score", "generate"])
def test_a_model_that_is_none(lstmlm, corpus, tmp_path, command):
    done = lstmlm(command, tmp_path / "no model", corpus)
    message = f"{tmp_path / 'no model'} is no folder; give a folder that save() wrote."
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")
    done = lstmlm(command, tmp_path, corpus)
    message = f"{tmp_path} is no model folder: it has no MANIFEST.json."
    assert (done.status, done.out, done.err) == (2, "", f"lstmlm: {message}\n")


def test_outputs_that_cant_be_written(lstmlm, model, corpus, tmp_path):
    for name, message in (
        ("out.csv", "--out {out} must end in .jsonl or .jsonl.gz, or be - alone."),
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
        for command in ("train", "score", "generate", "demo"):
            assert re.search(rf"^\W*{command}\b", plain(done.out), re.MULTILINE)
    assert lstmlm("--help").status == 0


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("train", FIT_RULES),
        ("generate", [DecodeConfig.rules()]),
        ("score", []),
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
