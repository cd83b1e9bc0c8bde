"""Headers of files that are extracted from a cube, where they cannot be those of the original file word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nightglass.cubes.geometry import Picture
from nightglass.cubes.records import PixelFormat
from nightglass.fitsio.cards import BLOCK, CARD, Scalar, comment_cards, format_card
from nightglass.fitsio.checksums import checksum_card_value
from nightglass.fitsio.product_cards import make_card, value_text

__all__ = ["empty_primary", "has_checksums", "made_cards", "partial_header", "uncompressed_header", "with_checksums"]

_OF_TABLE: Final = re.compile(
    rb"XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|TFIELDS|THEAP|T(?:TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM)\d+"
    rb"|Z(?:IMAGE|TABLE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|QUANTIZ|DITHER0|BLANK|SCALE|ZERO|MASKCMP)"
    rb"|Z(?:SIMPLE|TENSION|EXTEND|BLOCKED|PCOUNT|GCOUNT|HECKSUM|DATASUM)"
)
"""Cards that describe the table in which a tile-compressed image is stored: FITS Standard 4.0, section 10.1."""
_OF_DATA: Final = re.compile(rb"NAXIS\d+|BSCALE|BZERO|BLANK")
_SUMS: Final = (b"CHECKSUM", b"DATASUM")
_ORDINARY: Final = re.compile(r"[A-Z0-9_-]{1,8}")
_NAMELESS: Final = re.compile(rb"EXTNAME = 'COMPRESSED_IMAGE *'")
"""What cfitsio calls a compressed image that had no name."""


def uncompressed_header(text: bytes, picture: Picture, axes: Sequence[int]) -> bytes:
    """Return the header of a tile-compressed image as that of an image extension.

    Every card that does not describe the table stays as it is, in its place.

    Parameters
    ----------
    axes : sequence of int
        Lengths of the axes, fastest first.
    """
    front = [
        *make_card("XTENSION", ("IMAGE", "image extension")),
        *_image_cards(picture.format.bitpix, axes),
        *make_card("PCOUNT", (0, "no parameters")),
        *make_card("GCOUNT", (1, "one image")),
    ]
    kept = _without(text, _OF_TABLE)
    return _joined([*(card.encode("ascii") for card in front), *(card for card in kept if not _NAMELESS.match(card))])


def partial_header(text: bytes, axes: Sequence[int], numbers: Sequence[int]) -> bytes:
    """Return the header of an image of several planes for some of these.

    The third axis counts them; if they are neighbours, its coordinates still hold.

    Parameters
    ----------
    axes : sequence of int
        Lengths of all axes, fastest first.
    numbers : sequence of int
        Planes, from 0.
    """
    changes: dict[bytes, str] = {b"NAXIS3": str(len(numbers))}
    changes |= {b"NAXIS%d" % axis: "1" for axis in range(4, len(axes) + 1)}
    neighbours = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
    cards = list(_cards(text))
    reference = next((card for card in cards if card.startswith(b"CRPIX3  =")), None)
    if reference is not None and neighbours and numbers[0]:
        try:
            changes[b"CRPIX3"] = value_text(float(reference[10:].split(b"/")[0]) - numbers[0])
        except ValueError:  # no number, and so no coordinates
            changes.pop(b"CRPIX3", None)
    return _joined([_changed(card, changes) for card in cards])


def empty_primary(text: bytes) -> bytes:
    """Return a primary header for a file whose primary image is not extracted."""
    kept = [card for card in _without(text, _OF_DATA) if _keyword(card) not in _SUMS]
    return _joined([_changed(card, {b"NAXIS": "0"}) for card in kept])


def has_checksums(text: bytes) -> bool:
    """Tell whether a header has a checksum card."""
    return any(_keyword(card) in _SUMS for card in _cards(text))


def with_checksums(text: bytes, total: int) -> bytes:
    """Return a header whose checksum cards, as far as it has them, fit its data.

    Parameters
    ----------
    total : int
        Sum of the data.
    """
    changes = {b"DATASUM": f"'{total}'", b"CHECKSUM": f"'{'0' * 16}'"}
    cards = [_changed(card, changes) for card in _cards(text)]
    changes[b"CHECKSUM"] = f"'{checksum_card_value(_joined(cards), total)}'"
    return _joined([_changed(card, changes) for card in cards])


def made_cards(
    pixels: PixelFormat, axes: Sequence[int], name: str, values: Mapping[str, Scalar], *, version: int
) -> list[str]:
    """Make the cards of a frame of which only the values of its keywords are known, without END and checksums.

    Parameters
    ----------
    axes : sequence of int
        Lengths of the axes, fastest first; empty for a header without data.
    name : str
        EXTNAME.
    version : int
        EXTVER of an extension; 0: of a primary header.
    """
    kind: dict[str, Any] = {"XTENSION": ("IMAGE", "image extension")} if version else {"SIMPLE": (True, "FITS")}
    cards = [card for item in kind.items() for card in make_card(*item)]
    cards += _image_cards(pixels.bitpix if axes else 8, axes)
    rest: dict[str, Any] = {"PCOUNT": 0, "GCOUNT": 1} if version else {"EXTEND": True}
    if axes and (pixels.bscale, pixels.bzero) != (1.0, 0.0):
        zero = int(pixels.bzero) if pixels.bzero.is_integer() else pixels.bzero
        rest |= {"BSCALE": pixels.bscale, "BZERO": zero}
    if axes and pixels.blank is not None:
        rest["BLANK"] = pixels.blank
    if name:
        rest |= {"EXTNAME": name} | ({"EXTVER": version} if version > 1 else {})
    cards += [card for item in rest.items() for card in make_card(*item)]
    for keyword, value in values.items():
        if value is not None and keyword not in rest:
            cards += _value_cards(keyword, value)
    return cards


def _value_cards(keyword: str, value: Scalar) -> list[str]:
    if _ORDINARY.fullmatch(keyword):
        return make_card(keyword, value)
    card = f"HIERARCH {keyword} = {value_text(value)}"
    return [card.ljust(CARD)] if len(card) <= CARD else list(comment_cards("COMMENT", f"{keyword} = {value}"))


def _image_cards(bitpix: int, axes: Sequence[int]) -> list[str]:
    cards = [*make_card("BITPIX", (bitpix, "bits of a pixel")), *make_card("NAXIS", (len(axes), "axes"))]
    return cards + [card for axis, length in enumerate(axes, start=1) for card in make_card(f"NAXIS{axis}", length)]


def _cards(text: bytes) -> Iterator[bytes]:
    """Return cards as they stand in the file, up to but without END."""
    for start in range(0, len(text) - CARD + 1, CARD):
        card = text[start : start + CARD]
        if card[:8].rstrip(b" \0") == b"END" and card[8:9] != b"=":
            return
        yield card


def _keyword(card: bytes) -> bytes:
    return card[:8].rstrip(b" ") if card[8:9] == b"=" else b""


def _without(text: bytes, unwanted: re.Pattern[bytes]) -> Iterator[bytes]:
    """Return the cards of other keywords; CONTINUE cards go with the card that they continue."""
    dropped = False
    for card in _cards(text):
        if card.startswith(b"CONTINUE  ") and dropped:
            continue
        dropped = bool(unwanted.fullmatch(_keyword(card)))
        if not dropped:
            yield card


def _changed(card: bytes, changes: Mapping[bytes, str]) -> bytes:
    """Return a card with another value, and the comment it had."""
    value = changes.get(_keyword(card))
    if value is None:
        return card
    comment = card[10:].partition(b"/")[2].strip().decode("ascii", "replace")
    return format_card(_keyword(card).decode("ascii"), value, comment)[0].encode("ascii", "replace")


def _joined(cards: Sequence[bytes]) -> bytes:
    text = b"".join(cards) + b"END".ljust(CARD)
    return text.ljust(-(-len(text) // BLOCK) * BLOCK)
