"""The scripts under examples/ run, small, and show what they are there to show."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"filter_corpus.py", "log_anomalies.py"}


def test_filter_corpus_parts_dirt_from_text_better_than_characters_do():
    found = run("filter_corpus.py", "--lines", "3000", "--seconds", "15")
    ours, baseline = map(float, re.search(r"^all +([\d.]+) +([\d.]+)$", found, re.M).groups())
    assert ours > baseline
    assert ours > 0.8


def test_log_anomalies_are_found():
    found = run("log_anomalies.py", "--lines", "3000", "--seconds", "20")
    assert float(re.search(r"ROC-AUC ([\d.]+);", found).group(1)) > 0.8
    assert "fault " in found
