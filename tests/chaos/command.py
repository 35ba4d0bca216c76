"""The command: a seed in, a table and a verdict out."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chaos import table, verdict
from tests.chaos.adversary import Adversary, Rallies
from tests.chaos.schedule import schedule
from tests.chaos.watch import Watch
from tests.chaos.world import COINS, ENV, World

EXIT_OK, EXIT_VIOLATION, EXIT_TERMINATED = 0, 1, 143
FIRST_WELL_S = 60.0

EXAMPLES = """\
examples:
  python -m tests.chaos --minutes 10                what a release must pass
  python -m tests.chaos --minutes 2 --seed 7        another adversary
  python -m tests.chaos --minutes 10 --seed 7 --plan    what it would do, without doing it

exit codes: 0 no violation, 1 a violation, 2 usage
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    # A time-out or a service manager ends us as Ctrl-C does: with all that was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    planned = schedule(options.seed, options.minutes * 60)
    if options.plan:
        for fault in planned:
            print(f"{fault.at_s:7.1f} s  {fault.words()}")
        return EXIT_OK
    folder = Path(tempfile.mkdtemp(prefix="chaos.", dir="/tmp"))
    try:
        return _run(options, planned, folder)
    finally:
        if options.keep:
            print(f"its logs and tables stay in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="The whole system in a lively market, and a seeded adversary that breaks it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the adversary and market (1)")
    parser.add_argument(
        "--symbols", type=_symbols, default=8, help=f"how many coins, at most {len(COINS)} (8)"
    )
    parser.add_argument("--workers", type=int, default=1, help="Ray nodes beside the head (1)")
    parser.add_argument("--strict", action="store_true", help="a slow recovery is a violation")
    parser.add_argument("--plan", action="store_true", help="print the schedule and end")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and tables")
    parser.add_argument("--json", action="store_true", help="the table and verdict as one line")
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1440")
    return minutes


def _symbols(text: str) -> int:
    count = int(text)
    if not 1 <= count <= len(COINS):
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {len(COINS)}")
    return count


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _run(options: argparse.Namespace, planned: list, folder: Path) -> int:
    began_s = time.monotonic()
    _say(f"seed {options.seed}; the world starts")
    world = World(folder, seed=options.seed, symbols=options.symbols, workers=options.workers)
    with world:
        world.submit()
        _say(f"{options.symbols} symbols trade, after {time.monotonic() - began_s:.0f} s")
        watch = Watch(world.hosts.gateway_port, world.symbols, world.stores.postgres.dsn)
        adversary = Adversary(world, watch, _say)
        problems: list[str] = []
        with watch:
            with Rallies(world, options.seed):
                _, why = watch.until_well(time.monotonic(), lambda: True, FIRST_WELL_S)
                if why:
                    problems.append(f"not well before the first fault: {why}")
                else:
                    adversary.run(planned, options.minutes * 60)
            _say("all is healed; it drains")
            stop = world.stop()
        _say("the ledger is audited")
        found, trades = asyncio.run(
            verdict.judge(
                dsn=world.stores.postgres.dsn,
                env=ENV,
                episodes=adversary.episodes,
                above=watch.above,
                stop=stop,
                logs=folder / "r" / "session_latest" / "logs",
            )
        )
        if left := {name for name in world.actors() if "@" in name}:
            problems.append(f"actors are left: {', '.join(sorted(left))}")
    problems += found
    rows = table.rows(adversary.episodes)
    if options.strict:
        problems += [f"slow: {row.kind} took {row.longest_s:.1f} s" for row in rows if row.slow]
    return tell(options, rows, trades, problems, adversary.resumed, time.monotonic() - began_s)


def tell(
    options: argparse.Namespace,
    rows: list[table.Row],
    trades: dict[str, int],
    problems: list[str],
    resumed: int,
    took_s: float,
) -> int:
    """Print the table and, as the last line, the verdict; return the exit code."""
    faults = sum(row.injected for row in rows)
    if options.json:
        told: dict[str, Any] = {
            "seed": options.seed, "minutes": options.minutes, "symbols": options.symbols,
            "faults": faults, "trades": trades, "violations": problems,
            "recoveries": table.as_object(rows), "took_s": round(took_s, 1),
        }  # fmt: skip
        print(json.dumps(told))
        return EXIT_VIOLATION if problems else EXIT_OK
    print("\n".join(table.lines(rows)))
    print(
        f"{trades['posted']} trades and {trades['voided']} voided, {trades['fills']} fills;"
        f" an operator resumed {resumed} times; {took_s:.0f} s in all"
    )
    for problem in problems:
        print(f"VIOLATION {problem}")
    if problems:
        print(f"again: {again(options)}")
    print(f"seed {options.seed}: {faults} faults, {len(problems)} violations")
    return EXIT_VIOLATION if problems else EXIT_OK


def again(options: argparse.Namespace) -> str:
    """Return the command that repeats a run."""
    return (
        f"python -m tests.chaos --minutes {options.minutes:g} --seed {options.seed}"
        f" --symbols {options.symbols} --workers {options.workers} --keep"
    )
