"""Every error of lstmlm is also the one of Python that a caller would catch."""

import pytest

from lstmlm import errors
from lstmlm.errors import did_you_mean

HOSTS = {
    errors.ParameterError: ValueError,
    errors.TextError: ValueError,
    errors.TextTypeError: TypeError,
    errors.DivergenceError: FloatingPointError,
    errors.ModelFolderError: ValueError,
    errors.CheckpointError: OSError,
    errors.InputFileError: OSError,
    errors.MissingExtraError: ImportError,
    errors.DiskFullError: OSError,
    errors.JobError: ValueError,
    errors.SessionClosedError: RuntimeError,
    errors.SessionStateError: ValueError,
}


@pytest.mark.parametrize("error", HOSTS, ids=lambda error: error.__name__)
def test_each_is_ours_and_the_hosts(error):
    assert issubclass(error, errors.LstmlmError)
    assert issubclass(error, HOSTS[error])
    assert str(error("what came and what is needed")) == "what came and what is needed"


def test_the_tree_in_the_docstring_is_whole():
    classes = {error.__name__ for error in errors.LstmlmError.__subclasses__()}
    assert classes == {error.__name__ for error in HOSTS}
    drawn = {line.split()[1] for line in errors.__doc__.splitlines() if "──" in line}
    assert drawn == classes


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("temprature", " Did you mean 'temperature'?"),
        ("top-k", " Did you mean 'top_k'?"),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(name, suggestion):
    assert did_you_mean(name, ["temperature", "top_k", "top_p"]) == suggestion
