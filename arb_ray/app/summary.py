"""
What a run did: the object of ``--json``; ``summary_words`` tells the same to a person.

Pure. Counts come from the actors' last status; where the ledger was asked, its totals
replace the hosts' own counters, which begin at zero again when a host is restarted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from arb_ray.app.run_context import RunContext
from arb_ray.domain.ledger import PnlParts
from arb_ray.domain.money import USDT_QUANTUM, ZERO
from arb_ray.domain.risk_intent import RiskStatus
from arb_ray.engine.latency import LatencyHistogram
from arb_ray.engine.status import HostStatus, SystemStatus

PARTS_GAP_PER_TRADE_USDT = Decimal("1e-6")
"""A trade has at most some hundred postings, each of which may be off by 1e-8."""


class PartsText(msgspec.Struct, frozen=True):
    """Profit by cause, USDT as text."""

    spread: str
    fx: str
    fees: str
    slippage: str
    funding: str


class RiskText(msgspec.Struct, frozen=True):
    """RiskGuard's state at the end, USDT as text."""

    state: str
    daily_loss_usdt: str
    daily_limit_usdt: str
    gap_loss_usdt: str = "0.00000000"  # of the day, beyond what had been reserved


class LatencyMs(msgspec.Struct, frozen=True):
    """From the frame's leaving the socket to the strategy's decision, ms."""

    p50: float
    p99: float
    max: float


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The object that ``--json`` prints. Its keys are a contract with scripts."""

    session_id: str
    env: str
    source: str
    preset: str | None
    seed: int
    symbols: list[str]
    duration_s: float
    frames: dict[str, int]
    book_updates: dict[str, int]
    decisions: int
    conflated: int
    opportunities: int
    refusals: dict[str, int]
    trades_opened: int
    trades_closed: int
    open_positions: int
    realized_pnl_usdt: str
    pnl_parts: PartsText
    fees_usdt: str
    risk: RiskText
    tick_to_decision_ms: LatencyMs
    snapshots_written: int
    redis: str
    postgres: str
    errors: list[str]


class TradeTotals(msgspec.Struct, frozen=True):
    """Trades and money of a session; ``fees_usdt`` is what was paid, positive."""

    trades_opened: int
    trades_closed: int
    open_positions: int
    realized_usdt: Decimal
    fees_usdt: Decimal
    parts: PnlParts


def summarize(
    status: SystemStatus,
    context: RunContext,
    *,
    duration_s: float,
    errors: Sequence[str] = (),
    ledger: TradeTotals | None = None,
) -> RunSummary:
    """
    Sum up a run.

    Args:
        status: The last status of every actor.
        context: What the run was.
        duration_s: How long all symbols were live.
        errors: What went wrong on the way, in sentences.
        ledger: The ledger's totals, which win over the hosts' counters.
    """
    hosts = list(status.hosts.values())
    totals = ledger or host_totals(hosts)
    risk = risk_status(status)
    return RunSummary(
        session_id=context.session_id,
        env=context.env,
        source=context.source,
        preset=context.preset,
        seed=context.seed,
        symbols=list(context.symbols),
        duration_s=round(duration_s, 3),
        frames=_by_venue(
            context.venues, ((feed.venue, feed.frames) for feed in status.feeds.values())
        ),
        book_updates=_by_venue(
            context.venues, ((feed.venue, feed.book_updates) for feed in status.feeds.values())
        ),
        decisions=sum(host.decisions for host in hosts),
        conflated=conflated(status),
        opportunities=sum(host.opportunities for host in hosts),
        refusals=merged_refusals(hosts),
        trades_opened=totals.trades_opened,
        trades_closed=totals.trades_closed,
        open_positions=totals.open_positions,
        realized_pnl_usdt=usdt_text(totals.realized_usdt),
        pnl_parts=PartsText(
            spread=usdt_text(totals.parts.spread),
            fx=usdt_text(totals.parts.fx),
            fees=usdt_text(totals.parts.fees),
            slippage=usdt_text(totals.parts.slippage),
            funding=usdt_text(totals.parts.funding),
        ),
        fees_usdt=usdt_text(totals.fees_usdt),
        risk=_risk_text(risk, status),
        tick_to_decision_ms=latency_ms(hosts),
        snapshots_written=_count(status.persistence, "snapshots_written"),
        redis=str(status.persistence.get("redis", "unknown")),
        postgres=str(status.persistence.get("postgres", "unknown")),
        errors=[*errors, *_found_errors(status, totals)],
    )


def to_json_line(summary: RunSummary) -> str:
    """Return the summary as one line of JSON, without its line break."""
    return msgspec.json.encode(summary).decode()


def host_totals(hosts: Iterable[HostStatus]) -> TradeTotals:
    """Add up what the hosts counted themselves."""
    told = list(hosts)
    return TradeTotals(
        trades_opened=sum(host.trades_opened for host in told),
        trades_closed=sum(host.trades_closed for host in told),
        open_positions=sum(host.open_positions for host in told),
        realized_usdt=sum((host.realized_usdt for host in told), ZERO),
        fees_usdt=sum((host.fees_usdt for host in told), ZERO),
        parts=PnlParts(
            spread=sum((host.parts.spread for host in told), ZERO),
            fx=sum((host.parts.fx for host in told), ZERO),
            fees=sum((host.parts.fees for host in told), ZERO),
            slippage=sum((host.parts.slippage for host in told), ZERO),
            funding=sum((host.parts.funding for host in told), ZERO),
        ),
    )


def conflated(status: SystemStatus) -> int:
    """Count the book updates that a newer one overwrote before a strategy read them."""
    in_feeds = sum(feed.conflated for feed in status.feeds.values())
    return in_feeds + sum(host.conflated for host in status.hosts.values())


def merged_refusals(hosts: Iterable[HostStatus]) -> dict[str, int]:
    """Add up refusals by reason, the most frequent first."""
    counts: Counter[str] = Counter()
    for host in hosts:
        counts.update(host.refusals)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {reason: count for reason, count in ordered if count}


def latency_ms(hosts: Iterable[HostStatus]) -> LatencyMs:
    """Merge the hosts' histograms; zeros when nothing was decided."""
    merged = LatencyHistogram()
    for host in hosts:
        merged.merge(host.latency_counts, host.latency_max_ns)
    return LatencyMs(**merged.summary_ms((0.5, 0.99)))


def risk_status(status: SystemStatus) -> RiskStatus | None:
    """Return RiskGuard's state; None while it recovers or has not answered."""
    if not status.risk.get("ready"):
        return None
    return msgspec.convert(status.risk, RiskStatus, strict=False)


def usdt_text(amount: Decimal) -> str:
    """Write USDT with its eight decimals, and no minus before a zero."""
    rounded = amount.quantize(USDT_QUANTUM)
    return format(rounded or abs(rounded), "f")


def _by_venue(venues: Sequence[str], counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals = dict.fromkeys(venues, 0)
    for venue, count in counts:
        totals[venue] = totals.get(venue, 0) + count
    return totals


def _risk_text(risk: RiskStatus | None, status: SystemStatus) -> RiskText:
    if risk is None:
        return RiskText(str(status.risk.get("state", "unknown")), usdt_text(ZERO), usdt_text(ZERO))
    return RiskText(
        str(risk.state),
        usdt_text(risk.daily_loss_usdt),
        usdt_text(risk.daily_limit_usdt),
        usdt_text(risk.gap_loss_usdt),
    )


def _count(told: Mapping[str, object], key: str) -> int:
    count = told.get(key, 0)
    assert isinstance(count, int), f"{key} is a count, not {count!r}"
    return count


def _found_errors(status: SystemStatus, totals: TradeTotals) -> list[str]:
    found = [f"{name} did not answer at the end" for name in status.missing]
    store = status.persistence.get("postgres", "unknown")
    if store != "up":
        found.append(f"PostgreSQL was {store} at the end")
    if dropped := _count(status.persistence, "snapshots_dropped"):
        found.append(f"{dropped} snapshot rows were dropped")
    gap = abs(totals.parts.total - totals.realized_usdt)
    if gap > PARTS_GAP_PER_TRADE_USDT * max(1, totals.trades_closed):
        found.append(
            f"PnL parts sum to {usdt_text(totals.parts.total)} USDT, but "
            f"{usdt_text(totals.realized_usdt)} were realized"
        )
    return found
