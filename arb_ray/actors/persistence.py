"""
The persistence actor: snapshots in batches to PostgreSQL, current state to Redis.

Producers hand over rows and go on; the answer tells them when to send less. The buffer is
bounded in rows and bytes; at the bound the oldest rows go to the spool on disk, which is
replayed in order when PostgreSQL is back, and when the spool is full too the rows are dropped
and counted. The ledger never passes through here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from arb_ray.actors.disk_watch import DiskWatch
from arb_ray.actors.hosting import Loops
from arb_ray.actors.row_buffer import RowBuffer, size_bytes
from arb_ray.actors.snapshot_check import SnapshotCheck
from arb_ray.actors.state_writer import StateWriter
from arb_ray.actors.wire import pack, unpack
from arb_ray.domain.errors import (
    ArbError,
    BadInput,
    LedgerViolation,
    OutcomeUnknown,
    StoreUnavailable,
)
from arb_ray.ports import SPOOL, Clock, Metrics, Snapshot, SnapshotStore, StateStore

WRITERS: Final = 2
"""Batches on their way at once: one is encoded while PostgreSQL writes the other."""

ROW_BYTES_MAX: Final = 256_000
"""A larger row is no statistic but a bug of its producer: it is dropped, counted and told of."""

PRESSED_AT: Final = 0.5
"""So full a buffer asks its producers to conflate: what they have under way still fits."""

POSTGRES_LOOK_S = 0.2
"""Pace at which an absent PostgreSQL is looked for; until it is found, the system is not well."""


class RowSpool(Protocol):
    """Batches on local disk, replayed in order, each acknowledged once it is in PostgreSQL."""

    @property
    def pending(self) -> int:
        """Records that are not replayed."""
        ...

    async def append(self, payload: bytes) -> int:
        """Write durably. Raises StoreUnavailable of ``SPOOL`` at the bound, and by the disk."""
        ...

    async def replay(self, deliver: Callable[[bytes], Awaitable[None]]) -> int:
        """
        Hand over every record in order; what ``deliver`` raises ends the replay.

        So does the disk, with a StoreUnavailable of ``SPOOL``.
        """
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class PersistenceLimits(msgspec.Struct, frozen=True):
    """Bounds of the buffer and of a batch, and the pace of both writers."""

    batch_rows: int = 500
    batch_bytes: int = 1_000_000
    batch_age_s: float = 1.0
    buffer_rows: int = 20_000
    buffer_bytes: int = 64_000_000
    state_interval_s: float = 1.0
    ping_interval_s: float = 2.0


class Batch(msgspec.Struct, frozen=True):
    """Rows under an id that makes writing them twice a no-op."""

    batch_id: str
    rows: tuple[Snapshot, ...]


class Watch(Protocol):
    """What this process does beside: it watches the supervisor, whom nobody else watches."""

    async def run(self) -> None:
        """Watch for ever."""
        ...


class Persistence:
    """Collect rows and states; write them out; say how it goes."""

    def __init__(
        self,
        *,
        session_id: str,
        store: SnapshotStore,
        state: StateStore,
        spool: RowSpool,
        clock: Clock,
        metrics: Metrics,
        log: Any,
        limits: PersistenceLimits,
        disk: DiskWatch,
        watch: Watch | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._session_id = session_id
        self._store = store
        self._redis = StateWriter(
            state,
            session_id,
            metrics,
            log,
            state_interval_s=limits.state_interval_s,
            ping_interval_s=limits.ping_interval_s,
        )
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._limits = limits
        self._disk = disk
        self._watch = watch
        self._loops = loops or Loops()
        self._rows = RowBuffer()
        self._is_due = asyncio.Event()
        self._batches = 0
        self._born_ns = clock.now_ns()
        self._flush_lock = asyncio.Lock()
        self.written = 0
        self.dropped = 0
        self.spooled = 0
        self._is_postgres_up = True

    def start(self) -> None:
        """Start the two writers, and the check of what they wrote."""
        self._loops.start("snapshots", self._write_snapshots())
        self._loops.start("return", self._await_postgres())
        self._loops.start("state", self._redis.run())
        check = SnapshotCheck(self._store, self._session_id, self._clock, self._metrics, self._log)
        self._loops.start("check", check.run())
        self._loops.start("disk", self._disk.run())
        if self._watch is not None:
            self._loops.start("watch", self._watch.run())

    async def put(self, rows: bytes) -> bool:
        """Take encoded snapshots from a producer; tell whether it should send less."""
        self._rows.extend(self._plausible(unpack(rows, list[Snapshot])))
        limits = self._limits
        while len(self._rows) > limits.buffer_rows or self._rows.size_bytes > limits.buffer_bytes:
            await self._to_spool(self._next_batch())
        if len(self._rows) >= limits.batch_rows or self._rows.size_bytes >= limits.batch_bytes:
            self._is_due.set()
        return self._is_pressed

    @property
    def _is_pressed(self) -> bool:
        """Also while PostgreSQL is away: the spool lasts longer with less detail."""
        return (
            not self._is_postgres_up
            or len(self._rows) > PRESSED_AT * self._limits.buffer_rows
            or self._rows.size_bytes > PRESSED_AT * self._limits.buffer_bytes
        )

    def _plausible(self, rows: Sequence[Snapshot]) -> list[tuple[int, Snapshot]]:
        # A producer of before sends objects.
        weighed = [(size_bytes(row), row) for row in map(Snapshot.encoded, rows)]
        kept = [one for one in weighed if one[0] <= ROW_BYTES_MAX]
        if lost := len(weighed) - len(kept):
            self._drop(lost, f"a row has more than {ROW_BYTES_MAX} bytes")
        return kept

    async def put_states(self, states: bytes) -> None:
        """Take current states by category; only the newest of each matters."""
        self._redis.put(unpack(states, dict[str, bytes]))

    async def flush(self) -> int:
        """Write everything that is here; return how many rows this session has written."""
        async with self._flush_lock:
            # What was spooled is older, and goes first.
            await self._write_rows(is_up=await self._replay_spool())
        return self.written

    async def _write_rows(self, *, is_up: bool) -> None:
        under_way: deque[tuple[Batch, asyncio.Task[int]]] = deque()
        try:
            while self._rows or under_way:
                while self._rows and is_up and len(under_way) < WRITERS:
                    batch = self._next_batch()
                    under_way.append((batch, asyncio.create_task(self._written(batch))))
                if under_way:
                    is_up = await self._seen_through(*under_way[0]) and is_up
                    under_way.popleft()
                else:
                    await self._to_spool(self._next_batch())
        except BaseException:
            # The process is about to end. Batch ids make a repeat of what was done a no-op.
            for batch, task in under_way:
                task.cancel()
                with contextlib.suppress(ArbError, asyncio.CancelledError):
                    await task
                await self._to_spool(batch)
            raise

    async def status(self) -> dict[str, Any]:
        """Return counts and the health of both stores."""
        return {
            "ready": True,
            "born_ns": self._born_ns,
            "snapshots_written": self.written,
            "snapshots_dropped": self.dropped,
            "spooled": self.spooled,
            "buffered": len(self._rows),
            "postgres": "up" if self._is_postgres_up else "down",
            "redis": "up" if self._redis.is_up else "fallback",
            "disk": self._disk.trouble,
            "redis_ms": round(self._redis.round_trip_ms, 3),
            "loops": self._loops.names,
        }

    async def stop(self) -> None:
        """Flush, then stop; rows that cannot be written stay in the spool."""
        await self._loops.stop()
        await self.flush()
        await self._store.close()
        await self._redis.close()
        self._spool.close()

    async def _write_snapshots(self) -> None:
        while True:
            # A batch is written when it is old enough, or full.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.batch_age_s):
                    await self._is_due.wait()
            self._is_due.clear()
            self._metrics.set("snapshot_backlog_rows", float(len(self._rows)))
            await self.flush()

    async def _await_postgres(self) -> None:
        """While PostgreSQL is away, look for it more often than a batch is written."""
        while True:
            await asyncio.sleep(POSTGRES_LOOK_S)
            if not self._is_postgres_up and self._spool.pending:
                # What failed is in the spool, so replaying it is the question.
                async with self._flush_lock:
                    await self._replay_spool()

    def _next_batch(self) -> Batch:
        self._batches += 1
        rows = self._rows.take(self._limits.batch_rows, self._limits.batch_bytes)
        return Batch(f"{self._session_id}:{self._born_ns}:{self._batches}", rows)

    async def _written(self, batch: Batch) -> int:
        return await self._store.write_batch(batch.batch_id, batch.rows)

    async def _seen_through(self, batch: Batch, task: asyncio.Task[int]) -> bool:
        try:
            self._count(await task)
        except LedgerViolation as error:
            self._drop(len(batch.rows), str(error))  # for good: again would be refused again
        except (StoreUnavailable, OutcomeUnknown) as error:
            # Unknown outcomes are spooled too: the batch id makes the repeat a no-op.
            self._mark_postgres(is_up=False, cause=str(error))
            self._metrics.inc("snapshot_failures")
            await self._to_spool(batch)
            return False
        return True

    def _count(self, written: int) -> None:
        self.written += written
        self._metrics.inc("snapshots_written", written)
        self._mark_postgres(is_up=True, cause="")

    async def _replay_spool(self) -> bool:
        """
        Write what was spooled, oldest first; False when PostgreSQL is away.

        A disk that gives nothing back is no reason to give it more: what is newer is tried on
        PostgreSQL, and the batch ids make a later repeat of what was replayed a no-op.
        """
        try:
            await self._spool.replay(self._replay_one)
        except (StoreUnavailable, OutcomeUnknown) as error:
            if isinstance(error, StoreUnavailable) and error.store == SPOOL:
                self._disk.note_refused(str(error))
                return True
            self._mark_postgres(is_up=False, cause=str(error))
            return False
        self._disk.note_taken()
        return True

    async def _replay_one(self, record: bytes) -> None:
        try:
            batch = unpack(record, Batch)
        except BadInput as error:
            # Another version wrote it. One record that nobody can read must not stop the rest.
            self._metrics.inc("snapshots_corrupt")
            self._drop(1, str(error))
            return
        try:
            self._count(await self._written(batch))
        except LedgerViolation as error:
            self._drop(len(batch.rows), str(error))

    async def _to_spool(self, batch: Batch) -> None:
        try:
            await self._spool.append(pack(batch))
        except StoreUnavailable as error:
            self._drop(len(batch.rows), str(error))
            self._disk.note_refused(str(error))
        else:
            self._disk.note_taken()
            self.spooled += len(batch.rows)

    def _drop(self, rows: int, cause: str) -> None:
        self.dropped += rows
        self._metrics.inc("snapshots_dropped", rows)
        self._log.error("snapshots_dropped", rows=rows, cause=cause)

    def _mark_postgres(self, *, is_up: bool, cause: str) -> None:
        if is_up != self._is_postgres_up:
            self._log.warning("postgres_state", is_up=is_up, cause=cause)
        self._is_postgres_up = is_up
        self._metrics.set("postgres_up", float(is_up))
