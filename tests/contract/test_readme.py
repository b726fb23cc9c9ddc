"""The README keeps its word: its Python runs, and its make targets are there."""

import re
from pathlib import Path

from scripts import run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_python_runs(tmp_path):
    """Run the blocks as one script from top to bottom, as a reader would."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert blocks, "the README has no Python"
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), "utf-8")
    done = run(script, cwd=tmp_path, strict=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_exist():
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", README, re.DOTALL))
    commands = r"(?:^|`|\$ |&& )make(?: [A-Z]+=\S+)* ([a-z]+)"
    named = set(re.findall(commands, code, re.MULTILINE))
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert named, "the README names no make target"
    assert named <= set(targets)
