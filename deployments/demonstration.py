"""The script of the demonstration: a short night of a camera that does not exist, written while it is watched."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nightglass.config import Observatory, validate
from nightglass.ledger import FINAL_STATES
from nightglass.model import CALIBRATION_KINDS, Night, Stage, State
from nightglass.nights import night_of
from nightglass.simulate import NightPlan, Studio, hostile, plan_exposures

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["CAMERA", "Director", "Phase", "demo_observatory", "demo_plan"]

_log = logging.getLogger(__name__)

CAMERA = "lynx"

_SERVER_S = 60.0
"""Patience with the Prefect server; the night goes on without it."""
_CALIBRATION_PACE_S = 0.3
_SCIENCE_PACE_S = 1.2
_QUIET_S = 45.0
"""Patience with the last exposures."""
_STAGE_S = 50.0
"""Patience with a stage; the watch runs one itself that nobody took."""
_LOOK_S = 0.25

_WRITERS = (
    hostile.write_whole,
    partial(hostile.slow, chunks=4, pause_s=0.15),
    hostile.rsync_like,
    hostile.hard_link,
    hostile.renamed_later,
    hostile.move_from_outside,
    hostile.preallocated,
)
"""Ways in which whole files come; the science frames take turns."""


class Phase(enum.StrEnum):
    """Where the demonstration stands."""

    START = "start Prefect server, runner and Dask workers"
    CALIBRATIONS = "bias, dark and flat frames arrive"
    SCIENCE = "science frames arrive, dithered, and some files that are none"
    MIDWAY = "midway: masters, redo, report"
    REST = "the last exposures are reduced"
    FINAL = "final: last groups, stacks, report, reconciliation"
    OVER = "the night is closed"


@dataclass(frozen=True, slots=True)
class _Act:
    """One file of the script."""

    phase: Phase
    name: str
    pace_s: float
    write: Callable[[Path], object]


def demo_observatory(root: Path, raw: Path, *, workers: int) -> Observatory:
    """Return the configuration of the demonstration: a site at which it is evening now."""
    # a night ends at local noon, which must not fall into the demonstration
    offset = (20 - datetime.now(UTC).hour + 12) % 24 - 12
    values = {
        "root": str(root),
        "site": {"name": "a mountain that does not exist", "timezone": f"Etc/GMT{-offset:+d}" if offset else "Etc/GMT"},
        "sources": [{"camera": CAMERA, "directory": str(raw), "transfer_timeout_s": 8.0, "rescan_s": 3.0}],
        "cluster": {"workers": workers, "memory_mib": 2048},
        "prefect": {"fallback_s": 40.0},
        "reduction": {"calibration_settle_s": 1.5, "retry_s": 1.0},
        "notices": {"file": str(root / "notices.txt")},
        "limits": {"image_mib": 256},
    }
    return validate(Observatory, values, where="demonstration")


def demo_plan(observatory: Observatory) -> NightPlan:
    """Return what is exposed: 5 biases, 3 darks, and in each of two filters 3 flats and two dither sets of 3."""
    now = datetime.now(UTC)
    return NightPlan(
        night=night_of(now, observatory.site),
        biases=5,
        darks=3,
        flats=3,
        science=6,
        dithers=3,
        filters=("g", "r"),
        shape=(900, 900),
        started_at=now,
    )


class Director(threading.Thread):
    """Writes the night's files, calls its stages early, and tells when it is over.

    Parameters
    ----------
    ledger : Ledger
        Of the watch that looks at `raw`.
    ready : callable
        Whether the executor takes jobs.
    over : callable
        Called once, at the end, come what may.
    tell : callable
        Told each phase as it begins.
    """

    def __init__(
        self,
        plan: NightPlan,
        raw: Path,
        ledger: Ledger,
        *,
        seed: int,
        ready: Callable[[], bool],
        over: Callable[[], None],
        tell: Callable[[Phase], None],
    ) -> None:
        super().__init__(name="director", daemon=True)
        self._plan = plan
        self._raw = raw
        self._ledger = ledger
        self._seed = seed
        self._ready = ready
        self._over = over
        self._tell = tell
        self._stopped = threading.Event()
        self.phase = Phase.START
        self.written = 0
        self.planned = 0
        self.error = ""

    @property
    def night(self) -> Night:
        """The night that is simulated."""
        return self._plan.night

    def stop(self) -> None:
        """Give up before the end."""
        self._stopped.set()

    def run(self) -> None:
        """Play the script."""
        try:
            self._play()
        except Exception as error:  # noqa: BLE001 - a boundary: the thread's end must not go unseen
            _log.exception("the demonstration cannot go on")
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._over()

    def _play(self) -> None:
        self._tell(Phase.START)
        acts = tuple(self._script())
        self.planned = len(acts)
        self._wait(self._ready, _SERVER_S)
        half = len(acts) - sum(act.phase is Phase.SCIENCE for act in acts) // 2
        for number, act in enumerate(acts):
            if self._stopped.wait(act.pace_s):
                return
            if number == half:
                self._call(Stage.MIDWAY)
            self._enter(act.phase)
            act.write(self._raw / act.name)
            self.written += 1
        self._enter(Phase.MIDWAY)
        self._wait(lambda: self._is_done(Stage.MIDWAY), _STAGE_S)
        self._enter(Phase.REST)
        self._wait(self._is_quiet, _QUIET_S)
        self._enter(Phase.FINAL)
        self._call(Stage.FINAL)
        if self._wait(lambda: self._is_done(Stage.FINAL), 2 * _STAGE_S):
            self._enter(Phase.OVER)

    def _enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.phase = phase
            self._tell(phase)

    def _script(self) -> Iterator[_Act]:
        studio = Studio(self._plan, seed=self._seed)
        troubles = iter(_troubles())
        for planned in plan_exposures(self._plan):
            content = studio.expose(planned).to_bytes()
            if planned.kind in CALIBRATION_KINDS:
                write = partial(_whole, content=content, writer=hostile.write_whole)
                yield _Act(Phase.CALIBRATIONS, planned.file_name, _CALIBRATION_PACE_S, write)
                continue
            writer = _WRITERS[planned.number % len(_WRITERS)]
            write = partial(_whole, content=content, writer=writer)
            yield _Act(Phase.SCIENCE, planned.file_name, _SCIENCE_PACE_S, write)
            trouble = next(troubles, None)
            if trouble is not None:
                name, leave = trouble
                yield _Act(Phase.SCIENCE, name, 0.0, partial(leave, content=content))

    def _call(self, stage: Stage) -> None:
        """Make a stage due now; a real night waits for its hour."""
        if self._wait(lambda: self._ledger.find_night(self.night, CAMERA) is not None, _QUIET_S):
            self._ledger.reset_stage(self.night, CAMERA, stage, due=datetime.now(UTC))

    def _is_done(self, stage: Stage) -> bool:
        record = self._ledger.find_night(self.night, CAMERA)
        return record is not None and record.stage(stage).state.value in {"done", "failed"}

    def _is_quiet(self) -> bool:
        counts = self._ledger.counts(self.night, CAMERA)
        return all(state in FINAL_STATES or state is State.WAITING or not count for state, count in counts.items())

    def _wait(self, condition: Callable[[], bool], patience_s: float) -> bool:
        end = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > end or self._stopped.wait(_LOOK_S):
                return False
        return True


def _whole(path: Path, *, content: bytes, writer: Callable[[Path, bytes], object]) -> None:
    writer(path, content)


def _troubles() -> list[tuple[str, Callable[..., object]]]:
    """Return files that no camera should write: name, and who leaves it."""
    return [
        ("interrupted.fits", lambda path, content: hostile.truncated(path, content)),
        ("empty.fits", lambda path, content: hostile.empty(path)),  # noqa: ARG005 - all are called alike
        ("garbage.fits", lambda path, content: hostile.garbage(path)),  # noqa: ARG005
        ("directory.fits", lambda path, content: hostile.named_like_a_file(path)),  # noqa: ARG005
        ("never-filled.fits", lambda path, content: hostile.zero_tail(path, content)),
        ("bomb.fits.gz", lambda path, content: hostile.gzip_bomb(path, expanded_mib=512)),  # noqa: ARG005
        ("second-copy.fits", lambda path, content: path.write_bytes(content)),
    ]
