"""A PostgreSQL with a year of snapshots in it, a writer and a reader."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.ports import Snapshot

ENV = "bench"
LONG = "a-session-that-was-open-all-year"
SYMBOLS = tuple(f"C{number:02}" for number in range(50))
PAYLOAD = '{"premium_bps":12.5,"gross_bps":3.1,"net_bps":-9.4,"note":"' + "x" * 180 + '"}'
BATCH_ROWS = 500
PAUSE_S = 0.05

SHARES = {
    "metrics_snapshots": 0.6,
    "position_snapshots": 0.2,
    "session_snapshots": 0.1,
    "risk_guard_snapshots": 0.1,
}
"""How the rows of a run are dealt out; the last two have no symbol."""


def months_of(now: datetime) -> list[datetime]:
    """Return the first days of the twelve months that end with ``now``'s, oldest first."""
    last = now.year * 12 + now.month - 1
    return [datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in range(last - 11, last + 1)]


class Stage:
    """The database, the program's store, and how long each write and read took."""

    def __init__(self, dsn: str, connection: asyncpg.Connection) -> None:
        self.dsn = dsn
        self.store = PostgresSnapshotStore(Postgres(dsn), ENV)
        self.write_s: list[float] = []
        self.read_s: list[float] = []
        self._connection = connection

    async def fill(self, month: datetime, rows: int) -> None:
        """Let the server make the rows of a month, in the order of their times."""
        await self._connection.execute("SELECT arb.ensure_partitions_of($1)", month)
        for table, share in SHARES.items():
            count = int(rows * share)
            symbol = "'C' || lpad((n % 50)::text, 2, '0')" if share >= 0.2 else "''"
            await self._connection.execute(
                f"""
                INSERT INTO arb.{table}
                    (schema, env, session_id, symbol, at, at_ns, batch_id, crc32, payload)
                SELECT 1, '{ENV}', '{LONG}', {symbol}, at, (extract(epoch FROM at) * 1e9)::bigint,
                       'b' || n / 500, {zlib.crc32(PAYLOAD.encode())}, '{PAYLOAD}'
                FROM generate_series(0, {count - 1}) AS n,
                     LATERAL (SELECT $1::timestamptz + n * interval '27 days' / {count} AS at) AS t
                """,
                month,
            )

    async def settle(self) -> None:
        """Do what autovacuum would have done over a year, and the checkpointer."""
        for table in SHARES:
            await self._connection.execute(f"VACUUM ANALYZE arb.{table}")
        await self._connection.execute("CHECKPOINT")

    async def count(self) -> int:
        """Return how many rows there are."""
        counts = [
            await self._connection.fetchval(f"SELECT count(*) FROM arb.{table}") for table in SHARES
        ]
        return sum(counts)

    async def write_until(self, stop: asyncio.Event) -> None:
        """Write a batch into all four tables, again and again."""
        number = 0
        while not stop.is_set():
            at_ns = time.time_ns()
            rows = [
                Snapshot(table, at_ns + n, "writer", "", {"n": n})
                for n in range(BATCH_ROWS // len(SHARES))
                for table in SHARES
            ]
            began = time.perf_counter()
            await self.store.write_batch(f"w{number}", rows)
            self.write_s.append(time.perf_counter() - began)
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def read_until(self, stop: asyncio.Event) -> None:
        """Read the newest, again and again."""
        while not stop.is_set():
            began = time.perf_counter()
            await self.store.latest("metrics_snapshots", LONG, SYMBOLS[7])
            self.read_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Start a server with nothing in it, and take it away again."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arb-year-")))
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
        migrate.apply(postgres.dsn)
        connection = await asyncpg.connect(postgres.dsn)
        stack.push_async_callback(connection.close)
        on = Stage(postgres.dsn, connection)
        stack.push_async_callback(on.store.close)
        yield on
