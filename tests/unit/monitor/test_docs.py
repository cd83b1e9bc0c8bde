"""The example of the documentation does what it says."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from nightglass.monitor import LivePicture, Monitor, run_monitor
from nightglass.streams import DECODERS
from tests.unit.monitor.feeding import Came, Queue

PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitor.md"


def test_the_monitor_of_the_documentation_runs() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(source, str(PAGE), "exec"), names)
    monitor = names["ReadoutSizes"]()
    assert isinstance(monitor, Monitor)
    readouts = [DECODERS["astropix"].example(seed) for seed in range(50)]
    live, stop = LivePicture("sizes"), threading.Event()
    thread = threading.Thread(
        target=run_monitor,
        args=(monitor, Queue(map(Came, readouts)), live),
        kwargs={"stop": stop, "refresh_s": 0.01},
    )
    thread.start()
    end = time.monotonic() + 120
    while live.newest.counters.get("messages") != 50 and time.monotonic() < end:
        time.sleep(0.01)
    stop.set()
    thread.join(120)
    sizes = [len(readout.data) for readout in readouts]
    assert live.newest.alarms == ()
    assert live.newest.message == f"50 readouts of {sum(sizes) / 50:.0f} bytes"
    assert live.newest.counters["largest"] == max(sizes)
