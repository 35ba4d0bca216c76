"""The command: seeds in, verdict out."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec

from tests.sim.bugs import BUGS, planted
from tests.sim.world import Outcome, World

EXIT_OK, EXIT_VIOLATION, EXIT_USAGE = 0, 1, 2
CHUNK = 25
"""Seeds that a worker lives at a time: few enough that a failing one is told of soon."""

PLANT_SEEDS = 600
"""Seeds in which a planted bug must be found."""

TOLD_MAX = 20

EXAMPLES = """\
examples:
  python -m tests.sim --seeds 1000              the seeds 0 to 999
  python -m tests.sim --seeds 1 --first 4711 --trace   one seed, with all that happened
  python -m tests.sim --plant all               which seed finds each planted bug
  python -m tests.sim --seeds 200 --json        the verdict for machines

exit codes: 0 no violation, 1 a violation (or a planted bug that nobody found), 2 usage
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.plant:
        return _plant(options)
    if options.trace:
        outcome = World(options.first, is_traced=True).run()
        print("\n".join(outcome.trace))
    return _run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description="Live whole trading days from seeds, with faults in every message.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=_count, default=1000, help="how many seeds (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", action="store_true", help="the verdict as one JSON line")
    parser.add_argument("--trace", action="store_true", help="tell all that the first seed does")
    parser.add_argument("--plant", metavar="BUG", help=f"all, or one of: {', '.join(BUGS)}")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def live(seeds: range) -> list[Outcome]:
    """Live some seeds, one after the other."""
    # A life is short and full of cycles; collecting once a life is cheaper than all the time.
    gc.disable()
    try:
        outcomes = []
        for seed in seeds:
            outcomes.append(World(seed).run())
            gc.collect(1)
        return outcomes
    finally:
        gc.enable()


def _run(options: argparse.Namespace) -> int:
    began_s = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    totals: Counter[str] = Counter()
    failed: list[Outcome] = []
    is_shown = not options.json
    for outcome in _outcomes(chunks, min(options.jobs, len(chunks))):
        totals.update(
            seeds=1,
            trades=outcome.trades,
            grants=outcome.grants,
            crashes=outcome.crashes,
            commits=outcome.commits,
        )
        if outcome.violations:
            failed.append(outcome)
            if is_shown and len(failed) <= TOLD_MAX:
                _tell(outcome)
        if is_shown and totals["seeds"] % 250 == 0:
            _progress(totals, len(failed), time.monotonic() - began_s)
    return _verdict(options, totals, failed, time.monotonic() - began_s)


def _outcomes(chunks: list[range], jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        for chunk in chunks:
            yield from live(chunk)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for outcomes in pool.map(live, chunks):
            yield from outcomes


def _tell(outcome: Outcome) -> None:
    print(f"seed {outcome.seed}: {len(outcome.violations)} violations")
    for violation in outcome.violations[:3]:
        print(f"  {violation}")
    print(f"  again: python -m tests.sim --seeds 1 --first {outcome.seed} --trace", flush=True)


def _progress(totals: Counter[str], failed: int, took_s: float) -> None:
    rate = totals["seeds"] / took_s * 60
    print(
        f"{totals['seeds']:>7} seeds, {failed} failed, {totals['trades']} trades,"
        f" {totals['crashes']} crashes, {rate:.0f} seeds/min",
        file=sys.stderr,
        flush=True,
    )


def _verdict(
    options: argparse.Namespace, totals: Counter[str], failed: list[Outcome], took_s: float
) -> int:
    violations = sum(len(outcome.violations) for outcome in failed)
    if options.json:
        told: dict[str, Any] = {
            **totals,
            "first_seed": options.first,
            "violations": violations,
            "took_s": round(took_s, 1),
            "failed": [
                {"seed": one.seed, "violations": [str(each) for each in one.violations]}
                for one in failed[:TOLD_MAX]
            ],
        }
        print(json.dumps(told))
    else:
        print(
            f"{totals['trades']} trades, {totals['grants']} grants, {totals['commits']} commits,"
            f" {totals['crashes']} crashes in {took_s:.0f} s"
        )
        print(f"{totals['seeds']} seeds, {violations} violations")
    return EXIT_VIOLATION if failed else EXIT_OK


class _Found(msgspec.Struct):
    """The seed that found a planted bug, and how."""

    bug: str
    seed: int | None
    check: str


def find(bug: str, seeds: range) -> _Found:
    """Look for the first seed that notices a bug."""
    with planted(bug):
        for seed in seeds:
            outcome = World(seed).run()
            if outcome.violations:
                return _Found(bug, seed, str(outcome.violations[0])[:110])
    return _Found(bug, None, "NOT FOUND")


def _plant(options: argparse.Namespace) -> int:
    if options.plant != "all" and options.plant not in BUGS:
        print(f"There is no bug {options.plant}. Known: {', '.join(BUGS)}", file=sys.stderr)
        return EXIT_USAGE
    names = list(BUGS) if options.plant == "all" else [options.plant]
    seeds = range(options.first, options.first + min(options.seeds, PLANT_SEEDS))
    missed = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        for found in pool.map(find, names, [seeds] * len(names)):
            missed += found.seed is None
            at = "-" if found.seed is None else found.seed
            print(f"{found.bug:42} seed {at:>4}  {found.check}", flush=True)
    print(f"{len(names)} planted bugs, {missed} not found")
    return EXIT_VIOLATION if missed else EXIT_OK
