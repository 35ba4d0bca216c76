"""Those who write while PostgreSQL comes and goes: a host that trades, and Persistence."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from arb_ray.actors.disk_watch import DiskWatch
from arb_ray.actors.persistence import Persistence, PersistenceLimits
from arb_ray.actors.row_buffer import encode_rows
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.adapters.storage.spool import Spool
from arb_ray.domain.errors import ArbError
from arb_ray.engine.trade_state import Phase
from arb_ray.ports import Snapshot
from tests.shell_world import LIMITS, Counts, Ends, Log
from tests.signal_market import F_BOOK, book
from tests.spool_world import HostWorld

CALL_ROWS = 100
BEGAN_NS = 1_790_000_000 * 10**9
# Deep at the best price, so that every fill is on the grid however often it trades.
N_BOOK = book(1999.9, 2000.1, size=1e6)
U_CHEAP = book(2_778_000.0, 2_780_000.0, size=1e6)
U_DEAR = book(2_830_000.0, 2_832_000.0, size=1e6)

HOLD_S = 0.3
TURN_S = 3.0
TURNS_MAX = 10
TRADE_BOUND_S = 30.0
"""No step of a trade takes longer, whatever PostgreSQL does meanwhile."""


class NoState:
    """Redis is killed elsewhere."""

    fallback_cause = ""

    async def put_state(self, *_: Any) -> None:
        """Keep nothing."""

    async def ping_ms(self) -> float:
        """Answer at once."""
        return 0.0

    async def close(self) -> None:
        """Nothing is open."""


class Rows:
    """Numbered rows at a fixed rate through the program's Persistence."""

    def __init__(self, dsn: str, env: str, folder: Path, rate: int) -> None:
        self._rate = rate
        self.sent = 0
        self.metrics, self.log, self.ends = Counts(), Log(), Ends()
        self.persistence = Persistence(
            session_id="kills",
            store=PostgresSnapshotStore(Postgres(dsn), env),
            state=NoState(),  # type: ignore[arg-type]
            spool=Spool(folder / "rows", segment_bytes=100_000),
            clock=SystemClock(),
            metrics=self.metrics,
            log=self.log,
            limits=PersistenceLimits(batch_rows=200, batch_age_s=0.2, buffer_rows=2_000),
            disk=DiskWatch(
                free_bytes=lambda: 1,
                free_min_bytes=1,
                restrict=self._restrict,
                metrics=self.metrics,
                log=self.log,
            ),
            loops=self.ends.loops,
        )

    async def _restrict(self, reason: str) -> None:
        raise AssertionError(reason)

    async def run(self) -> None:
        """Send for ever; a producer that ignores every wish to send less."""
        self.persistence.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            while self.sent < self._rate * (loop.time() - began):
                await self.persistence.put(encode_rows(self._next()))
            await asyncio.sleep(0.02)

    def _next(self) -> list[Snapshot]:
        numbers = range(self.sent, self.sent + CALL_ROWS)
        self.sent += CALL_ROWS
        return [
            Snapshot("metrics_snapshots", BEGAN_NS + n, "kills", f"C{n % 50:03d}", {"n": n})
            for n in numbers
        ]


class Trades:
    """One symbol's host that enters and leaves as often as it can."""

    def __init__(self, dsn: str, env: str, folder: Path) -> None:
        # This market always pays: the guard would take it for broken.
        limits = replace(
            LIMITS, win_rate_max_ratio=1.0, fees_min_bps=Decimal(0), entries_per_minute_count=10**6
        )
        self.world = HostWorld(dsn, dsn, env, folder / "host", limits=limits)
        self.round_trips = 0
        self.left_without_postgres = 0
        self._is_ending = False
        self._is_open = asyncio.Event()

    async def run(self) -> None:
        """Trade until ``end``; a trade that has begun is finished."""
        await self.world.start()
        self.world.guard.start()
        while not (self._is_ending and self.world.is_idle):
            # The books change while a trade is held or there is none: one that is entered on the
            # one book and held on the other has nothing to leave for.
            self.world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
            # Without PostgreSQL nothing is entered: that may take until it is back.
            await self.world.until(lambda: self.world.is_holding, TRADE_BOUND_S)
            await self._hold()
            await self._leave()
            self.round_trips += 1

    async def _hold(self) -> None:
        """Stay in the trade for a moment, or until somebody is done who waited for it."""
        self._is_open.set()
        await asyncio.sleep(HOLD_S)
        self._is_open.clear()

    async def holding(self) -> None:
        """Wait until a trade has just been opened."""
        try:
            async with asyncio.timeout(TRADE_BOUND_S):
                await self._is_open.wait()
        except TimeoutError:
            raise AssertionError(f"nothing was entered: {self._words()}") from None

    def _words(self) -> str:
        world = self.world
        refusals = world.listener.refusals[-3:]
        away = "away" if world.ledger.is_away else "up"
        return f"{world.runner.trade}, {refusals}, ledger {away}, {world.log.said[-5:]}"

    async def _leave(self) -> None:
        """Turn the books until the trade is left: it may have been entered either way."""
        for books in (U_DEAR, U_CHEAP) * TURNS_MAX:
            self.world.put(u=books, n=N_BOOK, f=F_BOOK)
            with contextlib.suppress(TimeoutError):
                await self.world.until(self._has_left, TURN_S)
                return
        raise AssertionError(f"nothing was left: {self._words()}")

    def _has_left(self) -> bool:
        if self.world.ledger.is_away and self.world.phase is Phase.SETTLING:
            self.left_without_postgres += 1
            return True
        return self.world.is_idle

    def end(self) -> None:
        """Let ``run`` return after its trade; PostgreSQL is back for good."""
        self._is_ending = True

    async def stop(self) -> None:
        """End the host and its guard."""
        with contextlib.suppress(ArbError):
            await self.world.guard.stop()
        await self.world.stop()
