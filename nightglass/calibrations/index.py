"""The archive index of masters, made again from the headers of the files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.calibrations.frames import equal_exposures
from nightglass.config import Limits
from nightglass.errors import NightglassError, Rejected
from nightglass.fitsio import scan_headers
from nightglass.fitsio.headers import card_value
from nightglass.model import Kind, MasterRef, Night, Quality

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["read_master_header", "rebuild_index", "same_set"]

_log = logging.getLogger(__name__)

_PREFIX = "master "


def same_set(first: MasterRef, second: MasterRef) -> bool:
    """Return whether two masters of one night are of the same set of frames, so that only one of them is in use."""
    return (
        first.kind is second.kind
        and (first.camera, first.night, first.detector, first.filter, first.binning, first.readout)
        == (second.camera, second.night, second.detector, second.filter, second.binning, second.readout)
        and equal_exposures(first.exposure_time_s, second.exposure_time_s)
    )


def read_master_header(path: Path) -> MasterRef:
    """Return what the headers of a master say; no pixel is read.

    Raises
    ------
    Rejected
        If it is no master, or its headers are damaged.
    Retryable
        If it cannot be read.
    """
    header = scan_headers(path, Limits())[0].header
    kind = str(card_value(header, "KIND") or "")
    try:
        if not kind.startswith(_PREFIX):
            raise ValueError(kind)
        return MasterRef(
            master_id=str(header["MASTERID"]),
            kind=Kind(kind.removeprefix(_PREFIX)),
            camera=str(header["CAMERA"]),
            night=Night(str(header["NIGHT"])),
            path=path,
            detector=str(card_value(header, "DETECTOR") or ""),
            filter=str(card_value(header, "FILTER") or ""),
            binning=str(card_value(header, "BINNING") or "1x1"),
            exposure_time_s=float(header["EXPTIME"]),
            frames=int(header["NFRAMES"]),
            inputs=tuple(str(header[name]) for name in sorted(header) if name.startswith("CID0")),
            readout=str(card_value(header, "READOUT") or ""),
            uses=tuple(str(header[name]) for name in ("BIASID", "DARKID") if card_value(header, name)),
            pedestal=bool(card_value(header, "PEDESTAL")),
        )
    except (KeyError, ValueError, TypeError, NightglassError) as error:
        message = f"{path} is no master of Nightglass: {error!r}"
        raise Rejected(message, remedy="take it out of the masters directory") from error


def rebuild_index(root: Path, ledger: Ledger) -> tuple[MasterRef, ...]:
    """Put the masters below a root that the ledger does not know into its index, from their headers alone.

    For a ledger that was lost, or masters that were copied from elsewhere. Of several masters of one set the one
    with the most frames comes into use, of equal ones that which was made with masters in use; those that the ledger
    knows stay as they are.

    Returns
    -------
    tuple of MasterRef
        What was added.
    """
    found = [master for master in _found(root) if ledger.find_master(master.master_id) is None]
    added: list[MasterRef] = []
    for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT):
        unused = {master.master_id for master in added if master.quality is Quality.BAD}
        of_kind = [master for master in found if master.kind is kind]
        of_kind.sort(key=lambda item: (-item.frames, not unused.isdisjoint(item.uses), item.master_id))
        for master in of_kind:
            siblings = ledger.masters(master.camera, master.kind, night=master.night)
            rivals = [item for item in siblings if same_set(item, master) and item.quality is not Quality.BAD]
            added.append(replace(master, quality=Quality.BAD if rivals else Quality.OK))
            ledger.add_master(added[-1])
    return tuple(added)


def _found(root: Path) -> Iterator[MasterRef]:
    for path in sorted(root.glob("*/*/masters/*.fits")):
        try:
            yield read_master_header(path)
        except NightglassError as error:
            _log.warning("%s is left out of the index: %s", path, error)
