"""Names of sources: what an image is called in a cube, from what its file calls it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from nightglass.config import Camera
from nightglass.cubes.lookup import FileHeaders
from nightglass.cubes.records import CubeRequest
from nightglass.fitsio.cards import Scalar

__all__ = ["MAX_NAME", "SourceNames", "safe_name"]

MAX_NAME: Final = 56
"""Characters of a name: with the letter of its table and a number it still fits into one card."""
_MEANINGLESS: Final = frozenset({"", "PRIMARY", "COMPRESSED_IMAGE", "IMAGE", "UNNAMED"})
"""EXTNAMEs that writers put in by themselves."""
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


def safe_name(text: str) -> str:
    """Return text as it can stand in EXTNAME; a long one is cut, and stays different from others."""
    name = " ".join(_UNPRINTABLE.sub("?", text).replace("'", "-").split())
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}_{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


class SourceNames:
    """Names the images of files, each in the same way."""

    def __init__(self, request: CubeRequest, camera: Camera | None, headers: FileHeaders) -> None:
        self._names = {key.strip().upper(): name for key, name in request.source_names.items()}
        self._role = request.role.upper()
        self._headers = headers
        self._detectors = camera.detectors if camera else ()
        self._columns = list(headers.columns(camera.header.detector).values()) if camera else []
        self._spelling: dict[str, str] = {}
        self._plain: dict[tuple[Scalar, int], str] = {}

    def name(self, file: int, hdu: int, extname: Scalar, *, empty_primary: bool, only: bool) -> str:
        """Return the name of the source of an image.

        Parameters
        ----------
        extname : Scalar
            EXTNAME of its HDU.
        empty_primary : bool
            Whether the file has no pixels in its primary HDU; compressing a file with fpack moves them to HDU 1.
        only : bool
            Whether it is the only image of its file.
        """
        number = hdu - 1 if empty_primary else hdu
        known = self._plain.get((extname, number))
        if known is not None:
            return known
        text = "" if extname is None else str(extname)
        if text.upper() in self._names:
            return self._spell(self._names[text.upper()])
        if text.upper() not in _MEANINGLESS:
            return self._spell(text)
        known = self._names.get("") or self._detector(file, hdu, number, only=only)
        name = self._spell(known or f"{self._role}{number}")
        if not self._columns and not self._detectors:
            self._plain[extname, number] = name
        return name

    def _detector(self, file: int, hdu: int, number: int, *, only: bool) -> str:
        """Return the camera's name for the detector in an HDU, empty where it has none."""
        mine = [detector.name for detector in self._detectors if detector.hdu in (hdu, number)]
        stated = self._stated(file, hdu)
        if len(mine) == 1:
            return mine[0]
        for name in mine:  # each in a file of its own: a keyword says which
            if name.casefold() == stated.casefold():
                return name
        return stated if only else ""

    def _stated(self, file: int, hdu: int) -> str:
        places = (self._headers.place(file, hdu), self._headers.place(file))
        values: Sequence[Scalar] = [column[place] for column in self._columns for place in places]
        return next((str(value) for value in values if value is not None), "")

    def _spell(self, name: str) -> str:
        """Return the name as it was first written: readers do not tell capitals from small letters."""
        safe = self._spelling.get(name)
        if safe is None:
            safe = safe_name(name) or f"{self._role}0"
            safe = self._spelling[name] = self._spelling.setdefault(safe.upper(), safe)
        return safe
