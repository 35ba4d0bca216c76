"""
One symbol's host in real time over a real PostgreSQL, that can be cut off, killed, started again.

As a program it is such a host in a process of its own, which tells what it does on stdout:

    python -m tests.spool_world DSN GUARD_DSN ENV FOLDER [hold|leave]
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from arb_ray.actors.symbol_runner import RunnerParts, SymbolRunner
from arb_ray.actors.tasks import LoopTasks
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.node_spools import NodeSpools
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.storage.session_store import SessionStore
from arb_ray.adapters.storage.spooled_ledger import PROBE_TIMEOUT_S, SpooledLedger
from arb_ray.adapters.venues.paper_execution import PaperExecution, PaperLatency
from arb_ray.domain.errors import ArbError, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import Venue
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.trade_state import Idle, Phase
from tests.shell_world import MAX_AGE_NS, TERMS, Books, Counts, Listener, Log, make_guard
from tests.signal_market import F_BOOK, N_BOOK, READY, U_CHEAP, U_DEAR, Market, params, spot_pair

LATENCIES = {str(venue): PaperLatency(Decimal(20), Decimal(60)) for venue in Venue}
STEP_S = 0.02
SPOOL_MAX = 10_000_000


class HostWorld:
    """A runner, its guard and its market; ``ledger_dsn`` is the wire that a test breaks."""

    def __init__(self, ledger_dsn, guard_dsn, env, folder, *, size_max=SPOOL_MAX, **guard):
        self.guard_changes = guard
        self.ledger_dsn, self.guard_dsn, self.env = ledger_dsn, guard_dsn, env
        self.folder, self.size_max = Path(folder), size_max
        self.log, self.listener, self.metrics = Log(), Listener(), Counts()
        self.pair = spot_pair()
        self.market = Market(self.pair)
        self.clock = SystemClock()
        self.failed = []
        self.tasks = LoopTasks(lambda name, error: self.failed.append(error))
        self.running = []
        self.is_draining = False  # a trade that has ended may be followed by another one

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    async def start(self):
        """Begin; whether the ledger answers or not."""
        self.guard_pool = Postgres(self.guard_dsn)
        sessions = SessionStore(self.guard_pool, self.env)
        session = await sessions.open(
            source="sim", preset="lively", seed=1, now_ns=self.clock.now_ns(), is_new=False
        )
        self.guard = make_guard(
            PostgresRiskStore(self.guard_pool, self.env),
            self.clock,
            log=self.log,
            **self.guard_changes,
        )
        await self.guard.recover()
        self.pool = Postgres(self.ledger_dsn)
        place = NodeSpools(self.folder, self.env, "host-000", size_max=self.size_max)
        self.ledger = SpooledLedger(
            PostgresLedgerStore(self.pool, self.env),
            place,
            probe=lambda: self.pool.ping(PROBE_TIMEOUT_S),
            cut=self.pool.cut,
            metrics=self.metrics,
            log=self.log,
        )
        execution = PaperExecution(
            legs={leg.instrument.id: leg for leg in (self.pair.a, self.pair.b)},
            latencies=LATENCIES,
            seed=7,
            books=Books(self.market.view, self.clock),
            ledger=self.ledger,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
        )
        parts = RunnerParts(
            view=self.market.view,
            ledger=self.ledger,
            risk=self.guard,
            execution=execution,
            clock=self.clock,
            tasks=self.tasks,
            terms=replace(TERMS, env=self.env, session_id=session.session_id),
            max_age_ns=MAX_AGE_NS,
            owner="test",
            log=self.log,
            listener=self.listener,
        )
        brain = SymbolStrategy(self.pair, params(cool_down_s=0.0, retry_cool_down_s=0.0))
        self.runner = SymbolRunner(self.pair, brain, parts)
        self.running = [
            asyncio.create_task(work)
            for work in (self._guarded(self.ledger.run()), self._serve(), self._pump())
        ]

    async def stop(self):
        """End as a host does."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.tasks.cancel_all()
        await self.ledger.close()
        await self.guard_pool.close()

    async def _guarded(self, work):
        try:
            await work
        except ArbError as error:  # the process would end
            self.failed.append(error)

    async def _serve(self):
        while not self.runner.is_recovered:
            try:
                await self.runner.recover()
            except (StoreUnavailable, OutcomeUnknown):
                await asyncio.sleep(0.1)

    async def _pump(self):
        while True:
            self._stamp()
            self.market.alive("upbit", "binance")
            if self.runner.is_recovered:
                standing = replace(
                    READY,
                    is_busy=self.runner.is_busy,
                    is_store_up=not self.ledger.is_away,
                    is_draining=self.is_draining,
                )
                self.runner.look(self.clock.now_ns(), self.clock.mono_ns(), standing)
            await asyncio.sleep(STEP_S)

    def _stamp(self):
        self.market.now_ns, self.market.mono_ns = self.clock.now_ns(), self.clock.mono_ns()

    def put(self, **books):
        self._stamp()
        self.market.put(**books)

    async def until(self, condition, timeout_s=60.0, *, may_fail=False):
        """Wait for a condition; a host that failed meets no other."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                assert may_fail or not self.failed, self.failed
                await asyncio.sleep(0.01)

    async def enter(self):
        """Open a trade, and let none follow it: what the tests wait for would be gone again."""
        self.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
        await self.until(lambda: self.is_holding)
        self.is_draining = True

    @property
    def phase(self):
        return self.runner.trade.phase

    @property
    def is_idle(self):
        return self.runner.is_recovered and isinstance(self.runner.trade, Idle)

    @property
    def is_holding(self):
        return self.phase is Phase.HOLDING

    @property
    def is_left(self):
        """Every fill of the exit is taken; only the end waits for PostgreSQL."""
        return self.phase is Phase.SETTLING


async def _main(ledger_dsn, guard_dsn, env, folder, aim):
    world = HostWorld(ledger_dsn, guard_dsn, env, folder)
    await world.start()
    print("started", flush=True)
    if aim == "leave":
        await world.enter()
        print("holding", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        world.put(u=U_DEAR)
        await world.until(lambda: world.is_left)
        print("left", flush=True)
    else:
        await world.until(lambda: world.is_idle, timeout_s=30)
        print("idle", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
