"""
The real shells, each in a process that can die: RiskGuard, and strategy hosts.

Only their surroundings are ours: store, links, clock, and ears for what they tell people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.actors.hosting import Loops
from arb_ray.actors.risk_guard import GuardTimes, LimitsInForce, RiskGuard
from arb_ray.actors.strategy_host import HostParts, HostTimes, StrategyHost
from arb_ray.actors.symbol_runner import RunnerParts
from arb_ray.actors.tick_samples import TickSamples
from arb_ray.adapters.storage.spooled_ledger import SpooledLedger
from arb_ray.adapters.venues.paper_execution import PaperExecution, PaperLatency
from arb_ray.domain.instrument import Pair, Venue
from arb_ray.domain.ledger import Account, Balance, Entry, EntryKind, Posting
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.domain.risk_intent import Mark, ReserveIntent, RiskStatus, Settlement, Verdict
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.planning import PlanTerms
from arb_ray.engine.strategy_params import StrategyParams
from arb_ray.engine.trade_plan import TradeLimits
from tests.shell_world import Books
from tests.signal_market import NODE
from tests.sim.faults import Chance
from tests.sim.loop import MIDNIGHT_NS, Process, ProcessClock
from tests.sim.market import FUNDING_NS, PAIRS, TRADE_NOTIONAL_USDT

D = Decimal
S = 10**9
MAX_AGE_NS = 3 * S
ENTRY_TTL_NS = 2 * S
CALL_TIMEOUT_S = 1.0
RESERVE_TIMEOUT_NS = 600_000_000  # shorter than a call, so that a late yes is seen

LATENCIES = {str(venue): PaperLatency(D(50), D(400)) for venue in Venue}
TERMS = PlanTerms(
    env="sim",
    session_id="s",
    trade_notional_usdt=D(TRADE_NOTIONAL_USDT),
    slippage_allowance_bps=D(10),
    exit_slippage_bps=D(10),
    exit_slippage_max_bps=D(200),
    stop_loss_bps=D(60),
    margin_rate=D(1),
    reserve_timeout_ns=RESERVE_TIMEOUT_NS,
    limits=TradeLimits(
        take_profit_bps=D(3),
        stop_loss_bps=D(60),
        reversal_bps=D(20),
        max_hold_ns=6 * S,
        entry_ttl_ns=ENTRY_TTL_NS,
        retry_ms=100,
        retry_max_ms=1500,
    ),
)
PARAMS = StrategyParams(
    warm_up_s=0.0,
    basis_warm_up_s=0.0,
    cool_down_s=0.2,
    retry_cool_down_s=0.3,
    reevaluate_after_ms=400.0,
    funding_interval_s=FUNDING_NS / S,
    expected_hold_s=5.0,
)
HOST_TIMES = HostTimes(mark_s=0.5, free_s=1.0, snapshot_s=1e9, retry_s=0.2, guard_silence_s=2.0)
GUARD_TIMES = GuardTimes(lease_renew_s=0.5, start_retry_s=0.2)

OPENING_BALANCES = (
    (Venue.UPBIT, "KRW", 3_000_000),
    (Venue.UPBIT, "ETH", 1),
    (Venue.UPBIT, "SOL", 10),
    (Venue.UPBIT, "PEPE", 100_000),
    (Venue.BINANCE_SPOT, "USDT", 1_200),
    (Venue.BINANCE_SPOT, "ETH", 1),
    (Venue.BINANCE_USDM, "USDT", 2_500),
)


def opening_entries(share: Decimal) -> list[Entry]:
    """What the accounts begin with: all of it, or a share that leaves no room for all trades."""
    return [
        Entry(
            f"opening:{venue}:{asset}",
            EntryKind.OPENING,
            None,
            None,
            MIDNIGHT_NS,
            (
                Posting(venue, Account.OPENING, asset, -amount * share),
                Posting(venue, Account.FREE, asset, amount * share),
            ),
        )
        for venue, asset, amount in OPENING_BALANCES
    ]


class Deaf:
    """Listens to everything that is told to people, metrics and logs, and keeps none of it."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return _nothing


class DeafRecord(Deaf):
    """A host's record that is counted in, and never told."""

    repeats = 0


def _nothing(*_arguments: Any, **_fields: Any) -> None:
    """Forget it."""


DEAF = Deaf()


class Idler:
    """An outbox and figures that have nothing to do."""

    def put(self, row: Any) -> None:
        """Let it go."""

    async def run(self, *_arguments: Any) -> None:
        """Nothing to send, for ever."""
        await asyncio.get_running_loop().create_future()

    async def flush(self) -> None:
        """Nothing to send."""


class MoodyVenue(PaperExecution):
    """The paper venue, that at times refuses an order, or whose book has just been eaten."""

    def __init__(self, chance: Chance, **parts: Any) -> None:
        super().__init__(**parts)
        self._chance = chance

    def _meet_book(self, leg: Any, order: OrderRequest) -> OrderReport:
        if self._chance.happens(self._chance.rates.venue_refuses):
            now_ns = self._clock.now_ns()
            return OrderReport(
                order.client_order_id, OrderStatus.REJECTED, (), now_ns, "the venue is down"
            )
        return super()._meet_book(leg, order)

    def _filled(self, leg: Any, order: OrderRequest, levels: Any, now_ns: int) -> OrderReport:
        if self._chance.happens(self._chance.rates.book_is_eaten):
            share = self._chance.rng.choice((0.001, 0.02, 0.1, 0.2))
            lot = float(leg.rules.lot)
            levels = tuple(
                tuple((price, max(lot, round(size * share / lot) * lot)) for price, size in side)
                for side in levels
            )
        return super()._filled(leg, order, levels, now_ns)


class FarGuard:
    """RiskGuard over a link that fails; implements ``RiskClient``."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        return await self._call("reserve", intent)

    async def settle(self, settlement: Settlement) -> None:
        await self._call("settle", settlement)

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        return await self._call("mark", host, tuple(marks))

    async def free(self) -> Sequence[Balance]:
        return await self._call("free")


def build_guard(
    process: Process,
    store: Any,
    clock: ProcessClock,
    newest_limits: Callable[[], LimitsInForce],
    opening_share: Decimal,
    on_end: Callable[[str, BaseException | None], None],
) -> RiskGuard:
    """Return a guard that has not started yet."""

    async def opening() -> Sequence[Entry]:
        return opening_entries(opening_share)

    known = 0

    async def changed_limits() -> LimitsInForce | None:
        nonlocal known
        newest = newest_limits()
        if newest.version == known:
            return None
        known = newest.version
        return newest

    return RiskGuard(
        holder=process.name,
        store=store,
        limits=newest_limits().limits,
        newest_limits=changed_limits,
        opening=opening,
        clock=clock,
        metrics=DEAF,
        log=DEAF,
        times=GUARD_TIMES,
        loops=Loops(on_end),
    )


def build_host(
    process: Process,
    symbols: Sequence[str],
    store: SpooledLedger,
    risk: FarGuard,
    clock: ProcessClock,
    chance: Chance,
    max_hold_ns: int,
    on_end: Callable[[str, BaseException | None], None],
) -> StrategyHost:
    """Return a host that has not started yet."""
    pairs = [pair for pair in PAIRS if pair.symbol in symbols]
    view = MarketView(transit_allowance_ns=0)
    limits = msgspec.structs.replace(TERMS.limits, max_hold_ns=max_hold_ns)
    terms = msgspec.structs.replace(TERMS, limits=limits)

    def make_execution(_pairs: Sequence[Pair]) -> MoodyVenue:
        return MoodyVenue(
            chance,
            legs={leg.instrument.id: leg for pair in pairs for leg in (pair.a, pair.b)},
            latencies=LATENCIES,
            seed=1,
            books=Books(view, clock),
            ledger=store,
            clock=clock,
            metrics=DEAF,
            log=DEAF,
        )

    def make_runner_parts(execution: Any, tasks: Any) -> RunnerParts:
        return RunnerParts(
            view, store, risk, execution, clock, tasks, terms, MAX_AGE_NS, process.name, DEAF, DEAF
        )

    async def load_pairs(_symbols: list[Any]) -> Sequence[Pair]:
        return pairs

    parts = HostParts(
        name=process.name,
        session_id="s",
        symbols=tuple(pair.symbol for pair in pairs),
        absent=frozenset(),
        leaving=frozenset(),
        params=PARAMS,
        node=NODE,
        view=view,
        ledger=store,
        risk=risk,
        clock=clock,
        figures=Idler(),
        samples=TickSamples(DEAF),
        log=DEAF,
        record=DeafRecord(),
        make_execution=make_execution,
        make_runner_parts=make_runner_parts,
        load_pairs=load_pairs,
        outbox=Idler(),
        describe=_nothing,
        snapshots=lambda _host: (),
        rss_mb=lambda: 1.0,
        times=HOST_TIMES,
        keeper=store,
    )
    return StrategyHost(parts, loops=Loops(on_end))
