"""What holds for every file of the repository."""

from __future__ import annotations

import re

import pytest

from nightglass.config import load_camera, packaged_cameras
from nightglass.model import Kind
from tests.architecture.sources import REPOSITORY, repository_files

PRIVATE = re.compile(r"(?<![\w.~-])/(?:" + "|".join(["home", "root", "Users", "work", "tmp/n" + "g"]) + r")/\w+")
"""Places of somebody's machine; ``/data`` and ``/srv`` are examples that anybody may have."""
TEXT = {".py", ".toml", ".md", ".yaml", ".yml", ".txt", ".cfg", ".html", ".css", ".service", ".sh", ""}


def test_no_file_names_a_private_place() -> None:
    wrong = []
    for path in repository_files():
        if path.suffix not in TEXT:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if PRIVATE.search(line):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}")
    assert wrong == []


def test_no_file_is_a_leftover_or_large() -> None:
    wrong = [
        str(path.relative_to(REPOSITORY))
        for path in repository_files()
        if path.suffix in {".orig", ".rej", ".pyc", ".log"} or path.stat().st_size > 2 * 1024 * 1024
    ]
    assert wrong == []


def test_cameras_come_with_the_package() -> None:
    assert {"generic", "exotic", "kast", "feder", "lynx"} <= set(packaged_cameras())


@pytest.mark.parametrize("name", packaged_cameras())
def test_every_packaged_camera_loads_and_names_its_lists(name: str) -> None:
    camera = load_camera(name)
    assert camera.name == name
    assert camera.description
    assert {"realtime", "default", "postprocess"} <= set(camera.steps)
    for listed in camera.steps:
        assert camera.step_list(listed, Kind.SCIENCE)


def test_pages_show_and_link_only_what_is_there() -> None:
    link = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
    wrong = [
        f"{path.relative_to(REPOSITORY)}: {target}"
        for path in repository_files()
        if path.suffix == ".md"
        for target in link.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert wrong == []
