"""
What persistence measures on: the program's Persistence, and a bare connection beside it.

One PostgreSQL from the wheel with fsync on. Persistence has its real store, pool and spool;
Redis is not part of what is measured, and a state store that keeps nothing stands in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from arb_ray.actors.disk_watch import DiskWatch
from arb_ray.actors.persistence import Persistence, PersistenceLimits
from arb_ray.actors.row_buffer import encode_rows
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.snapshot_copy import COLUMNS, SCHEMA
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.adapters.storage.spool import Spool
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.app.settings import load_settings
from arb_ray.domain.instrument import Symbol
from arb_ray.engine.topology import Role
from arb_ray.ports import Snapshot

ENV = "bench"
BARE_ENV = "bare"
SYMBOLS = 50
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
BEGAN_NS = 1_790_000_000 * 10**9

PRESSED_S = 0.005
NOTHING = encode_rows(())

Piece = tuple[str, list[tuple[Any, ...]]]


class NoState:
    """Redis is measured elsewhere."""

    fallback_cause = ""

    async def put_state(self, session_id: str, states: Mapping[str, bytes]) -> None:
        """Keep nothing."""

    async def put_metric(self, symbol: Symbol, metric_type: str, payload: bytes) -> None:
        """Keep nothing."""

    async def ping_ms(self) -> float:
        """Answer at once."""
        return 0.0

    async def close(self) -> None:
        """Nothing is open."""


def record_of(batch_id: str, row: Snapshot) -> tuple[Any, ...]:
    """Return a row's columns as asyncpg takes records."""
    text = row.text
    at = EPOCH + dt.timedelta(microseconds=row.at_ns // 1000)
    crc32 = zlib.crc32(text.encode())
    return SCHEMA, BARE_ENV, row.session_id, row.symbol, at, row.at_ns, batch_id, crc32, text


def make_rows(count: int, number: int) -> list[Snapshot]:
    """Return statistics like a host's: one a symbol, fifty symbols a moment."""
    began_ns = BEGAN_NS + (number + 1) * 10**9
    return [
        Snapshot(
            "metrics_snapshots",
            began_ns + 10**6 * (at // SYMBOLS),
            "20260921T134640-0123456789ab",
            f"C{at % SYMBOLS:03d}",
            {
                "symbol": f"C{at % SYMBOLS:03d}",
                "phase": "idle",
                "direction": "long_b_short_a",
                "bid_a_krw": 1281.0 + at % 97,
                "ask_a_krw": 1282.0 + at % 97,
                "bid_b_usdt": 0.8742 + at % 89,
                "ask_b_usdt": 0.8743 + at % 89,
                "premium_bps": 37.123456789 - at % 83,
                "gross_bps": 21.7 - at % 79,
                "net_bps": -28.123456789 - at % 79,
                "age_a_ms": 63.5,
                "age_b_ms": 12.25,
                "refusal": "no_edge",
                "trades_closed": at % 11,
                "realized_usdt": "0.34123456",
                "evaluations": 100_000 + at,
                "refusals": {"no_edge": 99_000 + at, "stale_books": 31, "skew": 5},
            },
        ).encoded()
        for at in range(count)
    ]


class Stage:
    """Both sides over one database."""

    def __init__(
        self, persistence: Persistence, bare: asyncpg.Connection[Any], batch_rows: int
    ) -> None:
        self.persistence = persistence
        self._bare = bare
        self._batch_rows = batch_rows

    def encoded(self, rows: Sequence[Snapshot]) -> bytes:
        """Return rows as a producer sends them."""
        return encode_rows(rows)

    async def put(self, rows: bytes) -> None:
        """
        Hand rows over as a producer's call does; a pressed one waits for room.

        Ray hands an actor each call as a task, so between two of them its loops have a turn.
        """
        is_pressed = await self.persistence.put(rows)
        await asyncio.sleep(0)
        while is_pressed:
            await asyncio.sleep(PRESSED_S)
            is_pressed = await self.persistence.put(NOTHING)

    def records(self, rows: Sequence[Snapshot], number: int) -> list[Piece]:
        """Return the same rows ready for COPY, in pieces as large as a batch."""
        return [
            (
                "metrics_snapshots",
                [record_of(f"bare:{number}:{at}", row) for row in rows[at : at + self._batch_rows]],
            )
            for at in range(0, len(rows), self._batch_rows)
        ]

    async def copy(self, table: str, records: Sequence[tuple[Any, ...]]) -> None:
        """COPY as bare as asyncpg does it."""
        await self._bare.copy_records_to_table(
            table, records=records, columns=COLUMNS, schema_name="arb"
        )

    async def count(self) -> int:
        """Return how many rows both sides have stored."""
        found = await self._bare.fetchval("SELECT count(*) FROM arb.metrics_snapshots")
        return int(found)


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Start PostgreSQL and Persistence as the settings of dev have them; take all away again."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    section = load_settings("dev", environ={}).persistence
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arb-bench-")))
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
        migrate.apply(postgres.dsn)
        bare = await asyncpg.connect(postgres.dsn)
        stack.push_async_callback(bare.close)
        metrics = PrometheusMetrics(Role.PERSISTENCE, "main")
        log = structlog.get_logger()

        async def restrict(reason: str) -> None:
            raise RuntimeError(reason)

        persistence = Persistence(
            session_id="bench",
            store=PostgresSnapshotStore(Postgres(postgres.dsn), ENV),
            state=NoState(),
            spool=Spool(folder / "spool"),
            clock=SystemClock(),
            metrics=metrics,
            log=log,
            disk=DiskWatch(
                free_bytes=lambda: 1, free_min_bytes=1, restrict=restrict, metrics=metrics, log=log
            ),
            limits=PersistenceLimits(
                batch_rows=section.batch_max_rows,
                batch_bytes=section.batch_max_bytes,
                batch_age_s=section.batch_age_s,
                buffer_rows=section.buffer_max_rows,
                buffer_bytes=section.buffer_max_bytes,
            ),
        )
        persistence.start()
        stack.push_async_callback(persistence.stop)
        yield Stage(persistence, bare, section.batch_max_rows)
