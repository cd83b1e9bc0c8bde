"""The FITS header inside a window: the few facts that a receiver needs, read fast; and one to send."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from nightglass.fitsio.cards import CARD, pad_header
from nightglass.fitsio.product_cards import CardValue, make_card

__all__ = ["HEADER_STARTS", "SkyFacts", "make_header", "read_facts"]

HEADER_STARTS = (b"SIMPLE  =", b"XTENSION=")
"""How a FITS header begins; senders also send that of an image extension."""
_AXES = range(1, 10)
_WANTED = {
    keyword.ljust(8).encode()
    for keyword in (
        "NAXIS1",
        "NAXIS2",
        "DATE-OBS",
        "RESTFREQ",
        "RESTFRQ",
        *(f"CTYPE{axis}" for axis in _AXES),
        *(f"CRVAL{axis}" for axis in _AXES),
    )
}
_END = b"END".ljust(8)


@dataclass(frozen=True, slots=True)
class SkyFacts:
    """What a window's FITS header says.

    Attributes
    ----------
    shape : tuple of int or None
        NAXIS2 and NAXIS1; None if one of them is missing.
    timestamp : datetime or None
        DATE-OBS, UTC.
    frequency_hz : float or None
    ended : bool
        Whether there is an END card.
    """

    shape: tuple[int, int] | None
    timestamp: datetime | None
    frequency_hz: float | None
    ended: bool


def read_facts(header: bytes) -> SkyFacts:
    """Read what a receiver needs; whatever else is in the header is left alone, and nothing raises."""
    found: dict[str, str] = {}
    ended = False
    for start in range(0, len(header), CARD):
        keyword = header[start : start + 8]
        if keyword in _WANTED:
            found[keyword.decode().rstrip()] = _value(header[start + 8 : start + CARD])
        elif keyword == _END:
            ended = True
            break
    return SkyFacts(_shape(found), _timestamp(found), _frequency(found), ended)


def make_header(
    shape: tuple[int, int],
    *,
    timestamp: datetime | None,
    frequency_hz: float | None,
    cards: Mapping[str, CardValue] | None = None,
) -> str:
    """Return a FITS header for an image to send.

    Parameters
    ----------
    shape : tuple of int
        NAXIS2 and NAXIS1.
    timestamp : datetime or None
        Aware; written in UTC.
    cards : mapping, optional
        More keywords: value, or pair of value and comment.
    """
    values: dict[str, CardValue] = {
        "SIMPLE": True,
        "BITPIX": -32,
        "NAXIS": 2,
        "NAXIS1": shape[1],
        "NAXIS2": shape[0],
        "TELESCOP": "AARTFAAC",
    }
    if timestamp is not None:
        values["DATE-OBS"] = timestamp.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    if frequency_hz is not None:
        values["RESTFREQ"] = (float(frequency_hz), "[Hz]")
    values |= cards or {}
    lines = [line for keyword, value in values.items() for line in make_card(keyword, value)]
    return pad_header(lines).decode("ascii")


def _value(text: bytes) -> str:
    """Return the value of a card, from behind its keyword, without quotes and comment; TraP sends RESTFREQ as text."""
    body = text.decode("ascii", "replace").removeprefix("=").strip()
    if body.startswith("'"):
        return body[1:].partition("'")[0].strip()
    return body.partition("/")[0].strip()


def _shape(found: Mapping[str, str]) -> tuple[int, int] | None:
    with contextlib.suppress(KeyError, ValueError):
        shape = int(found["NAXIS2"]), int(found["NAXIS1"])
        return shape if min(shape) > 0 else None
    return None


def _timestamp(found: Mapping[str, str]) -> datetime | None:
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        moment = datetime.fromisoformat(found["DATE-OBS"])
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return None


def _frequency(found: Mapping[str, str]) -> float | None:
    axis = next((axis for axis in _AXES if found.get(f"CTYPE{axis}", "").upper().startswith("FREQ")), 0)
    for keyword in ("RESTFREQ", "RESTFRQ", f"CRVAL{axis}"):
        with contextlib.suppress(KeyError, ValueError):
            value = float(found[keyword].upper().replace("D", "E"))
            if math.isfinite(value) and value > 0:
                return value
    return None
