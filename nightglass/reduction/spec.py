"""What is asked of a reduction and what comes back: small records that cross processes as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from nightglass.config.camera import Camera, StepEntry
from nightglass.config.observatory import Limits
from nightglass.errors import Misconfigured
from nightglass.model import ExposureRef, MasterRef, ProductKind, Quality, content_key

__all__ = ["Part", "ReductionResult", "ReductionSpec", "check_names", "configuration_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReductionSpec:
    """Everything that a worker needs to reduce one exposure.

    Attributes
    ----------
    entries : tuple of StepEntry
        The steps, in order.
    masters : tuple of MasterRef
        The chosen masters, at most one of each kind.
    product, quicklook : Path
        Final names; no quick look is made if its name is None.
    token : str
        Of the lease: parts are named by it, so that two holders never write one file.
    notes : tuple of str
        What the choice of masters has to say; it goes into the product.
    """

    ref: ExposureRef
    camera: Camera
    entries: tuple[StepEntry, ...]
    product: Path
    token: str
    limits: Limits
    masters: tuple[MasterRef, ...] = ()
    quicklook: Path | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {
            "ref": self.ref.to_json(),
            "camera": self.camera.model_dump(mode="json"),
            "entries": [entry.model_dump(mode="json") for entry in self.entries],
            "product": str(self.product),
            "token": self.token,
            "masters": [master.to_json() for master in self.masters],
            "quicklook": str(self.quicklook) if self.quicklook else None,
            "limits": self.limits.model_dump(mode="json"),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Make the specification from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape.
        """
        check_names(cls, record)
        return cls(
            ref=ExposureRef.from_json(record["ref"]),
            camera=Camera.model_validate(record["camera"]),
            entries=tuple(StepEntry.model_validate(entry) for entry in record["entries"]),
            product=Path(record["product"]),
            token=record["token"],
            masters=tuple(MasterRef.from_json(master) for master in record["masters"]),
            quicklook=Path(record["quicklook"]) if record["quicklook"] else None,
            limits=Limits.model_validate(record["limits"]),
            notes=tuple(record["notes"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file that is written and synced, but not yet under its final name."""

    kind: ProductKind
    part: Path
    final: Path
    checksum: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {
            "kind": self.kind.value,
            "part": str(self.part),
            "final": str(self.final),
            "checksum": self.checksum,
            "size": self.size,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Make the record from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape.
        """
        check_names(cls, record)
        changed = {"kind": ProductKind(record["kind"]), "part": Path(record["part"]), "final": Path(record["final"])}
        return cls(**(dict(record) | changed))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReductionResult:
    """What a worker hands back.

    Attributes
    ----------
    measured : dict of str to float
        Over all detectors; quantities that could not be measured are left out.
    timings : dict of str to float
        Seconds of each step, of ``read``, ``masters``, ``write`` and ``total``.
    masters : tuple of str
        Ids of the masters that were applied.
    notes : tuple of str
        What the steps had to say, for people.
    """

    exposure_id: str
    parts: tuple[Part, ...]
    quality: Quality
    measured: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    masters: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "exposure_id": self.exposure_id,
            "parts": [part.to_json() for part in self.parts],
            "quality": self.quality.value,
            "measured": self.measured,
            "timings": self.timings,
            "masters": list(self.masters),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Make the result from what `to_json` gave.

        Raises
        ------
        Misconfigured
            If the record is of another shape.
        """
        check_names(cls, record)
        return cls(
            exposure_id=record["exposure_id"],
            parts=tuple(Part.from_json(part) for part in record["parts"]),
            quality=Quality(record["quality"]),
            measured=dict(record["measured"]),
            timings=dict(record["timings"]),
            masters=tuple(record["masters"]),
            notes=tuple(record["notes"]),
        )


def check_names(record_type: type, record: Mapping[str, Any]) -> None:
    """Compare the names in a JSON record with the fields of its type.

    Raises
    ------
    Misconfigured
        If they differ.
    """
    known = {item.name for item in fields(record_type)}
    if set(record) != known:
        message = f"a record of {record_type.__name__} does not fit: {', '.join(sorted(set(record) ^ known))}"
        raise Misconfigured(message, remedy="all processes must be of one version; restart them")


def configuration_key(spec: ReductionSpec) -> str:
    """Return a hash of all settings that shape the product; the same on every host.

    Of bad-pixel files only the name counts here, for the directory differs between hosts.
    """
    camera = spec.camera.model_dump(mode="json", exclude={"description", "files", "steps", "groups"})
    for detector in camera["detectors"]:
        detector["bad_pixels"] = Path(detector["bad_pixels"]).name
    entries = [entry.model_dump(mode="json") for entry in spec.entries]
    return content_key(json.dumps([camera, entries], sort_keys=True))
