"""Functions that configuration names as ``module:function``: pull sources, receivers, hooks.

Whoever may send commands to a builder may name a target, so only what the observatory file lists is ever imported: the
option ``callables``, or an entry point of the group ``nightglass.callables`` of an installed distribution.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from nightglass.errors import Misconfigured

__all__ = ["find_callable", "is_callable_name"]

_GROUP = "nightglass.callables"
_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def is_callable_name(target: str) -> bool:
    """Tell whether a target is written as ``module:function``."""
    return _TARGET.fullmatch(target) is not None


def find_callable(target: str, allowed: Sequence[str]) -> Callable[..., Any]:
    """Import a function.

    Parameters
    ----------
    target : str
        ``module:function``, or the name of an entry point.
    allowed : sequence of str
        Modules (what is inside of them, too) and functions that may be imported.

    Raises
    ------
    Misconfigured
        If it may not be imported, cannot be, or is none.
    """
    for found in entry_points(group=_GROUP):
        if target in (found.name, found.value):
            return _callable(target, found.load)
    match = _TARGET.fullmatch(target)
    if match is None:
        message = f"{target!r} is no function"
        raise Misconfigured(message, remedy="write it as module:function")
    module, name = match.groups()
    if not any(target == item or module == item or module.startswith(f"{item}.") for item in allowed):
        message = f"{target!r} may not be called"
        raise Misconfigured(message, remedy=f"add {module!r} to callables of the builder in the observatory file")
    return _callable(target, lambda: getattr(importlib.import_module(module), name))


def _callable(target: str, load: Callable[[], Any]) -> Callable[..., Any]:
    try:
        function = load()
    except Exception as error:
        message = f"{target!r} cannot be imported: {type(error).__name__}: {error}"
        raise Misconfigured(message, remedy="check that it is installed, and its name") from error
    if not callable(function):
        message = f"{target!r} is a {type(function).__name__}, not a function"
        raise Misconfigured(message, remedy="name a function")
    return function  # type: ignore[no-any-return]
