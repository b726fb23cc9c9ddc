"""scikit-learn's ``random_state`` to a seed."""

from typing import Any

from sklearn.utils import check_random_state

from lstmlm.errors import ParameterError


def seed_of(random_state: Any) -> int:
    """Return a seed below 2**31 drawn from an int, a RandomState or None.

    Raises
    ------
    ParameterError
        If it is none of these, or an int outside 0 ... 2**32 - 1.
    """
    try:
        return int(check_random_state(random_state).randint(2**31))
    except ValueError as error:
        raise ParameterError(
            f"random_state={random_state!r} is not valid; random_state is an integer at least 0 "
            "and at most 4294967295, a numpy RandomState, or None."
        ) from error
