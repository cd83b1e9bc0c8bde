"""Where everything of a plain cube goes: header arithmetic, before a single pixel is moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from astropy.io import fits

from nightglass.cubes.records import CubePlan, ImagePlan, PixelFormat, TablePlan
from nightglass.fitsio.cards import BLOCK, CARD
from nightglass.fitsio.product_cards import CardValue, make_cards
from nightglass.fitsio.sealing import sealed_size

__all__ = ["PlacedHdu", "header_cards", "image_cards", "place_hdus", "primary_cards", "scaling_cards", "table_cards"]

_PRIMARY: Mapping[str, CardValue] = {
    "SIMPLE": (True, "conforms to the FITS standard"),
    "BITPIX": 8,
    "NAXIS": 0,
    "EXTEND": True,
}


@dataclass(frozen=True, slots=True)
class PlacedHdu:
    """One HDU of a cube that is to be written.

    Attributes
    ----------
    plan : ImagePlan, TablePlan or None
        None: the primary HDU.
    cards : tuple of str
        Of its header, without checksums.
    header_offset, data_offset, data_size : int
        Bytes; the size is that without the fill of the last block.
    """

    plan: ImagePlan | TablePlan | None
    cards: tuple[str, ...]
    header_offset: int
    data_offset: int
    data_size: int

    @property
    def end(self) -> int:
        """Where the next HDU begins."""
        return self.data_offset + -(-self.data_size // BLOCK) * BLOCK


def place_hdus(plan: CubePlan) -> tuple[PlacedHdu, ...]:
    """Lay out a plain cube: primary, then its HDUs in the order of the plan."""
    placed: list[PlacedHdu] = []
    for item in (None, *plan.hdus):
        offset = placed[-1].end if placed else 0
        if item is None:
            cards, size = primary_cards(plan.primary), 0
        elif isinstance(item, ImagePlan):
            cards, size = image_cards(item), item.plane_size * len(item.planes)
        else:
            cards, size = table_cards(item), len(item.data)
        placed.append(PlacedHdu(item, cards, offset, offset + sealed_size(cards), size))
    return tuple(placed)


def primary_cards(header: fits.Header) -> tuple[str, ...]:
    """Return the cards of a primary HDU without data."""
    return (*make_cards(_PRIMARY), *header_cards(header, without=_PRIMARY))


def table_cards(table: TablePlan) -> tuple[str, ...]:
    """Return the cards of a table."""
    return header_cards(table.header)


def image_cards(image: ImagePlan) -> tuple[str, ...]:
    """Return the cards of a three-dimensional image: layout and scaling, then what the plan says."""
    rows, columns = image.shape
    pixels = image.format
    values: dict[str, CardValue] = {
        "XTENSION": ("IMAGE", "image extension"),
        "BITPIX": pixels.bitpix,
        "NAXIS": 3,
        "NAXIS1": columns,
        "NAXIS2": rows,
        "NAXIS3": (len(image.planes), "planes, one a frame"),
        "PCOUNT": 0,
        "GCOUNT": 1,
        "EXTNAME": (image.name, "source"),
    }
    values |= scaling_cards(pixels)
    return (*make_cards(values), *header_cards(image.header, without=values))


def scaling_cards(pixels: PixelFormat) -> dict[str, CardValue]:
    """Return the keywords that tell what stored numbers mean."""
    values: dict[str, CardValue] = {}
    if (pixels.bscale, pixels.bzero) != (1.0, 0.0):
        values |= {"BSCALE": _short(pixels.bscale), "BZERO": _short(pixels.bzero)}
    if pixels.blank is not None:
        values["BLANK"] = (pixels.blank, "stored value of undefined pixels")
    return values


def header_cards(header: fits.Header, *, without: Mapping[str, CardValue] | None = None) -> tuple[str, ...]:
    """Return the 80-character cards of a header, less some keywords."""
    kept = header.copy()
    for keyword in without or ():
        kept.remove(keyword, ignore_missing=True, remove_all=True)
    text = kept.tostring(sep="", endcard=False, padding=False)
    return tuple(text[start : start + CARD] for start in range(0, len(text), CARD))


def _short(value: float) -> float | int:
    """Return a whole number as such, as cameras write it."""
    return int(value) if value.is_integer() else value
