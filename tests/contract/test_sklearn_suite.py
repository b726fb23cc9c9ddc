"""scikit-learn's own suite.

On the language model itself one check runs, since all others need rows of numbers; its text
versions are in `test_text_checks`. The whole suite runs on `RowsAsText`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rows_as_text import RowsAsText
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from lstmlm import LSTMLanguageModel

# Sizes and a pace with which predicted texts differ from row to row.
SMALL = {
    "hidden_size": 8,
    "max_epochs": 6,
    "learning_rate": 0.1,
    "batch_size": 4,
    "generation_config": {"max_new_tokens": 6},
    "device": "cpu",
    "random_state": 0,
}
ADAPTED = [
    RowsAsText(tokenizer="char", **SMALL),
    RowsAsText(cell="gru", output="adaptive", **SMALL),
    RowsAsText(cell="peephole_lstm", **SMALL),
]


def checks_of(*estimators):
    """Return scikit-learn's mark with its list written out, which version 1.8 yields one by one."""
    mark = parametrize_with_checks(list(estimators))
    return pytest.mark.parametrize(mark.args[0], list(mark.args[1]), **mark.kwargs)


with pytest.warns(SkipTestWarning, match=r"^Can't test estimator LSTMLanguageModel which requires"):
    on_texts = checks_of(LSTMLanguageModel())


@on_texts
def test_what_needs_no_rows_of_numbers(estimator, check):
    check(estimator)


@checks_of(*ADAPTED)
def test_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("lm", ADAPTED, ids=lambda lm: f"{lm.tokenizer} {lm.cell}")
def test_the_adapter_gives_the_checks_something_to_compare(lm):
    rows = 3 * np.random.RandomState(0).uniform(size=(20, 3))  # as the suite draws them
    lm.fit(rows)
    assert len(set(lm.predict(rows))) > 1
    assert len(set(lm.score_samples(rows))) == 20


EVERY_CHECK = """
from collections import Counter
from sklearn.utils.estimator_checks import check_estimator
from test_sklearn_suite import ADAPTED

for lm in ADAPTED:
    results = check_estimator(lm, on_skip=None)
    print(dict(Counter(result["status"] for result in results)))
"""


def test_no_check_is_skipped_or_expected_to_fail(record_property):
    """The one check that is else skipped asks for SciPy's support of the array API."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERY_CHECK],
        env=os.environ
        | {
            "SCIPY_ARRAY_API": "1",
            "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts = [eval(line) for line in done.stdout.splitlines()]
    assert len(counts) == len(ADAPTED)
    assert all(set(count) == {"passed"} and count["passed"] > 40 for count in counts), counts
    record_property("scikit-learn's checks", counts)
