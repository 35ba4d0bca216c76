"""Actors and feeds: what comes in, how fast it is decided upon, and what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import add_row, board, lines, tile
from deploy.grafana.queries import about, gauge, quantile, rate, total_of_gauge


def actors() -> dashboard.Dashboard:
    """Return the dashboard of feeds, the way to a decision, processes and stores."""
    made = board(
        "arb-actors",
        "arb_ray actors and feeds",
        "Connections, message age, queues, conflation, latency, loops, memory, stores.",
    )
    _feeds(made)
    _frames(made)
    _decisions(made)
    _processes(made)
    _stores(made)
    _snapshots(made)
    return made


def _feeds(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "Connections up",
            {"{{venue}}": total_of_gauge("ws_connected", "venue")},
            about=about("ws_connected"),
        ),
        lines(
            "Silence of the most silent connection",
            {"{{venue}}": gauge("ws_message_age_ms", "venue")},
            about=about("ws_message_age_ms"),
            unit="ms",
        ),
        lines(
            "Reconnects, rotations and alarms per second",
            {
                "{{venue}} reconnected": rate("ws_reconnects", "venue"),
                "{{venue}} rotated": rate("ws_rotations", "venue"),
                "{{venue}} alarm": rate("ws_alarms", "venue"),
            },
            about=about("ws_reconnects", "ws_rotations", "ws_alarms"),
        ),
        lines(
            "Last recovery, from a cut to a fresh book",
            {"{{venue}}": gauge("ws_recovery_ms", "venue")},
            about=about("ws_recovery_ms"),
            unit="ms",
        ),
        lines(
            "Clock of the venue less ours",
            {
                "{{venue}}": gauge("clock_offset_ms", "venue"),
                "{{venue}} uncertainty": gauge("clock_skew_ms", "venue"),
            },
            about=about("clock_offset_ms", "clock_skew_ms"),
            unit="ms",
        ),
        lines(
            "REST: used budget, and failures per second",
            {
                "{{venue}} used": gauge("rest_weight_used_ratio", "venue"),
                "{{venue}} failures": rate("rest_failures", "venue"),
            },
            about=about("rest_weight_used_ratio", "rest_failures"),
        ),
    ]
    add_row(made, "Feeds", panels)


def _frames(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "Frames and books per second",
            {
                "{{venue}} frames": rate("frames", "venue"),
                "{{venue}} books": rate("book_updates", "venue"),
            },
            about=about("frames", "book_updates"),
        ),
        lines(
            "Bytes per second",
            {"{{venue}}": rate("frame_bytes", "venue")},
            about=about("frame_bytes"),
            unit="Bps",
        ),
        lines(
            "What was wrong with frames, per second",
            {
                "{{venue}} gaps": rate("book_gaps", "venue"),
                "{{venue}} rebuilt": rate("books_rebuilt", "venue"),
                "{{venue}} malformed": rate("frames_malformed", "venue"),
                "{{venue}} unknown": rate("frames_unknown", "venue"),
            },
            about=about("book_gaps", "books_rebuilt", "frames_malformed", "frames_unknown"),
        ),
    ]
    add_row(made, "Frames and books", panels)


def _decisions(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "From a frame to a decision",
            {
                "decided p50": quantile(0.5, "tick_to_decision_ms"),
                "decided p99": quantile(0.99, "tick_to_decision_ms"),
                "at the host p50": quantile(0.5, "queue_latency_ms"),
                "at the host p99": quantile(0.99, "queue_latency_ms"),
            },
            about=about("tick_to_decision_ms", "queue_latency_ms"),
            unit="ms",
        ),
        lines(
            "Part of the books that a newer one overwrote",
            {
                "before they were sent, {{venue}}": (
                    f"{rate('conflated', 'venue')} / ({rate('book_updates', 'venue')} > 0)"
                ),
            },
            about=about("conflated", "book_updates"),
            unit="percentunit",
        ),
        lines(
            "Decisions, and books that reached none, per second",
            {
                "{{actor}} decisions": rate("decisions", "actor"),
                "{{actor}} overwritten": rate("updates_conflated", "actor"),
                "{{actor}} too old": rate("updates_dropped_old", "actor"),
            },
            about=about("decisions", "updates_conflated", "updates_dropped_old"),
        ),
        lines(
            "Part of the updates that was looked at in time",
            {"{{actor}}": gauge("decided_ratio", "actor")},
            about=about("decided_ratio"),
            unit="percentunit",
        ),
        lines(
            "Overloaded (1), and frames overwritten unparsed per second",
            {
                "{{actor}}": gauge("overloaded", "actor"),
                "{{venue}} frames": rate("frames_conflated", "venue"),
            },
            about=about("overloaded", "frames_conflated"),
        ),
        lines(
            "Updates of a symbol that nobody looked at, per second",
            {"{{symbol}}": rate("symbol_updates_overwritten", "symbol")},
            about=about("symbol_updates_overwritten"),
        ),
        lines(
            "Books that wait to be sent",
            {"{{venue}}": total_of_gauge("queue_depth_count", "venue")},
            about=about("queue_depth_count"),
            span=12,
        ),
        lines(
            "Batches to hosts per second",
            {"{{venue}}": rate("batches_sent", "venue")},
            about=about("batches_sent"),
            span=12,
        ),
        lines(
            "Hosts on each tick plane, and what fell back to Ray calls",
            {
                "{{venue}} {{plane}}": total_of_gauge("plane_hosts_count", "venue", "plane"),
                "{{actor}} fell back": total_of_gauge("plane_fallback_count", "actor"),
            },
            about=about("plane_hosts_count", "plane_fallback_count"),
            span=12,
        ),
        lines(
            "Boards in shared memory",
            {
                "reads repeated, {{actor}}": rate("board_reads_torn", "actor"),
                "of an unknown schema, {{actor}}": rate("boards_unknown", "actor"),
            },
            about=about("board_reads_torn", "boards_unknown"),
            span=12,
        ),
    ]
    add_row(made, "The way to a decision", panels)


def _processes(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "Longest turn of the event loop, longest round of the collector",
            {
                "{{actor}}": gauge("loop_time_ms", "actor"),
                "{{actor}} collector": gauge("gc_pause_ms", "actor"),
            },
            about=about("loop_time_ms", "gc_pause_ms"),
            unit="ms",
        ),
        lines(
            "Memory",
            {"{{actor}}": gauge("process_memory_bytes", "actor")},
            about=about("process_memory_bytes"),
            unit="bytes",
        ),
        lines(
            "Errors logged per second",
            {"{{actor}}": rate("errors_logged", "actor")},
            about=about("errors_logged"),
        ),
        lines(
            "Actors",
            {
                "wanted": gauge("actors_wanted"),
                "alive": gauge("actors_alive"),
                "{{role}} restarts /s": rate("actor_restarts", "role"),
            },
            about=about("actors_wanted", "actors_alive", "actor_restarts"),
            span=12,
        ),
        lines(
            "Actors that a page of the Gateway lacked, per second",
            {"{{role}}": rate("metrics_unanswered", "role")},
            about=about("metrics_unanswered"),
            span=12,
        ),
    ]
    add_row(made, "Processes", panels)


def _stores(made: dashboard.Dashboard) -> None:
    up = ((None, "red"), (1.0, "green"))
    panels = [
        tile(
            "PostgreSQL",
            gauge("postgres_up"),
            about=about("postgres_up"),
            steps=up,
            words={"0": "DOWN", "1": "up"},
            span=5,
        ),
        tile(
            "Redis",
            gauge("redis_fallback"),
            about=about("redis_fallback"),
            steps=((None, "green"), (1.0, "orange")),
            words={"0": "up", "1": "fallback"},
            span=5,
        ),
        tile(
            "Rows that wait",
            gauge("snapshot_backlog_rows"),
            about=about("snapshot_backlog_rows"),
            steps=((None, "green"), (1000.0, "orange"), (5000.0, "red")),
            span=5,
        ),
        tile(
            "Spool",
            total_of_gauge("spool_bytes"),
            about=about("spool_bytes"),
            unit="bytes",
            steps=((None, "green"), (1.0, "orange")),
            span=5,
        ),
        tile(
            "Files to reconcile",
            gauge("reconciliation_files"),
            about=about("reconciliation_files"),
            steps=((None, "green"), (1.0, "red")),
            span=4,
        ),
        lines(
            "Writes of trades without PostgreSQL, per second",
            {"spooled": rate("spooled_writes"), "refused": rate("spool_refusals")},
            about=about("spooled_writes", "spool_refusals"),
        ),
        lines(
            "Round trip of Redis",
            {"ping": gauge("redis_round_trip_ms")},
            about=about("redis_round_trip_ms"),
            unit="ms",
        ),
        lines(
            "One write of the journal",
            {
                "p50": quantile(0.5, "journal_write_ms"),
                "p99": quantile(0.99, "journal_write_ms"),
            },
            about=about("journal_write_ms"),
            unit="ms",
        ),
        lines(
            "Decisions of RiskGuard and the commits that they share, per second",
            {"decisions": rate("risk_decisions"), "commits": rate("risk_commits")},
            about=about("risk_decisions", "risk_commits"),
        ),
        lines(
            "Used part of the pools",
            {"{{actor}}": gauge("pool_used_ratio", "actor")},
            about=about("pool_used_ratio"),
            unit="percentunit",
        ),
    ]
    add_row(made, "Stores", panels)


def _snapshots(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "Snapshot rows per second",
            {
                "written": rate("snapshots_written"),
                "conflated": rate("snapshots_conflated"),
                "lost": rate("snapshots_dropped"),
            },
            about=about("snapshots_written", "snapshots_conflated", "snapshots_dropped"),
            span=8,
        ),
        lines(
            "Snapshots that failed, per second",
            {
                "batches not taken": rate("snapshot_failures"),
                "corrupt when read": rate("snapshots_corrupt"),
            },
            about=about("snapshot_failures", "snapshots_corrupt"),
            span=8,
        ),
        lines(
            "Disk of the spool",
            {"free": gauge("disk_free_bytes")},
            about=about("disk_free_bytes"),
            unit="bytes",
            span=4,
        ),
        tile(
            "Room for what PostgreSQL does not take",
            gauge("disk_full"),
            about=about("disk_full"),
            steps=((None, "green"), (1.0, "red")),
            words={"0": "yes", "1": "NO"},
            span=4,
        ),
    ]
    add_row(made, "Snapshots", panels)
