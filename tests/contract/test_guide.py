"""The guide's Python runs, page by page, as a reader would type it."""

import re
from pathlib import Path

import pytest
from scripts import run

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


@pytest.mark.parametrize("page", sorted(GUIDE.glob("*.md")), ids=lambda page: page.name)
def test_python_runs(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    script = tmp_path / "guide.py"
    script.write_text("\n".join(blocks), "utf-8")
    done = run(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
