"""The FITS header inside a window: the few facts that a receiver needs, read fast; and one to send."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from nightglass.fitsio.cards import CARD, pad_header
from nightglass.fitsio.product_cards import CardValue, make_card

__all__ = ["HEADER_STARTS", "HeaderReader", "SkyFacts", "make_header"]

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
_DATE = b"DATE-OBS"
_END = b"END".ljust(8)


class SkyFacts(NamedTuple):
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


class HeaderReader:
    """Reads one header after the other; of one that differs from the last in its date alone, no more than that.

    The windows of a sub-band have such headers, and a receiver that has just moved megabytes finds neither code nor
    data in the processor's caches any more: every card that is looked at counts.
    """

    def __init__(self) -> None:
        self._last = b""
        self._facts = SkyFacts(None, None, None, ended=False)
        self._date = (0, 0)

    def read(self, header: bytes) -> SkyFacts:
        """Read what a receiver needs; whatever else is in the header is left alone, and nothing raises."""
        last, (start, stop) = self._last, self._date
        if len(header) != len(last) or header[:start] != last[:start] or header[stop:] != last[stop:]:
            return self._read(header)
        shape, _, frequency_hz, ended = self._facts
        return SkyFacts(shape, _timestamp(_value(header[start:stop])), frequency_hz, ended)

    def _read(self, header: bytes) -> SkyFacts:
        found: dict[str, str] = {}
        date = (0, 0)
        ended = False
        for start in range(0, len(header), CARD):
            keyword = header[start : start + 8]
            if keyword in _WANTED:
                found[keyword.decode().rstrip()] = _value(header[start + 8 : start + CARD])
                if keyword == _DATE:
                    date = (start + 8, start + CARD)
            elif keyword == _END:
                ended = True
                break
        self._last, self._date = header, date
        self._facts = SkyFacts(_shape(found), _timestamp(found.get("DATE-OBS", "")), _frequency(found), ended)
        return self._facts


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


def _timestamp(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _frequency(found: Mapping[str, str]) -> float | None:
    axis = next((axis for axis in _AXES if found.get(f"CTYPE{axis}", "").upper().startswith("FREQ")), 0)
    for keyword in ("RESTFREQ", "RESTFRQ", f"CRVAL{axis}"):
        with contextlib.suppress(KeyError, ValueError):
            value = float(found[keyword].upper().replace("D", "E"))
            if math.isfinite(value) and value > 0:
                return value
    return None
