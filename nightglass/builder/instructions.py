"""Control words: what a trigger wants to be done, whether it says so in a block of its own or in a header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from astropy.io import fits

from nightglass.builder.records import Instructions
from nightglass.config import choose
from nightglass.errors import Misconfigured

__all__ = ["instructions_in", "instructions_of", "merged"]

_SYNONYMS: Final = {"ib_send_to": "send_to", "ib_local_copy": "local_copy", "exptime": "exptime_s"}
_WITHOUT_EFFECT: Final = frozenset({"expid", "frame", "send_args", "autotrieddark", "autotriedbias"})
_NOT_IN_HEADERS: Final = frozenset({"exptime_s", "exptime", "rois", "use_donut"})
_LISTS: Final = frozenset({"send_to", "cb_args", "archive_primary", "archive_secondary", "archive_metadata", "rois"})
_SWITCHES: Final = frozenset({"local_copy", "compress", "mem_purge", "file_purge", "use_donut"})
_NUMBERS: Final = frozenset({"mem_purge_threshold", "frame_purge_threshold", "file_purge_threshold"})
_FIELDS: Final = frozenset(item.name for item in fields(Instructions))
_TRUE, _FALSE = frozenset({"t", "true", "1", "yes"}), frozenset({"f", "false", "0", "no"})
_BETWEEN = re.compile(r"[,\s]+")

_IN_HEADERS: Final = (_FIELDS | set(_SYNONYMS) | _WITHOUT_EFFECT) - _NOT_IN_HEADERS
"""Keywords of headers that are instructions; `nightglass.builder.cards` leaves them out of what is written."""


def instructions_of(values: Mapping[str, Any], *, where: str = "instructions") -> Instructions:
    """Read a block of instructions.

    Raises
    ------
    Misconfigured
        If a word is unknown (the closest known one is named), or its value does not fit.
    """
    known = sorted(_FIELDS | set(_SYNONYMS) | _WITHOUT_EFFECT)
    said: dict[str, Any] = {}
    for key, value in values.items():
        word = choose(str(key).lower(), known, what=f"instruction (in {where})")
        if word not in _WITHOUT_EFFECT and value is not None:
            name = _SYNONYMS.get(word, word)
            said[name] = _typed(name, value, where)
    return Instructions(**said)


def instructions_in(header: Mapping[str, Any] | fits.Header) -> Instructions:
    """Read the control words among the keywords of a header; all others are left alone.

    Raises
    ------
    Misconfigured
        If the value of one does not fit.
    """
    found = {str(key): _value(header[key]) for key in header if str(key).lower() in _IN_HEADERS}
    said = instructions_of(found, where="header")
    exposure_time = next((_value(header[key]) for key in header if str(key).upper() == "EXPTIME"), None)
    if isinstance(exposure_time, (int, float)) and not isinstance(exposure_time, bool) and 0 <= exposure_time < 1e6:
        said = replace(said, exptime_s=float(exposure_time))
    return said


def merged(first: Instructions, *later: Instructions) -> Instructions:
    """Lay instructions over one another: what is said later counts."""
    for item in later:
        said = {name: value for name in _FIELDS if (value := getattr(item, name)) is not None}
        first = replace(first, **said)
    return first


def _value(value: Any) -> Any:
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], str)
    return value[0] if pair and not isinstance(value[0], (list, tuple)) else value


def _typed(name: str, value: Any, where: str) -> Any:
    if name == "rois":
        if isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value):
            return tuple(dict(item) for item in value)
    elif name in _LISTS:
        entries = _BETWEEN.split(value.strip()) if isinstance(value, str) else value
        if isinstance(entries, (list, tuple)):
            return tuple(item for item in entries if item != "")
    elif name in _SWITCHES:
        text = str(value).strip().lower()
        if text in _TRUE | _FALSE:
            return text in _TRUE
    elif name in _NUMBERS:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    elif name == "exptime_s":
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e6:
            return float(value)
    elif isinstance(value, str) and len(value) <= 4096:
        return value
    message = f"{where}: {name} is {value!r}"
    raise Misconfigured(message, remedy="see what the option of this name takes")
