"""Looks that are left out change nothing: a host that leaves out none enters and leaves alike."""

from __future__ import annotations

import asyncio
import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_ray.domain.book import ConnectionAlive
from arb_ray.domain.instrument import InstrumentId, Pair, Symbol
from arb_ray.engine.decision_log import DecisionLog
from arb_ray.engine.strategy import SymbolStrategy
from tests.signal_market import F_ID, N_ID, U_ID, book, make_batch, make_update, spot_pair
from tests.unit.test_strategy_host import World

MS = 1_000_000
OTHER = {U_ID: InstrumentId("upbit:XRP-KRW"), N_ID: InstrumentId("binance_spot:XRP-USDT")}
SYMBOLS = ("ETH", "XRP")
PARAMS = {
    "evaluation_epsilon_bps": 20.0,
    "cool_down_s": 0.1,
    "retry_cool_down_s": 0.05,
    "warm_up_s": 0.15,
    "max_age_a_ms": 900.0,
    "max_age_b_ms": 900.0,
    "max_age_fx_ms": 900.0,
    "reevaluate_after_ms": 2_000.0,
    "premium_sample_ms": 1_500.0,
    "max_event_delay_b_ms": 300.0,
}


def other_pair() -> Pair:
    """A second coin that shares F with the first."""
    pair = spot_pair()

    def moved(leg):
        instrument = msgspec.structs.replace(leg.instrument, id=OTHER[leg.instrument.id])
        return msgspec.structs.replace(leg, instrument=instrument)

    return Pair(Symbol("XRP"), moved(pair.a), moved(pair.b), pair.fx)


class Untiring(SymbolStrategy):
    """Looks at everything, whenever it is asked."""

    def evaluate(self, *arguments):
        self._quiet = None
        return super().evaluate(*arguments)

    def rests(self, *_):
        return False


class Twin(World):
    """Two symbols on one host; tells what it decided, but for refusals."""

    def __init__(self, brain):
        self.brain = brain
        self.lines = []
        super().__init__()

    def parts(self):
        async def load_pairs(symbols):
            return [self.pair, other_pair()]

        self.record.decisions = DecisionLog(self.lines.append)
        parts = super().parts()
        params = msgspec.structs.replace(parts.params, **PARAMS)
        return msgspec.structs.replace(parts, load_pairs=load_pairs, symbols=SYMBOLS, params=params)

    async def start(self):
        await super().start()
        for runner in self.host.runners.values():
            runner.brain = self.brain(runner.pair, runner.brain.params)
        return self

    async def live(self, events):
        """Live through events; return the decisions that were not refusals."""
        await self.start()
        self.bring("upbit", F_ID, book(1399.0, 1400.0, size=1e6))
        for symbol in SYMBOLS:
            self.bring("upbit", self.of(symbol, U_ID), u_book(0.0))
            self.bring("binance", self.of(symbol, N_ID), n_book(0.0))
        for event in events:
            await self.happen(*event)
        return [line for line in self.lines if "|refused|" not in line]

    @staticmethod
    def of(symbol, instrument):
        return instrument if symbol == "ETH" else OTHER[instrument]

    def bring(self, feed, instrument, sides, delay_ns=0):
        self.seq += 1
        now_ns = self.clock.now_ns()
        update = make_update(
            instrument, self.seq, sides, now_ns, exchange_ns=now_ns - delay_ns if delay_ns else 0
        )
        self.host.apply(make_batch(feed, [update], now_ns, alive=()))

    async def happen(self, kind, symbol, amount):
        now_ns = self.clock.now_ns()
        if kind == "u":
            self.bring("upbit", self.of(symbol, U_ID), u_book(amount))
        elif kind == "n":
            self.bring("binance", self.of(symbol, N_ID), n_book(amount))
        elif kind == "late":
            self.bring("binance", self.of(symbol, N_ID), n_book(amount), 400 * MS)
        elif kind == "f":
            self.bring("upbit", F_ID, book(1399.0 + amount / 40, 1400.0 + amount / 40, size=1e6))
        elif kind == "crossed":
            self.bring("upbit", F_ID, book(1400.0, 1399.0, size=1e6))
        elif kind == "time":
            await self.clock.advance(now_ns + int(abs(amount)) * 20 * MS)
        elif kind == "sweep":
            await self.host.refresh_risk()
            self.host.sweep()
        else:
            is_up = kind.startswith("alive ")
            line = (ConnectionAlive(0, 0, is_up),)
            feed = kind.removeprefix("alive ")
            self.host.apply(make_batch(feed, [], now_ns, alive=line))
        await self.clock.settle()


def u_book(bps):
    mid = 2_799_000.0 * (1 + bps / 1e4)
    return book(mid - 300.0, mid + 300.0)


def n_book(bps):
    mid = 2_000.0 * (1 + bps / 1e4)
    return book(mid - 0.05, mid + 0.05)


EDGE_BPS = 45.0  # U's distance from fair at which an entry begins to pay


def life(seed, length=300):
    """Events of a market near an edge; connections are alive most of the time, and then not."""
    chance = random.Random(seed)
    silent_until = {"upbit": 0, "binance": 0}
    for number in range(length):
        symbol, what = chance.choice(SYMBOLS), chance.random()
        for feed, until in silent_until.items():
            if number >= until:
                yield f"alive {feed}", symbol, 0.0
        if what < 0.25:
            at = chance.choice((-EDGE_BPS, -EDGE_BPS, 0.0, EDGE_BPS, EDGE_BPS))
            yield "u", symbol, at * chance.gauss(0.9, 0.08)
        elif what < 0.4:
            yield "n", symbol, chance.gauss(0.0, 1.0)
        elif what < 0.65:
            yield "f", symbol, chance.choice((0.0, 0.0, chance.gauss(0.0, 30.0)))
        elif what < 0.9:
            yield "time", symbol, chance.expovariate(0.5)
        elif what < 0.96:
            yield chance.choice(("late", "crossed", "sweep", "upbit", "binance")), symbol, 0.0
        else:
            silent_until[chance.choice(("upbit", "binance"))] = number + chance.randrange(20)


def lived(brain, events):
    twin = Twin(brain)
    return asyncio.run(twin.live(events)), twin


@given(st.integers(0, 10**9))
@settings(deadline=None, max_examples=25)
def test_a_host_that_leaves_looks_out_enters_and_leaves_like_one_that_leaves_out_none(seed):
    events = list(life(seed))
    skipping, _ = lived(SymbolStrategy, events)
    looking, _ = lived(Untiring, events)
    assert skipping == looking


def test_looks_are_left_out_and_trades_made_in_such_lives():
    repeats, entries = 0, 0
    for seed in range(10):
        decided, twin = lived(SymbolStrategy, list(life(seed)))
        entries += sum("|opportunity|" in line for line in decided)
        repeats += twin.record.repeats
    assert entries > 20
    assert repeats > 20
