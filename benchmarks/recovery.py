"""
How soon all is whole again: a process killed, a process frozen, PostgreSQL back.

    python -m benchmarks.recovery --kills 5 --check
    python -m benchmarks.recovery --only kill-host,freeze-guard --kills 1

Measured: from the signal (or from the moment at which PostgreSQL takes connections again) to
the first status of the Gateway, asked ten times a second, in which the replacement process
answers, every symbol is live with books that are younger than it, and RiskGuard grants. So
what is inside: that somebody notices, that Ray starts a process, imports, connections, the
ledger read again, sockets, subscriptions, first books, and the Supervisor's look at it all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Verdict, add_outputs, at_most, finish, judged
from benchmarks.recovered import Fault
from benchmarks.recovery_run import HurtRun, OwnPostgres, Recovery, gone_after_s, victims_of

SYMBOLS = 20
PATIENCE_S = 60.0
TITLES = {
    "host": "ray::StrategyHostActor",
    "guard": "ray::RiskGuardActor",
    "feed": "ray::FeedActor",
    "persistence": "ray::PersistenceActor",
    "gateway": "ray::GatewayActor",
    "supervisor": "ray::SupervisorActor",
}
ROLES = {"guard": "risk"}
"""Where the actor's role is called differently."""

BUDGETED = ("host", "guard", "feed")

KILL_MEDIAN_S_MAX = 3.0
KILL_S_MAX = 10.0
FREEZE_MARGIN_S_MAX = 3.0
"""Beyond the health time-out."""

POSTGRES_S_MAX = 2.0

LEASE = "SELECT renewed_ns FROM arb.risk_lease"

Act = Callable[[HurtRun, OwnPostgres, str], Recovery]


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a run, hurt it again and again, tell; return the exit code."""
    parser = _parser()
    said = parser.parse_args(arguments)
    plan = _plan(said.kills, said.freezes, said.away)
    if said.only:
        asked = said.only.split(",")
        if unknown := set(asked) - {kind for kind, _ in plan}:
            parser.error(f"--only {','.join(sorted(unknown))}: there is no such kind")
        plan = [(kind, act) for kind, act in plan if kind in asked]
    console = Console(stderr=True)
    try:
        found, health_timeout_s = _measure(plan, said.seed, console)
    except RuntimeError as error:
        words = "\n".join((f"benchmarks.recovery: {error}", *getattr(error, "__notes__", ())))
        console.print(words, highlight=False, markup=False)
        return 1
    verdicts = judge(found, health_timeout_s)
    console.print(_table(found), judged(verdicts))
    told = {
        "symbols": SYMBOLS,
        "health_timeout_s": health_timeout_s,
        "recoveries": msgspec.to_builtins(found),
    }
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=5, metavar="N", help="of each kind")
    parser.add_argument("--freezes", type=int, default=1, metavar="N", help="of each kind")
    parser.add_argument("--only", metavar="KIND,...", help="such as kill-host,postgres-cut")
    parser.add_argument(
        "--away", type=float, default=5.0, metavar="S", help="how long PostgreSQL is unreachable"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    add_outputs(parser)
    return parser


def _plan(kills: int, freezes: int, away_s: float) -> list[tuple[str, Act]]:
    """Return the faults in their order: rounds, so that no kind has the quiet minutes alone."""
    rounds: list[tuple[str, Act]] = []
    rounds += [(f"kill-{who}", _kill) for _ in range(kills) for who in TITLES]
    rounds += [(f"freeze-{who}", _freeze) for _ in range(freezes) for who in TITLES]
    away = partial(_away, away_s=away_s)
    rounds += [(kind, away) for _ in range(kills) for kind in ("postgres-cut", "postgres-stall")]
    return rounds


def _measure(
    plan: Sequence[tuple[str, Act]], seed: int, console: Console
) -> tuple[list[Recovery], float]:
    options = ("--symbols", f"top:{SYMBOLS}", "--preset", "lively", "--seed", str(seed))
    found: list[Recovery] = []
    with (
        tempfile.TemporaryDirectory(prefix="arb_ray_pg.", ignore_cleanup_errors=True) as folder,
        OwnPostgres(Path(folder)) as postgres,
        HurtRun(options, postgres) as run,
    ):
        console.print(f"{SYMBOLS} symbols live after {run.live_after_s:.1f} s")
        for kind, act in plan:
            one = act(run, postgres, kind)
            found.append(one)
            took = "never" if one.after_s is None else f"{one.after_s:.2f} s"
            steps = "; ".join(f"{at_s:.1f}: {what}" for at_s, what in one.steps)
            gone = "" if one.gone_s is None else f"; its process gone: {one.gone_s:.1f}"
            console.print(f"{kind:20} {took:>9}  {steps}{gone}", highlight=False, markup=False)
            if one.after_s is None:
                break  # nothing after it could be judged
        return found, run.health_timeout_s()


def _kill(run: HurtRun, _: OwnPostgres, kind: str) -> Recovery:
    return _strike(run, kind, psutil.Process.kill)


def _freeze(run: HurtRun, _: OwnPostgres, kind: str) -> Recovery:
    return _strike(run, kind, psutil.Process.suspend)


def _strike(run: HurtRun, kind: str, strike: Callable[[psutil.Process], None]) -> Recovery:
    who = kind.partition("-")[2]
    status = run.until_calm(PATIENCE_S)
    victim = run.victim(TITLES[who])
    fault = Fault(time.time_ns(), victims_of(status, ROLES.get(who, who)))
    strike(victim)

    def is_over() -> str:
        # The Supervisor's and the Gateway's births are told by nobody but their processes.
        is_told = bool(fault.victims)
        return "" if is_told or run.is_replaced(victim, TITLES[who]) else "nobody has replaced it"

    recovery = run.recovery(kind, fault, is_over, PATIENCE_S)
    gone_s = gone_after_s(victim, fault, PATIENCE_S)
    return msgspec.structs.replace(recovery, gone_s=gone_s)


def _away(run: HurtRun, postgres: OwnPostgres, kind: str, *, away_s: float) -> Recovery:
    run.until_calm(PATIENCE_S)
    if kind == "postgres-cut":
        postgres.on_wire(lambda proxy: proxy.refuse(True))
        postgres.on_wire(lambda proxy: proxy.cut())
    else:
        postgres.on_wire(lambda proxy: proxy.stall())
    time.sleep(away_s)
    fault = Fault(time.time_ns())
    postgres.on_wire(lambda proxy: proxy.refuse(False))
    postgres.on_wire(lambda proxy: proxy.resume())

    def is_over() -> str:
        # A yes is a fenced write, and so is the lease's renewal: when that works, so would a yes.
        if int(postgres.value(LEASE)) <= fault.at_ns:
            return "RiskGuard has not written again"
        return ""

    return run.recovery(kind, fault, is_over, PATIENCE_S)


def judge(found: Sequence[Recovery], health_timeout_s: float) -> list[Verdict]:
    """Hold the times of each kind against the budgets; the Gateway and others have none."""
    verdicts: list[Verdict] = []
    for kind, times_s in _by_kind(found).items():
        what, _, who = kind.partition("-")
        median_s, worst_s = statistics.median(times_s), max(times_s)
        if what == "kill" and who in BUDGETED:
            verdicts.append(at_most(f"{kind}, median", median_s, KILL_MEDIAN_S_MAX, "s"))
            verdicts.append(at_most(f"{kind}, worst", worst_s, KILL_S_MAX, "s"))
        elif what == "freeze":
            budget_s = health_timeout_s + FREEZE_MARGIN_S_MAX
            verdicts.append(at_most(f"{kind}, worst", worst_s, budget_s, "s"))
        elif what == "postgres":
            verdicts.append(at_most(f"{kind}, median", median_s, POSTGRES_S_MAX, "s"))
    return verdicts


def _by_kind(found: Sequence[Recovery]) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for one in found:
        kinds[one.kind].append(float("inf") if one.after_s is None else one.after_s)
    return kinds


def _table(found: Sequence[Recovery]) -> Table:
    table = Table(title="Seconds until all is whole again")
    for column in ("fault", "times", "median", "worst"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for kind, times_s in _by_kind(found).items():
        median_s = statistics.median(times_s)
        table.add_row(kind, str(len(times_s)), f"{median_s:.2f}", f"{max(times_s):.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
