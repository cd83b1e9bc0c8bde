"""Remarks on exposures that are reduced: they keep their state and get a verdict with a reason."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import update

from nightglass.ledger.store import Store
from nightglass.ledger.tables import entries
from nightglass.model import Quality, State

__all__ = ["Remarks"]


class Remarks:
    """The part of the ledger that later judgements go to."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def remark(self, reasons: Mapping[str, str], *, quality: Quality, cause: str) -> None:
        """Give reduced exposures a verdict.

        Parameters
        ----------
        reasons : mapping
            Exposure id -> why; an empty text takes an earlier remark of the same cause back.
        cause : str
            Class of the judgement, as it is counted in reports.
        """
        with self._store.write() as transaction:
            for exposure_id, reason in reasons.items():
                place = (entries.c.exposure_id == exposure_id, entries.c.state == State.REDUCED.value)
                if reason:
                    values = {"quality": quality.value, "reason": reason, "cause": cause}
                    statement = update(entries).where(*place).values(values)
                else:
                    values = {"quality": Quality.OK.value, "reason": "", "cause": ""}
                    statement = update(entries).where(*place, entries.c.cause == cause).values(values)
                transaction.connection.execute(statement)
