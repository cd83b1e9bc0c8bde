"""Legacy ``.log`` files of AstroPix: text that older programs read with `eval`, and this does not.

=========================== ==========================================================================
line                        content
=========================== ==========================================================================
``<Name>: {...}``           a part of the configuration, as Python writes a dict; six of them as a rule
`` Namespace(...)``         the options of the program, as Python writes an `argparse.Namespace`
``<id><TAB>b'<hex>'``       a readout: its number, and its bytes in hexadecimal
=========================== ==========================================================================

Nothing in such a file is executed: literals are read, calls are not made. There are no time stamps. At high rates the
program that wrote it lost half of the last byte; that byte is left out, the hits before it are whole.

The layout is that of astropix-analysis (`astropix_analysis/legacy.py`).
"""

from __future__ import annotations

import ast
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightglass.errors import Rejected, Retryable
from nightglass.streams.astropix.apx import READOUT_UID_V4
from nightglass.streams.astropix.packet import MAX_READOUT_BYTES, Readout

__all__ = ["LegacyLog"]

_MAX_LINE = 4 * MAX_READOUT_BYTES
_MAX_HEADER_LINES = 64
_READOUT = re.compile(r"\s*(\d{1,10})\t\s*b?(['\"]?)([0-9a-fA-F]*)\2\s*")
_NAMED = re.compile(r"\s*([A-Za-z_][\w .-]{0,63}?)\s*:\s*(\{.*\})\s*", re.DOTALL)
_OPTIONS = re.compile(r"\s*(Namespace\(.*\))\s*", re.DOTALL)
_PADDING = b"\xff"


@dataclass(slots=True)
class _Counts:
    half_bytes: int = 0
    bad_lines: int = 0


class LegacyLog:
    """Reads a legacy file; an iterable of readouts.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    header : dict
        What an ``.apx`` file made of this one would have: the parts by name, and the options under ``args``.
    half_bytes : int
        Readouts whose last byte was not whole, up to now.
    bad_lines : int
        Lines that are no readout, up to now.

    Raises
    ------
    Rejected
        If it is no such file.
    Retryable
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts = _Counts()
        self._skip = 0
        self.header: dict[str, Any] = {"readout_uid": READOUT_UID_V4}
        readouts = False
        for number, line in enumerate(self._lines()):
            readouts = _READOUT.fullmatch(line) is not None
            if readouts or number >= _MAX_HEADER_LINES:
                break
            self._skip = number + 1
            if line.strip():
                self.header |= self._configuration(line, number + 1)
        if not readouts and len(self.header) == 1:
            message = f"{path} is no AstroPix log: it has neither configuration nor readouts"
            raise Rejected(message, remedy="look at what wrote it; the program's own log has the same suffix")

    @property
    def half_bytes(self) -> int:
        """Readouts whose last byte was not whole, up to now."""
        return self._counts.half_bytes

    @property
    def bad_lines(self) -> int:
        """Lines that are no readout, up to now."""
        return self._counts.bad_lines

    def __iter__(self) -> Iterator[Readout]:
        self._counts = _Counts()
        for number, line in enumerate(self._lines()):
            if number < self._skip or not line.strip():
                continue
            found = _READOUT.fullmatch(line)
            if found is None or int(found[1]) >= 1 << 32:
                self._counts.bad_lines += 1
                continue
            digits = found[3]
            self._counts.half_bytes += len(digits) % 2
            data = binascii.unhexlify(digits[: len(digits) // 2 * 2])
            yield Readout(int(found[1]), 0, _without_padding(data))

    def _lines(self) -> Iterator[str]:
        """Yield lines; of one that is longer than any readout only the beginning is looked at."""
        try:
            with self._path.open("r", encoding="ascii", errors="replace") as stream:
                while line := stream.readline(_MAX_LINE):
                    yield line
                    while not line.endswith("\n") and (line := stream.readline(_MAX_LINE)):
                        pass
        except OSError as error:
            message = f"{self._path} cannot be read: {error.strerror}"
            raise Retryable(message, remedy="check the name and the rights of the file") from error

    def _configuration(self, line: str, number: int) -> dict[str, Any]:
        named, options = _NAMED.fullmatch(line), _OPTIONS.fullmatch(line)
        try:
            if named:
                return {named[1]: _plain(ast.literal_eval(named[2]))}
            if options:
                return {"args": _plain(_namespace(options[1]))}
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            message = f"{self._path}, line {number}: configuration cannot be read: {type(error).__name__}"
            raise Rejected(message, remedy="only literals are read: numbers, texts, lists and dicts") from error
        message = f"{self._path}, line {number}: {line.strip()[:60]!r} is neither configuration nor a readout"
        raise Rejected(message, remedy="this is no AstroPix data log, or it is damaged")


def _namespace(text: str) -> dict[str, Any]:
    """Return the keywords of what looks like a call, each a literal."""
    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
        message = "no plain Namespace"
        raise ValueError(message)
    return {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}


def _plain(value: Any) -> Any:
    """Return a literal as JSON has it: bytes, sets and complex numbers as text, keys as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    return repr(value)


def _without_padding(data: bytes) -> bytes:
    """Cut the padding off, but for seven bytes that may be the end of a hit."""
    short = data.rstrip(_PADDING)
    return data[: len(short) + 7]
