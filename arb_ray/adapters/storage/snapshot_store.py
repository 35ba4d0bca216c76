"""
Batched snapshots in PostgreSQL; implements ``ports.SnapshotStore``.

A batch is one transaction: its id into a table without partitions, its rows by COPY into
monthly partitions. A row carries the checksum of its payload's text, and a reader passes
over one that does not meet it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.adapters.storage.snapshot_copy import COLUMNS, SCHEMA, copy_of
from arb_ray.domain.errors import LedgerViolation
from arb_ray.ports import Damage, Quarantined, Snapshot

TABLES: Final = frozenset(
    {"session_snapshots", "position_snapshots", "metrics_snapshots", "risk_guard_snapshots"}
)
BY_MONTH: Final = TABLES | {"tuning_results"}
"""What lies in months that retention takes."""

BATCH_ROWS_MAX: Final = 20_000
"""Beyond this a caller of ours has lost its own bound: an assertion."""

READ_BACK_MAX: Final = 20
"""How many damaged rows a reader passes over before it says that there is none."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ALWAYS: Final = datetime(9999, 12, 31, tzinfo=UTC)
MONTHS_AHEAD: Final = 2
"""Partitions are made so long before their month: its first row waits for nobody."""


class PostgresSnapshotStore:
    """``ports.SnapshotStore`` for one environment, and its validated read."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env
        self._months: set[tuple[int, int]] = set()
        self.corrupt_skipped = 0

    async def write_batch(self, batch_id: str, rows: Sequence[Snapshot]) -> int:
        """
        Write all rows or none; return how many, 0 on a repeat.

        Rows are encoded (``Snapshot.encoded``), so that a repeat is the same to the byte.

        Raises:
            StoreUnavailable, OutcomeUnknown: As ``Postgres.transaction``.
            LedgerViolation: Another batch has this id.
        """
        assert len(rows) <= BATCH_ROWS_MAX
        rows = [row.encoded() for row in rows]
        by_table: defaultdict[str, list[Snapshot]] = defaultdict(list)
        for row in rows:
            by_table[row.table].append(row)
        assert TABLES.issuperset(by_table)
        await self._ensure_partitions({row.at_ns for row in rows})
        async with self._postgres.transaction(f"batch {batch_id}") as connection:
            if not await self._claim(connection, batch_id, len(rows), _digest(rows)):
                return 0
            for table, of_table in by_table.items():
                await connection.copy_to_table(
                    table,
                    source=_piece(copy_of(self._env, batch_id, of_table)),
                    columns=COLUMNS,
                    schema_name="arb",
                    format="binary",
                )
        return len(rows)

    async def latest(
        self, table: str, session_id: str, symbol: str = "", required: Sequence[str] = ()
    ) -> Mapping[str, Any] | None:
        """
        Return the newest sound payload; damaged ones are quarantined and passed over.

        Sound means: its checksum holds, it is an object, it has the ``required`` keys.
        """

        def damage(payload: Mapping[str, Any], _at_ns: int) -> str:
            missing = [key for key in required if key not in payload]
            return f"it lacks {', '.join(missing)}" if missing else ""

        found = await self.newest(table, session_id, symbol, damage)
        return None if found is None else found[0]

    async def newest(
        self, table: str, session_id: str, symbol: str, damage: Damage, before_ns: int | None = None
    ) -> tuple[Mapping[str, Any], int] | None:
        """
        Return the newest sound payload with its time, of those before ``before_ns``.

        ``damage`` tells in words why a whole payload cannot be what was written. Damaged ones
        are quarantined with the reason, and never read again.
        """
        assert table in TABLES
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                _NEWEST_SQL.format(table=table),
                self._env,
                session_id,
                symbol,
                table,
                before_ns,
                READ_BACK_MAX,
                # The index knows ``at`` only, which is cut to microseconds.
                ALWAYS if before_ns is None else _datetime(before_ns),
            )
        for row in rows:
            payload, reason = _read(row["payload"], row["crc32"])
            reason = reason or damage(payload, row["at_ns"])
            if not reason:
                return payload, row["at_ns"]
            self.corrupt_skipped += 1
            await self._quarantine(table, session_id, symbol, row, reason)
        return None

    async def quarantined(self, since_ns: int) -> Sequence[Quarantined]:
        """Return what was found damaged after ``since_ns``, oldest first; at most 100."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                "SELECT table_name, session_id, at_ns, reason, found_ns"
                " FROM arb.snapshot_quarantine WHERE env = $1 AND found_ns > $2"
                " ORDER BY found_ns LIMIT 100",
                self._env,
                since_ns,
            )
        return [Quarantined(*row.values()) for row in rows]

    async def _quarantine(
        self, table: str, session_id: str, symbol: str, row: Any, reason: str
    ) -> None:
        async with self._postgres.transaction("quarantine") as connection:
            await connection.execute(
                "INSERT INTO arb.snapshot_quarantine (schema, env, table_name, session_id, symbol,"
                " at_ns, batch_id, crc32, payload, reason)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
                SCHEMA,
                self._env,
                table,
                session_id,
                symbol,
                row["at_ns"],
                row["batch_id"],
                row["crc32"],
                row["payload"],
                reason,
            )

    async def close(self) -> None:
        """Close the pool."""
        await self._postgres.close()

    async def _claim(
        self, connection: Connection, batch_id: str, count: int, digest: bytes
    ) -> bool:
        is_new = await connection.fetchval(
            "INSERT INTO arb.snapshot_batches (schema, env, batch_id, row_count, digest) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
            SCHEMA,
            self._env,
            batch_id,
            count,
            digest,
        )
        if is_new:
            return True
        found = await connection.fetchval(
            "SELECT digest FROM arb.snapshot_batches WHERE env = $1 AND batch_id = $2",
            self._env,
            batch_id,
        )
        if found != digest:
            raise LedgerViolation(batch_id, "another batch has this id")
        return False

    async def _ensure_partitions(self, moments_ns: Iterable[int]) -> None:
        """Make the months that the rows fall into (a recording's are long past), and the next."""
        moments = map(_datetime, moments_ns)
        for month, at in {(at.year, at.month): at for at in moments}.items():
            if month not in self._months:
                async with self._postgres.transaction(f"partitions of {at:%Y-%m}") as connection:
                    await connection.execute("SELECT arb.ensure_partitions_of($1)", at)
                    await connection.execute("SELECT arb.ensure_partitions($1)", MONTHS_AHEAD)
                self._months.add(month)


def _digest(rows: Sequence[Snapshot]) -> bytes:
    """Return what tells a batch from another that was given its id."""
    return hashlib.sha256(msgspec.msgpack.encode(rows)).digest()


async def _piece(data: bytes) -> AsyncIterator[bytes]:
    """Hand a batch to asyncpg as it wants bytes."""
    yield data


def _datetime(at_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_ns // 1000)


def _read(text: str, crc32: int) -> tuple[Mapping[str, Any], str]:
    """Return a payload, and in words what is wrong with its text."""
    if zlib.crc32(text.encode()) != crc32:
        return {}, "its text does not meet its checksum"
    try:
        payload = msgspec.json.decode(text)
    except msgspec.MsgspecError as error:
        return {}, f"its text is no JSON: {error}"
    return (payload, "") if isinstance(payload, dict) else ({}, "it is no object")


_NEWEST_SQL = """
    SELECT payload::text AS payload, crc32, at_ns, batch_id FROM arb.{table} AS found
    WHERE env = $1 AND session_id = $2 AND symbol = $3
        AND at <= $7 AND ($5::bigint IS NULL OR at_ns < $5)
        AND NOT EXISTS (
            SELECT FROM arb.snapshot_quarantine AS q
            WHERE (q.env, q.table_name, q.session_id, q.symbol, q.at_ns, q.batch_id)
                = (found.env, $4, found.session_id, found.symbol, found.at_ns, found.batch_id))
    ORDER BY at DESC, at_ns DESC LIMIT $6"""
