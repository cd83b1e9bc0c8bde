"""Remarks on exposures that are reduced: they keep their state and get a verdict with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nightglass.ledger.rows import by_exposures
from nightglass.ledger.statements import Row
from nightglass.ledger.store import Store
from nightglass.model import Quality, State

__all__ = ["Remarks"]


class Remarks:
    """The part of the ledger that later judgements go to.

    Parameters
    ----------
    store : Store
    clock : callable
        Gives epoch seconds, for calls without `now`.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def remark(self, reasons: Mapping[str, str], *, quality: Quality, cause: str, now: float | None = None) -> None:
        """Give reduced exposures a verdict; the history of each says so, once.

        Parameters
        ----------
        reasons : mapping
            Exposure id -> why; an empty text takes an earlier remark of the same cause back.
        cause : str
            Class of the judgement, as it is counted in reports.
        """
        at = self._clock() if now is None else now
        with self._store.write() as transaction:
            for row in by_exposures(transaction.connection, reasons).values():
                values = _values(row, reasons[row["exposure_id"]], quality=quality, cause=cause)
                if any(row[name] != value for name, value in values.items()):
                    transaction.remark(row, at=at, by=cause, **values)


def _values(row: Row, reason: str, *, quality: Quality, cause: str) -> dict[str, Any]:
    """Return the columns that a remark sets; none where it does not apply."""
    if row["state"] != State.REDUCED:
        return {}
    if reason:
        return {"quality": quality.value, "reason": reason, "cause": cause}
    return {"quality": Quality.OK.value, "reason": "", "cause": ""} if row["cause"] == cause else {}
