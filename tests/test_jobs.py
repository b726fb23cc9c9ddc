"""Texts in files: what is a line, what is a row, and what is said where a file is neither."""

import gzip
import io
import json
import re
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import fitted

from lstmlm.errors import InputFileError
from lstmlm.jobs import Row, read_rows, score_rows, tally_files
from lstmlm.measures import Tally


@pytest.fixture
def write(tmp_path):
    """Write a file, gzipped if its name says so, and return its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


@pytest.fixture
def stdin(monkeypatch):
    def feed(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return feed


def texts(*inputs, **options):
    return [row.text for row in read_rows(inputs, **options)]


def fault(*inputs, **options):
    with pytest.raises(InputFileError) as caught:
        texts(*inputs, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- lines ----


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a\nb", ["a", "b"]),
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\n\n \n\nb\n", ["a", "", " ", "", "b"]),
        ("a\rb\n", ["a\rb"]),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n", ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"]),
        ("\ufeffa\n\ufeffb\n", ["a", "\ufeffb"]),
        ("\0\n", ["\0"]),
        ("漢字\n👩‍👩‍👧\n", ["漢字", "👩‍👩‍👧"]),
    ],
)
@pytest.mark.parametrize("ending", ["txt", "txt.gz", "md", "anything", "noending.gz"])
def test_lines(write, content, lines, ending):
    assert texts(write(f"a.{ending}", content)) == lines


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", codec="utf-8"))))
def test_any_lines(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    for end in ("\n", "\r\n"):
        path.write_bytes("".join(line + end for line in lines).encode())
        assert texts(str(path)) == lines


def test_rows_say_where_they_stand(write):
    path = write("a.txt", "x\n\ny\n")
    assert list(read_rows([path])) == [
        Row("x", f"{path}:1"),
        Row("", f"{path}:2"),
        Row("y", f"{path}:3"),
    ]


def test_files_are_read_in_the_order_given_and_one_by_one(write):
    rows = read_rows([write("b.txt", "b"), write("a.txt", "a"), "missing.txt"])
    assert [next(rows).text, next(rows).text] == ["b", "a"]
    with pytest.raises(InputFileError):
        next(rows)


def test_whole_files(write):
    plain, packed = write("a.txt", "\ufeffa\nb\r\n\n"), write("b.jsonl.gz", '{"text": "x"}\n')
    assert texts(plain, packed, whole_files=True) == ["a\nb\r\n\n", '{"text": "x"}\n']
    assert [row.where for row in read_rows([plain], whole_files=True)] == [plain]


# ---- JSON Lines ----

ROWS = [
    {"text": "first", "id": 1},
    {"id": 2, "text": "two\nlines\u2028", "body": "x"},
    {"text": ""},
    {"text": "👩‍👩‍👧\0", "more": {"nested": [None, 1.5]}},
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.ndjson.gz"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_rows(write, name, ascii_only):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in ROWS]
    path = write(name, "\ufeff" + "\n".join(lines) + "\n\n  \n")
    rows = list(read_rows([path]))
    assert [row.fields for row in rows] == ROWS
    assert [row.text for row in rows] == [row["text"] for row in ROWS]
    assert rows[-1].where == f"{path}:4"


def test_another_field(write):
    path = write("a.jsonl", '{"text": "no", "body": "yes"}\n{"body": ""}')
    assert texts(path, field="body") == ["yes", ""]


def test_a_field_does_not_make_a_text_file_json(write):
    assert texts(write("a.txt", '{"body": "x"}'), field="body") == ['{"body": "x"}']


# ---- standard input ----


def test_standard_input_is_lines(stdin, write):
    stdin("a\n漢\r\n\n".encode())
    assert list(read_rows(["-"])) == [Row("a", "-:1"), Row("漢", "-:2"), Row("", "-:3")]


def test_standard_input_is_json_where_a_field_is_named(stdin):
    stdin(b'{"body": "x", "n": 1}\n')
    assert list(read_rows(["-"], field="body")) == [Row("x", "-:1", {"body": "x", "n": 1})]


def test_standard_input_among_files(stdin, write):
    stdin(b"b\n")
    assert texts(write("a.txt", "a"), "-", write("c.txt", "c")) == ["a", "b", "c"]


# ---- folders ----


def test_a_folder_is_its_text_files_by_name(tmp_path, write):
    for name in ("b.txt", "a/z.md", "a.jsonl", "c.text", "a/b/y.ndjson", "x.txt.gz", "x.jsonl.gz"):
        write(f"in/{name}", json.dumps({"text": name}) if "json" in name else name)
    for name in ("notes.pdf", "a/table.csv", "txt", "b.gz", "a.json"):
        write(f"in/{name}", "not read")
    (tmp_path / "in" / "folder.txt").mkdir()
    read = texts(str(tmp_path / "in"))
    expected = ["a/b/y.ndjson", "a/z.md", "a.jsonl", "b.txt", "c.text", "x.jsonl.gz", "x.txt.gz"]
    assert read == expected


def test_a_folder_without_texts(tmp_path, write):
    write("in/table.csv", "x")
    folder = str(tmp_path / "in")
    assert fault(folder) == (
        f"{folder}: no file in this folder ends in .txt, .text, .md, .jsonl, .ndjson, .parquet (or "
        "these and .gz or .zst)."
    )


# ---- scoring ----


@pytest.mark.parametrize("batch_size", [1, 2, 256])
@pytest.mark.parametrize("context", ["document", "stream"])
def test_rows_are_scored_as_documents_whatever_the_models_context(write, context, batch_size):
    lm = fitted(output="softmax", tokenizer="word", context=context)
    lines = ["the cat sat on the mat", "", "a dog and a cat", "明月 几时 有"]
    rows = read_rows([write("a.txt", "\n".join(lines))])
    scored = list(score_rows(lm, rows, batch_size))
    assert [row.text for _, row in scored] == [text.text for text, _ in scored] == lines
    alone = [lm.score_samples([line])[0] for line in lines]
    # Figures in float32 agree to 1e-5 on every path.
    assert [text.log_prob for text, _ in scored] == pytest.approx(alone, rel=1e-5)


def test_rows_are_scored_lazily(write):
    came = []

    def rows():
        for row in read_rows([write("a.txt", "the cat\nthe dog\na dog\n")]):
            came.append(row.text)
            yield row

    scored = score_rows(fitted(output="softmax", tokenizer="word"), rows(), batch_size=1)
    assert came == []
    assert next(scored)[1].text == "the cat"
    assert came == ["the cat"]


# ---- faults ----


@pytest.mark.parametrize("name", ["missing.txt", "no/such/folder", "nul\0.txt"])
def test_missing(tmp_path, name):
    path = str(tmp_path / name)
    assert fault(path) == f"{path}: no such file or folder."


@pytest.mark.parametrize(
    ("content", "line", "at", "byte"),
    [
        (b"fine\nab\xffc\n", 2, 2, "0xff"),
        (b"\xe6\xbc", 1, 0, "0xe6"),
        (b"a\n\xed\xa0\x80\n", 2, 0, "0xed"),  # a surrogate, which UTF-8 can't hold
        (b"\xef\xbb\xbfab\xff\n", 1, 5, "0xff"),  # the byte order mark is counted
    ],
)
@pytest.mark.parametrize("ending", ["txt", "jsonl", "txt.gz"])
def test_not_utf8(write, content, line, at, byte, ending):
    if ending == "jsonl" and line == 2:
        content = b"\n" + content.split(b"\n", 1)[1]
    path = write(f"a.{ending}", content)
    assert fault(path) == (
        f"{path}:{line} is not UTF-8 (byte {at} is {byte}); convert the file to UTF-8 first."
    )


def test_a_whole_file_that_is_not_utf8(write):
    path = write("a.txt", b"a\nb\xff")
    assert fault(path, whole_files=True) == (
        f"{path} is not UTF-8 (byte 3 is 0xff); convert the file to UTF-8 first."
    )


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ("text", {}, " is not JSON: Expecting value: line 1 column 1 (char 0)."),
        (
            '{"text": }',
            {},
            " is not JSON: Expecting value: line 1 column 10 (char 9).",
        ),
        ("[1]", {}, " is a list; a JSON object is needed."),
        ('"text"', {}, " is a str; a JSON object is needed."),
        ("null", {}, " is a NoneType; a JSON object is needed."),
        (
            '{"txt": "a", "id": 3}',
            {},
            " has no field 'text'; it has 'txt', 'id'. Name the field of the text with --field. "
            "Did you mean 'txt'?",
        ),
        (
            '{"text": "a"}',
            {"field": "body"},
            " has no field 'body'; it has 'text'. Name the field of the text with --field.",
        ),
        (
            "{}",
            {},
            " has no field 'text'; it has none. Name the field of the text with --field.",
        ),
        ('{"text": 3}', {}, ": the field 'text' is a int; a string is needed."),
        ('{"text": null}', {}, ": the field 'text' is a NoneType; a string is needed."),
    ],
)
def test_rows_that_are_wrong(write, row, options, message):
    path = write("a.jsonl", '{"text": "fine", "body": "fine"}\n' + row + "\n")
    assert fault(path, **options) == f"{path}:2{message}"


def test_json_that_is_nested_too_deeply(write):
    path = write("a.jsonl", "[" * 200_000)
    assert re.fullmatch(re.escape(f"{path}:1 is not JSON: ") + r".+\.", fault(path))


def test_a_gzip_file_that_is_cut_off(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"line\n" * 1000)[:-12])
    assert fault(str(path)) == (
        f"{path} can't be read: Compressed file ended before the end-of-stream marker was reached."
    )


def test_tallies_come_file_by_file_and_each_starts_afresh(write):
    stream = fitted(tokenizer="word", context="stream")
    first = write("a.txt", "the cat sat\non the mat\n")
    second, empty = write("b.jsonl.gz", '{"text": "the cat sat"}\n'), write("c.txt", "")
    read = []
    tallies = tally_files(stream, [first, second, empty, first], watch=lambda: read.append(1))
    assert read == []
    found = [next(tallies)]
    assert len(read) == 2  # a file is read when it is asked for
    found += tallies
    assert [path for path, _ in found] == [first, second, empty, first]
    assert [tally.texts for _, tally in found] == [2, 1, 0, 2]
    assert len(read) == 5
    for (_, tally), texts in zip(
        found, [["the cat sat", "on the mat"], ["the cat sat"]], strict=False
    ):
        assert tally.nats == pytest.approx(stream.evaluate(texts).nats, rel=1e-6)  # float32 sums
    assert found[2][1] == Tally()
    assert found[3][1] == found[0][1]


def test_a_gzip_file_that_is_none(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(b"plain text\n")
    assert fault(str(path)) == f"{path} can't be read: Not a gzipped file (b'pl')."


def test_a_gzip_file_whose_checksum_is_wrong(tmp_path):
    path = tmp_path / "a.txt.gz"
    data = bytearray(gzip.compress(b"line\n"))
    data[-6] ^= 1
    path.write_bytes(data)
    pattern = re.escape(f"{path} can't be read: CRC check failed ") + r".+\."
    assert re.fullmatch(pattern, fault(str(path)))


def test_a_gzip_file_that_was_altered(tmp_path):
    path = tmp_path / "a.txt.gz"
    data = bytearray(gzip.compress(bytes(range(256)) * 8))
    data[10] |= 0b110  # a kind of block that doesn't exist
    path.write_bytes(data)
    with pytest.raises(zlib.error), gzip.open(path) as file:
        file.read()
    assert re.fullmatch(re.escape(f"{path} can't be read: ") + r".+\.", fault(str(path)))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_that_the_system_cant_read():
    path = "/proc/self/mem"  # nothing is mapped at its beginning
    assert fault(path) == f"{path} can't be read: [Errno 5] Input/output error."
