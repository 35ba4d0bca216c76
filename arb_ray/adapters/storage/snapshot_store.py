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
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import LedgerViolation
from arb_ray.ports import Snapshot

SCHEMA: Final = 1

TABLES: Final = frozenset(
    {"session_snapshots", "position_snapshots", "metrics_snapshots", "risk_guard_snapshots"}
)
COLUMNS: Final = (
    "schema",
    "env",
    "session_id",
    "symbol",
    "at",
    "at_ns",
    "batch_id",
    "crc32",
    "payload",
)

BATCH_ROWS_MAX: Final = 20_000
PAYLOAD_BYTES_MAX: Final = 1_000_000
"""Beyond these a caller of ours has lost its own bound: an assertion."""

READ_BACK_MAX: Final = 20
"""How many damaged rows a reader passes over before it says that there is none."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
        by_table: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        moments = {at_ns: _datetime(at_ns) for at_ns in {row.at_ns for row in rows}}
        for row in rows:
            assert row.table in TABLES
            by_table[row.table].append(record_of(self._env, batch_id, row, moments[row.at_ns]))
        await self._ensure_partitions(moments.values())
        async with self._postgres.transaction(f"batch {batch_id}") as connection:
            if not await self._claim(connection, batch_id, len(rows), _digest(rows)):
                return 0
            for table, records in by_table.items():
                await connection.copy_records_to_table(
                    table, records=records, columns=COLUMNS, schema_name="arb"
                )
        return len(rows)

    async def latest(
        self, table: str, session_id: str, symbol: str = "", required: Sequence[str] = ()
    ) -> Mapping[str, Any] | None:
        """
        Return the newest sound payload; damaged ones are counted and passed over.

        Sound means: its checksum holds, it is an object, it has the ``required`` keys.
        """
        assert table in TABLES
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"SELECT payload::text AS payload, crc32 FROM arb.{table} "
                "WHERE env = $1 AND session_id = $2 AND symbol = $3 "
                "ORDER BY at DESC, at_ns DESC LIMIT $4",
                self._env,
                session_id,
                symbol,
                READ_BACK_MAX,
            )
        for row in rows:
            payload = _sound(row["payload"], row["crc32"], required)
            if payload is not None:
                return payload
            self.corrupt_skipped += 1
        return None

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

    async def _ensure_partitions(self, moments: Iterable[datetime]) -> None:
        """Make the months that the rows fall into: a recording's are long past."""
        for month, at in {(at.year, at.month): at for at in moments}.items():
            if month not in self._months:
                async with self._postgres.transaction(f"partitions of {at:%Y-%m}") as connection:
                    await connection.execute("SELECT arb.ensure_partitions_of($1)", at)
                self._months.add(month)


def _digest(rows: Sequence[Snapshot]) -> bytes:
    """Return what tells a batch from another that was given its id."""
    return hashlib.sha256(msgspec.msgpack.encode(rows)).digest()


def record_of(
    env: str, batch_id: str, row: Snapshot, at: datetime | None = None
) -> tuple[Any, ...]:
    """Return the columns of a row; ``at`` is its time, where the caller has it at hand."""
    text = row.text
    payload = text.encode()
    assert len(payload) <= PAYLOAD_BYTES_MAX
    crc32 = zlib.crc32(payload)
    at = at or _datetime(row.at_ns)
    return SCHEMA, env, row.session_id, row.symbol, at, row.at_ns, batch_id, crc32, text


def _datetime(at_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_ns // 1000)


def _sound(text: str, crc32: int, required: Sequence[str]) -> Mapping[str, Any] | None:
    if zlib.crc32(text.encode()) != crc32:
        return None
    payload = msgspec.json.decode(text)
    if not isinstance(payload, dict) or any(key not in payload for key in required):
        return None
    return payload
