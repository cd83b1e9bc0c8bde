"""Child processes that never outlive their parent, and are stopped together with all that they started.

A child is started through this module (``python -m deployments.processes``), which asks the kernel to signal it
when its parent dies (``PR_SET_PDEATHSIG``, `man 2 prctl`) and then becomes the wanted program. Children that
Nightglass wrote itself watch their standard input too, which also works through a container's init.

The kernel's "parent" is the *thread* that started the child: start children from threads that live as long as
the children should.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from nightglass.errors import Misconfigured

__all__ = ["Child", "die_with_parent", "on_end_of_input", "running_pid", "spawn"]

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Child:
    """A started child process.

    Attributes
    ----------
    name : str
        What it is for, as logs and pid files call it.
    process : subprocess.Popen
        With pipes on standard input and output where `spawn` was asked for them.
    pid_file : Path or None
        Holds the pid while the child lives.
    """

    name: str
    process: subprocess.Popen[str]
    pid_file: Path | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs (a stopped process runs, too)."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a child that is gone is left alone."""
        if self.alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the child and all that it started, at once; works on stopped processes too."""
        self.stop(grace_s=0.0)

    def stop(self, *, grace_s: float) -> None:
        """End the child and all that it started.

        SIGTERM to the child, which may end its own children in order; what still runs after `grace_s` seconds,
        child or grandchild, gets SIGKILL.
        """
        family = _family(self.process.pid) if self.alive else []
        if grace_s > 0 and self.alive:
            self.process.terminate()
            # a stopped process would keep the signal pending for ever
            self.process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=grace_s)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        # the child leads a process group: this finds what it started after we looked
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if self.pid_file is not None:
            self.pid_file.unlink(missing_ok=True)


def spawn(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    pipes: bool = False,
    pid_file: Path | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start a child that gets `death_signal` when the calling thread, or the process, ends.

    Parameters
    ----------
    name : str
        For logs.
    command : sequence of str
        Program and arguments; ``python`` stands for this interpreter.
    environment : mapping
        The whole environment of the child.
    log : Path
        Standard error, and standard output where there are no pipes, are appended to it.
    pipes : bool, optional
        Line-buffered text pipes on standard input and output. Without them, standard input is a pipe that only
        tells of our end.
    pid_file : Path, optional
        Written with the pid, and removed by `Child.stop`.

    Raises
    ------
    Misconfigured
        If the log file cannot be opened or the program does not exist.
    """
    program = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    wrapper = [sys.executable, "-m", "deployments.processes", str(int(death_signal)), str(os.getpid()), *program]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            process = subprocess.Popen(
                wrapper,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if pipes else stream,
                stderr=stream,
                text=True,
                bufsize=1,
                # a terminal's Ctrl-C reaches the parent alone, which then ends its children in order
                start_new_session=True,
            )
    except OSError as error:
        message = f"the {name} cannot be started with its log at {log}: {error}"
        raise Misconfigured(message, remedy="is the root writable, and is there space?") from error
    if pid_file is not None:
        pid_file.parent.mkdir(parents=True, exist_ok=True)
        pid_file.write_text(f"{process.pid}\n")
    return Child(name, process, pid_file)


def running_pid(pid_file: Path, *, containing: str) -> int | None:
    """Return the pid in a pid file if a process of that number runs whose command line contains the text.

    The text guards against a pid that was given to somebody else since.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
        command = " ".join(psutil.Process(pid).cmdline())
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return pid if containing in command else None


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Ask the kernel for a signal when the parent dies; exit at once if it is dead already."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:
        sys.exit(f"the parent {parent} died before its child came up")


def on_end_of_input(stream: IO[str], action: Callable[[], None]) -> threading.Thread:
    """Call the action, in a thread, when a stream that nobody writes to ends: the parent is gone."""

    def wait() -> None:
        while stream.readline():
            pass
        action()

    thread = threading.Thread(target=wait, name="end-of-input", daemon=True)
    thread.start()
    return thread


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _main(arguments: Sequence[str]) -> None:
    number, parent, *command = arguments
    die_with_parent(signal.Signals(int(number)), int(parent))
    os.execvp(command[0], command)


if __name__ == "__main__":
    _main(sys.argv[1:])
