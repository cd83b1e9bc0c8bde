"""With `durable`, what is acknowledged or given back for saved is on the disk before: files, and directories above."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nightglass.builder.records import FrameView
from tests.unit.builder.desk import builder, image, wait_done


class Disk:
    """Which inodes were synced, and their directories after they got their names."""

    def __init__(self) -> None:
        self.synced: dict[tuple[int, int], set[str]] = {}

    def fsync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        place = Path(f"/proc/self/fd/{descriptor}")
        names = {item.name for item in place.iterdir()} if place.is_dir() else set()
        self.synced.setdefault((found.st_dev, found.st_ino), set()).update(names)

    def holds(self, path: Path) -> bool:
        found = path.stat()
        return (found.st_dev, found.st_ino) in self.synced

    def names(self, directory: Path) -> set[str]:
        found = directory.stat()
        return self.synced.get((found.st_dev, found.st_ino), set())

    def lasts(self, path: Path, root: Path) -> bool:
        """Tell whether a file and the way to it would be there after a loss of power."""
        way = [path, *(parent for parent in path.parents if parent.is_relative_to(root) and parent != root)]
        return self.holds(path) and all(item.name in self.names(item.parent) for item in way)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made, real = Disk(), os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        made.fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return made


@pytest.mark.parametrize("settings", [{"local_copy": True}, {"local_copy": True, "compress": True}, {}])
def test_what_is_acknowledged_written_and_published_is_on_the_disk(
    tmp_path: Path, disk: Disk, settings: dict[str, Any]
) -> None:
    told: list[bool] = []

    def on_frame(path: Path, view: FrameView) -> None:
        told.append(disk.lasts(path, tmp_path))

    with builder(tmp_path, outputs=True, on_frame=on_frame, durable=True, sub_dir="deep", **settings) as made:
        made.assign(1, 0, extensions=["A"])
        record, _ = made.accept(1, 0, "A", image(1))
        assert disk.lasts(record.path, tmp_path)
        view = wait_done(made, 1, 0)
        assert disk.lasts(view.directory / "frame.json", tmp_path)
        assert all(disk.lasts(path, tmp_path) for path in view.files)
        assert len(view.files) == len(settings.keys() & {"local_copy"})
    assert told == [True]
