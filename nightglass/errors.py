"""Errors that say what happens next.

::

    NightglassError
    ├─ Retryable          the world was busy                 -> retried with backoff
    │  └─ LeaseLost       somebody else owns the work now    -> this holder stops, quietly
    ├─ Rejected           this exposure can never be reduced -> quarantined, the night goes on
    ├─ Waiting            an input is not here yet           -> redone when it comes, at midway or at final
    └─ Misconfigured      configuration or our own bug       -> stops at start, before data are touched

Every message carries the path or peer, the offending value, and what to do about it.
"""

from __future__ import annotations

__all__ = ["LeaseLost", "Misconfigured", "NightglassError", "Rejected", "Retryable", "Waiting"]


class NightglassError(Exception):
    """Root of every error that Nightglass raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong, with path and value.
    remedy : str, optional
        What a person can do about it; shown after the message.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive the default pickling between Dask processes
        return _rebuild, (type(self), self.message, self.remedy)


def _rebuild(kind: type[NightglassError], message: str, remedy: str) -> NightglassError:
    return kind(message, remedy=remedy)


class Retryable(NightglassError):
    """The world was busy: a file still growing, a lock, a cluster or a network that is gone for now."""


class LeaseLost(Retryable):
    """The lease on an exposure expired or was taken over; its old holder must not commit."""


class Rejected(NightglassError):
    """The exposure can never be reduced: malformed FITS, a missing keyword, an impossible shape."""


class Waiting(NightglassError):
    """An input is not here yet: a calibration, a member of the group."""


class Misconfigured(NightglassError):
    """The configuration, or Nightglass itself, is wrong; nothing was touched."""
