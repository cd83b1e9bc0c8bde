"""Where frames and news go: an HTTP address, or a Python function that the configuration allows.

A function itself can be handed over only by who runs in this process.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from nightglass.builder.callables import find_callable, is_callable_name
from nightglass.config import choose
from nightglass.errors import Misconfigured

__all__ = ["Target", "find_target", "kept_target"]

_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Target:
    """Who gets something.

    Attributes
    ----------
    name : str
        For people, without secrets.
    source : str
        From which it is found again after a restart: an address or ``module:function``; empty where it can't be.
    """

    name: str
    source: str
    url: str = ""
    function: Callable[..., Any] | None = None


def find_target(wanted: str | Callable[..., Any], *, known: Mapping[str, str], allowed: Sequence[str]) -> Target:
    """Find who is meant.

    Parameters
    ----------
    wanted : str or callable
        A name of `known`, an address, ``module:function``, the name of an entry point of the group
        ``nightglass.callables``, or a function.
    known : mapping of str to str
        Configured names, each with an address or ``module:function``.
    allowed : sequence of str
        As `nightglass.builder.callables.find_callable` wants it.

    Raises
    ------
    Misconfigured
        If nobody of that name is known, or it may not be called.
    """
    if not isinstance(wanted, str):
        return _of_function(wanted)
    source = known.get(wanted, wanted)
    if _is_url(source):
        return Target(wanted if wanted in known else _without_secrets(source), source, url=source)
    try:
        return Target(wanted, source, function=find_callable(source, allowed))
    except Misconfigured:
        if is_callable_name(source) or not known:
            raise
    choose(wanted, known, what="receiver")
    raise AssertionError(wanted)


def kept_target(source: str, *, name: str, allowed: Sequence[str]) -> Target:
    """Return the target of a source that was kept over a restart: one that was allowed, or handed over, before.

    Raises
    ------
    Misconfigured
        If it cannot be loaded.
    """
    if _is_url(source):
        return Target(name, source, url=source)
    try:
        return Target(name, source, function=find_callable(source, allowed))
    except Misconfigured:
        return Target(name, source, function=_imported(source))


def _imported(source: str) -> Callable[..., Any]:
    module, _, name = source.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"{source!r} cannot be imported: {error}"
        raise Misconfigured(message, remedy="check that it is installed, and its name") from error
    if not callable(found):
        message = f"{source!r} is a {type(found).__name__}, not a function"
        raise Misconfigured(message, remedy="name a function")
    return found  # type: ignore[no-any-return]


def _of_function(function: Callable[..., Any]) -> Target:
    source = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        importable = not source.startswith("__main__") and _imported(source) is function
    except Misconfigured:
        importable = False
    return Target(source.rpartition(":")[2] or repr(function), source if importable else "", function=function)


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in _SCHEMES and bool(parts.hostname)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
