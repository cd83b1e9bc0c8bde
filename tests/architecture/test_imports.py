"""Who may import whom, read from the sources."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache

import pytest

from tests.architecture.sources import REPOSITORY, ROOMS, Import, Module, modules

ONLY_IN = {
    ("dask", "distributed"): (
        "nightglass.cubes",
        "nightglass.stacks",
        "nightglass.calibrations",
        "nightglass.cluster",
    ),
    ("watchdog",): ("nightglass.sensors",),
    ("sqlalchemy", "sqlite3", "aiosqlite"): ("nightglass.ledger",),
    ("socket", "ssl", "http", "httpx", "smtplib", "socketserver", "urllib.request", "requests", "apprise", "fastapi"): (
        "nightglass.sensors",
        "nightglass.web",
        "nightglass.notices",
        "nightglass.simulate",
        "nightglass.cluster",
        "nightglass.builder",
    ),
}
"""Within nightglass: library -> the modules that may use it."""

FORBIDDEN = {
    "nightglass": {"prefect", "flows", "tasks", "deployments"},
    "tasks": {"flows", "deployments", "numpy", "astropy", "dask", "distributed", "sqlalchemy"},
    "flows": {"deployments", "numpy", "astropy", "dask", "distributed", "sqlalchemy"},
    "deployments": set[str](),
}
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
"""Distributions that are imported under another name."""

FLOWS_MAY = {"nightglass.model", "nightglass.config", "nightglass.errors"}
"""What flows see of the library: nouns, never work."""


def within(name: str, parents: Iterable[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def offences(room: str, wrong: Iterable[tuple[Module, Import]]) -> list[str]:
    return [f"{module.place(found.line)} imports {found.name}" for module, found in wrong if module.room == room]


@cache
def every_import() -> list[tuple[Module, Import]]:
    return [(module, found) for module in modules() for found in module.imports()]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_is_below_them(room: str) -> None:
    wrong = [(module, found) for module, found in every_import() if found.top in FORBIDDEN[module.room]]
    assert offences(room, wrong) == []


@pytest.mark.parametrize("libraries", ONLY_IN, ids=lambda names: names[0])
def test_libraries_stay_in_their_modules(libraries: tuple[str, ...]) -> None:
    wrong = [
        (module, found)
        for module, found in every_import()
        if within(found.name, libraries) and not within(module.name, ONLY_IN[libraries])
    ]
    assert offences("nightglass", wrong) == []


def test_flows_see_nouns_and_tasks_and_never_each_other() -> None:
    wrong = [
        (module, found)
        for module, found in every_import()
        if module.room == "flows"
        and (
            (found.top == "flows" and module.name != "flows.night")
            or (found.top == "nightglass" and not within(found.name, FLOWS_MAY))
        )
    ]
    assert offences("flows", wrong) == []


def test_every_library_in_use_is_a_declared_dependency() -> None:
    """One that only comes along with another goes when that other changes its mind."""
    known = {*ROOMS, *sys.stdlib_module_names, *declared()}
    wrong = [
        f"{module.place(found.line)} imports {found.name}" for module, found in every_import() if found.top not in known
    ]
    assert wrong == []


def declared() -> set[str]:
    """Return the dependencies of the project by the names under which they are imported."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=~!\[; ]", requirement)[0].lower() for requirement in project["dependencies"]}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def test_no_module_has_the_name_of_a_room_the_standard_library_or_a_dependency() -> None:
    taken = declared() | set(ROOMS) | sys.stdlib_module_names
    wrong = [
        module.place() for module in modules() if module.name not in ROOMS and module.name.rpartition(".")[2] in taken
    ]
    assert wrong == []


PROBE = """
import importlib, logging, os, pkgutil, sys, threading, warnings
# what these set up for themselves is theirs to answer for
import numba, astropy.io.fits, matplotlib, pydantic, sqlalchemy, watchdog.observers, photutils, astroalign, sep
before = (set(threading.enumerate()), dict(os.environ), list(logging.getLogger().handlers), list(warnings.filters))
files = sorted(os.listdir())
import nightglass
for module in pkgutil.walk_packages(nightglass.__path__, "nightglass."):
    importlib.import_module(module.name)
after = (set(threading.enumerate()), dict(os.environ), list(logging.getLogger().handlers), list(warnings.filters))
names = ("threads", "environment", "log handlers", "warning filters")
wrong = [name for name, one, two in zip(names, before, after) if one != two]
wrong += ["files"] if sorted(os.listdir()) != files else []
wrong += [f"{name} is loaded" for name in ("prefect", "distributed", "flows", "tasks") if name in sys.modules]
sys.exit("; ".join(wrong) or 0)
"""


def test_importing_the_library_does_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=tmp_path_factory.mktemp("empty"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
