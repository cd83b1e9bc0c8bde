"""Fixtures that every test may use, and how tests are shared out to two processes."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
import pytest_timeout
from hypothesis import HealthCheck, settings

# the same examples in every run, however slow the machine: whoever hunts for new ones runs with
# --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

_LASTING = ("server", "slow", "cluster")
_TRIED_AGAIN = (*_LASTING, "timed")
_MEASURED = re.compile(r"(?<!not )\b(?:drill|bench)\b")


def pytest_configure() -> None:
    """Take SIGINT as a terminal would give it, also below nohup: tests interrupt their children by it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run directories in two processes, however many cores there are: many tests start processes of their own.

    Files that somebody names are run in this process, where a debugger and ``print`` work; so are drills and
    benchmarks, which need the machine for themselves.
    """
    named = any(".py" in argument for argument in config.args)
    return 0 if named or _MEASURED.search(config.option.markexpr) else 2


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what is imported to stay: that took half the time of collecting all tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and all that share a Prefect server; what lasts long begins first."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        group = "server" if _shares_server(item) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        if any(item.get_closest_marker(name) for name in _TRIED_AGAIN):
            # it depends on real processes, or on time, on whatever machine this is; the summary names it (R)
            item.add_marker(pytest.mark.flaky(reruns=1))
        files.setdefault(item.path, []).append(item)
    items[:] = [item for file in sorted(files.values(), key=_rank) for item in file]


def _shares_server(item: pytest.Item) -> bool:
    return "prefect_site" in getattr(item, "fixturenames", ())


def _rank(file: list[pytest.Item]) -> int:
    if any(_shares_server(item) for item in file):
        return -1
    return min(
        (_LASTING.index(mark.name) for item in file for mark in item.iter_markers() if mark.name in _LASTING),
        default=len(_LASTING),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give the second run of a test the whole time-out: once the first has used it up, nothing would end a hang."""
    if getattr(item, "execution_count", 1) < 2:
        return
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout:
        item.config.hook.pytest_timeout_cancel_timer(item=item)
        item.config.hook.pytest_timeout_set_timer(item=item, settings=settings)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is no UTF-8 in captured lines, as names of hostile files: a process cannot send it to another."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Directory of the real data sets; tests that need it are skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    place = Path(os.environ.get("NIGHTGLASS_DATA", beside))
    if not place.is_dir():
        pytest.skip(f"no real data at {place}; set NIGHTGLASS_DATA")
    return place
