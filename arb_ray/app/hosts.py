"""Strategy hosts put together: view, stores, paper execution, planning terms."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.actors.host_metrics import HostMetrics
from arb_ray.actors.host_record import HostRecord
from arb_ray.actors.host_status import host_status, snapshots, trade_row
from arb_ray.actors.strategy_host import HostParts, HostTimes, Keeper, NoKeeper, StrategyHost
from arb_ray.actors.symbol_runner import RunnerParts
from arb_ray.actors.tasks import Tasks
from arb_ray.actors.tick_samples import TickSamples
from arb_ray.adapters.venues.paper_execution import PaperExecution, PaperLatency
from arb_ray.app.process_facts import rss_mb
from arb_ray.app.settings import Settings
from arb_ray.domain.instrument import InstrumentId, Leg, Pair, Symbol, Venue
from arb_ray.engine.decision_log import DecisionLog
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.planning import PlanTerms
from arb_ray.engine.trade_plan import TradeLimits
from arb_ray.ports import Clock, Execution, LedgerStore

TRANSIT_ALLOWANCE_NS = 5_000_000
"""Added to every age that comes from another node: a call there takes about a millisecond."""


class HostBooks:
    """The host's books as the paper venue sees them."""

    def __init__(self, view: MarketView, clock: Clock, max_age_ns: int) -> None:
        self._view = view
        self._clock = clock
        self._max_age_ns = max_age_ns

    def levels(self, instrument: InstrumentId) -> Any:
        """Return ``(bids, asks)``, or None."""
        return self._view.levels(instrument)

    def is_fresh(self, instrument: InstrumentId) -> bool:
        """Tell whether the book's connection proved alive recently."""
        book = self._view.books.get(instrument)
        if book is None or book.problem or not book.connection.is_up:
            return False
        return book.age_ns(self._clock.mono_ns()) <= self._max_age_ns


def plan_terms(settings: Settings, session_id: str) -> PlanTerms:
    """Return what planning takes from the settings."""
    strategy = settings.strategy
    return PlanTerms(
        env=settings.env,
        session_id=session_id,
        trade_notional_usdt=_decimal(strategy.trade_notional_usdt),
        slippage_allowance_bps=_decimal(settings.execution.entry_slippage_bps),
        exit_slippage_bps=_decimal(settings.execution.exit_slippage_bps),
        exit_slippage_max_bps=_decimal(settings.execution.exit_slippage_max_bps),
        stop_loss_bps=_decimal(strategy.stop_loss_bps),
        margin_rate=_decimal(strategy.perp_margin_ratio),
        reserve_timeout_ns=int(settings.execution.reserve_timeout_ms * 1_000_000),
        limits=TradeLimits(
            take_profit_bps=_decimal(strategy.take_profit_bps),
            stop_loss_bps=_decimal(strategy.stop_loss_bps),
            reversal_bps=_decimal(strategy.reversal_bps),
            max_hold_ns=int(strategy.max_hold_s * 1e9),
        ),
    )


def paper_execution(
    settings: Settings,
    seed: int,
    pairs: Sequence[Pair],
    *,
    view: MarketView,
    ledger: LedgerStore,
    clock: Clock,
    metrics: Any,
    log: Any,
) -> PaperExecution:
    """Return the paper venue over a host's own books."""
    legs: dict[InstrumentId, Leg] = {
        leg.instrument.id: leg for pair in pairs for leg in (pair.a, pair.b)
    }
    latencies = {
        str(venue): PaperLatency(
            _decimal(getattr(settings.venues, venue).order_latency_median_ms),
            _decimal(getattr(settings.venues, venue).order_latency_p99_ms),
        )
        for venue in Venue
    }
    return PaperExecution(
        legs=legs,
        latencies=latencies,
        seed=seed,
        books=HostBooks(view, clock, max_age_ns(settings)),
        ledger=ledger,
        clock=clock,
        metrics=metrics,
        log=log,
    )


def max_age_ns(settings: Settings) -> int:
    """Return the age beyond which no book is filled against, ns."""
    params = settings.strategy.to_params()
    return int(max(params.max_age_a_ms, params.max_age_b_ms) * 1_000_000)


class HostPlace(msgspec.Struct, frozen=True):
    """Where a host lives: its name and symbols, its clock and how it reaches the others."""

    name: str
    env: str
    session_id: str
    seed: int
    symbols: tuple[Symbol, ...]
    node: str
    clock: Any  # ports.Clock
    ledger: Any  # ports.LedgerStore
    risk: Any  # ports.RiskClient
    outbox: Any
    load_pairs: Callable[[list[Symbol]], Awaitable[Sequence[Pair]]]
    absent: frozenset[InstrumentId] = frozenset()
    leaving: frozenset[Symbol] = frozenset()
    keeper: Keeper = NoKeeper()  # of a ledger that can be away
    boards: Any = None  # ports.TickSource
    relay: Any = None  # actors.node_relay.NodeRelay


def build_host(
    settings: Settings, place: HostPlace, metrics: Any, log: Any, tasks: Tasks | None = None
) -> StrategyHost:
    """Return a strategy host at ``place``; ``tasks`` is the virtual clock in a replay."""
    view = MarketView(transit_allowance_ns=TRANSIT_ALLOWANCE_NS)
    record = HostRecord(
        metrics,
        log,
        DecisionLog(),
        lambda line: place.outbox.put(trade_row(place.session_id, line)),
    )

    def make_execution(pairs: Sequence[Pair]) -> Execution:
        return paper_execution(
            settings,
            place.seed,
            pairs,
            view=view,
            ledger=place.ledger,
            clock=place.clock,
            metrics=metrics,
            log=log,
        )

    def make_runner_parts(execution: Execution, runner_tasks: Tasks) -> RunnerParts:
        return RunnerParts(
            view=view,
            ledger=place.ledger,
            risk=place.risk,
            execution=execution,
            clock=place.clock,
            tasks=runner_tasks,
            terms=plan_terms(settings, place.session_id),
            max_age_ns=max_age_ns(settings),
            owner=f"{place.name}/{platform.node()}/{os.getpid()}",
            log=log,
            listener=record,
        )

    parts = HostParts(
        name=place.name,
        session_id=place.session_id,
        symbols=place.symbols,
        absent=place.absent,
        leaving=place.leaving,
        params=settings.strategy.to_params(),
        node=place.node,
        view=view,
        ledger=place.ledger,
        risk=place.risk,
        clock=place.clock,
        figures=HostMetrics(metrics),
        samples=TickSamples(metrics),
        log=log,
        record=record,
        make_execution=make_execution,
        make_runner_parts=make_runner_parts,
        load_pairs=place.load_pairs,
        outbox=place.outbox,
        describe=host_status,
        snapshots=snapshots,
        rss_mb=rss_mb,
        times=HostTimes(snapshot_s=settings.persistence.metrics_interval_s),
        keeper=place.keeper,
        boards=place.boards,
        relay=place.relay,
        must_share_memory=place.boards is not None and settings.topology.tick_plane == "shm",
    )
    return StrategyHost(parts, tasks=tasks)


def _decimal(value: object) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))
