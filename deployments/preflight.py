"""What could go wrong tonight, looked at before it does."""

from __future__ import annotations

import enum
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from nightglass.cluster import connect
from nightglass.config import Camera, Observatory, Source, load_camera
from nightglass.errors import NightglassError
from nightglass.layout import Layout
from nightglass.model import Kind, Night, Stage
from nightglass.nights import due_time, night_of, parse_due

__all__ = ["Check", "Verdict", "preflight"]

_CLUSTER_S = 60.0
_GIB = 2.0**30
_BROKEN_FROM = {"fastapi": (0, 151), "sqlalchemy": (2, 1)}
"""Releases with which Prefect's server does not start, or its scheduler makes no runs."""


class Verdict(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """The night would run, but not as somebody might expect."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    detail: str


def preflight(observatory: Observatory) -> Iterator[Check]:
    """Look at everything that a night needs, one thing after the other; nothing raises, nothing is left behind."""
    for name, look in (
        ("versions", _versions),
        ("entry points", _entry_points),
        ("cameras", _cameras),
        ("night", _night),
        ("root", _root),
        ("sources", _sources),
        ("image builders", _builders),
        ("ledger", _ledger),
        ("memory", _memory),
        ("cluster", _cluster),
        ("Prefect server", _server),
        ("notices", _notices),
    ):
        yield from _looked(name, look, observatory)


def _looked(
    name: str, look: Callable[[Observatory], Iterator[tuple[Verdict, str]]], observatory: Observatory
) -> Iterator[Check]:
    try:
        for verdict, detail in look(observatory):
            yield Check(name, verdict, detail)
    except (NightglassError, OSError) as error:
        yield Check(name, Verdict.FAIL, str(error))
    except Exception as error:  # noqa: BLE001 - a boundary: what breaks a check is what the check is to find
        yield Check(name, Verdict.FAIL, f"{type(error).__name__}: {error}")


def _versions(_: Observatory) -> Iterator[tuple[Verdict, str]]:
    found = {name: version(name) for name in ("nightglass", "prefect", "distributed", *_BROKEN_FROM)}
    for name, limit in _BROKEN_FROM.items():
        if tuple(int(part) for part in found[name].split(".")[:2]) >= limit:
            yield (
                Verdict.FAIL,
                f"{name} {found[name]} breaks Prefect's server; install below {'.'.join(map(str, limit))}",
            )
    yield Verdict.OK, ", ".join(f"{name} {found[name]}" for name in ("nightglass", "prefect", "distributed"))


def _entry_points(_: Observatory) -> Iterator[tuple[Verdict, str]]:
    from deployments.definitions import load_definitions, load_flow
    from nightglass.steps import load_steps

    flows = [load_flow(definition.entrypoint) for definition in load_definitions()]
    yield Verdict.OK, f"{len(flows)} flows, {len(load_steps())} steps"


def _cameras(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    if not observatory.camera_texts:
        yield Verdict.WARN, "the configuration has no source; name a directory and a camera with `nightglass run`"
    for text in observatory.camera_texts:
        camera = load_camera(text, directories=observatory.camera_directories)
        for name in observatory.reduction.realtime:
            camera.step_list(name, Kind.SCIENCE)
        missing = [name for name in observatory.reduction.postprocess if name not in camera.steps]
        detail = f"{camera.name}: lists {', '.join(sorted(camera.steps))}"
        if missing:
            yield Verdict.WARN, f"{detail}; without {', '.join(missing)} midway and final reduce nothing more"
        else:
            yield Verdict.OK, detail
        yield from _bad_pixel_files(camera)


def _bad_pixel_files(camera: Camera) -> Iterator[tuple[Verdict, str]]:
    for detector in camera.detectors:
        if detector.bad_pixels and not Path(detector.bad_pixels).is_file():
            yield Verdict.FAIL, f"{camera.name}: bad-pixel image {detector.bad_pixels} does not exist"


def _builders(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    from nightglass.builder.presets import options_of
    from nightglass.watch.instance import lock_holder
    from nightglass.web import Site, WebServer, check_place

    for source in observatory.builders:
        options = options_of(source)
        yield Verdict.OK, f"{source.name}: {source.preset}, {', '.join(options.sources) or 'any source'}"
    web, run, token = observatory.web, Layout(observatory.root).run, os.environ.get("NIGHTGLASS_TOKEN", "")
    if observatory.builders:
        check_place(web.host, token)
    names = {load_camera(each.camera, directories=observatory.camera_directories).name for each in observatory.builders}
    holders = sorted({holder for name in names if (holder := lock_holder(run, name)) is not None})
    if holders:  # whoever has the builders has the port, too
        yield Verdict.OK, f"they run already, in process {', '.join(map(str, holders))}"
    elif observatory.builders:
        with WebServer(Site(token=token), host=web.host, port=web.port) as server:
            yield Verdict.OK, f"they would be reached at {server.url}"


def _night(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    now = datetime.now(UTC)
    night = night_of(now, observatory.site)
    rules = {Stage.MIDWAY: observatory.night.midway, Stage.FINAL: observatory.night.final}
    due = {
        stage: due_time(stage, parse_due(rule), night=night, opened_at=now, site=observatory.site)
        for stage, rule in rules.items()
    }
    verdict = Verdict.OK if due[Stage.MIDWAY] < due[Stage.FINAL] else Verdict.WARN
    times = ", ".join(f"{stage.value} {moment:%Y-%m-%d %H:%M} UTC" for stage, moment in due.items())
    yield verdict, f"tonight is {night} in {observatory.site.timezone}; if opened now: {times}"


def _root(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    root = observatory.root
    root.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.NamedTemporaryFile(dir=root, prefix=".check-") as stream:
        stream.write(bytes(1024 * 1024))
        stream.flush()
        os.fsync(stream.fileno())
    written_s = time.monotonic() - started
    free = shutil.disk_usage(root).free / _GIB
    detail = f"{root}: {free:.1f} GiB free, 1 MiB reached the disk in {written_s * 1000:.0f} ms"
    yield Verdict.OK if free > observatory.limits.free_disk_gib and written_s < 1.0 else Verdict.WARN, detail


def _sources(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    night = night_of(datetime.now(UTC), observatory.site)
    for source in observatory.sources:
        yield _source(source, night, load_camera(source.camera, directories=observatory.camera_directories))


def _source(source: Source, night: Night, camera: Camera) -> tuple[Verdict, str]:
    from nightglass.watch.sources import directory_of

    directory = directory_of(source, camera, night)
    if directory.is_dir():
        readable = os.access(directory, os.R_OK | os.X_OK)
        return (
            Verdict.OK if readable else Verdict.FAIL
        ), f"{directory} {'is there' if readable else 'is not readable'}"
    above = next(path for path in directory.parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        return Verdict.FAIL, f"{directory} is not there, and can't be made below {above}"
    return Verdict.OK, f"{directory} will be made"


def _ledger(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    from nightglass.ledger import Ledger

    with Ledger.open(observatory.ledger_url or str(Layout(observatory.root).ledger), busy_timeout_s=5.0) as ledger:
        known = ledger.open_nights()
        yield Verdict.OK, f"{ledger.name}: {len(known)} open night{'' if len(known) == 1 else 's'}"


def _memory(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    if observatory.cluster.address or observatory.cluster.factory:
        return
    cluster = observatory.cluster
    total = psutil.virtual_memory().total / _GIB
    wanted = cluster.workers * cluster.memory_mib / 1024
    cores = len(os.sched_getaffinity(0))
    verdict = Verdict.OK if wanted < total and cluster.workers <= cores else Verdict.WARN
    yield verdict, f"{cluster.workers} workers may use {wanted:.1f} of {total:.1f} GiB, on {cores} cores"


def _cluster(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    started = time.monotonic()
    with connect(observatory.cluster, layout=Layout(observatory.root)) as pool:
        pool.submit(os.getpid, key="preflight").result(_CLUSTER_S)
        taken_s = time.monotonic() - started
        yield Verdict.OK, f"{pool.address}: {len(pool.workers())} workers, first answer after {taken_s:.1f} s"


def _server(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    from deployments.environment import configured_api_url
    from deployments.server import HealthCheck

    url = configured_api_url(observatory)
    if not url:
        yield Verdict.OK, "none is configured; each run starts its own"
        return
    with HealthCheck(timeout_s=5.0) as answers:
        if answers(url):
            yield Verdict.OK, f"{url} answers"
        else:
            yield Verdict.WARN, f"{url} does not answer; exposures would be reduced without it and shown later"


def _notices(observatory: Observatory) -> Iterator[tuple[Verdict, str]]:
    from nightglass.notices import probe

    found = probe(observatory.notices)
    if not found:
        yield Verdict.WARN, "nobody is told: no mail, address, file or program is configured"
    for channel, problem in found.items():
        yield (Verdict.FAIL, f"{channel}: {problem}") if problem else (Verdict.OK, channel)
