"""Regions of interest: which parts of which extensions are cut out of every frame."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from nightglass.config import choose
from nightglass.errors import Misconfigured, Rejected
from nightglass.fitsio import write_atomic

__all__ = ["Roi", "RoiTable", "parse_rois"]

_log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[A-Z0-9_-]{1,32}")
_MOST: Final = 1024
_LARGEST: Final = 4096
_FARTHEST: Final = 1_000_000
_DEFAULT_SIDE: Final = 50
_EXPOSURES: Final = 64
"""Exposures whose own regions are remembered."""
_ALIASES: Final = {"extname": "extension", "ext": "extension", "source": "extension", "col": "x", "row": "y"}
_KEYS: Final = ("extension", "height", "name", "size", "width", "x", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roi:
    """One region.

    Attributes
    ----------
    name : str
        EXTNAME of its stamps: ``GUIDE5_0``.
    x, y : int
        Its centre, FITS pixels: 1 is the first.
    width, height : int
        Pixels.
    """

    name: str
    extension: str
    x: int
    y: int
    width: int = _DEFAULT_SIDE
    height: int = _DEFAULT_SIDE

    def place(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Return rows and columns of an image of this shape; what lies outside is cut off."""
        left, bottom = self.x - 1 - self.width // 2, self.y - 1 - self.height // 2
        rows = slice(max(bottom, 0), min(max(bottom + self.height, 0), shape[0]))
        return rows, slice(max(left, 0), min(max(left + self.width, 0), shape[1]))


def parse_rois(rois: Sequence[Mapping[str, Any]]) -> tuple[Roi, ...]:
    """Make regions of what came from outside; those without a name are numbered within their extension.

    Raises
    ------
    Misconfigured
        If a key is unknown, or a value makes no sense.
    """
    if len(rois) > _MOST:
        message = f"{len(rois)} regions are more than {_MOST}"
        raise Misconfigured(message, remedy="give fewer")
    counts: Counter[str] = Counter()
    found: list[Roi] = []
    for number, given in enumerate(rois):
        where = f"region {number}"
        values = {choose(_ALIASES.get(str(key), str(key)), _KEYS, what="key of a region"): given[key] for key in given}
        extension = str(values.get("extension", "")).upper()
        side = values.get("size", _DEFAULT_SIDE)
        name = str(values.get("name") or f"{extension}_{counts[extension]}").upper()
        counts[extension] += 1
        if not _NAME.fullmatch(extension) or not _NAME.fullmatch(name):
            message = f"{where}: {extension!r} or {name!r} is no name of an extension"
            raise Misconfigured(message, remedy="letters, digits, _ and -, at most 32")
        roi = Roi(
            name=name,
            extension=extension,
            x=_whole(values.get("x"), f"{where}: x", -_FARTHEST, _FARTHEST),
            y=_whole(values.get("y"), f"{where}: y", -_FARTHEST, _FARTHEST),
            width=_whole(values.get("width", side), f"{where}: width", 1, _LARGEST),
            height=_whole(values.get("height", side), f"{where}: height", 1, _LARGEST),
        )
        found.append(roi)
    names = Counter(roi.name for roi in found)
    for name, count in names.items():
        if count > 1:
            message = f"{count} regions have the name {name!r}"
            raise Misconfigured(message, remedy="give each a name of its own")
    return tuple(found)


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, float) and value == value and abs(value) < _FARTHEST:
        value = round(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        message = f"{where} is {value!r}, not from {low} to {high}"
        raise Misconfigured(message, remedy="give whole pixels")
    return value


class RoiTable:
    """The regions of all exposures: defaults, and those that an exposure brings. Survives a restart.

    Parameters
    ----------
    path : Path
        ``<root>/run/rois-<name>.json``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rois: dict[str, tuple[Roi, ...]] = {}
        self._load()

    def accept(self, rois: Sequence[Mapping[str, Any]], expid: int | None) -> int:
        """Set the regions of an exposure, or (None) of all that bring none; returns how many.

        Raises
        ------
        Misconfigured
            If one makes no sense; nothing is changed then.
        """
        parsed = parse_rois(rois)
        key = "" if expid is None else str(expid)
        with self._lock:
            if self._rois.get(key) == parsed:
                return len(parsed)
            self._rois.pop(key, None)
            self._rois[key] = parsed
            own = [name for name in self._rois if name]
            for name in own[: max(len(own) - _EXPOSURES, 0)]:
                del self._rois[name]
            self._save()
        return len(parsed)

    def of(self, expid: int) -> tuple[Roi, ...]:
        """Return the regions of an exposure."""
        with self._lock:
            own = self._rois.get(str(expid))
            return self._rois.get("", ()) if own is None else own

    def forget(self, expid: int) -> None:
        """Let an exposure have the regions of all that bring none."""
        with self._lock:
            if self._rois.pop(str(expid), None) is not None:
                self._save()

    def _save(self) -> None:
        record = {key: [asdict(roi) for roi in rois] for key, rois in self._rois.items()}
        with write_atomic(self._path) as part:
            part.write_text(json.dumps(record))

    def _load(self) -> None:
        try:
            record = json.loads(self._path.read_text())
            self._rois = {str(key): parse_rois(rois) for key, rois in record.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError, Misconfigured, Rejected) as error:
            _log.warning("%s cannot be read, its regions are lost: %s", self._path, error)
