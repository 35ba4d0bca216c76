"""What a table holds, as a number of rows and a sum over them that PostgreSQL computes itself."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import asyncpg

SETTINGS: Final = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET bytea_output = 'hex'; "
    "SET extra_float_digits = 1"
)
"""A row's text must be the same whoever asks."""


async def row_sum(connection: asyncpg.Connection, schema: str, table: str) -> tuple[int, str]:
    """Count the rows, and add up a hash of each row's text: the order does not matter."""
    row = await connection.fetchrow(
        "SELECT count(*) AS rows, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) AS sum "
        f'FROM {schema}."{table}" AS t'
    )
    assert row is not None
    return int(row["rows"]), str(Decimal(row["sum"]))


async def tables_of(connection: asyncpg.Connection, schema: str) -> list[str]:
    """Return the tables of a schema; a partition is part of its parent."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::text::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname",
        schema,
    )
    return [row["relname"] for row in rows]
