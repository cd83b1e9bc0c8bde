"""The lock of a watch, and others who only look at it."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from nightglass.watch.instance import InstanceLock, lock_holder


@pytest.mark.parametrize("named", ["", "999999999"])
def test_who_only_looks_does_not_keep_a_watch_from_starting(tmp_path: Path, named: str) -> None:
    """A looker that the system puts aside in the middle of its look."""
    path = tmp_path / "watch-lynx.lock"
    path.write_text(named)
    with path.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        release = threading.Timer(1.0, lambda: fcntl.flock(stream, fcntl.LOCK_UN))
        release.start()
        with InstanceLock(tmp_path, ["lynx"]):
            assert lock_holder(tmp_path, "lynx") == os.getpid()
        release.join()
