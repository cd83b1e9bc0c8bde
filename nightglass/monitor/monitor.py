"""What every live monitor is: four calls, of which two are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from nightglass.monitor.feeds import Arrival
from nightglass.monitor.pictures import Picture

__all__ = ["Monitor"]

M = TypeVar("M")


class Monitor(ABC, Generic[M]):
    """Watches a stream; to be subclassed.

    All calls come from one thread, so that nothing needs a lock. What it keeps has to be bounded: histograms, running
    statistics, the last message of each kind; not the messages.

    Attributes
    ----------
    title : str
        What stands above the picture.
    batch : int
        How many messages it is given at most in one call.
    """

    title = "Monitor"
    batch = 1024

    def setup(self) -> None:
        """Begin anew: called before the first message, and each time somebody asks for it."""

    @abstractmethod
    def process(self, message: M) -> None:
        """Take one message."""

    @abstractmethod
    def update(self) -> Picture:
        """Return what is to be seen now; called each refresh interval, however many messages came.

        Rates, traffic, losses on the way here, number and time are added to the picture afterwards.
        """

    def process_many(self, arrivals: Sequence[Arrival[M]]) -> None:
        """Take messages as they came, with sender, time of arrival and size; by itself `process` gets them one by one.

        To be overridden where many are faster together, or where it matters how they came.
        """
        for arrival in arrivals:
            self.process(arrival.message)
