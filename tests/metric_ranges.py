"""What a metric can be in a run of some minutes in which nothing goes wrong."""

from arb_ray.adapters.telemetry.metric_registry import MetricKind

INFINITY = float("inf")

RANGES_OF_UNITS = {
    "": (0, INFINITY),
    "count": (0, 100_000),
    "ms": (0, 60_000),
    "ratio": (0, 1),
    "bytes": (0, INFINITY),
    "rows": (0, 20_000),
    "files": (0, 0),
    "number": (1, 1_000),
    "USDT": (-200, 200),
    "bps": (-1_000, 1_000),
    "KRW": (900, 2_500),
}
"""What can be true of a value of a unit in a run of some minutes."""

RANGES = {
    "risk_state": (0, 0),
    "postgres_up": (1, 1),
    "redis_fallback": (0, 0),
    "disk_full": (0, 0),
    "daily_loss_usdt": (0, 200),
    "daily_loss_limit_usdt": (200, 200),
    "reserved_usdt": (0, 200),
    "drawdown_usdt": (0, 150),
    "gap_loss_usdt": (0, 0),
    "fees_usdt": (0, 200),
    "clock_offset_ms": (-1_000, 1_000),
    "process_memory_bytes": (20e6, 2e9),
    "actors_wanted": (5, 20),
    "actors_alive": (5, 20),
    "symbols_wanted": (20, 20),
    "symbols_live": (20, 20),
    "ws_connected": (1, 10),
    "spool_bytes": (0, 0),
    "snapshots_dropped": (0, 0),
    "snapshots_corrupt": (0, 0),
    "actor_restarts": (0, 0),
}
"""What is narrower or wider than its unit."""


def range_of(spec):
    """Return what can be true of a metric, lowest and highest."""
    if spec.name in RANGES:
        return RANGES[spec.name]
    if spec.kind is MetricKind.GAUGE:
        return RANGES_OF_UNITS[spec.unit]
    return 0, INFINITY
