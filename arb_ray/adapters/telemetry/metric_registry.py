"""
Every metric there is, declared once: name, kind, unit, labels, meaning.

An exporter takes the declarations from here, and refuses a name or a label that is not
among them. A name's last word is its unit, except that counters count occurrences where no
unit is named.
"""

from __future__ import annotations

import enum
from types import MappingProxyType

import msgspec

NAMESPACE = "arb"


class MetricKind(enum.StrEnum):
    """What can be done with a metric."""

    COUNTER = "counter"  # only grows; inc
    GAUGE = "gauge"  # the value of now; set
    HISTOGRAM = "histogram"  # a distribution; observe, per batch or sample, never per tick


class MetricSpec(msgspec.Struct, frozen=True):
    """One metric. ``buckets`` are upper bounds in the metric's unit, of histograms only."""

    name: str
    kind: MetricKind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def exported_name(self) -> str:
        """The name in Prometheus; behind Ray's exporter it has the prefix ``ray_`` too."""
        suffix = "_total" if self.kind is MetricKind.COUNTER else ""
        return f"{NAMESPACE}_{self.name}{suffix}"


LATENCY_BUCKETS_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000)
RECOVERY_BUCKETS_MS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000)
EDGE_BUCKETS_BPS = (-100, -50, -30, -20, -15, -10, -5, 0, 2, 5, 10, 20, 50, 100)


def _counter(name: str, help_text: str, *labels: str, unit: str = "") -> MetricSpec:
    return MetricSpec(name, MetricKind.COUNTER, unit, labels, help_text)


def _gauge(name: str, unit: str, help_text: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, MetricKind.GAUGE, unit, labels, help_text)


def _histogram(
    name: str, unit: str, help_text: str, *labels: str, buckets: tuple[float, ...]
) -> MetricSpec:
    return MetricSpec(name, MetricKind.HISTOGRAM, unit, labels, help_text, buckets)


_SPECS = (
    # Connections and what arrives on them
    _gauge("ws_connected", "count", "Connections that are up and subscribed.", "venue"),
    _counter("ws_reconnects", "Connections made again after a loss.", "venue"),
    _counter("ws_alarms", "Attempts to connect beyond the alarm's bound.", "venue"),
    _counter("ws_rotations", "Connections replaced by an overlapping one.", "venue"),
    _gauge(
        "ws_message_age_ms", "ms", "Time since the most silent connection proved alive.", "venue"
    ),
    _gauge("ws_recovery_ms", "ms", "Last time from a cut to a fresh book.", "venue"),
    _counter("frames", "Frames received.", "venue"),
    _counter("frame_bytes", "Bytes of frames received.", "venue", unit="bytes"),
    _counter("book_updates", "Books handed to strategies.", "venue"),
    _counter("book_gaps", "Breaks in a diff sequence; each rebuilds a book.", "venue"),
    _counter("books_rebuilt", "Books rebuilt from a snapshot.", "venue"),
    _counter("frames_malformed", "Frames that break their protocol.", "venue"),
    _counter("frames_unknown", "Frames of a type we do not know.", "venue"),
    _gauge("symbols_stale", "count", "Subscribed symbols without a fresh book.", "venue"),
    _gauge("symbols_silent", "count", "Subscribed symbols that never delivered.", "venue"),
    _gauge("clock_offset_ms", "ms", "The venue's clock less ours, estimated.", "venue"),
    _gauge("clock_skew_ms", "ms", "Uncertainty of that estimate.", "venue"),
    _gauge("rest_weight_used_ratio", "ratio", "Used part of the REST budget.", "venue"),
    _counter("rest_failures", "REST requests without a usable answer.", "venue"),
    # From the socket to the decision
    _counter("batches_sent", "Batches that feeds sent to hosts.", "venue"),
    _counter("conflated", "Books overwritten by a newer one before a strategy read them.", "venue"),
    _gauge("queue_depth_count", "count", "Books that wait to be sent.", "venue"),
    _counter("updates_dropped_old", "Books that arrived after a newer one.", "venue"),
    _counter("decisions", "Book updates that a strategy read."),
    _histogram(
        "tick_to_decision_ms",
        "ms",
        "From the frame's arrival to the end of the strategy's decision, sampled.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    _gauge("loop_time_ms", "ms", "Longest turn of the event loop lately.", "actor"),
    _gauge("mailbox_depth_count", "count", "Events that wait for a strategy host.", "actor"),
    # Market
    _gauge("fx_krw", "KRW", "KRW of one USDT: middle of KRW-USDT on Upbit."),
    _gauge("premium_bps", "bps", "Upbit's middle over Binance's, at the middle of FX.", "symbol"),
    _gauge("net_edge_bps", "bps", "Better direction's net edge at the last evaluation.", "symbol"),
    _gauge("book_age_ms", "ms", "Age of the symbol's older book.", "symbol"),
    # Trading
    _counter("opportunities", "Evaluations with a net edge above the minimum.", "symbol"),
    _histogram(
        "opportunity_net_bps", "bps", "Net edge of opportunities.", buckets=EDGE_BUCKETS_BPS
    ),
    _counter("refusals", "Entries not made, by the gate that refused.", "reason"),
    _counter("trades_opened", "Trades whose entry filled.", "symbol"),
    _counter("trades_closed", "Trades that ended flat, by cause.", "symbol", "exit_reason"),
    _gauge("open_positions", "count", "Trades that are open."),
    _counter("orders", "Orders with a last word, by status.", "venue", "status"),
    _counter("order_failures", "Orders rejected, or without an answer in time.", "venue"),
    _gauge("fill_ratio", "ratio", "Filled part of the quantity ordered, lately.", "venue"),
    _gauge("pnl_realized_usdt", "USDT", "Net realized PnL of the session."),
    _gauge("pnl_unrealized_usdt", "USDT", "What closing every open trade now would realize."),
    _gauge("pnl_part_usdt", "USDT", "Realized PnL of the session by cause.", "part"),
    _gauge("symbol_pnl_usdt", "USDT", "Net realized PnL of the session of one symbol.", "symbol"),
    _gauge("fees_usdt", "USDT", "Fees paid in the session."),
    _gauge("win_rate_ratio", "ratio", "Part of the session's closed trades that gained."),
    # Risk
    _gauge("risk_state", "code", "0 active, 1 reduce only, 2 halted."),
    _gauge("daily_loss_usdt", "USDT", "Net realized loss of the UTC day; never negative."),
    _gauge("daily_loss_limit_usdt", "USDT", "Its limit."),
    _gauge("reserved_usdt", "USDT", "Worst cases of open and pending trades."),
    _gauge("open_trades", "count", "Open and pending trades that RiskGuard knows."),
    _gauge("drawdown_usdt", "USDT", "Fall from the day's best PnL."),
    _gauge("gap_loss_usdt", "USDT", "Losses of the day beyond their reservations."),
    _gauge("guard_epoch", "number", "Epoch of the one guard; a step is a takeover."),
    _counter("risk_grants", "Reservations granted."),
    _counter("risk_refusals", "Reservations refused, by limit.", "reason"),
    _histogram(
        "reserve_ms",
        "ms",
        "From asking for a reservation to its answer.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    # Stores
    _gauge("redis_round_trip_ms", "ms", "Last ping of Redis."),
    _gauge("redis_fallback", "flag", "1 while Redis is given up and PostgreSQL stands in."),
    _gauge("postgres_up", "flag", "1 while PostgreSQL takes writes."),
    _gauge("pool_used_ratio", "ratio", "Used part of a PostgreSQL pool.", "actor"),
    _histogram(
        "journal_write_ms",
        "ms",
        "One synchronous write of the journal.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    _counter("snapshots_written", "Snapshot rows that PostgreSQL took.", unit="rows"),
    _counter("snapshots_dropped", "Snapshot rows lost at a bound.", "actor", unit="rows"),
    _counter("snapshot_failures", "Batches of snapshots that PostgreSQL did not take."),
    _counter("snapshots_corrupt", "Snapshots that failed their check when read.", unit="rows"),
    _gauge("snapshot_backlog_rows", "rows", "Rows that wait to be written."),
    _gauge("spool_bytes", "bytes", "Size of the spool on local disk.", "actor"),
    # The system
    _gauge("actors_alive", "count", "Actors that answered the Supervisor lately."),
    _counter("actor_restarts", "Actors started again.", "role"),
    _gauge("symbols_live", "count", "Symbols whose three books are fresh."),
    _gauge("process_memory_bytes", "bytes", "Resident memory of an actor's process.", "actor"),
    _counter("errors_logged", "Log lines of level error or above.", "actor"),
)

REGISTRY: MappingProxyType[str, MetricSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
assert len(REGISTRY) == len(_SPECS), "a metric is declared once"


def declared(name: str, kind: MetricKind, labels: frozenset[str]) -> MetricSpec:
    """Return the declaration; a name, kind or label that is not declared is a bug."""
    spec = REGISTRY.get(name)
    assert spec is not None, f"metric {name} is not declared in metric_registry.py"
    assert spec.kind is kind, f"metric {name} is a {spec.kind}, not a {kind}"
    assert labels == frozenset(spec.labels), (
        f"metric {name} has the labels {sorted(spec.labels)}, not {sorted(labels)}"
    )
    return spec
