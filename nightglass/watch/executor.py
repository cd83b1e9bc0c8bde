"""The executor protocol: how the watch has jobs done without caring by whom.

Two implementations exist: `DarkExecutor` here (threads of the watch that make the library calls) and the Prefect one
in ``deployments.runner_executor``, which nothing in this package imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from nightglass.watch.jobs import Job, JobReport

__all__ = ["Executor", "Terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an executor asks of the watch, and what the watch may expect of it.

    Attributes
    ----------
    capacity : int
        Group jobs it takes at once; masters, stage and report jobs come on top, at most one of each kind
        for a camera and night.
    start_s : float
        Seconds within which a submitted job must be WORKING; a later one is taken back and the executor
        restarted. ``math.inf`` where WORKING is never reported.
    silence_s : float
        Seconds between the ledger saying done and ENDED; an executor that is silent for longer is
        restarted. ``math.inf`` where runs end by themselves somewhere else.
    visible : bool
        Whether its runs are shown somewhere (Prefect): then runs made in the dark are recorded in the
        ledger, and reported late by a `JobKind.REPORT` job.
    """

    capacity: int
    start_s: float
    silence_s: float
    visible: bool


class Executor(Protocol):
    """Somebody who makes the library calls that jobs ask for.

    All methods are called from the one thread of the watch and must return within milliseconds: no
    network, no joining of threads or processes. Only the wake-up given to `attach` is called from elsewhere.
    """

    @property
    def terms(self) -> Terms:
        """Constant for the life of the executor."""

    @property
    def healthy(self) -> bool:
        """Whether a job given now would run now.

        False while the server does not answer its health check, and while the runner starts, hangs or is
        silent. The watch looks at it after each wake-up and at least every 250 ms; while it is false,
        jobs run dark.
        """

    def attach(self, wake: Callable[[], None]) -> None:
        """Take the function to call, from any thread, when `poll` has a report or `healthy` changed."""

    def submit(self, job: Job) -> None:
        """Take a job. Problems are told by a report (ENDED with an error), never raised."""

    def poll(self) -> Iterable[JobReport]:
        """Return the reports since the last call, in order, without waiting.

        When the executor loses its runner by itself, not by `restart`, it ends each job that was in it with an
        error, so that the watch gives their exposures to somebody else at once.
        """

    def cancel(self, job_id: str) -> None:
        """Forget a job: the watch took it back and gives it to somebody else.

        What of it has not begun must not begin; what runs may run on, as its token is fenced. An ENDED
        may still follow. Unknown ids are ignored.
        """

    def restart(self) -> None:
        """Throw away whatever hangs (kill the runner) and start afresh, in the background.

        Jobs in it are lost, and no report of them comes any more: the watch has taken them back.
        """

    def close(self) -> None:
        """End for good; called once, after the last job. May take up to a second or two."""
