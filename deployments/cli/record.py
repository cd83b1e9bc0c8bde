"""``nightglass record`` and ``nightglass replay``: streams as files, and files as streams."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nightglass.sensors import Receiver

__all__ = ["record_command", "replay_command"]

_LOOK_S = 0.2


def record_command(named: str, output: Path, *, interface: str, duration_s: float, limit_mib: int) -> int:
    """Record a source until Ctrl-C, the end of the duration, or the limit; return the exit code."""
    from deployments.cli.screen import output as screen
    from nightglass.errors import Misconfigured
    from nightglass.sensors import Backlog, make_source, open_receivers, parse_source
    from nightglass.sensors.recordings import Recorder

    parsed = parse_source(named)
    if parsed.path is not None:
        message = f"{named} is a file already"
        raise Misconfigured(message, remedy="write protocol://host:port,host:port")
    source = make_source(parsed, interface=interface)
    console = screen()
    with Recorder(
        output, protocol=source.protocol, endpoints=source.endpoints, limit_bytes=limit_mib << 20
    ) as recorder:
        # the messages are counted for the person who watches; nobody takes them
        receivers = open_receivers(source, Backlog(1, source.overflow), tap=recorder.tap)
        console.print(f"{named} -> {output}; Ctrl-C ends", markup=False, highlight=False)
        for receiver in receivers:
            receiver.start()
        until = time.monotonic() + duration_s if duration_s else float("inf")
        try:
            while time.monotonic() < until and not recorder.trouble:
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            pass
        finally:
            _end(receivers)
    console.print(f"{recorder.pieces} pieces, {recorder.size} bytes", highlight=False)
    for receiver in receivers:
        console.print(_line(receiver), markup=False, highlight=False)
    if recorder.trouble:
        console.print(recorder.trouble, markup=False, style="bold red")
    return 1 if recorder.trouble else 0


def replay_command(file: Path, *, speed: float, endpoints: str | None, interface: str) -> int:
    """Serve a recording as it came; return the exit code."""
    from deployments.cli.screen import output as screen
    from nightglass.sensors import parse_endpoint
    from nightglass.sensors.recordings import read_recording
    from nightglass.sensors.replaying import Replay

    recording = read_recording(file)
    chosen = tuple(map(parse_endpoint, endpoints.split(","))) if endpoints else ()
    replay = Replay(recording, endpoints=chosen, speed=speed, interface=interface)
    console = screen()
    where = ", ".join(map(str, replay.endpoints))
    console.print(f"{recording.protocol} of {recording.began:%Y-%m-%d %H:%M:%S} at {where}", markup=False)
    try:
        replay.run()
    except KeyboardInterrupt:
        replay.stop()
    console.print(f"{replay.pieces} pieces", highlight=False)
    if recording.problem:
        console.print(recording.problem, markup=False, style="bold red")
    return 1 if recording.problem else 0


def _end(receivers: Sequence[Receiver]) -> None:
    for receiver in receivers:
        receiver.stop()
    for receiver in receivers:
        receiver.join()


def _line(receiver: Receiver) -> str:
    status = receiver.status
    faults = "".join(f", {count} {name}" for name, count in sorted(status.faults.items()))
    lost = f", {status.losses.lost} lost" if status.losses else ""
    return f"  {status.peer}: {status.messages} messages{lost}{faults}{', ' * bool(status.trouble)}{status.trouble}"
