"""Names of lease holders that tell, after a crash, whether the holder is still alive."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nightglass.errors import Misconfigured

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lease, written ``host:pid:started:role`` in the ledger.

    Attributes
    ----------
    started : str
        Boot and clock tick at which the process started, so that a number used again by another process is
        not taken for the old one. Ticks since boot, because a wall clock that is set would change the answer.
    role : str
        ``watch``, ``serve``, ``cli``... for people.
    """

    host: str
    pid: int
    started: str
    role: str

    @classmethod
    def here(cls, role: str) -> Self:
        """Return the name of this process."""
        return cls(platform.node(), os.getpid(), _started(os.getpid()) or "0", role)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises
        ------
        Misconfigured
            If the text is not of that form.
        """
        try:
            host, pid, started, role = text.split(":", 3)
            return cls(host, int(pid), started, role)
        except ValueError:
            message = f"{text!r} does not name the owner of a lease"
            raise Misconfigured(message, remedy="owners are written host:pid:started:role") from None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started}:{self.role}"

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to be gone; of another host nothing is known."""
        return self.host == platform.node() and _started(self.pid) != self.started


def _started(pid: int) -> str | None:
    """Return boot and start tick of a process, or None if it is gone or only waits to be reaped."""
    try:
        # the name in the second field may hold spaces and brackets, see man 5 proc_pid_stat
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in ("Z", "X"):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{boot}-{fields[19]}"
