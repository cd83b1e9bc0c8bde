"""A stretch of time of a stream of hits as one FITS file: events, hit map, spectrum, and what was lost.

============ =========================================================================================
HDU          what it holds
============ =========================================================================================
primary      start and length of the slice, readouts, hits, losses
``HITMAP``   image of uint32, rows x columns: hits of each pixel; of several chips ``HITMAP0``, ``HITMAP1``...
``HITS``     the columns of `HIT_DTYPE`, and ``TIME``: seconds from DATE-OBS
``READOUTS`` number, time stamp, size, status bits and hits of every readout
``TOT``      time over threshold: hits in bins of equal width
============ =========================================================================================
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from nightglass.errors import Rejected
from nightglass.fitsio.atomic import write_atomic
from nightglass.fitsio.product_cards import CardValue, make_cards
from nightglass.fitsio.sequences import ReadyHdu, write_hdus
from nightglass.fitsio.tables import lay_out_table
from nightglass.streams.astropix.hits import HIT_DTYPE
from nightglass.streams.continuity import Losses
from nightglass.streams.exposures import exposure_number, iso_time
from nightglass.streams.tables import hits_table

__all__ = ["READOUT_DTYPE", "EventSlice", "SliceShape", "merge_slices", "read_slice", "slice_start", "write_slice"]

READOUT_DTYPE = np.dtype([("readout_id", "u4"), ("timestamp", "u8"), ("size", "u4"), ("status", "u2"), ("hits", "u4")])
"""A readout as a row; `timestamp` in nanoseconds since 1970, `size` in bytes, `status` as `ReadoutStatus`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOSSES = {
    "received": ("NRECEIVD", "readouts that came, with those that came twice"),
    "lost": ("NLOST", "readouts that were lost just before or within"),
    "gaps": ("NGAPS", "runs of lost readouts"),
    "late": ("NLATE", "readouts that came after a later one"),
    "duplicates": ("NDUPLIC", "readouts that came twice"),
    "restarts": ("NRESTART", "times when the sender began to count anew"),
}
_ZERO = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceShape:
    """How hits are counted.

    Attributes
    ----------
    rows, columns : int
        Of a hit map; hits elsewhere are counted in the header.
    chips : int
        1: one map, whatever numbers chips have; more: a map for each, from number 0.
    tot_bins : int
        Between 0 and `tot_us`.
    """

    rows: int = 35
    columns: int = 16
    chips: int = 1
    tot_bins: int = 99
    tot_us: float = 500.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventSlice:
    """What was received of one stretch of time.

    Attributes
    ----------
    hits : ndarray of HIT_DTYPE
    readouts : ndarray of READOUT_DTYPE
    losses : Losses
        Of the readouts in the slice.
    """

    start: datetime
    length_s: float
    hits: NDArray[np.void]
    readouts: NDArray[np.void]
    losses: Losses


def slice_start(timestamp_ns: int, length_s: float) -> datetime:
    """Return the start of the slice that a moment lies in; slices are counted from 1970, so that all agree on them."""
    length_us = max(round(length_s * 1e6), 1)
    return _EPOCH + timedelta(microseconds=timestamp_ns // 1000 // length_us * length_us)


def merge_slices(first: EventSlice, second: EventSlice) -> EventSlice:
    """Join what was received earlier with what came later; readouts that both have are counted once."""
    known = set(first.readouts[["readout_id", "timestamp"]].tolist())
    hits, readouts = (
        table[[item not in known for item in table[["readout_id", "timestamp"]].tolist()]]
        for table in (second.hits, second.readouts)
    )
    losses = Losses(*(one + two for one, two in zip(astuple(first.losses), astuple(second.losses), strict=True)))
    return EventSlice(
        start=first.start,
        length_s=first.length_s,
        hits=np.concatenate((first.hits, hits)),
        readouts=np.concatenate((first.readouts, readouts)),
        losses=losses,
    )


def write_slice(path: Path, events: EventSlice, *, shape: SliceShape, stream: str) -> None:
    """Write a slice; an existing file is replaced at once.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    hits = events.hits[np.argsort(events.hits, order=("timestamp", "readout_id", "decoding_order"), kind="stable")]
    readouts = events.readouts[np.argsort(events.readouts, order=("timestamp", "readout_id"), kind="stable")]
    inside = (hits["row"] < shape.rows) & (hits["column"] < shape.columns)
    if shape.chips > 1:
        inside &= hits["chip_id"] < shape.chips
    primary: dict[str, CardValue] = {
        "SIMPLE": (True, "conforms to the FITS standard"),
        "BITPIX": 8,
        "NAXIS": 0,
        "EXTEND": True,
        "NEXTEND": (3 + shape.chips, "extensions in this file"),
        "STREAM": (stream, "stream that it was received from"),
        "EXPNUM": (exposure_number(events.start), "day, time and milliseconds, UTC"),
        "DATE-OBS": (iso_time(events.start), "start of the slice"),
        "TIMESYS": "UTC",
        "EXPTIME": (float(events.length_s), "[s] length of the slice"),
        "NREADOUT": (len(readouts), "readouts in the slice"),
        "NHITS": (len(hits), "hits in the slice"),
        "NOUTSIDE": (int(np.count_nonzero(~inside)), "hits outside of the hit maps"),
    }
    primary |= {card: (getattr(events.losses, name), comment) for name, (card, comment) in _LOSSES.items()}
    hdus = [
        ReadyHdu(make_cards(primary)),
        *_hit_maps(hits[inside], shape),
        _hits(hits, events.start),
        _table("READOUTS", readouts, {"timestamp": "ns", "size": "byte"}),
        _spectrum(hits, shape),
    ]
    with write_atomic(path) as part:
        write_hdus(part, hdus)


def read_slice(path: Path) -> EventSlice:
    """Read a file that `write_slice` wrote.

    Raises
    ------
    Rejected
        If it is no such file.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            header = hdus[0].header
            return EventSlice(
                start=datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC),
                length_s=float(header["EXPTIME"]),
                hits=_rows(hdus["HITS"], HIT_DTYPE),
                readouts=_rows(hdus["READOUTS"], READOUT_DTYPE),
                losses=Losses(**{name: int(header[card]) for name, (card, _) in _LOSSES.items()}),
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        message = f"{path} is no slice of a stream: {error!r}"
        raise Rejected(message, remedy="move it away; what comes in is written anew") from error


def _rows(hdu: fits.BinTableHDU, dtype: np.dtype[Any]) -> NDArray[np.void]:
    rows = np.empty(len(hdu.data), dtype)
    for name in dtype.names or ():
        rows[name] = hdu.data[name]
    return rows


def _hit_maps(hits: NDArray[np.void], shape: SliceShape) -> list[ReadyHdu]:
    if shape.chips == 1:
        return [_hit_map("HITMAP", hits, shape)]
    return [_hit_map(f"HITMAP{chip}", hits[hits["chip_id"] == chip], shape) for chip in range(shape.chips)]


def _hit_map(name: str, hits: NDArray[np.void], shape: SliceShape) -> ReadyHdu:
    counts = np.zeros((shape.rows, shape.columns), np.uint32)
    np.add.at(counts, (hits["row"], hits["column"]), 1)
    cards: dict[str, CardValue] = {
        "XTENSION": ("IMAGE", "image extension"),
        "BITPIX": 32,
        "NAXIS": 2,
        "NAXIS1": shape.columns,
        "NAXIS2": shape.rows,
        "PCOUNT": 0,
        "GCOUNT": 1,
        "BSCALE": 1,
        "BZERO": _ZERO,
        "EXTNAME": name,
        "BUNIT": "count",
    }
    return ReadyHdu(make_cards(cards), (counts ^ np.uint32(_ZERO)).astype(">u4").tobytes())


def _hits(hits: NDArray[np.void], start: datetime) -> ReadyHdu:
    table = hits_table(hits)
    start_ns = (start - _EPOCH) // timedelta(microseconds=1) * 1000
    after = hits["timestamp"].astype(np.int64) - np.int64(start_ns)
    table.add_column(after * 1e-9, name="TIME", index=0)
    table["TIME"].unit = "s"
    cards, rows = lay_out_table(table)
    return ReadyHdu(cards + make_cards({"EXTNAME": "HITS"}), rows)


def _spectrum(hits: NDArray[np.void], shape: SliceShape) -> ReadyHdu:
    edges = np.linspace(0.0, shape.tot_us, shape.tot_bins + 1)
    rows = np.empty(shape.tot_bins, [("low_us", "f8"), ("high_us", "f8"), ("hits", "u4")])
    rows["low_us"], rows["high_us"] = edges[:-1], edges[1:]
    # the upper edge belongs to what lies beyond, as in every other bin
    within = hits["tot_us"] < shape.tot_us
    rows["hits"] = np.histogram(hits["tot_us"][within], edges)[0]
    over = {"NABOVE": (int(np.count_nonzero(~within)), "hits beyond the last bin")}
    hdu = _table("TOT", rows, {"low_us": "us", "high_us": "us"})
    return ReadyHdu(hdu.cards + make_cards(over), hdu.data)


def _table(name: str, rows: NDArray[np.void], units: dict[str, str]) -> ReadyHdu:
    from astropy.table import Table  # half a second, which a receiver need not pay

    table = Table(rows, copy=False)
    for column, unit in units.items():
        table[column].unit = unit
    cards, data = lay_out_table(table)
    return ReadyHdu(cards + make_cards({"EXTNAME": name}), data)
