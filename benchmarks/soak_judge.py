"""
Budgets of a long run, and the verdicts: memory, queues, ages of books, the end.

Pure: samples in, verdicts out. Growth is judged by the Theil-Sen slope (the median of the
slopes between all pairs of samples), which a few outliers cannot move, over the time after
the warm-up; a process that was started again meanwhile is judged as another one.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.budgets import Verdict, at_most
from benchmarks.family import total_pss_mib
from benchmarks.latencies import gained
from benchmarks.soak_run import End, Sample

WARM_UP_S = 120.0
"""Pools fill, caches warm, PostgreSQL touches its buffers: growth until then is not judged."""

WARM_UP_RATIO_MAX = 1 / 3
"""Of a short run, so that something is left to judge."""

GROWTH_MIB_PER_MIN_MAX = 0.5
"""Of one process' private memory. A host that leaked 1 kB a decision would grow by 10."""

TOTAL_GROWTH_MIB_PER_MIN_MAX = 2.0
"""Of all processes together."""

HANDLES_PER_MIN_MAX = 0.5
QUEUE_PER_MIN_MAX = 1.0
BUFFERED_ROWS_MAX = 2_000
BOOK_AGE_MS_MAX = 3_000.0
"""The entry gate's own bound (strategy.max_age_a_ms): an older book is not traded on."""

LOOP_LAG_P95_MS_MAX = 250.0
STATUS_MISSED_RATIO_MAX = 0.05
P99_GROWTH_RATIO_MAX = 0.5
"""Of the delay from socket to decision over the judged time, against its median: what creeps up by
half in a run of any length is not noise."""

TOTAL_PSS_MIB_MAX = 3 * 1024.0
LIVE_AFTER_S_MAX = 60.0


class Delays(msgspec.Struct, frozen=True):
    """From socket to decision, of the decisions between a sample and the one before it."""

    at_s: float
    p50_ms: float
    p99_ms: float


def delays_of(samples: Sequence[Sample]) -> list[Delays]:
    """Return the delays between every two statuses that follow each other."""
    known = [(sample.at_s, sample.status) for sample in samples if sample.status is not None]
    found = []
    for (_, before), (at_s, after) in itertools.pairwise(known):
        gain = gained(before, after)
        if gain.count:
            p50_ms, p99_ms = gain.quantile_ms(0.5), gain.quantile_ms(0.99)
            found.append(Delays(at_s, round(p50_ms, 3), round(p99_ms, 3)))
    return found


def slope_per_min(points: Sequence[tuple[float, float]]) -> float:
    """
    Return the Theil-Sen slope of (seconds, value) points, per minute; 0 for less than three.

    At most 200 points are used, evenly chosen: all pairs of those are 20,000 slopes.
    """
    if len(points) < 3:
        return 0.0
    step = max(1, -(-len(points) // 200))
    chosen = points[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(chosen)
        for later in chosen[i + 1 :]
        if later[0] > earlier[0]
    ]
    return statistics.median(slopes) * 60 if slopes else 0.0


def warm_up_s(duration_s: float) -> float:
    """Return how much of a run's begin is not judged."""
    return min(WARM_UP_S, duration_s * WARM_UP_RATIO_MAX)


def judge_soak(samples: Sequence[Sample], duration_s: float, end: End) -> list[Verdict]:
    """Judge a long run."""
    warm = [sample for sample in samples if sample.at_s >= warm_up_s(duration_s)]
    return [
        *_memory(warm),
        _total_memory(samples),
        *_queues(warm),
        *_freshness(warm),
        *_drift(warm),
        *_end(end),
    ]


def judge_startup(live_after_s: float, samples: Sequence[Sample], end: End) -> list[Verdict]:
    """Judge the begin of the demonstration: time to live, and memory."""
    return [
        at_most("all symbols live", live_after_s, LIVE_AFTER_S_MAX, "s"),
        _total_memory(samples),
        *_end(end),
    ]


def _memory(samples: Sequence[Sample]) -> list[Verdict]:
    uss: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    handles: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        for member in sample.members:
            # PostgreSQL starts and ends processes as it likes; it is judged as one.
            one = member.label, 0 if member.label == "postgres" else member.pid
            _add(uss[one], sample.at_s, member.uss_mib)
            _add(handles[one], sample.at_s, member.handles)
    worst, growth = _steepest(uss)
    leaky, opened = _steepest(handles)
    total = [(s.at_s, sum(member.uss_mib for member in s.members)) for s in samples]
    return [
        at_most("memory of one process", growth, GROWTH_MIB_PER_MIN_MAX, "MiB/min", worst),
        at_most("memory of all", slope_per_min(total), TOTAL_GROWTH_MIB_PER_MIN_MAX, "MiB/min"),
        at_most("open handles of one process", opened, HANDLES_PER_MIN_MAX, "1/min", leaky),
    ]


def _add(points: list[tuple[float, float]], at_s: float, value: float) -> None:
    if points and points[-1][0] == at_s:
        value += points.pop()[1]
    points.append((at_s, value))


def _steepest(
    series: dict[tuple[str, int], list[tuple[float, float]]],
) -> tuple[str, float]:
    if not series:
        return "", 0.0
    slopes = {one: slope_per_min(points) for one, points in series.items()}
    worst = max(slopes, key=lambda one: slopes[one])
    return worst[0], slopes[worst]


def _total_memory(samples: Sequence[Sample]) -> Verdict:
    peak = max((total_pss_mib(sample.members) for sample in samples), default=0.0)
    return at_most("memory of all, shared parts once", peak, TOTAL_PSS_MIB_MAX, "MiB")


def _queues(samples: Sequence[Sample]) -> list[Verdict]:
    known = [(s.at_s, s.status) for s in samples if s.status is not None]
    waiting = [(at, float(sum(f.queue for f in s.feeds.values()))) for at, s in known]
    buffered = [(at, _figure(s.persistence.get("buffered"))) for at, s in known]
    spooled = max((_figure(s.persistence.get("spooled")) for _, s in known), default=0.0)
    dropped = max((_figure(s.persistence.get("snapshots_dropped")) for _, s in known), default=0.0)
    deepest = max((value for _, value in waiting), default=0.0)
    # One slot a book and host: more than that cannot wait, because newer ones overwrite.
    slots = max(
        (sum(2 * len(h.symbols) + 1 for h in s.hosts.values()) for _, s in known), default=0
    )
    return [
        at_most("feeds' queues", slope_per_min(waiting), QUEUE_PER_MIN_MAX, "1/min"),
        at_most("deepest queue of feeds", deepest, float(slots), "books"),
        at_most("rows waiting for PostgreSQL", slope_per_min(buffered), QUEUE_PER_MIN_MAX, "1/min"),
        at_most(
            "most rows waiting",
            max((value for _, value in buffered), default=0.0),
            BUFFERED_ROWS_MAX,
            "rows",
        ),
        at_most("rows spooled or dropped", spooled + dropped, 0, "rows"),
    ]


def _freshness(samples: Sequence[Sample]) -> list[Verdict]:
    ages: list[tuple[float, str]] = []
    lags: list[float] = []
    never = 0
    for sample in samples:
        if sample.status is None:
            continue
        for host in sample.status.hosts.values():
            lags.append(host.loop_lag_ms)
            never += len(host.symbols) - len(host.live)
            ages += [(max(row.age_a_ms, row.age_b_ms), row.symbol) for row in host.rows]
    oldest, symbol = max(ages, default=(0.0, ""))
    missed = sum(sample.status is None for sample in samples) / max(1, len(samples))
    return [
        at_most("oldest book", oldest, BOOK_AGE_MS_MAX, "ms", symbol),
        at_most("symbols without a book", never, 0, "samples"),
        at_most("loop lag of hosts, p95", _quantile(lags, 0.95), LOOP_LAG_P95_MS_MAX, "ms"),
        at_most("statuses missed", missed, STATUS_MISSED_RATIO_MAX, "of all"),
    ]


def _drift(samples: Sequence[Sample]) -> list[Verdict]:
    delays = delays_of(samples)
    if not delays:
        return []
    median_ms = statistics.median(one.p99_ms for one in delays)
    minutes = (delays[-1].at_s - delays[0].at_s) / 60
    growth_ms = slope_per_min([(one.at_s, one.p99_ms) for one in delays]) * minutes
    ratio = growth_ms / median_ms if median_ms else 0.0
    note = f"median p99 {median_ms:.1f} ms"
    name = "growth of the delay's p99"
    return [at_most(name, ratio, P99_GROWTH_RATIO_MAX, "of its median", note)]


def _end(end: End) -> list[Verdict]:
    errors = end.summary.get("errors", ["no summary"])
    return [
        at_most("exit code", end.code, 0, "", "; ".join(errors)[:200]),
        at_most("errors told", len(errors), 0, ""),
        at_most("processes left running", len(end.left), 0, "", ", ".join(end.left)[:200]),
    ]


def _figure(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _quantile(values: Iterable[float], ratio: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(ratio * len(ordered)))] if ordered else 0.0
