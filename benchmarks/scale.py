"""
What more symbols cost: CPU, memory, start-up and delay, and what a thousand would need.

    python -m benchmarks.scale --check
    python -m benchmarks.scale --points 300x1 --json

A point is symbols x rate: the demonstration's one machine on the simulated exchanges, preset
calibrated, everything embedded, watched from outside. Rate 1 is the venues' own rate of messages.
A cost model is fitted to all points but one (``--left-out``), which it must then foretell.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Verdict, add_outputs, at_most, finish, judged
from benchmarks.cost_model import Cost, fit
from benchmarks.latencies import gained
from benchmarks.side_by_side import machine
from benchmarks.soak_judge import slope_per_min
from benchmarks.soak_run import Sample, WatchedRun

POINTS = "10x1,50x1,100x1,300x1,10x0.15,300x0.15"
LEFT_OUT = "100x1"
SECONDS, SETTLE_S, INTERVAL_S = 25.0, 5.0, 1.0

BUDGETED = "300x1"
START_S_MAX = 30.0
"""From "Ray up" until every symbol is live."""

OURS_MIB_MAX = 2 * 1024.0
DELAY_MS_MAX = 100.0

WANTED_SYMBOLS, WANTED_EXCHANGES, EXCHANGES = 1_000, 5, 2
BUSY_RATIO_MAX = 0.7
"""Of a node's cores; above it a burst waits."""

GROUPS = (
    ("exchanges", ("ray::SourceActor",)),
    ("feeds", ("ray::FeedActor",)),
    ("hosts", ("ray::StrategyHostActor",)),
    ("stores", ("postgres", "valkey")),
)
SINGLETONS = re.compile(r"ray::\w+Actor|ray::[a-z_]+|submit")
"""The rest of ours: Supervisor, RiskGuard, Persistence, Gateway, and the command itself."""


class Point(msgspec.Struct, frozen=True):
    """What one run measured. Memory in MiB (PSS), CPU in cores, both by group of processes."""

    symbols: int
    rate: float
    start_s: float  # from "Ray up" until every symbol was live
    updates_per_s: float  # that reached a host
    p50_ms: float  # socket to decision
    p99_ms: float
    worst_ms: float
    decisions: int
    load: float  # of the machine, when the run began
    ray_s: float  # from the command until Ray was up
    memory_mib: dict[str, float]
    cores: dict[str, float]
    start_cpu_s: dict[str, float]  # CPU seconds that each group had used when all were live

    @property
    def name(self) -> str:
        """Symbols x rate, as ``--points`` has it."""
        return f"{self.symbols}x{self.rate:g}"

    @property
    def ours_mib(self) -> float:
        """Everything but Ray's own processes: actors, command, embedded exchanges and stores."""
        return sum(mib for group, mib in self.memory_mib.items() if group != "ray")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every point, fit, foretell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    known = {one.name: one for path in said.add for one in _points_in(path)}
    failed = []
    for symbols, rate in said.points:
        try:
            point = _measure(symbols, rate, said, console)
            known[point.name] = point
        except RuntimeError as error:
            failed.append(f"{symbols}x{rate:g}")
            words = "\n".join((f"{failed[-1]}: {error}", *getattr(error, "__notes__", ())))
            console.print(words, highlight=False, markup=False)
    if not known:
        return 1
    points = sorted(known.values(), key=lambda one: (one.rate, one.symbols))
    console.print(_table(points), _by_groups(points))
    told: dict[str, Any] = {"points": [msgspec.to_builtins(one) for one in points]}
    fitted = [one for one in points if one.name != said.left_out]
    if len({one.symbols for one in fitted}) > 1:
        costs = _costs(fitted)
        told["costs"] = {
            name: msgspec.to_builtins(cost) | {"residual_max": max(map(abs, cost.residuals))}
            for name, cost in costs.items()
        }
        told["fitted"] = [one.name for one in fitted]
        told["left_out"] = _foretold(costs, known.get(said.left_out))
        told["wanted"] = _wanted(costs, fitted)
        console.print(_model(told), highlight=False)
    verdicts = _judge(known.get(BUDGETED))
    if verdicts:
        console.print(judged(verdicts))
    code = finish(said, told | {"failed": failed, "machine": machine()}, verdicts)
    return 1 if failed else code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--points", type=_pairs, default=POINTS, metavar="NxRATE,...")
    parser.add_argument("--left-out", default=LEFT_OUT, metavar="NxRATE")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S")
    parser.add_argument("--preset", choices=("lively", "calibrated"), default="calibrated")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument(
        "--add",
        nargs="*",
        type=Path,
        default=[],
        metavar="FILE",
        help="JSON of earlier runs, whose points join those of this one",
    )
    add_outputs(parser)
    return parser


def _pairs(text: str) -> list[tuple[int, float]]:
    pairs = [one.partition("x") for one in text.split(",") if one]
    return [(int(symbols), float(rate or 1)) for symbols, _, rate in pairs]


def _points_in(path: Path) -> list[Point]:
    return msgspec.convert(msgspec.json.decode(path.read_bytes())["points"], list[Point])


def _measure(symbols: int, rate: float, said: argparse.Namespace, console: Console) -> Point:
    load = machine()["load"][0]
    duration_s = said.seconds + SETTLE_S
    options = (
        *("--symbols", f"top:{symbols}", "--preset", said.preset, "--seed", str(said.seed)),
        *("--duration", f"{duration_s + INTERVAL_S:g}s", "--set", f"sim.rate_ratio={rate:g}"),
    )
    with WatchedRun(options) as run:
        samples = list(run.samples(duration_s, INTERVAL_S))
        run.end()
        point = _point(symbols, rate, run, samples, load)
    console.print(
        f"{point.name:>9}: live {point.start_s:.1f} s after Ray, {point.updates_per_s:,.0f}"
        f" updates/s, worst delay {point.worst_ms:.1f} ms, load {load}",
        highlight=False,
    )
    return point


def _point(
    symbols: int, rate: float, run: WatchedRun, samples: Sequence[Sample], load: float
) -> Point:
    settled = [one for one in samples if one.at_s >= SETTLE_S]
    told = [(one.at_s, one.status) for one in settled if one.status is not None]
    if len(told) < 3:
        raise RuntimeError(f"{symbols} symbols: the Gateway answered {len(told)} times")
    (first_s, first), (last_s, last) = told[0], told[-1]
    received = [sum(h.received for h in status.hosts.values()) for status in (first, last)]
    delays = gained(first, last)
    return Point(
        symbols=symbols,
        rate=rate,
        ray_s=round(run.ray_after_s, 2),
        start_s=round(run.live_after_s - run.ray_after_s, 2),
        start_cpu_s=_by_group(samples[:1], "cpu_s at once"),
        updates_per_s=round((received[1] - received[0]) / (last_s - first_s), 1),
        memory_mib=_by_group(settled, "pss_mib"),
        cores=_by_group(settled, "cpu_s"),
        p50_ms=round(delays.quantile_ms(0.5), 3),
        p99_ms=round(delays.quantile_ms(0.99), 3),
        worst_ms=round(delays.max_ns / 1e6, 3),
        decisions=delays.count,
        load=load,
    )


def group_of(label: str) -> str:
    """Return whose a process is: one of ``GROUPS``, ``singletons``, or ``ray`` for Ray's own."""
    for group, labels in GROUPS:
        if label in labels:
            return group
    # A method's title, in small letters, is an actor's whose name was never seen.
    return "singletons" if SINGLETONS.fullmatch(label) else "ray"


def _by_group(samples: Sequence[Sample], figure: str) -> dict[str, float]:
    """Return the median of a figure of each group, or for ``cpu_s`` its cores."""
    name = figure.partition(" ")[0]
    series: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        sums: dict[str, float] = {}
        for member in sample.members:
            group = group_of(member.label)
            sums[group] = sums.get(group, 0.0) + getattr(member, name)
        for group, value in sums.items():
            series.setdefault(group, []).append((sample.at_s, value))
    if figure == "cpu_s":
        return {group: round(slope_per_min(line) / 60, 4) for group, line in series.items()}
    return {
        group: round(statistics.median(value for _, value in line), 1)
        for group, line in series.items()
    }


def _costs(points: Sequence[Point]) -> dict[str, Cost]:
    """Fit what feeds, hosts and the others take of the CPU, memory, and the start."""
    at = [(float(one.symbols), one.updates_per_s) for one in points]
    measured = [_measured(one) for one in points]
    return {
        name: fit(at, [one[name] for one in measured], by_updates=name.endswith("cores"))
        for name in measured[0]
    }


def _foretold(costs: dict[str, Cost], point: Point | None) -> dict[str, Any] | None:
    """Put what the model says of the point that was left out beside what was measured."""
    if point is None:
        return None
    measured = _measured(point)
    return {
        "point": point.name,
        "rows": [
            {
                "cost": name,
                "foretold": round(cost.of(point.symbols, point.updates_per_s), 3),
                "measured": round(measured[name], 3),
            }
            for name, cost in costs.items()
        ],
    }


def _measured(point: Point) -> dict[str, float]:
    others = sum(point.cores.get(g, 0.0) for g in ("singletons", "stores", "ray"))
    return {
        "feeds, cores": point.cores.get("feeds", 0.0),
        "hosts, cores": point.cores.get("hosts", 0.0),
        "others, cores": others,
        "exchanges, cores": point.cores.get("exchanges", 0.0),
        "ours, MiB": point.ours_mib,
        "start, s": point.start_s,
    }


def _wanted(costs: dict[str, Cost], points: Sequence[Point]) -> dict[str, Any]:
    """
    Say what a thousand symbols on five exchanges would need, at the busiest measured rate.

    Each exchange sends what one of the two sends today, so feeds take 2.5 times the updates of
    a symbol; a symbol has ten pairs instead of one, and every update touches four of them, which
    the hosts have to look at. Simulated exchanges are not needed there.
    """
    busiest = max(points, key=lambda one: (one.rate, one.symbols))
    each = busiest.updates_per_s / busiest.symbols
    updates = each * WANTED_SYMBOLS * WANTED_EXCHANGES / EXCHANGES
    pairs = WANTED_SYMBOLS * WANTED_EXCHANGES * (WANTED_EXCHANGES - 1) / 2
    touched = updates * (WANTED_EXCHANGES - 1)
    cores = {
        "feeds": costs["feeds, cores"].of(WANTED_SYMBOLS * WANTED_EXCHANGES / EXCHANGES, updates),
        "hosts": costs["hosts, cores"].of(pairs, touched),
        "others": costs["others, cores"].of(WANTED_SYMBOLS, updates),
    }
    total = sum(cores.values())
    node_cores = machine()["cores"] or 1
    return {
        "symbols": WANTED_SYMBOLS,
        "exchanges": WANTED_EXCHANGES,
        "updates_per_s": round(updates),
        "cores": {name: round(value, 2) for name, value in cores.items()},
        "cores_total": round(total, 2),
        "memory_mib": round(costs["ours, MiB"].of(pairs, 0.0)),
        "nodes_like_this": -(-int(total * 100) // int(node_cores * BUSY_RATIO_MAX * 100)),
    }


def _judge(point: Point | None) -> list[Verdict]:
    if point is None:
        return []
    where = f"{point.symbols} symbols, rate {point.rate:g}"
    return [
        at_most("start-up after Ray is up", point.start_s, START_S_MAX, "s", where),
        at_most("memory of ours beside Ray", point.ours_mib, OURS_MIB_MAX, "MiB", where),
        at_most("worst delay, socket to decision", point.worst_ms, DELAY_MS_MAX, "ms", where),
    ]


def _table(points: Sequence[Point]) -> Table:
    table = Table(title="Symbols x rate: start, updates, delay from socket to decision, memory")
    for column in ("point", "start s", "updates/s", "p50 ms", "p99 ms", "worst ms", "ours MiB"):
        table.add_column(column, justify="right")
    for one in points:
        delays = (f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.worst_ms:.1f}")
        begin = (one.name, f"{one.start_s:.1f}", f"{one.updates_per_s:,.0f}")
        table.add_row(*begin, *delays, f"{one.ours_mib:,.0f}")
    return table


def _by_groups(points: Sequence[Point]) -> Table:
    table = Table(title="By group: cores (MiB of PSS)")
    groups = ("exchanges", "feeds", "hosts", "singletons", "stores", "ray")
    for column in ("point", *groups):
        table.add_column(column, justify="right")
    for one in points:
        cells = [f"{one.cores.get(g, 0.0):.2f} ({one.memory_mib.get(g, 0.0):.0f})" for g in groups]
        table.add_row(one.name, *cells)
    return table


def _model(told: dict[str, Any]) -> Table:
    wanted = told["wanted"]
    table = Table(
        title=f"Cost model of {', '.join(told['fitted'])}",
        caption=f"{wanted['symbols']:,} symbols on {wanted['exchanges']} exchanges:"
        f" {wanted['updates_per_s']:,} updates/s, {wanted['cores_total']} cores,"
        f" {wanted['memory_mib']:,} MiB, {wanted['nodes_like_this']} nodes like this one",
    )
    for column in ("cost", "a node", "a symbol", "1,000 updates/s", "residual", "left out"):
        table.add_column(column, justify="left" if column == "cost" else "right")
    beside = {row["cost"]: row for row in (told["left_out"] or {"rows": []})["rows"]}
    for name, cost in told["costs"].items():
        row = beside.get(name)
        table.add_row(
            *(name, f"{cost['per_node']:.3f}", f"{cost['per_symbol']:.5f}"),
            f"{cost['per_update'] * 1000:.3f}",
            f"{cost['residual_max']:.3f}",
            f"{row['foretold']:g} for {row['measured']:g}" if row else "",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
