"""Streams of the observatory file: what is received over the network, and how it becomes exposures."""

from __future__ import annotations

import enum
import re
from typing import Literal

from pydantic import Field, field_validator

from nightglass.config.section import Section

__all__ = ["Overflow", "StreamSource"]

_MOST_PIXELS = 4096
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Overflow(enum.StrEnum):
    """What happens when messages come faster than they are worked on, and the backlog is full."""

    BLOCK = "block"
    """The receiver waits; TCP then holds the sender back, and the kernel drops datagrams, which is counted."""
    SPILL = "spill"
    """Messages go to a file, up to `spill_mib`, and come back in order; beyond that, the oldest are dropped."""
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class StreamSource(Section):
    """One stream, of one or several senders."""

    name: str
    """What status, command line and Prefect call it: small letters, digits, ``_`` and ``-``."""
    camera: str
    """A packaged camera, a name found in `camera_directories`, or the path of a camera file."""
    protocol: str
    """``aartfaac``, ``astropix`` or ``astropix-quad``; others are found by entry point."""
    endpoints: tuple[str, ...] = Field(min_length=1)
    """``host:port`` of each sender to connect to (TCP), or address and port to listen at (UDP), IPv6 in brackets."""
    interface: str = ""
    """Address or name of the network interface for multicast; empty: loopback for local groups, else any."""
    bind_any: bool = False
    """Whether datagrams may be taken at an address that other hosts reach."""
    connect_timeout_s: float = Field(5.0, gt=0)
    idle_timeout_s: float = Field(0.0, ge=0)
    """Silence after which a connection is made anew; 0: never."""
    reconnect_s: float = Field(0.5, gt=0)
    """Wait before the second attempt to connect; doubled for each further one, with jitter."""
    reconnect_limit_s: float = Field(10.0, gt=0)
    receive_buffer_kib: int = Field(8192, ge=4)
    """What the kernel is asked for; what it grants is shown in the status."""
    backlog_mib: int = Field(256, ge=1)
    """Messages that wait in memory, over all endpoints."""
    overflow: Overflow = Overflow.SPILL
    spill_mib: int = Field(4096, ge=1)
    pixel_order: Literal["aartfaac", "C"] = "aartfaac"
    """How AARTFAAC windows are laid out."""
    members: int = Field(0, ge=0)
    """Messages that make a group whole, as sub-bands of a time step; 0: one from each endpoint."""
    tolerance_s: float = Field(0.0, ge=0)
    """Time stamps that differ by no more belong to one group."""
    wait_s: float = Field(2.0, gt=0)
    """A group that is not whole is released this long after its first member came."""
    slice_s: float = Field(10.0, gt=0)
    """Length of one event file of a stream of hits, in the time of its readouts."""
    hit_map: tuple[int, int] = (35, 16)
    """Rows and columns of the hit map of an event file."""
    chips: int = Field(1, ge=1, le=32)
    """More than 1: an event file has one hit map for each chip, by the numbers of chips, from 0."""
    lag_alarm_s: float = Field(10.0, gt=0)
    """Alarm when what is worked on was received this long ago."""
    silence_alarm_s: float = Field(60.0, ge=0)
    """Alarm when nothing came for this long; 0: never."""

    @field_validator("hit_map")
    @classmethod
    def _has_pixels(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(1 <= length <= _MOST_PIXELS for length in value):
            message = f"a hit map of {value[0]} rows and {value[1]} columns; both are 1 to {_MOST_PIXELS}"
            raise ValueError(message)
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            message = f"{value!r} is no name for a stream; write it as guide-2"
            raise ValueError(message)
        return value
