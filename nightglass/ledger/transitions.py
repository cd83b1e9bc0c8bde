"""The legal changes of state, in one table, and the one function that makes them."""

from __future__ import annotations

import enum
import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, insert, update

from nightglass.errors import Misconfigured
from nightglass.ledger.statements import Row, Statement, upsert
from nightglass.ledger.tables import counters, entries, events
from nightglass.model import State

__all__ = ["ACTIVE_STATES", "TRANSITIONS", "Move", "Transaction", "Transition"]

ACTIVE_STATES = frozenset({State.SEEN, State.COMPLETE, State.GROUPED, State.RUNNING, State.WAITING})
"""States in which work is left."""


class Move(enum.StrEnum):
    """What can happen to an entry."""

    REVISE = "revise"
    """The file was replaced."""
    COMPLETE = "complete"
    """The file is whole and its header was understood."""
    RESTORE = "restore"
    """The file was touched, but its content is the one that had been reduced."""
    DUPLICATE = "duplicate"
    """The same content is in the ledger under another path."""
    GROUP = "group"
    CLAIM = "claim"
    CLAIM_AGAIN = "claim again"
    """A redo of what has a product already."""
    COMMIT = "commit"
    RETURN = "return"
    """Given back, expired or revoked; it will be tried again."""
    KEEP = "keep"
    """A redo came to nothing; the former product stands."""
    WAIT = "wait"
    REJECT = "reject"
    FAIL = "fail"
    SKIP = "skip"
    RETRY_FILE = "retry the file"
    RETRY_EXPOSURE = "retry the exposure"
    RETRY_GROUP = "retry in its group"


class Transition(NamedTuple):
    """The states from which a move may start, and the one in which it ends."""

    sources: frozenset[State]
    target: State


_RETRIABLE = frozenset({State.FAILED, State.REJECTED, State.SKIPPED, State.WAITING, State.REDUCED})
_UNDECIDED = frozenset({State.SEEN, State.COMPLETE, State.GROUPED, State.RUNNING, State.WAITING})

TRANSITIONS: Mapping[Move, Transition] = {
    Move.REVISE: Transition(frozenset(State) - {State.SEEN}, State.SEEN),
    Move.COMPLETE: Transition(frozenset({State.SEEN}), State.COMPLETE),
    Move.RESTORE: Transition(frozenset({State.SEEN}), State.REDUCED),
    Move.DUPLICATE: Transition(frozenset({State.SEEN}), State.SKIPPED),
    Move.GROUP: Transition(frozenset({State.COMPLETE}), State.GROUPED),
    Move.CLAIM: Transition(frozenset({State.COMPLETE, State.GROUPED, State.WAITING}), State.RUNNING),
    Move.CLAIM_AGAIN: Transition(frozenset({State.REDUCED}), State.RUNNING),
    Move.COMMIT: Transition(frozenset({State.RUNNING}), State.REDUCED),
    Move.RETURN: Transition(frozenset({State.RUNNING}), State.GROUPED),
    Move.KEEP: Transition(frozenset({State.RUNNING}), State.REDUCED),
    Move.WAIT: Transition(_UNDECIDED - {State.WAITING}, State.WAITING),
    Move.REJECT: Transition(_UNDECIDED, State.REJECTED),
    Move.FAIL: Transition(_UNDECIDED, State.FAILED),
    Move.SKIP: Transition(frozenset(State) - {State.SKIPPED}, State.SKIPPED),
    Move.RETRY_FILE: Transition(_RETRIABLE, State.SEEN),
    Move.RETRY_EXPOSURE: Transition(_RETRIABLE, State.COMPLETE),
    Move.RETRY_GROUP: Transition(_RETRIABLE, State.GROUPED),
}
"""Every legal change of state; there is no other way to change one."""

_FREE = {"token": None, "owner": None, "lease_until": None}

_EVENT = Statement(insert(events))
_COUNT = upsert(counters, adding=["count"])


class Transaction:
    """One write transaction: changes states, and keeps events and counters in step with them.

    Parameters
    ----------
    connection : Connection
        With the write lock held.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._tally: Counter[tuple[str, str, str]] = Counter()
        self._events: list[dict[str, Any]] = []

    def appear(self, row: Row) -> None:
        """Count a new entry, whose row is inserted by the caller, and note its first event."""
        self._tally[row["night"], row["camera"], row["state"]] += 1
        self._note(row, before=None, at=row["seen_at"], owner="")

    def move(self, row: Row, move: Move, *, at: float, by: str = "", **values: Any) -> Row:
        """Change the state of an entry, and with it other columns; return the row as it is then.

        `by` says who did it; without it, the holder of the lease did.

        A token, its owner and its lease do not survive a change of state, unless the change sets them.

        Raises
        ------
        Misconfigured
            If the table of transitions does not allow it; nothing is changed.
        """
        sources, target = TRANSITIONS[move]
        before = State(row["state"])
        if before not in sources:
            message = f"{row['exposure_id'] or row['path']} is {before.value}, so one cannot {move.value} it"
            remedy = f"possible from {', '.join(sorted(sources))}"
            raise Misconfigured(message, remedy=remedy)
        changed = {
            "state": target.value,
            "active_state": target.value if target in ACTIVE_STATES else None,
            "reason": "",
            "cause": "",
            **_FREE,
            **values,
        }
        after = self.change(row, **changed)
        self._tally[row["night"], row["camera"], row["state"]] -= 1
        self._tally[after["night"], after["camera"], after["state"]] += 1
        self._note(after, before=before, at=at, owner=by or after["owner"] or row["owner"] or "")
        return after

    def change(self, row: Row, **values: Any) -> Row:
        """Change columns that are neither state nor counted; return the row as it is then."""
        changed = {**values, "changes": row["changes"] + 1}
        parameters = {f"new_{name}": value for name, value in changed.items()}
        _update(tuple(changed)).run(self.connection, of_key=row["key"], **parameters)
        return {**row, **changed}

    def remark(self, row: Row, *, at: float, by: str, **values: Any) -> Row:
        """Change columns and note an event, although the state stays as it is; return the row as it is then."""
        after = self.change(row, **values)
        self._note(after, before=State(row["state"]), at=at, owner=by)
        return after

    def flush(self) -> None:
        """Write the events and the counters; the last thing before the commit."""
        if self._events:
            _EVENT.many(self.connection, self._events)
        changes = [
            {"night": night, "camera": camera, "state": state, "count": count}
            for (night, camera, state), count in sorted(self._tally.items())
            if count
        ]
        if changes:
            _COUNT.many(self.connection, changes)

    def _note(self, row: Row, *, before: State | None, at: float, owner: str) -> None:
        self._events.append(
            {
                "key": row["key"],
                "number": row["changes"],
                "revision": row["revision"],
                "at": at,
                "before": before.value if before else None,
                "after": row["state"],
                "reason": row["reason"],
                "owner": owner,
            }
        )


@functools.lru_cache(maxsize=256)
def _update(columns: tuple[str, ...]) -> Statement:
    return Statement(
        update(entries)
        .where(entries.c.key == bindparam("of_key"))
        .values({name: bindparam(f"new_{name}") for name in columns})
    )
