"""The base of every configuration model, and the loading of TOML into it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nightglass.errors import Misconfigured

__all__ = ["Section", "choose", "load_toml", "validate"]


class Section(BaseModel):
    """A frozen table of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


S = TypeVar("S", bound=Section)


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    Misconfigured
        If the file is missing or is not TOML.
    """
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        message = f"configuration file {path} does not exist"
        raise Misconfigured(message) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        message = f"configuration file {path} cannot be read: {error}"
        raise Misconfigured(message) from error


def validate(model: type[S], values: Mapping[str, Any], *, where: str) -> S:
    """Make a model of plain values, and say what to do about each value that does not fit.

    Raises
    ------
    Misconfigured
        With one line a problem; an unknown key names the closest known one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_describe(model, problem) for problem in error.errors()]
        message = f"{where}: " + "; ".join(problems)
        raise Misconfigured(message) from None


_FEW = 12
"""So many choices can be read."""


def choose(name: str, choices: Iterable[str], *, what: str) -> str:
    """Return name if it is one of the choices.

    Raises
    ------
    Misconfigured
        Naming the closest choice, and all of them where they are few or none is close.
    """
    known = sorted(choices)
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    message = f"there is no {what} {name!r}"
    if close and len(known) > _FEW:
        raise Misconfigured(message, remedy=f"did you mean {close[0]!r}?")
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise Misconfigured(message, remedy=f"{hint}choices: {', '.join(known) or 'none'}")


def _describe(model: type[BaseModel], problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":  # our own words, which name the value
        return f"{place or 'the file'}: {problem['ctx']['error']}"
    if problem["type"] != "extra_forbidden":
        return f"{place or 'the file'}: {problem['msg']} (got {problem['input']!r})"
    known = sorted(_fields_at(model, problem["loc"][:-1]))
    close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key {place!r}, {hint}"


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """Follow a location of a pydantic error to the model in which the unknown key stood."""
    current = model
    for part in location:
        info = current.model_fields.get(str(part))
        if info is None:
            continue  # an index of a list or a key of a mapping: the model stays
        current = _model_in(info.annotation) or current
    return set(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
