"""Strategy hosts put together: view, stores, paper execution, planning terms."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from arb_ray.actors.host_record import HostRecord
from arb_ray.actors.strategy_host import HostParts, HostTimes, StrategyHost
from arb_ray.actors.symbol_runner import RunnerParts
from arb_ray.actors.tasks import Tasks
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.venues.paper_execution import PaperExecution, PaperLatency
from arb_ray.app.settings import Settings
from arb_ray.domain.instrument import InstrumentId, Leg, Pair, Symbol, Venue
from arb_ray.engine.decision_log import DecisionLog
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.planning import PlanTerms
from arb_ray.engine.topology import WantedActor
from arb_ray.engine.trade_plan import TradeLimits
from arb_ray.ports import Clock, Execution, LedgerStore

if TYPE_CHECKING:
    from arb_ray.app.kit import Kit

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


def make_host(
    kit: Kit, settings: Settings, wanted: WantedActor, links: Any, metrics: Any, log: Any
) -> StrategyHost:
    """Return a strategy host that lives on this machine's clock."""
    from arb_ray.app.kit import node_name, rss_mb

    clock = SystemClock()
    view = MarketView(transit_allowance_ns=TRANSIT_ALLOWANCE_NS)
    ledger = PostgresLedgerStore(kit.postgres(settings, is_host=True), kit.env)
    risk = kit.risk_client(links, settings)
    record = HostRecord(metrics, log, DecisionLog())
    params = settings.strategy.to_params()

    def make_execution(pairs: Sequence[Pair]) -> Execution:
        return paper_execution(
            settings,
            kit.session.seed,
            pairs,
            view=view,
            ledger=ledger,
            clock=clock,
            metrics=metrics,
            log=log,
        )

    def make_runner_parts(execution: Execution, tasks: Tasks) -> RunnerParts:
        return RunnerParts(
            view=view,
            ledger=ledger,
            risk=risk,
            execution=execution,
            clock=clock,
            tasks=tasks,
            terms=plan_terms(settings, kit.session.session_id),
            max_age_ns=max_age_ns(settings),
            owner=f"{wanted.name}/{platform.node()}/{os.getpid()}",
            log=log,
            listener=record,
        )

    async def load_pairs(symbols: list[Symbol]) -> Sequence[Pair]:
        return await kit.pairs_from(links, symbols)

    return StrategyHost(
        HostParts(
            name=wanted.name,
            session_id=kit.session.session_id,
            symbols=tuple(Symbol(symbol) for symbol in wanted.symbols),
            params=params,
            node=node_name(),
            view=view,
            ledger=ledger,
            risk=risk,
            clock=clock,
            metrics=metrics,
            log=log,
            record=record,
            make_execution=make_execution,
            make_runner_parts=make_runner_parts,
            load_pairs=load_pairs,
            outbox=kit.outbox(links, metrics, wanted.name),
            rss_mb=rss_mb,
            times=HostTimes(snapshot_s=settings.persistence.metrics_interval_s),
        )
    )


def _decimal(value: object) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))
