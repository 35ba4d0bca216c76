"""Fifty symbols at once: real strategy runners and the real guard over one real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from decimal import Decimal

import msgspec

from arb_ray.actors.symbol_runner import RunnerParts, SymbolRunner
from arb_ray.actors.tasks import LoopTasks
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.venues.paper_execution import PaperExecution, PaperLatency
from arb_ray.domain.book import ConnectionAlive
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.domain.instrument import FeeAsset, InstrumentId, Kind, Pair, Symbol, Venue
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.trade_state import Idle, Phase
from tests.risk_world import LIMITS
from tests.shell_world import (
    MAX_AGE_NS,
    TERMS,
    Books,
    Counts,
    Ends,
    Listener,
    Log,
    make_guard,
    opening_entry,
)
from tests.signal_market import (
    F_BOOK,
    FX_LEG,
    N_BOOK,
    NODE,
    READY,
    U_CHEAP,
    U_DEAR,
    _leg,
    make_batch,
    make_update,
    params,
)

D = Decimal
LATENCIES = {str(venue): PaperLatency(D(1), D(3)) for venue in Venue}
WORST_USDT = D("6.5")
"""What a trade of ``TERMS`` reserves at most: 130 bps of 500 USDT."""

# Nothing else than the loss limit (or what a test sets) stands in the way of an entry.
OPEN_WIDE = msgspec.structs.replace(
    LIMITS,
    drawdown_usdt=D(10_000),
    total_notional_usdt=D(10) ** 6,
    open_trades_count=50,
    entries_per_minute_count=100_000,
    consecutive_losses_count=100_000,
    win_rate_max_ratio=1.0,
    fees_min_bps=D(0),
)


def room_for(trades, **changes):
    """Limits whose daily loss has room for so many trades and not for one more."""
    limit = WORST_USDT * trades + WORST_USDT / 2
    fields = {"daily_loss_usdt": limit, "symbol_daily_loss_usdt": limit}
    return msgspec.structs.replace(OPEN_WIDE, **(fields | changes))


def pair_of(number):
    name = f"S{number:02d}"
    a = _leg(
        InstrumentId(f"upbit:{name}-KRW"), name, "KRW", Venue.UPBIT, Kind.SPOT, 5,
        FeeAsset.QUOTE, 5000,
    )  # fmt: skip
    b = _leg(
        InstrumentId(f"binance_spot:{name}-USDT"), name, "USDT", Venue.BINANCE_SPOT, Kind.SPOT,
        10, FeeAsset.RECEIVED, 5,
    )  # fmt: skip
    return Pair(Symbol(name), a, b, FX_LEG)


class Unreliable:
    """RiskGuard over a bad line: what was asked may be lost, and so may its answer."""

    def __init__(self, crowd, seed):
        self.crowd, self.rng = crowd, random.Random(seed)
        self.loss = 0.0
        self.lost = Counter()

    async def reserve(self, intent):
        return await self._call("reserve", intent)

    async def settle(self, settlement):
        return await self._call("settle", settlement)

    async def mark(self, host, marks):
        return await self.crowd.guard.mark(host, marks)

    async def _call(self, method, asked):
        if self.rng.random() < self.loss:
            self.lost["asked"] += 1
            raise OutcomeUnknown(method, 1)
        call = getattr(self.crowd.guard, method)
        if self.rng.random() < self.loss:  # doubled on its way
            self.lost["doubled"] += 1
            await asyncio.gather(call(asked), call(asked), return_exceptions=True)
        answer = await call(asked)
        if self.rng.random() < self.loss:
            self.lost["answered"] += 1
            raise OutcomeUnknown(method, 1)
        return answer


class Deaf(PostgresRiskStore):
    """A store whose commits are not always heard of."""

    rng, loss = random.Random(5), 0.0

    async def grant(self, *arguments):
        return self._told(await super().grant(*arguments))

    async def settle(self, *arguments):
        return self._told(await super().settle(*arguments))

    def _told(self, answer):
        if self.rng.random() < self.loss:
            raise OutcomeUnknown("commit", 1)
        return answer


class Crowd:
    """Fifty symbols, one guard, one database; ``look`` lets all of them see their books."""

    def __init__(self, postgres, env, *, count=50, limits=None, seed=1):
        self.env = env
        self.postgres = postgres
        self.pairs = [pair_of(number) for number in range(count)]
        self.limits = limits or room_for(3)
        self.clock = SystemClock()
        self.view = MarketView(self.pairs, transit_allowance_ns=0)
        self.ledger = PostgresLedgerStore(postgres, env)
        self.log, self.listener = Log(), Listener()
        self.risk = Unreliable(self, seed)
        self.bugs = []
        self.tasks = LoopTasks(lambda name, error: self.bugs.append((name, error)))
        self.seq = 0
        self.u = {pair.symbol: U_CHEAP for pair in self.pairs}
        self.is_dark = False
        self.starting = asyncio.Lock()

    async def start(self):
        await self.start_guard()
        execution = PaperExecution(
            legs={leg.instrument.id: leg for pair in self.pairs for leg in (pair.a, pair.b)},
            latencies=LATENCIES,
            seed=7,
            books=Books(self.view, self.clock),
            ledger=self.ledger,
            clock=self.clock,
            metrics=Counts(),
            log=self.log,
        )
        terms = msgspec.structs.replace(TERMS, env=self.env, reserve_timeout_ns=20 * 10**9)
        parts = RunnerParts(
            self.view, self.ledger, self.risk, execution, self.clock, self.tasks, terms,
            MAX_AGE_NS, "host", self.log, self.listener,
        )  # fmt: skip
        self.runners = []
        for pair in self.pairs:
            brain = SymbolStrategy(pair, params(cool_down_s=0.0, retry_cool_down_s=0.0))
            self.runners.append(SymbolRunner(pair, brain, parts))
        await asyncio.gather(*(runner.recover() for runner in self.runners))
        return self

    async def start_guard(self):
        """Start a guard beside the one that runs, if one does: the old one is fenced."""

        async def opening():
            return [
                opening_entry(Venue.UPBIT, "KRW", 10**9),
                opening_entry(Venue.BINANCE_SPOT, "USDT", 10**6),
                *(opening_entry(Venue.UPBIT, pair.a.instrument.asset, 10) for pair in self.pairs),
                *(
                    opening_entry(Venue.BINANCE_SPOT, pair.a.instrument.asset, 10)
                    for pair in self.pairs
                ),
            ]

        store = Deaf(self.postgres, self.env)
        store.loss = self.risk.loss / 2
        guard = make_guard(
            store,
            self.clock,
            Ends(),
            self.log,
            limits=self.limits,
            opening=opening,
        )
        async with self.starting:
            await guard.recover()
            self.guard = guard

    def put(self, symbols=None, u=None):
        """Bring every book anew; Upbit's of some symbols at other prices from now on."""
        for symbol in symbols or ():
            self.u[symbol] = u
        now_ns, mono_ns = self.clock.now_ns(), self.clock.mono_ns()
        updates = {"upbit": [(FX_LEG, F_BOOK)], "binance": []}
        for pair in self.pairs:
            updates["upbit"].append((pair.a, self.u[pair.symbol]))
            updates["binance"].append((pair.b, N_BOOK))
        if self.is_dark:
            updates["upbit"] = []
        for feed, changed in updates.items():
            self.seq += 1
            made = [
                make_update(leg.instrument.id, self.seq, sides, now_ns) for leg, sides in changed
            ]
            alive = (ConnectionAlive(0, 0, not (self.is_dark and feed == "upbit")),)
            self.view.apply(make_batch(feed, made, mono_ns, alive=alive), mono_ns, NODE)

    def look(self):
        """Every symbol looks in the same instant."""
        self.put()
        now_ns, mono_ns = self.clock.now_ns(), self.clock.mono_ns()
        for runner in self.runners:
            runner.look(now_ns, mono_ns, READY)

    def look_at_held(self):
        """Only the symbols that hold a trade look."""
        self.put()
        now_ns, mono_ns = self.clock.now_ns(), self.clock.mono_ns()
        for runner in self.holding:
            runner.look(now_ns, mono_ns, READY)

    async def obey(self):
        """Tell the guard how the trades stand, and do what it orders, as a host does."""
        marks = [runner.mark for runner in self.runners if runner.mark is not None]
        try:
            status = await self.guard.mark("host", marks)
        except StoreUnavailable:
            return None
        for runner in self.runners:
            if status.flatten_all or runner.symbol in status.flatten:
                runner.exit_asked = "risk_flatten"
        return status

    async def settle_down(self, seconds=60.0):
        """Go on until every symbol is idle or holds a trade."""
        deadline = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(0.02)  # what a look has begun is under way after this
        while not all(runner.is_at_rest for runner in self.runners):
            assert asyncio.get_running_loop().time() < deadline, self.phases
            assert not self.bugs, self.bugs
            self.put()
            await asyncio.sleep(0.05)
        assert not self.bugs, self.bugs

    @property
    def phases(self):
        return Counter(str(runner.trade.phase) for runner in self.runners)

    @property
    def holding(self):
        return [one for one in self.runners if one.trade.phase is Phase.HOLDING]

    async def close_all(self):
        """Flatten what is held at a profit, so that no loss takes room; wait until it is settled."""
        self.put([runner.symbol for runner in self.holding], U_DEAR)
        while any(not isinstance(runner.trade, Idle) for runner in self.runners):
            for runner in self.holding:
                runner.exit_asked = "risk_flatten"
                self.put()
                runner.look(self.clock.now_ns(), self.clock.mono_ns(), READY)
            await self.settle_down()
        self.put([pair.symbol for pair in self.pairs], U_CHEAP)

    async def state(self):
        return RiskState((await self.guard.status())["state"])

    # -- what an accountant reads ----------------------------------------------------------

    async def rows(self, sql, *arguments):
        async with self.postgres.connection() as connection:
            return await connection.fetch(sql, self.env, *arguments)

    async def timeline(self):
        """Grants and outcomes in the order of their commits."""
        rows = await self.rows(
            """
            SELECT trade_id, recorded_ns, 1 AS is_grant, worst_loss_usdt AS usdt,
                   granted_ns / 86400000000000 AS day
            FROM arb.reservations WHERE env = $1
            UNION ALL
            SELECT trade_id, o.recorded_ns, 0,
                   CASE kind WHEN 'posted' THEN realized_usdt ELSE 0 END,
                   closed_ns / 86400000000000
            FROM arb.reservation_outcomes AS o JOIN arb.reservations USING (env, trade_id)
            WHERE env = $1
            ORDER BY recorded_ns, is_grant, trade_id
            """
        )
        return [(row["trade_id"], bool(row["is_grant"]), row["usdt"], row["day"]) for row in rows]

    async def check_promise(self, most_open):
        """DESIGN section 3 at every grant, added up here by hand; return what was seen."""
        reserved, realized, most = {}, Counter(), 0
        for trade_id, is_grant, usdt, day in await self.timeline():
            if not is_grant:
                del reserved[trade_id]
                realized[day] += usdt
                continue
            assert trade_id not in reserved
            reserved[trade_id] = usdt
            most = max(most, len(reserved))
            used = max(D(0), -realized[day]) + sum(reserved.values())
            assert used <= self.limits.daily_loss_usdt, (trade_id, used)
            assert len(reserved) <= most_open, (trade_id, sorted(reserved))
        return most, min(realized.values(), default=D(0)), len(reserved)

    async def held(self):
        return await self.rows(
            "SELECT * FROM arb.balances WHERE env = $1 AND amount <> 0 "
            "AND account IN ('held', 'position', 'unsettled')"
        )

    async def stop(self):
        await self.tasks.cancel_all()
