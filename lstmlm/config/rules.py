"""What a setting may be."""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from lstmlm.errors import ParameterError, did_you_mean

AUTO: Literal["auto"] = "auto"
Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a setting may be, and its help text.

    Parameters
    ----------
    help : str
        One line for the command line and the documentation.
    kind : type
        int, float, bool or str; an int is taken where a float is due.
    choices : tuple of str
        For str: the values allowed; empty for any.
    low, high : float, optional
        The range, ends included.
    above, below : float, optional
        The range, ends excluded.
    auto, optional : bool
        Whether ``"auto"`` and None are allowed.
    many : bool
        Whether the value is a sequence of such, kept as a tuple; a single one stands for itself.
    """

    help: str
    kind: type
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    auto: bool = False
    optional: bool = False
    many: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Return `value` as a plain Python value, or raise ParameterError naming what is due."""
        if (value is None and self.optional) or (self.auto and _is_auto(value)):
            return value
        plain = self._all_plain(value) if self.many else _plain(value, self.kind)
        if plain is None or not self._holds(plain):
            wrong = f"{name}={value!r} is not valid; {name} is {self.due()}."
            raise ParameterError(wrong + did_you_mean(str(value), self.choices))
        return plain

    def due(self) -> str:
        """Describe the allowed values in words."""
        if self.choices:
            kinds = [" or ".join(map(repr, self.choices))]
        else:
            named = {int: "an integer", float: "a number", bool: "True or False", str: "a str"}
            kinds = [" ".join([named[self.kind], *self._bounds()])]
        if self.many:
            whole = " that is not empty" if self.kind is str else ""
            kinds = [f"{kinds[0]}{whole}, or several"]
        if self.auto:
            kinds.append('"auto"')
        if self.optional:
            kinds.append("None")
        return ", or ".join(kinds)

    def _bounds(self) -> list[str]:
        words: list[str] = []
        for text, bound in (
            ("at least", self.low),
            ("greater than", self.above),
            ("at most", self.high),
            ("less than", self.below),
        ):
            if bound is not None:
                words.append(f"{'and ' if words else ''}{text} {bound}")
        return words

    def _all_plain(self, value: Any) -> tuple[Any, ...] | None:
        several = value if isinstance(value, list | tuple | set | frozenset) else (value,)
        plain = tuple(_plain(one, self.kind) for one in several)
        return None if any(one in (None, "") for one in plain) else plain

    def _holds(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(map(self._holds, value))
        if self.choices:
            return value in self.choices
        if self.kind not in (int, float):
            return True
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == AUTO


def _plain(value: Any, kind: type) -> Any:
    """Return `value` as a plain `kind`, None where it is none; numpy's scalars are taken."""
    if kind is str:
        return str(value) if isinstance(value, str) else None
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind is bool:
        return bool(value) if is_bool else None
    due = numbers.Integral if kind is int else numbers.Real
    return kind(value) if isinstance(value, due) and not is_bool else None


def setting(default: Any, help: str, kind: type, **rule: Any) -> Any:
    """Make a dataclass field that carries its `Rule`."""
    return field(default=default, metadata={"rule": Rule(help=help, kind=kind, **rule)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the groups of settings: checks each field against its rule when it is made."""

    def __post_init__(self) -> None:
        for name, rule in self.rules().items():
            object.__setattr__(self, name, rule.check(name, getattr(self, name)))

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Return each field's rule by the field's name."""
        return {f.name: f.metadata["rule"] for f in fields(cls)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Take from a larger mapping the fields that belong here."""
        return cls(**{name: values[name] for name in cls.rules() if name in values})
