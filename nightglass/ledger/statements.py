"""Statements that are compiled once: SQLAlchemy's way through its caches costs several times what SQLite takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Delete, Insert, Select, Table, TextClause, Update, text

__all__ = ["Statement", "upsert"]

Row = Mapping[Any, Any]
"""One row of a table by column name."""


class Statement:
    """A statement with named parameters, for any of our dialects.

    Parameters
    ----------
    expression : Select, Insert, Update, Delete or TextClause
        Without expanding parameters; only with column types that need no conversion (text and numbers).
    """

    def __init__(self, expression: Select[Any] | Insert | Update | Delete | TextClause) -> None:
        self._expression = expression
        self._compiled: dict[str, tuple[str, dict[str, Any], tuple[str, ...] | None]] = {}

    def __call__(self, connection: Connection, **parameters: Any) -> CursorResult[Any]:
        """Execute it once."""
        sql, constants, order = self._compile(connection)
        values = {**constants, **parameters}
        return connection.exec_driver_sql(sql, tuple(values[name] for name in order) if order is not None else values)

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it once for each row of parameters."""
        sql, constants, order = self._compile(connection)
        if order is not None:
            connection.exec_driver_sql(sql, [tuple({**constants, **row}[name] for name in order) for row in rows])
        else:
            connection.exec_driver_sql(sql, [{**constants, **row} for row in rows])

    def one(self, connection: Connection, **parameters: Any) -> Row | None:
        """Execute it and return its only row, if there is one."""
        return self(connection, **parameters).mappings().one_or_none()

    def all(self, connection: Connection, **parameters: Any) -> Sequence[Row]:
        """Execute it and return all rows."""
        return self(connection, **parameters).mappings().all()

    def _compile(self, connection: Connection) -> tuple[str, dict[str, Any], tuple[str, ...] | None]:
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self._expression.compile(dialect=dialect)
            order = None if compiled.positiontup is None else tuple(compiled.positiontup)
            found = self._compiled[dialect.name] = (str(compiled), dict(compiled.params), order)
        return found


def upsert(table: Table, *, adding: Collection[str] = (), returning: str = "") -> Statement:
    """Return a statement that inserts a row, or replaces the columns of the row with the same primary key.

    Parameters
    ----------
    adding : collection of str
        Columns to which the new value is added instead.
    returning : str
        Column that is returned.
    """
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    changes = [
        f'"{name}" = {table.name}."{name}" + excluded."{name}"' if name in adding else f'"{name}" = excluded."{name}"'
        for name in names
        if name not in keys
    ]
    sql = (
        f"INSERT INTO {table.name} ({', '.join(_quoted(names))}) VALUES ({', '.join(':' + name for name in names)}) "
        f"ON CONFLICT ({', '.join(_quoted(keys))}) DO UPDATE SET {', '.join(changes)}"
    )
    return Statement(text(f'{sql} RETURNING "{returning}"' if returning else sql))


def _quoted(names: Collection[str]) -> list[str]:
    return [f'"{name}"' for name in names]
