"""Frames and exposures as JSON files beside their pixels; replaced whole: a kill leaves the old one or the new one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nightglass.builder.instructions import instructions_of
from nightglass.builder.records import (
    ArchiveOrder,
    ExposureState,
    ExposureView,
    ExtensionRecord,
    FrameState,
    FrameView,
    Instructions,
)
from nightglass.builder.stored import check_exposure, check_frame
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.model import Night

__all__ = ["exposure_json", "frame_json", "plain", "read_exposure", "read_frame", "write_exposure", "write_frame"]

_VERSION = 1


def plain(value: Any) -> Any:
    """Return plain JSON values: paths as text, infinity and NaN as null, the rest as it is."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (Path, Night)):
        return str(value)
    return value


def frame_json(view: FrameView) -> dict[str, Any]:
    """Return a frame as plain JSON values."""
    record: dict[str, Any] = plain(asdict(view))
    record["instructions"] = {key: item for key, item in record["instructions"].items() if item is not None}
    return record


def exposure_json(view: ExposureView) -> dict[str, Any]:
    """Return an exposure as plain JSON values."""
    record: dict[str, Any] = plain({**asdict(view), "night": view.night.label})
    record["instructions"] = {key: item for key, item in record["instructions"].items() if item is not None}
    return record


def write_frame(view: FrameView, *, durable: bool) -> None:
    """Write ``frame.json`` in the directory of a frame.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    _write(view.directory / "frame.json", frame_json(view), durable=durable, levels=2)


def write_exposure(view: ExposureView, *, durable: bool) -> None:
    """Write ``exposure.json`` in the directory of an exposure; its frames are in files of their own.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    record = exposure_json(view)
    del record["frames"], record["saved"]
    _write(view.directory / "exposure.json", record, durable=durable, levels=5)


def read_frame(directory: Path) -> FrameView:
    """Read what `write_frame` wrote; paths are those of now, wherever the directory has been moved to.

    Raises
    ------
    Rejected
        If it is not there, or damaged.
    """
    record = _read(directory / "frame.json")
    try:
        check_frame(record, directory)
        extensions = tuple(_extension(item, directory) for item in record["extensions"])
        return FrameView(
            expid=record["expid"],
            frame=record["frame"],
            state=FrameState(record["state"]),
            extensions=extensions,
            primary=record["primary"],
            missing=tuple(record["missing"]),
            expected=tuple(record["expected"]),
            instructions=_instructions(record["instructions"]),
            times=record["times"],
            deadline=math.inf if record["deadline"] is None else record["deadline"],
            directory=directory,
            files=tuple(Path(item) for item in record["files"]),
            claims=tuple(Path(item) for item in record["claims"]),
            published=Path(record["published"]) if record["published"] else None,
            revision=record["revision"],
            purged=record["purged"],
            sends=record.get("sends", {}),
            notes=tuple(record["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory / "frame.json", error) from error


def read_exposure(directory: Path) -> ExposureView:
    """Read what `write_exposure` wrote.

    Raises
    ------
    Rejected
        If it is not there, or damaged.
    """
    record = _read(directory / "exposure.json")
    try:
        check_exposure(record, directory)
        return ExposureView(
            expid=record["expid"],
            night=Night(record["night"]),
            state=ExposureState(record["state"]),
            instructions=_instructions(record["instructions"]),
            directory=directory,
            archive=Path(record["archive"]) if record["archive"] else None,
            asked=_order(record["asked"]) if record["asked"] else None,
            asked_at=float(record.get("asked_at", 0.0)),
            opened_at=float(record.get("opened_at", 0.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory / "exposure.json", error) from error


def _extension(record: dict[str, Any], directory: Path) -> ExtensionRecord:
    path = directory / Path(record["path"]).name
    return ExtensionRecord(**{**record, "path": path, "shape": tuple(record["shape"])})


def _instructions(record: dict[str, Any]) -> Instructions:
    known = {item.name for item in fields(Instructions)}
    try:
        return instructions_of({name: item for name, item in record.items() if name in known})
    except Misconfigured as error:
        raise ValueError(error.message) from error


def _order(record: dict[str, Any]) -> ArchiveOrder:
    said: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in record.items()}
    return ArchiveOrder(**said)


def _write(path: Path, record: dict[str, Any], *, durable: bool, levels: int) -> None:
    """Write a record; `levels` directories may be new, and are synced where it shall be durable."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as stream:
            json.dump({"version": _VERSION, **record}, stream)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(path)
        for directory in path.parents[: levels if durable else 0]:
            _sync(directory)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(record, dict) or record.pop("version", None) != _VERSION:
        raise _damaged(path, "it is of another version")
    return record


def _damaged(path: Path, why: object) -> Rejected:
    message = f"{path} cannot be read: {why}"
    return Rejected(message, remedy="what is known of the frame is made anew from the extensions beside it")
