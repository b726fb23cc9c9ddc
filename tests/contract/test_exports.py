"""What lstmlm and its plugin export exists, is sorted, and is documented as its signatures are."""

import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest
import spacy_lstmlm
from numpydoc.docscrape import NumpyDocString

import lstmlm


def of_lstmlm(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).split(".")[0] in ("lstmlm", "spacy_lstmlm")


def exported() -> Iterator[tuple[str, object]]:
    """Yield every public class and function, those of exported modules among them."""
    for name in lstmlm.__all__:
        thing = getattr(lstmlm, name, None)
        if isinstance(thing, ModuleType):
            for inner, value in vars(thing).items():
                if not inner.startswith("_") and getattr(value, "__module__", "") == thing.__name__:
                    yield f"{name}.{inner}", value
        elif inspect.isclass(thing) or inspect.isfunction(thing):
            yield name, thing
    for name in spacy_lstmlm.__all__:
        yield f"spacy_lstmlm.{name}", getattr(spacy_lstmlm, name)


def documented() -> Iterator[object]:
    """Yield, as a test's parameters, all exported things and their own public members."""
    for name, thing in exported():
        yield pytest.param(thing, id=name)
        for member, raw in vars(thing).items() if inspect.isclass(thing) else ():
            value = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw
            function = value.fget if isinstance(value, property) else value
            if not member.startswith("_") and inspect.isfunction(function) and of_lstmlm(function):
                yield pytest.param(value, id=f"{name}.{member}")


def parameters(thing: object) -> list[str]:
    """Return the parameters that a caller can pass; an exception's are its message alone."""
    if isinstance(thing, property) or (inspect.isclass(thing) and issubclass(thing, Exception)):
        return []
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    taken = inspect.signature(thing).parameters.values()
    return [stars.get(p.kind, "") + p.name for p in taken if p.name not in ("self", "cls")]


def test_all_is_sorted_and_importable():
    for package in (lstmlm, spacy_lstmlm):
        assert list(package.__all__) == sorted(package.__all__)
    assert [name for name in lstmlm.__all__ if not hasattr(lstmlm, name)] == []


@pytest.mark.parametrize("thing", list(documented()))
def test_docstring_names_the_parameters(thing):
    doc = inspect.cleandoc(thing.__doc__ or "")
    assert doc, "has no docstring"
    listed = [name for entry in NumpyDocString(doc)["Parameters"] for name in entry.name.split(",")]
    assert [name.strip() for name in listed] == parameters(thing)
