"""Where frames and news go: an HTTP address, or a Python function by its name; never code that a request names.

From outside a target is an ``http(s)`` address, a name of the configuration, or the name of an entry point that is
installed on this machine. A function itself can be handed over only by who runs in this process.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final
from urllib.parse import urlsplit

from nightglass.config import choose
from nightglass.errors import Misconfigured

__all__ = ["Target", "find_target", "load_function", "same_target"]

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


def find_target(wanted: str | Callable[..., Any], *, known: Mapping[str, str], group: str) -> Target:
    """Find who is meant.

    Parameters
    ----------
    wanted : str or callable
        An address, a name of `known` or of an entry point, ``module:function`` if one of these is that, or a function.
    known : mapping of str to str
        The configured names, each with an address or ``module:function``.
    group : str
        Entry points that may be named.

    Raises
    ------
    Misconfigured
        If nobody of that name is known, or it cannot be loaded.
    """
    if not isinstance(wanted, str):
        return _of_function(wanted)
    if wanted in known:
        return same_target(known[wanted], name=wanted)
    if _is_url(wanted):
        return same_target(wanted)
    installed = {entry.name: entry.value for entry in entry_points(group=group)}
    if wanted in installed:
        return same_target(installed[wanted], name=wanted)
    if wanted in {*known.values(), *installed.values()}:
        return same_target(wanted)
    choose(wanted, {*known, *installed}, what=f"{group.rpartition('.')[2].rstrip('s')} (or address with http://)")
    raise AssertionError(wanted)


def same_target(source: str, *, name: str = "") -> Target:
    """Return the target of a source that was trusted before.

    Raises
    ------
    Misconfigured
        If it cannot be loaded.
    """
    if _is_url(source):
        parts = urlsplit(source)
        host = parts.netloc.rpartition("@")[2]
        return Target(name or f"{parts.scheme}://{host}{parts.path}", source, url=source)
    return Target(name or source, source, function=load_function(source))


def load_function(source: str) -> Callable[..., Any]:
    """Import ``module:function``.

    Raises
    ------
    Misconfigured
        If there is no such function.
    """
    module, colon, name = source.partition(":")
    try:
        if not colon or not module or not name:
            raise ValueError(source)
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"{source!r} is no function that can be imported: {error}"
        raise Misconfigured(message, remedy="write it as module:function, and install its package") from error
    if not callable(found):
        message = f"{source!r} is a {type(found).__name__}, not a function"
        raise Misconfigured(message, remedy="write it as module:function")
    return found  # type: ignore[no-any-return]


def _of_function(function: Callable[..., Any]) -> Target:
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    source = f"{module}:{name}"
    try:
        importable = module != "__main__" and load_function(source) is function
    except Misconfigured:
        importable = False
    return Target(name or repr(function), source if importable else "", function=function)


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in _SCHEMES and bool(parts.hostname)
