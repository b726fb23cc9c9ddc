"""The exceptions of lstmlm, drawn as a tree.

::

    LstmlmError
    ├── ParameterError      (ValueError)         a parameter or option is unknown or out of range
    ├── TextError           (ValueError)         texts that cannot be used: none, a bare string
    ├── TextTypeError       (TypeError)          something among the texts is not a str
    ├── DivergenceError     (FloatingPointError) a training's loss stopped being finite
    ├── ModelFolderError    (ValueError)         a folder that is no model, or a damaged one
    ├── SessionStateError   (ValueError)         no state of a session, or of another model's
    ├── SessionClosedError  (RuntimeError)       a session is fed after it was finished
    ├── CheckpointError     (OSError)            a checkpoint can't be written or read
    ├── JobError            (ValueError)         a job that can't begin here, or not be gone on with
    ├── InputFileError      (OSError)            a file of texts that can't be read
    ├── DiskFullError       (OSError)            no room for the temporary files of a fit
    └── MissingExtraError   (ImportError)        a package that an extra brings isn't installed

Each class is also the built-in one that a caller without knowledge of lstmlm would catch.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LstmlmError(Exception):
    """Base of every exception that lstmlm raises on purpose."""


class ParameterError(LstmlmError, ValueError):
    """A parameter or an option is unknown, of the wrong type or out of its range."""


class TextError(LstmlmError, ValueError):
    """The texts cannot be used: there are none, or a bare string came in their place."""


class TextTypeError(LstmlmError, TypeError):
    """Something among the texts is not a str."""


class DivergenceError(LstmlmError, FloatingPointError):
    """The loss of a training is no longer finite."""


class ModelFolderError(LstmlmError, ValueError):
    """A folder does not hold a model that can be loaded, or may not be written to."""


class SessionStateError(LstmlmError, ValueError):
    """Bytes are not the state of a session, or of a session with another model."""


class SessionClosedError(LstmlmError, RuntimeError):
    """A session was fed, or asked, after it had been finished."""


class CheckpointError(LstmlmError, OSError):
    """A folder can't hold checkpoints, or a checkpoint in it is damaged."""


class JobError(LstmlmError, ValueError):
    """A file job can't begin where it shall, or can't be gone on with."""


class InputFileError(LstmlmError, OSError):
    """A file of texts can't be read, or is not what it is taken for."""


class DiskFullError(LstmlmError, OSError):
    """There is no room on the disk for a fit's temporary files."""


class MissingExtraError(LstmlmError, ImportError):
    """A package that is only installed with an extra of lstmlm is needed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for the known name nearest to `name`, or an empty string."""
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
