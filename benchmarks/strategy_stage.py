"""
What strategy measures on: a strategy host of the program's own wiring, in this process.

Nothing is stubbed but the way in and out: the ledger is in memory, RiskGuard is an object, and
batches are handed over decoded, as a plane does. Books have ten levels, prices walk by a tick or
two, and nothing pays, as on most days.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from arb_ray.actors.risk_guard import RiskGuard
from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.actors.symbol_runner import SymbolRunner
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.telemetry.logs import configure_logs, get_log
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.app.hosts import HostPlace, build_host
from arb_ray.app.market_rules import fees_of, rules_or_unknown
from arb_ray.app.markets import opening_entries
from arb_ray.app.registry import PairInstruments, load_registry
from arb_ray.app.replay_world import NoOutbox
from arb_ray.app.settings import Settings, load_settings
from arb_ray.domain.book import SCHEMA, BookUpdate, ConnectionAlive, Levels, TickBatch
from arb_ray.domain.instrument import Instrument, InstrumentId, Leg, Pair, Symbol, Venue
from arb_ray.domain.ledger import Entry
from arb_ray.engine.topology import Role

LEVELS = 10
FX_KRW = 1_400.0
TICK_BPS = 0.5
SIZE_USDT = 2_000.0  # at each level: deep enough for the target size
ELSEWHERE = "another-node"  # so that a batch's age is an allowance, however long it lay ready
ALIVE = (ConnectionAlive(0, 0, True),)

Books = tuple[Levels, Levels]


def settings_of(symbols: int) -> Settings:
    """Return the settings of a run on its own exchanges, entries allowed at once."""
    return load_settings(
        "dev",
        {"symbols": f"top:{symbols}", "strategy.warm_up_s": 0.0},
    )


async def start_host(settings: Settings) -> StrategyHost:
    """Return a host that has claimed its symbols and heard RiskGuard."""
    configure_logs("error", "json")
    chosen = load_registry().wanted(settings.symbols, settings.leg_b)
    instruments = load_registry().instruments_for(chosen, settings.leg_b)
    clock, store = SystemClock(), MemoryStore()
    prices = {str(pair.symbol): Decimal(100) for pair in instruments}
    entries = opening_entries(
        settings, [pair.a.asset for pair in instruments], prices, clock.now_ns()
    )

    async def opening() -> Sequence[Entry]:
        return entries

    async def load_pairs(wanted: list[Symbol]) -> Sequence[Pair]:
        return [_pair(settings, one, clock.now_ns()) for one in instruments if one.symbol in wanted]

    guard = RiskGuard(
        holder="bench",
        store=store,
        limits=settings.risk.to_limits(),
        opening=opening,
        clock=clock,
        metrics=PrometheusMetrics(Role.RISK, "main"),
        log=get_log("benchmarks.risk"),
    )
    await guard.recover()
    place = HostPlace(
        name="host:bench",
        env="bench",
        session_id="bench",
        seed=1,
        symbols=tuple(one.symbol for one in instruments),
        node="this-node",
        clock=clock,
        ledger=store,
        risk=guard,
        outbox=NoOutbox(),
        load_pairs=load_pairs,
    )
    metrics = PrometheusMetrics(Role.HOST, "bench")
    host = build_host(settings, place, metrics, get_log("benchmarks.host"))
    await host.load()
    await host.recover()
    await host.refresh_risk()
    await host.refresh_free()
    return host


def _pair(settings: Settings, one: PairInstruments, now_ns: int) -> Pair:
    def leg(instrument: Instrument) -> Leg:
        rules = msgspec.structs.replace(rules_or_unknown(instrument, now_ns), source="bench")
        return Leg(instrument, rules, fees_of(settings, instrument.venue, now_ns))

    return Pair(one.symbol, leg(one.a), leg(one.b), leg(one.fx))


class Market:
    """Books of every symbol that walk by chance, and the batches that bring them."""

    def __init__(self, runners: Sequence[SymbolRunner], seed: int = 7) -> None:
        self._chance = random.Random(seed)
        self.pairs = [runner.pair for runner in runners]
        self._moves: dict[InstrumentId, int] = {}
        self._seq = 0

    def opening(self) -> list[TickBatch]:
        """Return a first book of every instrument, a batch each."""
        fx = self.pairs[0].fx.instrument
        return [
            self.batch([(fx, self.fx_book())]),
            *(self.batch([(one, self.book(one))]) for one in self.instruments()),
        ]

    def instruments(self) -> list[Instrument]:
        """Return all legs, Upbit's and Binance's in turn."""
        return [leg.instrument for pair in self.pairs for leg in (pair.a, pair.b)]

    def walk(self, instrument: Instrument) -> Books:
        """Move a book: two times in three its sizes only, else by a tick."""
        moved = self._moves.get(instrument.id, 0)
        if self._chance.random() < 1 / 3:
            # Never so far that an edge comes of it: what is measured is the day without one.
            moved = max(-6, min(6, moved + self._chance.choice((-1, 1))))
            self._moves[instrument.id] = moved
        return self.book(instrument, moved)

    def book(self, instrument: Instrument, moved: int = 0) -> Books:
        """Return a book of ten levels, ``moved`` ticks from where it began."""
        mid = 100.0 * (FX_KRW if instrument.venue is Venue.UPBIT else 1.0)
        return self._levels(mid * (1 + moved * TICK_BPS / 1e4), mid * TICK_BPS / 1e4, 100.0)

    def fx_book(self) -> Books:
        """Return KRW-USDT's book; its best prices stand still, its sizes do not."""
        return self._levels(FX_KRW, 1.0, 1.0)

    def dear(self, instrument: Instrument, bps: float) -> Books:
        """Return a book so far above fair."""
        return self.book(instrument, int(bps / TICK_BPS))

    def _levels(self, mid: float, tick: float, price_usdt: float) -> Books:
        def size() -> float:
            return SIZE_USDT / price_usdt * self._chance.uniform(0.5, 1.5)

        bids = tuple((mid - tick * (i + 0.5), size()) for i in range(LEVELS))
        return bids, tuple((mid + tick * (i + 0.5), size()) for i in range(LEVELS))

    def batch(self, books: Sequence[tuple[Instrument, Books]]) -> TickBatch:
        """Return a batch of one venue's books."""
        updates = []
        for instrument, (bids, asks) in books:
            self._seq += 1
            updates.append(BookUpdate(instrument.id, 1, self._seq, 0, 0, 0, 0, bids, asks))
        feed = str(books[0][0].venue)
        return TickBatch(SCHEMA, feed, 1, ELSEWHERE, 0, 0.0, 0.0, ALIVE, tuple(updates))
