"""
Old rows of the small tables that would grow for ever, and keys that nobody repeats any more.

Rows are moved into a table aside in one transaction, which retention archives, verifies and drops
like a month: they are in their table, aside, or in an archive, however a call ends. What runs and
what is asked for stays: a run without an end, the last run of an open session, a damaged snapshot
that still lies in its month.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

ASIDE: Final = "_aside"
ROWS_AT_ONCE: Final = 10_000
"""So many rows are moved and archived at once; a damaged snapshot may have a megabyte."""

SPAN_MAX: Final = timedelta(days=31)
"""What is kept whole until its last day is old: a row in it may be older by this."""

_SPAN_NS: Final = int(SPAN_MAX.total_seconds()) * 1_000_000_000

KEYS_GRACE: Final = SPAN_MAX + timedelta(days=7)
"""A key outlives its rows by a week, so that a late repeat still finds it."""

KEYS_AT_ONCE: Final = 50_000


class Table(msgspec.Struct, frozen=True):
    """A small table: which of its rows have outlived their retention, and how one is named."""

    name: str
    key: str
    is_old: str  # $1 is the moment, in nanoseconds, before which a row has outlived it

    def aside_of(self, before: datetime) -> str:
        """Name the table in which its rows lie aside."""
        return f"{self.name}_y{before:%Y}m{before:%m}d{before:%d}{ASIDE}"


TABLES: Final = (
    Table(
        "session_runs",
        "number",
        """
        t.ended_ns < $1 AND NOT EXISTS (
            SELECT FROM arb.sessions AS s
            WHERE (s.env, s.session_id) = (t.env, t.session_id) AND s.closed_ns IS NULL
                AND t.number = (SELECT max(number) FROM arb.session_runs AS r
                                WHERE (r.env, r.session_id) = (t.env, t.session_id)))
        """,
    ),
    Table(
        "snapshot_quarantine",
        "(env, table_name, session_id, symbol, at_ns, batch_id)",
        # Once it is gone from here its snapshot would be read again.
        f"greatest(t.found_ns, t.at_ns) < $1::bigint - {_SPAN_NS}",
    ),
)

KEYS: Final = {
    "snapshot_batches": "(env, batch_id)",
    "tuning_trials": "(env, run_id, trial)",
}


async def count(connection: asyncpg.Connection, table: Table, before: datetime) -> int:
    """Return how many rows have outlived their retention."""
    found = await connection.fetchval(
        f"SELECT count(*) FROM arb.{table.name} AS t WHERE {table.is_old}", _ns(before)
    )
    return int(found)


async def left_aside(connection: asyncpg.Connection, table: Table) -> list[str]:
    """Return what an earlier call moved aside and did not drop."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'arb'::regnamespace AND relkind = 'r'"
        r" AND relname ~ ('^' || $1 || '_y\d{4}m\d{2}d\d{2}' || $2 || '$') ORDER BY relname",
        table.name,
        ASIDE,
    )
    return [row["relname"] for row in rows]


async def set_aside(connection: asyncpg.Connection, table: Table, before: datetime) -> int:
    """Move old rows into the table aside, a bounded number; return how many, 0 makes no table."""
    aside = table.aside_of(before)
    async with connection.transaction():
        await connection.execute(f'CREATE TABLE arb."{aside}" (LIKE arb.{table.name})')
        status = await connection.execute(
            f"""
            WITH gone AS (
                DELETE FROM arb.{table.name} WHERE {table.key} IN (
                    SELECT {table.key.strip("()")} FROM arb.{table.name} AS t
                    WHERE {table.is_old} LIMIT $2)
                RETURNING *)
            INSERT INTO arb."{aside}" SELECT * FROM gone
            """,
            _ns(before),
            ROWS_AT_ONCE,
        )
        moved = int(status.split()[-1])
        if not moved:
            await connection.execute(f'DROP TABLE arb."{aside}"')
    return moved


async def forget_keys(connection: asyncpg.Connection, before: datetime) -> dict[str, int]:
    """Delete the keys of rows that are gone for a week; return how many, by table."""
    removed = dict.fromkeys(KEYS, 0)
    for table, key in KEYS.items():
        while True:
            # In steps, so that no transaction is long.
            status = await connection.execute(
                f"DELETE FROM arb.{table} WHERE {key} IN ("
                f"SELECT {key.strip('()')} FROM arb.{table} WHERE recorded_ns < $1 LIMIT $2)",
                _ns(before - KEYS_GRACE),
                KEYS_AT_ONCE,
            )
            count_ = int(status.split()[-1])
            removed[table] += count_
            if count_ < KEYS_AT_ONCE:
                break
    return removed


def _ns(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * 1_000_000_000
