"""
What actors say about themselves, for the supervisor, the gateway, the terminal and the summary.

Plain figures, cheap to make, safe to lose. Money as Decimal text; times in ns UTC.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from arb_ray.domain.ledger import NO_PNL, PnlParts
from arb_ray.engine.session_snapshot import Counts

SCHEMA = 1
RECENT_MAX = 30
"""How many recent lines of each kind an actor keeps; older ones are in the logs and tables."""


class SymbolRow(msgspec.Struct):
    """One symbol at this moment."""

    symbol: str
    phase: str = "idle"
    bid_a_krw: float = 0.0
    ask_a_krw: float = 0.0
    bid_b_usdt: float = 0.0
    ask_b_usdt: float = 0.0
    premium_bps: float = 0.0  # Upbit's mid against Binance's, at KRW-USDT's mid
    gross_bps: float = 0.0  # of the better direction, at the size that would be traded
    net_bps: float = 0.0
    direction: str = ""
    refusal: str = ""  # why there was no entry at the last evaluation
    age_a_ms: float = 0.0  # freshness as DESIGN defines it
    age_b_ms: float = 0.0
    trades_closed: int = 0
    realized_usdt: Decimal = Decimal(0)
    mark_usdt: Decimal | None = None  # what the open position would realize now


class OpportunityLine(msgspec.Struct):
    """An opportunity with its cost breakdown, basis points."""

    at_ns: int
    symbol: str
    direction: str
    notional_usdt: float
    gross_bps: float
    entry_fees_bps: float
    exit_fees_bps: float
    exit_spread_bps: float
    slippage_bps: float
    exit_premium_bps: float
    funding_bps: float
    buffer_bps: float
    net_bps: float
    outcome: str  # "signalled", or the refusal that followed


class TradeLine(msgspec.Struct):
    """A trade that opened or closed."""

    at_ns: int
    trade_id: str
    symbol: str
    what: str  # "opened" | "closed" | "hedged" | "refused" | "voided"
    direction: str
    qty: Decimal
    notional_usdt: Decimal
    realized_usdt: Decimal | None = None
    parts: PnlParts | None = None
    reason: str = ""
    held_ms: int = 0


class HostStatus(msgspec.Struct):
    """A strategy host."""

    ready: bool
    why: str
    symbols: list[str]
    live: list[str]  # symbols whose three books have all arrived
    decisions: int = 0  # book updates that a strategy read, also where a gate ended it
    received: int = 0  # updates delivered to this host
    outdated: int = 0  # delivered but older than what was here
    conflated: int = 0  # overwritten here before a strategy read them
    opportunities: int = 0
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    trades_opened: int = 0
    trades_closed: int = 0
    trades_won: int = 0  # of those, the ones that gained
    open_positions: int = 0
    order_failures: int = 0
    realized_usdt: Decimal = Decimal(0)
    fees_usdt: Decimal = Decimal(0)
    parts: PnlParts = NO_PNL
    latency_counts: dict[int, int] = msgspec.field(default_factory=dict)  # LatencyHistogram.sparse
    latency_max_ns: int = 0
    rows: list[SymbolRow] = msgspec.field(default_factory=list)
    recent_opportunities: list[OpportunityLine] = msgspec.field(default_factory=list)
    recent_trades: list[TradeLine] = msgspec.field(default_factory=list)
    loop_lag_ms: float = 0.0
    overloaded: str = ""  # why, in words; empty while it keeps up
    overwritten: int = 0  # updates that nobody looked at in time, from the feed's socket on
    rss_mb: float = 0.0
    draining: bool = False  # it enters nothing any more
    decision_hash: str = ""
    born_ns: int = 0  # when its process began; another stamp is another process
    troubles: list[str] = msgspec.field(default_factory=list)  # what a person must see to
    plane: str = ""  # what brings its ticks: "shm" or "ray"
    plane_why: str = ""  # why it is not shared memory, which is wanted
    schema: int = SCHEMA


class FeedStatus(msgspec.Struct):
    """A feed."""

    ready: bool
    why: str
    venue: str
    connected: bool
    routes: str  # version of the routes that it serves
    frames: int = 0
    book_updates: int = 0
    sent: int = 0
    conflated: int = 0
    reconnects: int = 0
    gaps: int = 0
    resyncs: int = 0
    malformed: int = 0
    unknown: dict[str, int] = msgspec.field(default_factory=dict)
    silent: list[str] = msgspec.field(default_factory=list)  # codes that never delivered
    stale: list[str] = msgspec.field(default_factory=list)
    clock_offset_ms: float = 0.0
    reconnect_ms_max: float = 0.0  # longest time from cut to fresh book
    queue: int = 0  # updates waiting for a host
    plane: str = ""  # what carries its ticks: "shm", "ray", or "shm+ray"
    plane_why: str = ""  # why it has no shared memory, which is wanted
    frames_conflated: int = 0  # of the frames: overwritten before they were parsed
    overloaded: str = ""  # why, in words; empty while it keeps up
    rss_mb: float = 0.0
    born_ns: int = 0
    schema: int = SCHEMA


class SystemStatus(msgspec.Struct):
    """Everything that the supervisor knows, by actor name."""

    session_id: str
    topology: str
    draining: bool
    wanted: list[str]
    hosts: dict[str, HostStatus]
    feeds: dict[str, FeedStatus]
    risk: dict[str, object]  # RiskStatus as plain data, plus "ready" and "refusals"
    persistence: dict[str, object]
    source: dict[str, object]
    gateway: dict[str, object]
    missing: list[str]  # wanted actors that have not answered
    errors: list[str] = msgspec.field(default_factory=list)  # what went wrong, in sentences
    deployment: int = 0  # version of the wanted state that is carried out; 0 before it was read
    code: str = ""  # version of the supervisor's own code
    stopped: int = 0  # version of the stopped state that was carried out; 0 when none was
    stop_errors: list[str] = msgspec.field(default_factory=list)  # of that stop only
    market: str = ""  # source, identity and leg B
    # What the session's runs before this one had counted.
    carried: Counts = msgspec.field(default_factory=Counts)
    age_s: float | None = None  # of the oldest answer of those not missing; None: none ever came
