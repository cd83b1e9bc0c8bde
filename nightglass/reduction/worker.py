"""One exposure, from the raw file to written parts: the function that a worker runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from nightglass.errors import Rejected, Retryable
from nightglass.image import Image
from nightglass.model import ProductKind, Quality
from nightglass.reduction.inputs import bad_pixels, load_master
from nightglass.reduction.provenance import history_lines, provenance_cards
from nightglass.reduction.spec import Part, ReductionResult, ReductionSpec
from nightglass.steps import StepContext, run_steps
from nightglass.steps.quality import worst
from nightglass.steps.step import CORRECTED

__all__ = ["reduce_exposure", "reduce_images"]

_ADDED = frozenset({"sources", "cosmics"})
"""Measured quantities that add up over detectors; of the others the mean is taken."""


class _Stopwatch:
    """Adds up seconds under names."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] += seconds

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self.add(name, perf_counter() - started)


def reduce_exposure(spec: ReductionSpec) -> ReductionResult:
    """Read, reduce and write one exposure; nothing appears under a final name.

    The same specification, pixels and masters give the same bytes.

    Raises
    ------
    Rejected
        If the exposure can never be reduced.
    Retryable
        If its file changed since it was found complete, or is gone for now.
    Waiting
        If a master cannot be read any more.
    Misconfigured
        If a step list or a bad-pixel file does not fit.
    """
    watch = _Stopwatch()
    with watch.time("total"):
        images = reduce_images(spec, watch=watch)
        verdict, notes = _judgement(images)
        with watch.time("write"):
            parts = _write(spec, images, verdict)
    return ReductionResult(
        exposure_id=spec.ref.exposure_id,
        parts=parts,
        quality=verdict,
        measured=_combined(images),
        timings={name: round(seconds, 4) for name, seconds in watch.seconds.items()},
        masters=_applied(images),
        notes=(*spec.notes, *notes),
    )


def reduce_images(spec: ReductionSpec, *, watch: _Stopwatch | None = None) -> tuple[Image, ...]:
    """Read an exposure and run its steps; return one image a detector and write nothing.

    Raises
    ------
    NightglassError
        As `reduce_exposure`.
    """
    watch = watch or _Stopwatch()
    with watch.time("read"):
        raw = _read(spec)
    with watch.time("masters"):
        context = StepContext(
            camera=spec.camera,
            ref=spec.ref,
            masters={master.kind: load_master(master) for master in spec.masters},
            bad_pixels=bad_pixels(spec.camera),
        )
    return tuple(run_steps(image, spec.entries, context, on_step=watch.add) for image in raw)


def _read(spec: ReductionSpec) -> tuple[Image, ...]:
    from nightglass.fitsio import read_raw

    path = spec.ref.path
    before = _stamp(path)
    if before[0] != spec.ref.size:
        message = f"{path} has {before[0]} bytes now, {spec.ref.size} when it was found complete"
        raise Retryable(message, remedy="its change is a new revision as soon as the sensor sees it")
    images = tuple(read_raw(path, spec.camera, spec.limits))
    if _stamp(path) != before:
        message = f"{path} changed while it was read"
        raise Retryable(message, remedy="its change is a new revision as soon as the sensor sees it")
    if not images:
        message = f"{path} holds no detector of camera {spec.camera.name}"
        raise Rejected(message, remedy="correct the detectors in the camera file")
    return images


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        message = f"{path} cannot be looked at: {error.strerror}"
        raise Retryable(message, remedy="put the file back; it is tried again a few times") from error
    return status.st_size, status.st_mtime_ns, status.st_ino


def _write(spec: ReductionSpec, images: tuple[Image, ...], quality: Quality) -> tuple[Part, ...]:
    """Write the product and, beside it in a thread, the quick look: both wait for the disk much of their time."""
    from nightglass.fitsio import part_path, write_product

    product = part_path(spec.product, spec.token)
    look = part_path(spec.quicklook, spec.token) if spec.quicklook else None
    written = [product] if look is None else [product, look]
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="quicklook") as executor:
            drawing = executor.submit(_draw, spec, images, quality, look) if look else None
            cards = provenance_cards(spec, images, quality=quality)
            write_product(product, images, cards=cards, history=history_lines(spec, images))
            parts = [_part(ProductKind.REDUCED, product, spec.product)]
            if drawing is not None and look is not None and spec.quicklook is not None:
                drawing.result()
                parts.append(_part(ProductKind.QUICKLOOK, look, spec.quicklook))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return tuple(parts)


def _draw(spec: ReductionSpec, images: Sequence[Image], quality: Quality, path: Path) -> None:
    from nightglass.quicklook import label, write_quicklook

    write_quicklook(path, images, label=label(spec.ref, images), quality=quality)


def _part(kind: ProductKind, part: Path, final: Path) -> Part:
    from nightglass.fitsio import content_id

    return Part(kind=kind, part=part, final=final, checksum=content_id(part), size=part.stat().st_size)


def _judgement(images: Sequence[Image]) -> tuple[Quality, tuple[str, ...]]:
    """Return the worst verdict, and what the steps noted."""
    verdicts = [Quality(image.header.get("QUALITY", Quality.OK.value)) for image in images]
    if any(image.header.get(keyword) is False for image in images for keyword in CORRECTED.values()):
        verdicts.append(Quality.WARNING)
    several = len(images) > 1
    notes = [
        f"{image.detector + ': ' if several else ''}{record.step}: {record.note}"
        for image in images
        for record in image.history
        if record.note
    ]
    return worst(*verdicts), tuple(notes)


def _applied(images: Sequence[Image]) -> tuple[str, ...]:
    ids = [identity for image in images for record in image.history for identity in record.calibrations]
    return tuple(dict.fromkeys(ids))


def _combined(images: Sequence[Image]) -> dict[str, float]:
    combined = {}
    for name in dict.fromkeys(name for image in images for name in image.measured):
        values = [image.measured[name] for image in images if math.isfinite(image.measured.get(name, math.nan))]
        if values:
            combined[name] = sum(values) if name in _ADDED else sum(values) / len(values)
    return combined
