"""Ports of this machine that are free, and what of its network there is."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

__all__ = ["free_port", "needs_ipv6"]

_LOWEST, _CHANCES = 15_000, 200
_CHANCE = random.SystemRandom()  # the common one begins alike in each test process


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free for connections and datagrams.

    It lies below those that the system gives to connections, which may be taken at any moment.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(_CHANCES):
        port = _CHANCE.randrange(_LOWEST, first) if first > 2 * _LOWEST else 0
        with socket.socket(family, socket.SOCK_STREAM) as probe, socket.socket(family, socket.SOCK_DGRAM) as other:
            try:
                probe.bind((host, port))
                other.bind((host, probe.getsockname()[1]))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    message = f"no port of {host} is free"
    raise OSError(message)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="there is no IPv6 here")
