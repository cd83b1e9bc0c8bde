"""Statements that are compiled once and, for SQLite, go straight to the driver, inside SQLAlchemy's transaction.

SQLAlchemy's way through its caches and result objects costs several times what SQLite takes for the work itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Select, Table, TextClause, Update, text

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

    def run(self, connection: Connection, **parameters: Any) -> None:
        """Execute it once."""
        sql, constants, order = self._compile(connection)
        values = {**constants, **parameters}
        if order is None:
            connection.exec_driver_sql(sql, values)
        else:
            _driver(connection).execute(sql, [values[name] for name in order])

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it once for each row of parameters."""
        sql, constants, order = self._compile(connection)
        filled = [{**constants, **row} for row in rows]
        if order is None:
            connection.exec_driver_sql(sql, filled)
        else:
            _driver(connection).executemany(sql, [[row[name] for name in order] for row in filled])

    def all(self, connection: Connection, **parameters: Any) -> list[Row]:
        """Execute it and return all rows."""
        sql, constants, order = self._compile(connection)
        values = {**constants, **parameters}
        if order is None:
            return list(connection.exec_driver_sql(sql, values).mappings())
        cursor = _driver(connection).execute(sql, [values[name] for name in order])
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def one(self, connection: Connection, **parameters: Any) -> Row | None:
        """Execute it and return its only row, if there is one."""
        return next(iter(self.all(connection, **parameters)), None)

    def _compile(self, connection: Connection) -> tuple[str, dict[str, Any], tuple[str, ...] | None]:
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self._expression.compile(dialect=dialect)
            order = None if compiled.positiontup is None else tuple(compiled.positiontup)
            found = self._compiled[dialect.name] = (str(compiled), dict(compiled.params), order)
        return found


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # no other of our dialects has positional parameters
    return driver


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
