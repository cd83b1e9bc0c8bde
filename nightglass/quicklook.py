"""Quick looks: one small labelled PNG an exposure."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightglass.image import Image
from nightglass.model import DQ, ExposureRef, Quality

__all__ = ["LONGEST_SIDE", "label", "picture", "stretch", "write_quicklook"]

LONGEST_SIDE = 1024
"""Pixels of the longer side of the picture, at most; the label comes on top."""
_GAP = 4
_LABEL_HEIGHT = 26
_FONT_SIZE = 15
_MARGIN = 6
_NARROWEST = 3
_GREYS = 252
_COLOURS = {Quality.OK: (110, 200, 120), Quality.WARNING: (240, 170, 50), Quality.BAD: (240, 80, 70)}
_TEXT = (225, 225, 225)
_SOFTENING = 2.0
_CEILING = 12.0
"""The display reaches this many ZScale ranges above the black level, along an arcsinh."""
_NOT_SHOWN = DQ.BAD | DQ.LOW_FLAT | DQ.NO_DATA


def label(ref: ExposureRef, images: Sequence[Image]) -> str:
    """Return what stands below a quick look: what it is, and how good it is."""
    parts = [ref.exposure_id, ref.target, ref.filter, f"{ref.exposure_time_s:g} s"]
    seeing = [image.header.get("SEEING") for image in images]
    known = [float(value) for value in seeing if isinstance(value, (int, float))]
    if known:
        unit = (
            "''"
            if "arcsec" in next(image.header.comments["SEEING"] for image in images if "SEEING" in image.header)
            else " px"
        )
        parts.append(f"FWHM {sum(known) / len(known):.2f}{unit}")
    counts = [len(image.catalogue) for image in images if image.catalogue is not None]
    if counts:
        parts.append(f"{sum(counts)} sources")
    return "   ".join(_printable(part) for part in parts if part)


def stretch(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn values into grey levels.

    ZScale (of IRAF's display, as astropy has it) finds sky and noise; what is brighter follows an arcsinh as in
    Lupton et al. 2004 (PASP 116, 133): linear in the noise, logarithmic in the stars.
    """
    from astropy.visualization import ZScaleInterval

    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = ZScaleInterval(n_samples=2000).get_limits(values[finite] if not finite.all() else values)
    span = max(float(high - low), 1e-6 * max(abs(float(low)), 1e-6))
    scaled = np.nan_to_num((values - np.float32(low)) * np.float32(_SOFTENING / span), nan=0.0)
    np.clip(scaled, 0, _SOFTENING * _CEILING, out=scaled)
    np.arcsinh(scaled, out=scaled)
    scaled *= np.float32((_GREYS - 1) / math.asinh(_SOFTENING * _CEILING))
    return np.asarray(scaled.astype(np.uint8))


def picture(images: Sequence[Image], *, longest: int = LONGEST_SIDE) -> NDArray[np.uint8]:
    """Return grey levels of all detectors side by side, north of the array up (FITS: row 1 at the bottom)."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height = max(image.data.shape[0] for image in images)
    width = max(image.data.shape[1] for image in images)
    factor = max(1, math.ceil(max(height * rows, width * columns) / longest))
    small = [_reduced(image, factor) for image in images]
    cell = max(item.shape[0] for item in small), max(item.shape[1] for item in small)
    if len(small) == 1:
        return stretch(small[0])[::-1]
    canvas = np.zeros((rows * (cell[0] + _GAP) - _GAP, columns * (cell[1] + _GAP) - _GAP), np.uint8)
    for index, item in enumerate(small):
        top, left = (index // columns) * (cell[0] + _GAP), (index % columns) * (cell[1] + _GAP)
        canvas[top : top + item.shape[0], left : left + item.shape[1]] = stretch(item)[::-1]
    return canvas


def _reduced(image: Image, factor: int) -> NDArray[np.float32]:
    """Average squares of pixels; masked ones count as the typical value."""
    data = image.data
    hidden = (image.mask & np.uint16(_NOT_SHOWN)) != 0
    if hidden.any():
        sample = data[::4, ::4][~hidden[::4, ::4]]
        data = np.where(hidden, np.float32(np.median(sample)) if sample.size else np.float32(0), data)
    down, across = min(factor, data.shape[0]), min(factor, data.shape[1])
    if down == across == 1:
        return data
    rows, columns = data.shape[0] // down * down, data.shape[1] // across * across
    # sums of strided views: several times faster than a mean over axes of length 2
    total = data[0:rows:down, :columns].copy()
    for offset in range(1, down):
        total += data[offset:rows:down, :columns]
    squares = total[:, 0::across].copy()
    for offset in range(1, across):
        squares += total[:, offset::across]
    squares *= np.float32(1 / (down * across))
    return squares


def write_quicklook(path: Path, images: Sequence[Image], *, label: str, quality: Quality | None = None) -> None:
    """Write the PNG of an exposure, and bring it to the disk.

    Parameters
    ----------
    path : Path
        Of any suffix; the directory is made if it is missing.
    label : str
        Text below the picture, cut where it is too long.
    quality : Quality, optional
        Shown at the right, in colour.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    grey = picture(images)
    width = max(grey.shape[1], 320)
    canvas = Pillow.new("P", (width, grey.shape[0] + _LABEL_HEIGHT), 0)
    canvas.putpalette(_palette())
    canvas.paste(Pillow.fromarray(grey), (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.fontmode = "1"  # smooth edges would need colours that the palette has not
    font = ImageFont.load_default(_FONT_SIZE)
    place = grey.shape[0] + _MARGIN - 2
    room = width - 2 * _MARGIN
    if quality is not None:
        index = _GREYS + 1 + list(_COLOURS).index(quality)
        length = draw.textlength(quality.value, font=font)
        draw.text((width - _MARGIN - length, place), quality.value, fill=index, font=font)
        room -= int(length) + 2 * _MARGIN
    draw.text((_MARGIN, place), _fitted(_printable(label), room, draw, font), fill=_GREYS, font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        canvas.save(stream, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
        stream.flush()
        os.fsync(stream.fileno())


def _palette() -> list[int]:
    greys = [round(255 * level / (_GREYS - 1)) for level in range(_GREYS) for _ in range(3)]
    return greys + [part for colour in (_TEXT, *_COLOURS.values()) for part in colour]


def _fitted(text: str, room: int, draw: object, font: object) -> str:
    text = text[: room // _NARROWEST]
    while text and draw.textlength(text, font=font) > room:  # type: ignore[attr-defined]
        text = text[:-1]
    return text


def _printable(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)
