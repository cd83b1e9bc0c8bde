r"""Bodies of several parts (``multipart/form-data``), taken apart as they come, in whatever pieces.

Format: RFC 2046, section 5.1, and RFC 7578. A part is its header lines, an empty line, and its content up to the next
delimiter, which is ``\r\n--boundary``; the last delimiter ends with ``--``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from nightglass.errors import Rejected

__all__ = ["Piece", "Splitter", "find_boundary"]

_LONGEST_HEAD = 8192
_BOUNDARY = re.compile(r"""boundary=(?:"([^"\r\n]{1,70})"|([A-Za-z0-9'()+_,./:=?-]{1,70}))""", re.IGNORECASE)
_NAME = re.compile(rb"""(?:;|^)\s*name="([^"\r\n]*)\"""", re.IGNORECASE)
_REMEDY = "send it as curl -F does: parts named header and data"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the content of a part.

    Attributes
    ----------
    name : str
        Of the part, from its ``Content-Disposition``.
    last : bool
        Whether the part ends with it.
    """

    name: str
    content: bytes
    last: bool = False


class _Place(enum.Enum):
    BEFORE = enum.auto()
    HEAD = enum.auto()
    CONTENT = enum.auto()
    AFTER = enum.auto()


class Splitter:
    """Eats bytes and gives pieces of parts; what it keeps is no longer than a head and a delimiter.

    Parameters
    ----------
    boundary : bytes
        As the content type names it.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._place = _Place.BEFORE
        self._rest = b"\r\n"  # the first delimiter has no line before it
        self._name = ""

    @property
    def ended(self) -> bool:
        """Whether the last delimiter was seen."""
        return self._place is _Place.AFTER

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Give the pieces that a chunk brings.

        Raises
        ------
        Rejected
            If this is no body of several parts.
        """
        self._rest = self._rest + chunk if self._rest else chunk
        while True:
            if self._place is _Place.BEFORE and not self._skip_preamble():
                return
            if self._place is _Place.HEAD and not self._read_head():
                return
            if self._place is _Place.AFTER:
                self._rest = b""
                return
            at = self._rest.find(self._delimiter)
            if at < 0:
                keep = len(self._delimiter) - 1
                if len(self._rest) > keep:
                    yield Piece(self._name, self._rest[:-keep])
                    self._rest = self._rest[-keep:]
                return
            yield Piece(self._name, self._rest[:at], last=True)
            self._rest = self._rest[at + len(self._delimiter) :]
            self._place = _Place.HEAD

    def _skip_preamble(self) -> bool:
        at = self._rest.find(self._delimiter)
        if at < 0:
            if len(self._rest) > _LONGEST_HEAD:
                message = "the body does not begin with its boundary"
                raise Rejected(message, remedy=_REMEDY)
            return False
        self._rest = self._rest[at + len(self._delimiter) :]
        self._place = _Place.HEAD
        return True

    def _read_head(self) -> bool:
        if len(self._rest) < 2:
            return False
        if self._rest.startswith(b"--"):
            self._place = _Place.AFTER
            return True
        at = self._rest.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
        if at < 0:
            if len(self._rest) > _LONGEST_HEAD:
                message = f"the head of a part is longer than {_LONGEST_HEAD} bytes"
                raise Rejected(message, remedy=_REMEDY)
            return False
        self._name = _name_in(self._rest[:at])
        self._rest = self._rest[at + 4 :]
        self._place = _Place.CONTENT
        return True


def find_boundary(content_type: str) -> bytes:
    """Return the boundary that a content type names.

    Raises
    ------
    Rejected
        If it names none.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        message = f"the content type {content_type[:80]!r} names no boundary"
        raise Rejected(message, remedy=_REMEDY)
    return (found[1] or found[2]).encode("latin-1", "replace")


def _name_in(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition" and (found := _NAME.search(value)):
            return found[1].decode("utf-8", "replace")
    message = "a part of the body has no name"
    raise Rejected(message, remedy=_REMEDY)
