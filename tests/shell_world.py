"""Everyone whom a shell talks to, as plain objects: clocks, logs, stores that fail, a market."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

from arb_ray.actors.hosting import Loops
from arb_ray.actors.risk_guard import RiskGuard
from arb_ray.actors.symbol_runner import RunnerParts, SymbolRunner
from arb_ray.adapters.clock import VirtualClock
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.venues.paper_execution import PaperExecution, PaperLatency
from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Account, Entry, EntryKind, Posting
from arb_ray.engine.planning import PlanTerms
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.trade_plan import TradeLimits
from arb_ray.engine.trade_state import Idle, Phase
from tests.risk_world import LIMITS
from tests.signal_market import F_BOOK, N_BOOK, READY, T0, U_CHEAP, U_DEAR, Market, S, params
from tests.signal_market import spot_pair as signal_spot_pair

D = Decimal
MAX_AGE_NS = 3 * S
LATENCIES = {str(venue): PaperLatency(D(5), D(20)) for venue in Venue}
TERMS = PlanTerms(
    env="test",
    session_id="s1",
    trade_notional_usdt=D(500),
    slippage_allowance_bps=D(10),
    exit_slippage_bps=D(10),
    exit_slippage_max_bps=D(200),
    stop_loss_bps=D(60),
    margin_rate=D(1),
    reserve_timeout_ns=S,
    limits=TradeLimits(D(3), D(60), D(20), 3600 * S),
)


class Log:
    """Keeps what was said."""

    def __init__(self):
        self.said = []

    def _say(self, event, **fields):
        self.said.append((event, fields))

    debug = info = warning = error = _say

    @property
    def events(self):
        return [event for event, _ in self.said]


class Counts:
    """Metrics: counters and gauges by name."""

    def __init__(self):
        self.counters = Counter()
        self.gauges = {}

    def inc(self, name, amount=1.0, **labels):
        self.counters[name] += amount

    def set(self, name, value, **labels):
        self.gauges[name] = value

    def unset(self, name, **labels):
        self.gauges.pop(name, None)

    def observe(self, name, value, **labels):
        self.counters[name] += 1


class JumpClock:
    """Stands still, and jumps to whatever is waited for."""

    def __init__(self, now_ns=T0):
        self.now = now_ns

    def now_ns(self):
        return self.now

    def mono_ns(self):
        return self.now

    async def sleep_until_ns(self, due_ns, key):
        await asyncio.sleep(0)
        self.now = max(self.now, due_ns)


class Faulty:
    """An object whose methods fail as told: before they do anything, or after they did it."""

    def __init__(self, inner):
        self.inner = inner
        self.before = {}  # method -> errors of the next calls; None lets one pass
        self.after = {}
        self.calls = Counter()

    def __getattr__(self, name):
        method = getattr(self.inner, name)

        async def call(*arguments):
            self.calls[name] += 1
            self._raise(self.before, name)
            result = await method(*arguments)
            self._raise(self.after, name)
            return result

        return call

    @staticmethod
    def _raise(faults, name):
        errors = faults.get(name)
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error


class Ends:
    """``Loops`` that note their end instead of leaving the process."""

    def __init__(self):
        self.ended = []
        self.loops = Loops(lambda name, error: self.ended.append((name, error)))


class Listener:
    """Notes what runners tell."""

    def __init__(self):
        self.moves, self.refusals, self.settlements, self.notes = [], [], [], []
        self.journal_ns, self.reserve_ns, self.without_answer = [], [], []

    def journaled(self, duration_ns):
        self.journal_ns.append(duration_ns)

    def reserve_answered(self, duration_ns):
        self.reserve_ns.append(duration_ns)

    def unanswered(self, order):
        self.without_answer.append(order.client_order_id)

    def moved(self, symbol, before, after, event):
        self.moves.append((before.phase, after.phase, type(event).__name__))

    def refused(self, found, refusal, now_ns):
        self.refusals.append(refusal)

    def settled(self, trade, settlement):
        self.settlements.append(settlement)

    def noted(self, trade, note):
        self.notes.append(note)


class Books:
    """A view's books, as the paper venue sees them."""

    def __init__(self, view, clock):
        self.view, self.clock = view, clock

    def levels(self, instrument):
        return self.view.levels(instrument)

    def is_fresh(self, instrument):
        found = self.view.books.get(instrument)
        if found is None or found.problem or not found.connection.is_up:
            return False
        return found.age_ns(self.clock.mono_ns()) <= MAX_AGE_NS


def opening_entry(venue, asset, amount):
    postings = (
        Posting(venue, Account.OPENING, asset, -D(amount)),
        Posting(venue, Account.FREE, asset, D(amount)),
    )
    return Entry(f"opening:{venue}:{asset}", EntryKind.OPENING, None, None, T0, postings)


OPENING = (
    opening_entry(Venue.UPBIT, "KRW", 10_000_000),
    opening_entry(Venue.UPBIT, "ETH", 10),
    opening_entry(Venue.BINANCE_SPOT, "USDT", 10_000),
    opening_entry(Venue.BINANCE_SPOT, "ETH", 10),
    opening_entry(Venue.BINANCE_USDM, "USDT", 10_000),
)


def make_guard(store, clock, ends=None, log=None, metrics=None, **changes):
    async def opening():
        return OPENING

    fields = {
        "holder": "test",
        "store": store,
        "limits": LIMITS,
        "opening": opening,
        "clock": clock,
        "metrics": metrics or Counts(),
        "log": log or Log(),
        "loops": (ends or Ends()).loops,
    }
    return RiskGuard(**(fields | changes))


class RunnerWorld:
    """One symbol on a virtual clock: a market, a guard, the paper venue, and one runner."""

    def __init__(self, pair=None, store=None, terms=TERMS, make_risk=lambda guard: guard):
        self.pair = pair or signal_spot_pair()
        self.memory = MemoryStore()
        self.store = store(self.memory) if store else self.memory
        self.terms = terms
        self.make_risk = make_risk
        self.market = Market(self.pair)
        self.log, self.listener, self.metrics = Log(), Listener(), Counts()
        self.now_ns = T0
        self.is_guard_new = True

    async def start(self, keeps_guard=False):
        """Begin, or begin again after a crash: nothing but the store and the market is left."""
        self.clock = VirtualClock(self.now_ns)
        self.ends = Ends()
        self.guard = make_guard(self.store, self.clock, self.ends, self.log)
        await self.guard.recover()
        self.risk = self.make_risk(self.guard)
        self.execution = PaperExecution(
            legs={leg.instrument.id: leg for leg in (self.pair.a, self.pair.b)},
            latencies=LATENCIES,
            seed=7,
            books=Books(self.market.view, self.clock),
            ledger=self.store,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
        )
        parts = RunnerParts(
            view=self.market.view,
            ledger=self.store,
            risk=self.risk,
            execution=self.execution,
            clock=self.clock,
            tasks=self.clock,
            terms=self.terms,
            max_age_ns=MAX_AGE_NS,
            owner="test",
            log=self.log,
            listener=self.listener,
        )
        brain = SymbolStrategy(self.pair, params(cool_down_s=0.0, retry_cool_down_s=0.0))
        self.runner = SymbolRunner(self.pair, brain, parts)
        await self.runner.recover()
        return self

    def put(self, **books):
        self.now_ns = self.clock.now_ns()
        self.market.now_ns = self.market.mono_ns = self.now_ns
        self.market.put(**books)
        self.market.alive("upbit", "binance")

    def look(self):
        self.put()
        return self.runner.look(self.now_ns, self.now_ns, READY)

    async def run(self, steps=200):
        """Let everything finish, with the connections alive all the while."""
        await self.clock.settle()
        while self.clock.next_due() is not None:
            steps -= 1
            assert steps, f"this does not end: {self.runner.trade.phase}"
            self.clock.set(self.clock.next_due()[0])
            self.put()
            await self.clock.wake_next()
        self.now_ns = self.clock.now_ns()

    async def enter(self, u=U_CHEAP):
        self.put(u=u, n=N_BOOK, f=F_BOOK)
        self.look()
        await self.run()

    async def leave(self, u=U_DEAR):
        self.put(u=u)
        self.look()
        await self.run()

    @property
    def phase(self):
        return self.runner.trade.phase

    @property
    def is_idle(self):
        return isinstance(self.runner.trade, Idle)

    @property
    def is_holding(self):
        return self.phase is Phase.HOLDING

    def ours(self, asset):
        """All that is ours of an asset, wherever it lies."""
        return sum(
            posting.amount
            for entry in self.memory.entries.values()
            for posting in entry.postings
            if posting.asset == asset and posting.account.is_ours
        )

    async def held(self):
        return {
            (b.venue, b.asset): b.amount
            for b in await self.memory.balances()
            if b.account is Account.HELD and b.amount
        }
