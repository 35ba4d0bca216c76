"""
Every metric there is, declared once: name, kind, unit, labels, who sets it, meaning.

An exporter takes the declarations from here, and refuses a name or a label that is not
among them, and one that another role sets. A name's last word is its unit, except that
counters count occurrences where no unit is named. Every series carries the label
``actor`` besides the declared ones; its process puts it there.
"""

from __future__ import annotations

from types import MappingProxyType

import msgspec

from arb_ray.engine.topology import Role
from arb_ray.ports import MetricKind

__all__ = ["ACTOR", "NAMESPACE", "REGISTRY", "MetricKind", "MetricSpec", "declared"]

NAMESPACE = "arb"
ACTOR = "actor"
"""The label of every series: role and key of the actor that set it, without its version."""


class MetricSpec(msgspec.Struct, frozen=True):
    """One metric. ``buckets`` are upper bounds in the metric's unit, of histograms only."""

    name: str
    kind: MetricKind
    unit: str
    labels: tuple[str, ...]  # besides ``actor``
    help: str
    roles: frozenset[Role]  # the actors that set it; the others do not export it
    buckets: tuple[float, ...] = ()

    @property
    def series_name(self) -> str:
        """The name without the suffix that an exporter gives to a counter."""
        return f"{NAMESPACE}_{self.name}"

    @property
    def exported_name(self) -> str:
        """The name in Prometheus; behind Ray's exporter it has the prefix ``ray_`` too."""
        return self.series_name + ("_total" if self.kind is MetricKind.COUNTER else "")

    @property
    def exported_labels(self) -> tuple[str, ...]:
        """Every label of a series."""
        return (ACTOR, *self.labels)


# Ray refuses a bound that is not above zero.
LATENCY_BUCKETS_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000)
EDGE_BUCKETS_BPS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 100)


class _Section:
    """Declares the metrics that the same roles set."""

    def __init__(self, *roles: Role) -> None:
        self._roles = frozenset(roles)

    def counter(self, name: str, help_text: str, *labels: str, unit: str = "") -> MetricSpec:
        return MetricSpec(name, MetricKind.COUNTER, unit, labels, help_text, self._roles)

    def gauge(self, name: str, unit: str, help_text: str, *labels: str) -> MetricSpec:
        return MetricSpec(name, MetricKind.GAUGE, unit, labels, help_text, self._roles)

    def histogram(
        self, name: str, unit: str, help_text: str, *, buckets: tuple[float, ...]
    ) -> MetricSpec:
        kind = MetricKind.HISTOGRAM
        return MetricSpec(name, kind, unit, (), help_text, self._roles, buckets)


_everyone = _Section(*Role)
_feed = _Section(Role.FEED)
_host = _Section(Role.HOST)
_plane_users = _Section(Role.FEED, Role.HOST)
_risk = _Section(Role.RISK)
_persistence = _Section(Role.PERSISTENCE)
_supervisor = _Section(Role.SUPERVISOR)
_gateway = _Section(Role.GATEWAY)
_tick_takers = _Section(Role.FEED, Role.HOST)
_row_senders = _Section(Role.HOST, Role.PERSISTENCE)
_pool_owners = _Section(Role.HOST, Role.RISK, Role.PERSISTENCE, Role.SUPERVISOR)

_SPECS = (
    # Every actor's process
    _everyone.gauge("loop_time_ms", "ms", "Longest turn of the event loop lately."),
    _everyone.gauge("process_memory_bytes", "bytes", "Resident memory of the actor's process."),
    _everyone.counter("errors_logged", "Log lines of level error or above."),
    # Connections and what arrives on them
    _feed.gauge("ws_connected", "count", "Connections that are up and subscribed.", "venue"),
    _feed.counter("ws_reconnects", "Connections made again after a loss.", "venue"),
    _feed.counter("ws_alarms", "Attempts to connect beyond the alarm's bound.", "venue"),
    _feed.counter("ws_rotations", "Connections replaced by an overlapping one.", "venue"),
    _feed.gauge(
        "ws_message_age_ms", "ms", "Time since the most silent connection proved alive.", "venue"
    ),
    _feed.gauge(
        "ws_recovery_ms", "ms", "Last time from a cut to a fresh book; 0 before a cut.", "venue"
    ),
    _feed.counter("frames", "Frames worked off.", "venue"),
    _feed.counter(
        "frames_conflated",
        "Frames that a newer one of the same book overwrote before they were parsed.",
        "venue",
    ),
    _feed.counter("frame_bytes", "Bytes of frames received.", "venue", unit="bytes"),
    _feed.counter("book_updates", "Books handed to strategies.", "venue"),
    _feed.counter("book_gaps", "Breaks in a diff sequence; each rebuilds a book.", "venue"),
    _feed.counter("books_rebuilt", "Books rebuilt from a snapshot.", "venue"),
    _feed.counter("frames_malformed", "Frames that break their protocol.", "venue"),
    _feed.counter("frames_unknown", "Frames of a type we do not know.", "venue"),
    _feed.gauge("symbols_stale", "count", "Subscribed symbols without a fresh book.", "venue"),
    _feed.gauge("symbols_silent", "count", "Subscribed symbols that never delivered.", "venue"),
    _feed.gauge("clock_offset_ms", "ms", "The venue's clock less ours, estimated.", "venue"),
    _feed.gauge("clock_skew_ms", "ms", "Uncertainty of that estimate.", "venue"),
    _feed.gauge("rest_weight_used_ratio", "ratio", "Used part of the REST budget.", "venue"),
    _feed.counter("rest_failures", "REST requests without a usable answer.", "venue"),
    # From the socket to the decision
    _feed.counter("batches_sent", "Batches that feeds sent to hosts.", "venue"),
    _feed.counter("conflated", "Books overwritten by a newer one before they were sent.", "venue"),
    _feed.gauge("queue_depth_count", "count", "Books that wait to be sent.", "venue"),
    _feed.gauge(
        "plane_hosts_count", "count", "Hosts whose ticks this plane carries.", "venue", "plane"
    ),
    _plane_users.gauge(
        "plane_fallback_count",
        "count",
        "1 where shared memory is wanted and Ray calls carry the ticks instead.",
    ),
    _host.counter("board_reads_torn", "Reads of a board that met its writer, and were repeated."),
    _host.counter("boards_unknown", "Boards of a schema that this version does not read."),
    _host.histogram(
        "queue_latency_ms",
        "ms",
        "From the frame's arrival at the feed to its batch's arrival at a host, sampled.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    _host.counter("updates_dropped_old", "Books that arrived after a newer one."),
    _host.counter("updates_conflated", "Books overwritten in a host before a strategy read them."),
    _host.counter("decisions", "Book updates that a strategy read."),
    _host.counter(
        "symbol_updates_overwritten",
        "Updates of a symbol's two books that no strategy looked at, since a newer one came: from "
        "the feed's socket to the host.",
        "symbol",
    ),
    _host.gauge(
        "decided_ratio", "ratio", "Part of the updates lately that a strategy looked at in time."
    ),
    _tick_takers.gauge("gc_pause_ms", "ms", "Longest round of the garbage collector lately."),
    _tick_takers.gauge(
        "overloaded",
        "count",
        "1 while a feed or host is given more than it can look at, or its loop is late; else 0.",
    ),
    _host.histogram(
        "tick_to_decision_ms",
        "ms",
        "From the frame's arrival to the end of the strategy's decision, sampled.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    # Market
    _host.gauge("fx_krw", "KRW", "KRW of one USDT: middle of KRW-USDT on Upbit."),
    _host.gauge(
        "premium_bps", "bps", "Upbit's middle over Binance's, at the middle of FX.", "symbol"
    ),
    _host.gauge(
        "net_edge_bps", "bps", "Better direction's net edge at the newest books.", "symbol"
    ),
    _host.gauge("book_age_ms", "ms", "Age of the symbol's older book.", "symbol"),
    # Trading
    _host.counter("opportunities", "Evaluations with a net edge above the minimum.", "symbol"),
    _host.histogram(
        "opportunity_net_bps", "bps", "Net edge of opportunities.", buckets=EDGE_BUCKETS_BPS
    ),
    _host.counter("refusals", "Entries not made, by the gate that refused.", "reason"),
    _host.counter("trades_opened", "Trades whose entry filled.", "symbol"),
    _host.counter("trades_closed", "Trades that ended flat, by cause.", "symbol", "exit_reason"),
    _host.counter("orders", "Orders with a last word, by status.", "venue", "status"),
    _host.counter(
        "order_failures", "Orders that filled nothing, or without an answer in time.", "venue"
    ),
    _host.gauge(
        "fill_ratio", "ratio", "Mean filled part of the venue's last orders, at most 50.", "venue"
    ),
    _supervisor.gauge("open_positions", "count", "Trades that are open."),
    _supervisor.gauge("pnl_realized_usdt", "USDT", "Net realized PnL of the session."),
    _supervisor.gauge(
        "pnl_unrealized_usdt", "USDT", "What closing every open trade now would realize."
    ),
    _supervisor.gauge("pnl_part_usdt", "USDT", "Realized PnL of the session by cause.", "part"),
    _supervisor.gauge(
        "symbol_pnl_usdt", "USDT", "Net realized PnL of the session of one symbol.", "symbol"
    ),
    _supervisor.gauge("fees_usdt", "USDT", "Fees paid in the session."),
    _supervisor.gauge(
        "win_rate_ratio", "ratio", "Part of the session's closed trades that gained; 0 before one."
    ),
    # Risk
    _risk.gauge("risk_state", "code", "0 active, 1 reduce only, 2 halted."),
    _risk.gauge("daily_loss_usdt", "USDT", "Net realized loss of the UTC day; never negative."),
    _risk.gauge("daily_loss_limit_usdt", "USDT", "Its limit."),
    _risk.gauge("reserved_usdt", "USDT", "Worst cases of open and pending trades."),
    _risk.gauge("open_trades", "count", "Open and pending trades that RiskGuard knows."),
    _risk.gauge(
        "drawdown_usdt", "USDT", "Fall from the day's best realized PnL, current losses included."
    ),
    _risk.gauge("gap_loss_usdt", "USDT", "Losses of the day beyond their reservations."),
    _risk.gauge("guard_epoch", "number", "Epoch of the one guard; a step is a takeover."),
    _risk.counter("risk_grants", "Reservations granted."),
    _risk.counter("risk_decisions", "Grants and settlements that were sent to PostgreSQL."),
    _risk.counter("risk_commits", "Commits that they shared."),
    _risk.counter("risk_refusals", "Reservations refused, by limit.", "reason"),
    _host.histogram(
        "reserve_ms",
        "ms",
        "From asking for a reservation to its answer.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    # Stores
    _persistence.gauge("redis_round_trip_ms", "ms", "Last ping of Redis."),
    _persistence.gauge(
        "redis_fallback", "flag", "1 while Redis is given up; PostgreSQL and memory stand in."
    ),
    _persistence.gauge("postgres_up", "flag", "1 while PostgreSQL takes writes."),
    _pool_owners.gauge(
        "pool_used_ratio", "ratio", "Most used part of the actor's PostgreSQL pool lately."
    ),
    _host.histogram(
        "journal_write_ms",
        "ms",
        "One synchronous write of the journal.",
        buckets=LATENCY_BUCKETS_MS,
    ),
    _persistence.counter("snapshots_written", "Snapshot rows that PostgreSQL took.", unit="rows"),
    _row_senders.counter("snapshots_dropped", "Snapshot rows lost at a bound.", unit="rows"),
    _row_senders.counter(
        "snapshots_conflated",
        "Statistics that a newer one of the same symbol stood in for, under pressure.",
        unit="rows",
    ),
    _persistence.counter(
        "snapshot_failures", "Batches of snapshots that PostgreSQL did not take at once."
    ),
    _persistence.counter(
        "snapshots_corrupt",
        "Snapshots, and batches from the spool, that failed their check when read.",
    ),
    _persistence.gauge("snapshot_backlog_rows", "rows", "Rows that wait to be written."),
    _persistence.gauge("disk_free_bytes", "bytes", "Room on the disk of the spool."),
    _persistence.gauge(
        "disk_full", "flag", "1 while that disk could not take what PostgreSQL does not."
    ),
    _row_senders.gauge("spool_bytes", "bytes", "Size of the actor's spool on local disk."),
    _host.counter(
        "spooled_writes", "Writes of live trades that went to the spool, PostgreSQL being away."
    ),
    _host.counter(
        "spool_refusals", "Writes of live trades that neither PostgreSQL nor the spool took."
    ),
    _host.gauge(
        "reconciliation_files",
        "files",
        "Files of the host's node that keep what the books refused of a spool.",
    ),
    # The system
    _supervisor.gauge("actors_wanted", "count", "Actors of the wanted topology."),
    _supervisor.gauge("actors_alive", "count", "Those that answered the Supervisor lately."),
    _supervisor.counter("actor_restarts", "Actors started again.", "role"),
    _supervisor.gauge("symbols_wanted", "count", "Symbols of the wanted topology."),
    _supervisor.gauge("symbols_live", "count", "Those whose three books have arrived."),
    _gateway.counter(
        "metrics_unanswered", "Actors whose metrics a page of the Gateway lacks.", "role"
    ),
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
