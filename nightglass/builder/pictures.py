"""Pictures of frames: one PNG an extension, or one of all of them side by side."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nightglass.builder.records import ExtensionRecord
from nightglass.builder.tiles import find_planes
from nightglass.config import BuilderOptions, Limits, choose
from nightglass.cubes.converting import read_plane
from nightglass.cubes.records import PixelFormat
from nightglass.errors import Misconfigured, Retryable
from nightglass.fitsio import part_path
from nightglass.quicklook import LONGEST_SIDE, stretch

__all__ = ["PlotRules", "chosen", "draw", "physical"]

_GAP: Final = 4
_LINE: Final = 20
_MARGIN: Final = 6
_TITLE_SIZE: Final = 15
_NAME_SIZE: Final = 12
_NARROWEST: Final = 240
_STAMP_SIDE: Final = 200
"""Pixels to which smaller images are enlarged, by a whole factor."""
_WHITE, _GREY, _RED = (235, 235, 235), (150, 150, 150), (235, 70, 60)
_MODES: Final = ("EXTENSIONS", "ASSEMBLY")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotRules:
    """What a picture shows.

    Attributes
    ----------
    extensions : str
        ``ALL``, or names or shell patterns with commas between them; ``CIN`` and the like stand for all that begin so.
    mode : str
        ``EXTENSIONS``: a picture each; everything else: one of all.
    """

    extensions: str = "ALL"
    mode: str = "EXTENSIONS"
    title: bool = True
    subtitle: bool = True
    mark_center: bool = False

    @classmethod
    def of(cls, options: BuilderOptions, changes: Mapping[str, Any]) -> PlotRules:
        """Make them of the options for saved pictures, with changes that lack the word ``plot_``.

        Raises
        ------
        Misconfigured
            If a change has no meaning.
        """
        names = {"save_ext": "extensions", "save_mode": "mode", "ext": "extensions"}
        values: dict[str, Any] = {
            "extensions": options.plot_save_ext,
            "mode": options.plot_save_mode,
            "title": options.plot_title,
            "subtitle": options.plot_subtitle,
            "mark_center": options.plot_mark_center,
        }
        for key, value in changes.items():
            name = choose(names.get(key, key), values, what="option of pictures")
            if not isinstance(value, type(values[name])):
                message = f"plot option {key} is {value!r}"
                raise Misconfigured(message, remedy=f"give a {type(values[name]).__name__}")
            values[name] = value
        return cls(**values)

    @property
    def assembles(self) -> bool:
        """Whether all extensions come into one picture."""
        return self.mode.upper() != _MODES[0]


def chosen(extensions: Sequence[ExtensionRecord], wanted: str) -> tuple[ExtensionRecord, ...]:
    """Return the extensions that can be drawn and are wanted, in order."""
    drawable = [item for item in extensions if len(item.shape) >= 2 and all(item.shape)]
    patterns = [part.strip().upper() for part in wanted.split(",") if part.strip()]
    if not patterns or "ALL" in patterns:
        return tuple(drawable)
    return tuple(item for item in drawable if any(_fits(item.name, pattern) for pattern in patterns))


def draw(path: Path, extensions: Sequence[ExtensionRecord], rules: PlotRules, *, title: str, subtitle: str) -> Path:
    """Draw extensions side by side, and give the picture its name when it is whole.

    Raises
    ------
    Rejected
        If an extension is damaged.
    Retryable
        If the file system refuses.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    columns = math.ceil(math.sqrt(len(extensions)))
    longest = max(LONGEST_SIDE // columns, 64)
    cells = [_grey(item, longest) for item in extensions]
    height = max(cell.shape[0] for cell in cells) + _LINE * (len(cells) > 1)
    width = max(cell.shape[1] for cell in cells)
    rows = math.ceil(len(cells) / columns)
    top = _MARGIN + _LINE * (rules.title + rules.subtitle) if rules.title or rules.subtitle else 0
    size = (max(columns * (width + _GAP) - _GAP, _NARROWEST), top + rows * (height + _GAP) - _GAP)
    canvas = Pillow.new("RGB", size, (20, 20, 20))
    pen = ImageDraw.Draw(canvas)
    lines = [text for text, shown in ((title, rules.title), (subtitle, rules.subtitle)) if shown]
    for number, text in enumerate(lines):
        colour, letters = (_WHITE, _TITLE_SIZE) if number == 0 and rules.title else (_GREY, _NAME_SIZE)
        place = (_MARGIN, _MARGIN // 2 + number * _LINE)
        pen.text(place, _printable(text), fill=colour, font=ImageFont.load_default(letters))
    for number, (item, cell) in enumerate(zip(extensions, cells, strict=True)):
        left, upper = number % columns * (width + _GAP), top + number // columns * (height + _GAP)
        canvas.paste(Pillow.fromarray(cell).convert("RGB"), (left, upper))
        if rules.mark_center:
            _mark(pen, left + cell.shape[1] / 2, upper + cell.shape[0] / 2, min(cell.shape))
        if len(cells) > 1:
            place = (left + 2, upper + cell.shape[0] + 1)
            pen.text(place, _printable(item.name), fill=_GREY, font=ImageFont.load_default(_NAME_SIZE))
    part = part_path(path, f"w{os.getpid()}x{id(canvas) & 0xFFFFFFFF:08x}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(path.name)}.w*.part"):
            left.unlink(missing_ok=True)  # by who was killed: one builder at a time draws a frame
        canvas.save(part, format="PNG", compress_level=1)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        message = f"{path} cannot be written: {error.strerror or error}"
        raise Retryable(message, remedy="make room on the disk, and check the rights of the directory") from error
    return path


def physical(stored: NDArray[Any], pixels: PixelFormat) -> NDArray[np.float32]:
    """Return physical values of stored numbers; undefined ones are NaN."""
    values = stored.astype(np.float32)
    if pixels.bscale != 1:
        values *= np.float32(pixels.bscale)
    if pixels.bzero:
        values += np.float32(pixels.bzero)
    if pixels.blank is not None and pixels.bitpix > 0:
        values[stored == pixels.blank] = np.nan
    return values


def _grey(item: ExtensionRecord, longest: int) -> NDArray[np.uint8]:
    """Return grey levels of the last plane of an image, with row 1 at the bottom."""
    file, planes = find_planes(item.path, item.hdu, Limits())
    plane = planes[-1]
    factor = max(math.ceil(max(plane.shape) / longest), 1)
    reduced = _averaged(physical(read_plane(file, plane), plane.format), factor)
    enlarged = max(_STAMP_SIDE // max(reduced.shape), 1)  # so that something is seen of a postage stamp
    return np.ascontiguousarray(stretch(reduced)[::-1].repeat(enlarged, 0).repeat(enlarged, 1))


def _averaged(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    down, across = min(factor, values.shape[0]), min(factor, values.shape[1])
    if down == across == 1:
        return values
    rows, columns = values.shape[0] // down, values.shape[1] // across
    total = np.zeros((rows, columns), np.float32)
    for row in range(down):
        for column in range(across):
            total += values[row : rows * down : down, column : columns * across : across]
    total /= np.float32(down * across)
    return total


def _mark(pen: Any, x: float, y: float, side: int) -> None:
    arm, gap = max(side / 16, 6), max(side / 64, 2)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        pen.line((x + dx * gap, y + dy * gap, x + dx * arm, y + dy * arm), fill=_RED, width=1)


def _fits(name: str, pattern: str) -> bool:
    # CIN and CCDS0Z of control systems are the beginning of names
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}*")


def _printable(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:200]
