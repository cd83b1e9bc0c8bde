"""A real night under a real `nightglass run`, in which processes are killed.

Nothing of Nightglass is imported into the processes under test: they are started by the command line, as an
observatory starts them, and judged by the ledger and the files they leave behind.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nightglass.fitsio import content_id
from nightglass.layout import Layout
from nightglass.ledger import Ledger
from nightglass.model import ProductKind, State

CAMERA = "lynx"


@dataclass
class Observatory:
    """One root, one watched directory, and the watch that runs over them."""

    root: Path
    raw: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    killed: list[str] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    def command(self) -> list[str]:
        """Return the command line, but for root and options."""
        return [sys.executable, "-m", "deployments.cli", "run", str(self.raw), "--camera", CAMERA]

    def start(self) -> None:
        """Start the watch in a session of its own."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "NIGHTGLASS_"))
        }
        self.raw.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        command = [*self.command(), "--root", str(self.root), *self.options]
        with (self.root / "console.log").open("ab") as console:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env=environment,
            )

    def tree(self) -> dict[str, list[psutil.Process]]:
        """Return the living processes by role."""
        roles: dict[str, list[psutil.Process]] = {}
        if self.process is None or self.process.poll() is not None:
            return roles
        watch = psutil.Process(self.process.pid)
        roles["watch"] = [watch]
        for child in watch.children(recursive=True):
            roles.setdefault(_role(child), []).append(child)
        return roles

    def kill(self, role: str, rng: random.Random) -> bool:
        """Send SIGKILL to one process of a role; the watch is started again at once."""
        victims = self.tree().get(role, [])
        if not victims:
            return False
        victim = rng.choice(victims)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return False
        self.killed.append(role)
        if role == "watch":
            assert self.process is not None
            self.process.wait(120)
            self.start()
        return True

    def stop(self) -> None:
        """End the watch by SIGTERM, and by SIGKILL what is left after that."""
        if self.process is None:
            return
        left = [process for group in self.tree().values() for process in group]
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(120)
        _, alive = psutil.wait_procs(left, timeout=10)
        for process in alive:
            process.kill()
        assert not alive, f"left behind: {[' '.join(process.cmdline()) for process in alive if process.is_running()]}"

    def ledger(self) -> Ledger:
        return Ledger.open(str(self.layout.ledger))

    def states(self) -> Counter[State]:
        """Return how many exposures stand in each state."""
        if not self.layout.ledger.exists():
            return Counter()
        with self.ledger() as ledger:
            return Counter(entry.state for entry in ledger.entries(camera=CAMERA))


def _role(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "gone"
    for role, mark in (
        ("runner", "deployments.runner"),
        ("serve", "deployments.serving"),
        ("server", "prefect"),
        ("worker", "multiprocessing"),
    ):
        if mark in command:
            return role
    return "other"


@contextmanager
def running(observatory: Observatory) -> Iterator[Observatory]:
    """Run an observatory for the length of a test."""
    observatory.start()
    try:
        yield observatory
    finally:
        observatory.stop()


def wait_for(condition: Callable[[], bool], *, timeout_s: float, what: str, period_s: float = 0.25) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(period_s)
    message = f"not within {timeout_s} s: {what}"
    raise AssertionError(message)


def assert_nothing_lost_nothing_twice(observatory: Observatory, expected: int) -> None:
    """Check the ledger against the files: every exposure reduced once, every product whole, no half file."""
    with observatory.ledger() as ledger:
        entries = list(ledger.entries(camera=CAMERA))
        products = {
            product.key: product
            for night in {entry.night for entry in entries}
            for product in ledger.products(night, CAMERA, ProductKind.REDUCED)
        }
        commits = Counter(
            (event.key, event.revision)
            for entry in entries
            for event in ledger.history(entry.key)
            if event.after is State.REDUCED
        )
    stray = [entry for entry in entries if entry.state is not State.REDUCED]
    assert not stray, [(entry.path.name, entry.state, entry.reason) for entry in stray]
    assert len(entries) == expected
    assert set(commits.values()) == {1}, {key: count for key, count in commits.items() if count != 1}
    for entry in entries:
        product = products[entry.exposure_id]
        assert content_id(product.path) == product.checksum
    parts = [path for path in observatory.root.rglob("*.part") if path.is_file()]
    assert not parts, parts
