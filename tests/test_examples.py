"""The scripts under examples/ run, small, and show what they are there to show."""

import re
from pathlib import Path

import scripts

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *options: str) -> str:
    done = scripts.run(EXAMPLES / name, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text("utf-8")))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_filter_corpus_parts_dirt_from_text_better_than_characters_do():
    found = run("filter_corpus.py", "--lines", "3000", "--seconds", "15")
    ours, baseline = map(float, re.search(r"^all +([\d.]+) +([\d.]+)$", found, re.M).groups())
    assert ours > baseline
    assert ours > 0.8


def test_log_anomalies_are_found():
    found = run("log_anomalies.py", "--lines", "3000", "--seconds", "20")
    assert float(re.search(r"ROC-AUC ([\d.]+);", found).group(1)) > 0.8
    assert "fault " in found


def share(found: str, label: str) -> float:
    return (
        float(re.search(label + r":? (?:form right in |right for )?([\d.]+)\s?%", found).group(1))
        / 100
    )


def test_dates_are_translated(tmp_path):
    picture = tmp_path / "dates.png"
    options = ("--pairs", "3000", "--epochs", "3", "--plot", str(picture))
    found = run("translate_dates.py", *options)
    assert share(found, "unseen days") > 0.5
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_strings_are_reversed_with_attention_and_without():
    options = ("--pairs", "4000", "--longest", "4", "--epochs", "4")
    found = run("reverse_strings.py", *options)
    assert share(found, "with attention") > 0.8
    assert share(found, "without attention") > 0.3


def test_poems_always_have_their_form():
    found = run("write_poems.py", "--seconds", "10", "--titles", "4")
    assert share(found, "held to the form") == 1
    assert len(re.findall(r"^(\S{5}|\S{7})$", found, re.M)) >= 8


def test_small_talk_answers():
    found = run("small_talk.py", "--pairs", "3000", "--epochs", "3")
    assert share(found, "strangers") > 0.3


def test_headlines_are_better_than_the_commonest_one():
    found = run("headlines.py", "--epochs", "12")
    assert share(found, "the likeliest title") > share(found, "the commonest title")


def test_odd_words_are_flagged_more_often_than_by_chance(tmp_path):
    page = tmp_path / "flagged.html"
    found = run("annotate.py", "--seconds", "20", "--html", str(page))
    flags, chance = map(float, re.search(r"find ([\d.]+) %; by chance ([\d.]+) %", found).groups())
    assert flags > 2 * chance
    assert "expected: " in found
    assert " bits" in page.read_text("utf-8")
