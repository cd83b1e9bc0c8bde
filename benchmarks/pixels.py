"""The pixel work of one exposure, step by step, in this process: ``python -m benchmarks.pixels [--size 2048]``.

A simulated science frame goes from the raw file to written product and quick look, with masters of bias, dark and flat.
The peer is ccdproc on the calibration steps alone: overscan, trim, gain, deviation, bias, dark and flat.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty

from nightglass.config import Limits, Site, load_camera
from nightglass.dialects import describe
from nightglass.fitsio import inspect, read_product, read_raw, write_product
from nightglass.image import Image
from nightglass.model import ExposureRef, Kind, MasterRef
from nightglass.reduction import ReductionSpec, reduce_exposure
from nightglass.reduction.warm import dask_setup
from nightglass.simulate import NightPlan, write_night

CALIBRATION = ("overscan", "trim", "gain", "bias", "noise", "dark", "flat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    dask_setup(None)
    with tempfile.TemporaryDirectory(prefix="nightglass-pixels-") as scratch:
        refs = _expose(Path(scratch, "raw"), arguments.size)
        masters = tuple(_master(refs[kind], Path(scratch)) for kind in (Kind.BIAS, Kind.DARK, Kind.FLAT))
        spec = replace(_spec(refs[Kind.SCIENCE], Path(scratch)), masters=masters)
        results = [reduce_exposure(spec) for _ in range(arguments.repeat + 2)][2:]
        ours = {name: statistics.median(item.timings[name] for item in results) for name in results[0].timings}
        theirs = statistics.median(_seconds(_with_ccdproc(spec)) for _ in range(arguments.repeat))
    print(f"one exposure of {arguments.size} x {arguments.size}, median of {arguments.repeat}, milliseconds")
    for name, seconds in ours.items():
        print(f"  {name:<12} {1000 * seconds:7.1f}")
    calibration = sum(ours[name] for name in CALIBRATION)
    print(
        f"  calibration steps {1000 * calibration:.0f}, ccdproc {1000 * theirs:.0f}: {theirs / calibration:.1f} times"
    )


def _expose(directory: Path, size: int) -> dict[Kind, ExposureRef]:
    plan = NightPlan(biases=1, darks=1, flats=1, science=1, dithers=1, filters=("r",), shape=(size, size))
    refs = {}
    for path in write_night(directory, plan, seed=1).paths:
        camera, found = load_camera("lynx"), inspect(path, load_camera("lynx"), Limits())
        ref = describe(
            path,
            found.headers,
            camera,
            site=Site(),
            night=None,
            content_id=found.content_id,
            size=found.size,
            mtime=path.stat().st_mtime,
        )
        refs[ref.kind] = ref
    return refs


def _spec(ref: ExposureRef, scratch: Path) -> ReductionSpec:
    camera = load_camera("lynx")
    return ReductionSpec(
        ref=ref,
        camera=camera,
        entries=camera.step_list("realtime", ref.kind),
        product=scratch / f"{ref.name}.fits",
        quicklook=scratch / f"{ref.name}.png",
        token="bench",
        limits=Limits(),
    )


def _master(ref: ExposureRef, scratch: Path) -> MasterRef:
    """One frame stands for a master: here only the time counts."""
    (image,) = read_product(reduce_exposure(_spec(ref, scratch)).parts[0].part)
    scale = np.float32(np.median(image.data) if ref.kind is Kind.FLAT else 1)
    path = scratch / f"master-{ref.kind.value}.fits"
    master = image.with_(data=image.data / scale, variance=np.full_like(image.data, 1e-4), catalogue=None)
    write_product(path, [master], cards={})
    return MasterRef(
        master_id=ref.kind.value,
        kind=ref.kind,
        camera=ref.camera,
        night=ref.night,
        path=path,
        detector=ref.detector,
        exposure_time_s=ref.exposure_time_s,
    )


def _with_ccdproc(spec: ReductionSpec) -> Callable[[], object]:
    (raw,) = read_raw(spec.ref.path, spec.camera, spec.limits)
    amplifier = raw.amplifiers[0]
    width = amplifier.data[1].stop
    frame = CCDData(raw.data, unit="adu")
    bias, dark, flat = (_as_ccd(read_product(master.path)[0], master.kind) for master in spec.masters)
    times = {
        "data_exposure": spec.ref.exposure_time_s * u.s,
        "dark_exposure": spec.masters[1].exposure_time_s * u.s,
    }

    def work() -> object:
        ccd = ccdproc.subtract_overscan(frame, overscan=frame[:, width:], overscan_axis=1, median=True)
        ccd = ccdproc.trim_image(ccd[:, :width])
        gain = amplifier.gain * u.electron / u.adu
        ccd = ccdproc.create_deviation(ccd, gain=gain, readnoise=amplifier.read_noise * u.electron, disregard_nan=True)
        ccd = ccdproc.gain_correct(ccd, gain)
        ccd = ccdproc.subtract_bias(ccd, bias)
        ccd = ccdproc.subtract_dark(ccd, dark, scale=True, **times)
        return ccdproc.flat_correct(ccd, flat, norm_value=1.0)

    return work


def _as_ccd(image: Image, kind: Kind) -> CCDData:
    unit = "" if kind is Kind.FLAT else "electron"
    data = np.maximum(image.data, 0.05) if kind is Kind.FLAT else image.data
    return CCDData(data, unit=unit, uncertainty=StdDevUncertainty(np.sqrt(image.variance)), mask=image.mask != 0)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
