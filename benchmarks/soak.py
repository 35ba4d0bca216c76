"""
Many symbols for many minutes: nothing may grow, no book get old, and the stop be clean.

    python -m benchmarks.soak --symbols 50 --minutes 10 --check
    python -m benchmarks.soak --symbols 50 --hours 24 --check
    python -m benchmarks.soak --startup --check

The tables go to stderr; with ``--json`` one line of JSON goes to stdout. ``--check`` makes
the exit code 1 where a budget is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.budgets import add_outputs, finish, judged
from benchmarks.family import total_pss_mib
from benchmarks.side_by_side import machine
from benchmarks.soak_judge import (
    delays_of,
    judge_soak,
    judge_startup,
    slope_per_min,
    warm_up_s,
)
from benchmarks.soak_run import End, Sample, WatchedRun

INTERVAL_S = 5.0
SAMPLES_MAX = 720
"""A longer run is looked at less often: a sample with fifty symbols' rows takes 50 kB."""

SERIES_MAX = 200  # points of the series that the JSON keeps

MINUTES = 10.0
STARTUP_INTERVAL_S = 1.0
STARTUP_SYMBOLS, STARTUP_S = 20, 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, sample, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    if said.startup:
        symbols, duration_s, interval_s = STARTUP_SYMBOLS, STARTUP_S, STARTUP_INTERVAL_S
        preset = said.preset or "lively"
    else:
        symbols, duration_s = said.symbols, _duration_s(said)
        interval_s = max(INTERVAL_S, duration_s / SAMPLES_MAX)
        preset = said.preset or "calibrated"
    options = ("--symbols", f"top:{symbols}", "--preset", preset, "--duration", f"{duration_s:g}s")
    samples: list[Sample] = []
    try:
        with WatchedRun((*options, "--seed", str(said.seed))) as run:
            console.print(f"{symbols} symbols live after {run.live_after_s:.1f} s")
            for sample in run.samples(duration_s - interval_s / 2, interval_s):
                samples.append(sample)
                console.print(_line(sample), highlight=False)
            end, live_after_s = run.end(), run.live_after_s
    except RuntimeError as error:
        words = "\n".join((f"benchmarks.soak: {error}", *error.__notes__))
        console.print(words, highlight=False, markup=False)
        return 1
    verdicts = (
        judge_startup(live_after_s, samples, end)
        if said.startup
        else judge_soak(samples, duration_s, end)
    )
    console.print(_processes(samples, duration_s), judged(verdicts))
    told = _told(symbols, preset, duration_s, live_after_s, samples, end)
    return finish(said, told, verdicts)


def _duration_s(said: argparse.Namespace) -> float:
    minutes = said.minutes
    if minutes is None:
        minutes = 0.0 if said.hours else MINUTES
    return float(minutes * 60 + said.hours * 3600)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--symbols", type=int, default=50, metavar="N")
    parser.add_argument("--minutes", type=float, metavar="N", help="10, or 0 with --hours")
    parser.add_argument("--hours", type=float, default=0.0, metavar="N", help="on top of them")
    parser.add_argument("--preset", choices=("lively", "calibrated", "stress"))
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument(
        "--startup",
        action="store_true",
        help="instead: the demonstration's twenty symbols, how soon live and in how much memory",
    )
    add_outputs(parser)
    return parser


def _line(sample: Sample) -> str:
    status = sample.status
    if status is None:
        return f"{sample.at_s:6.1f} s  no status"
    hosts, feeds = status.hosts.values(), status.feeds.values()
    conflated = sum(h.conflated for h in hosts) + sum(f.conflated for f in feeds)
    ages = [max(row.age_a_ms, row.age_b_ms) for host in hosts for row in host.rows]
    return (
        f"{sample.at_s:6.1f} s  {total_pss_mib(sample.members):7.1f} MiB"
        f"  queue {sum(feed.queue for feed in feeds):3d}"
        f"  oldest book {max(ages, default=0.0):6.0f} ms"
        f"  loop lag {max((host.loop_lag_ms for host in hosts), default=0.0):6.1f} ms"
        f"  frames {sum(feed.frames for feed in feeds):9,d}"
        f"  conflated {conflated:9,d}"
    )


def _process_rows(samples: Sequence[Sample], duration_s: float) -> list[dict[str, Any]]:
    """Return a row a kind of process, the largest first; several of a kind are added up."""
    pss: dict[str, list[tuple[float, float]]] = defaultdict(list)
    uss: dict[str, list[tuple[float, float]]] = defaultdict(list)
    handles: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[tuple[float, float]]] = defaultdict(list)
    counts: dict[str, int] = {}
    for sample in samples:
        for label in {member.label for member in sample.members}:
            members = [member for member in sample.members if member.label == label]
            pss[label].append((sample.at_s, total_pss_mib(members)))
            uss[label].append((sample.at_s, sum(member.uss_mib for member in members)))
            handles[label].append(sum(member.handles for member in members))
            cpu[label].append((sample.at_s, sum(member.cpu_s for member in members)))
            counts[label] = len(members)
    warm_s = warm_up_s(duration_s)
    rows = [
        {
            "process": label,
            "count": counts[label],
            "pss_mib_median": round(statistics.median(value for _, value in pss[label]), 1),
            "pss_mib_max": round(max(value for _, value in pss[label]), 1),
            "growth_mib_per_min": round(
                slope_per_min([point for point in uss[label] if point[0] >= warm_s]), 3
            ),
            "handles_max": round(max(handles[label])),
            "cores": round(slope_per_min(cpu[label]) / 60, 3),
        }
        for label in pss
    ]
    return sorted(rows, key=lambda row: -row["pss_mib_max"])


def _processes(samples: Sequence[Sample], duration_s: float) -> Table:
    table = Table(title="Processes (growth is of private memory, after the warm-up)")
    for column in ("process", "count", "PSS MiB", "max", "growth MiB/min", "handles", "cores"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for row in _process_rows(samples, duration_s):
        table.add_row(*(str(value) for value in row.values()))
    return table


def _series(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Return memory and delays over time, thinned."""
    at = {one.at_s: one for one in delays_of(samples)}
    step = max(1, -(-len(samples) // SERIES_MAX))
    return [
        {"at_s": round(sample.at_s, 1), "pss_mib": round(total_pss_mib(sample.members), 1)}
        | ({"p50_ms": at[sample.at_s].p50_ms, "p99_ms": at[sample.at_s].p99_ms} if known else {})
        for sample in samples[::step]
        for known in (sample.at_s in at,)
    ]


def _told(
    symbols: int,
    preset: str,
    duration_s: float,
    live_after_s: float,
    samples: Sequence[Sample],
    end: End,
) -> dict[str, Any]:
    return {
        "symbols": symbols,
        "preset": preset,
        "duration_s": duration_s,
        "live_after_s": round(live_after_s, 2),
        "stop_s": round(end.stop_s, 2),
        "samples": len(samples),
        "series": _series(samples),
        "machine": machine(),
        "total_pss_mib_max": round(max((total_pss_mib(s.members) for s in samples), default=0), 1),
        "processes": _process_rows(samples, duration_s),
        "summary": end.summary,
    }


if __name__ == "__main__":
    sys.exit(main())
