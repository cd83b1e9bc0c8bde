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

__all__ = ["holds_list", "instructions_in", "instructions_of", "is_control_word", "merged"]

_SYNONYMS: Final = {"ib_send_to": "send_to", "ib_local_copy": "local_copy", "exptime": "exptime_s"}
_WITHOUT_EFFECT: Final = frozenset({"expid", "frame", "send_args", "autotrieddark", "autotriedbias"})
_NOT_IN_HEADERS: Final = frozenset({"exptime_s", "exptime", "rois", "use_donut"})
_LISTS: Final = frozenset({"send_to", "cb_args", "archive_primary", "archive_secondary", "archive_metadata", "rois"})
_SWITCHES: Final = frozenset({"local_copy", "compress", "mem_purge", "file_purge", "use_donut"})
_NUMBERS: Final = frozenset({"mem_purge_threshold", "frame_purge_threshold", "file_purge_threshold"})
_FIELDS: Final = frozenset(item.name for item in fields(Instructions))
_TRUE, _FALSE = frozenset({"t", "true", "1", "yes"}), frozenset({"f", "false", "0", "no"})
_LONGEST: Final = 4096
_LONGEST_S: Final = 1e6
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
    words = {str(key): header[key] for key in header if is_control_word(str(key))}
    found = {key: value if holds_list(key) else _value(value) for key, value in words.items()}
    said = instructions_of(found, where="header")
    exposure_time = next((_value(header[key]) for key in header if str(key).upper() == "EXPTIME"), None)
    return replace(said, exptime_s=_seconds(exposure_time))


def is_control_word(keyword: str) -> bool:
    """Tell whether a keyword of a header is an instruction."""
    return keyword.lower() in _IN_HEADERS


def holds_list(keyword: str) -> bool:
    """Tell whether a keyword of a header is an instruction that may be a list, and so no card."""
    word = keyword.lower()
    return is_control_word(word) and _SYNONYMS.get(word, word) in _LISTS


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
    """Return a value as its field holds it; a header holds lists and switches as text."""
    made: Any = None
    if name == "rois":
        made = _regions(value)
    elif name in _LISTS:
        entries = _BETWEEN.split(value.strip()) if isinstance(value, str) else value
        made = tuple(item for item in entries if item != "") if isinstance(entries, (list, tuple)) else None
    elif name in _SWITCHES:
        text = str(value).strip().lower()
        made = text in _TRUE if text in _TRUE | _FALSE else None
    elif name in _NUMBERS:
        made = value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
    elif name == "exptime_s":
        made = _seconds(value)
    elif isinstance(value, str) and len(value) <= _LONGEST:
        made = value
    if made is None:
        message = f"{where}: {name} is {value!r}"
        raise Misconfigured(message, remedy="see what the option of this name takes")
    return made


def _regions(value: Any) -> tuple[dict[str, Any], ...] | None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
        return None
    return tuple(dict(item) for item in value)


def _seconds(value: Any) -> float | None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LONGEST_S
    return float(value) if fine else None
