"""The command: kills PostgreSQL under load, counts, and says what it found."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from tests.postgres_kills.run import Outcome, run

EXIT_OK, EXIT_VIOLATION, EXIT_TERMINATED = 0, 1, 143

EXAMPLES = """\
examples:
  python -m tests.postgres_kills --minutes 3 --every 20     what a release must pass
  python -m tests.postgres_kills --minutes 0.5 --every 5

exit codes: 0 no row lost, none doubled, the audit clean; 1 otherwise; 2 usage
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    said = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    outcome = asyncio.run(
        run(
            seconds=said.minutes * 60,
            every_s=said.every,
            away_s=said.away,
            rate=said.rate,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    for fault in outcome.faults:
        print(f"VIOLATION {fault}")
    print(_verdict(outcome))
    return EXIT_VIOLATION if outcome.faults else EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.postgres_kills",
        description="PostgreSQL gets SIGKILL again and again while rows and trades are written.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (3)")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills (20)")
    parser.add_argument("--away", type=float, default=2.0, help="seconds until its start (2)")
    parser.add_argument("--rate", type=int, default=2_000, help="snapshot rows a second (2000)")
    return parser


def _verdict(outcome: Outcome) -> str:
    slowest = max((kill.back_s for kill in outcome.kills), default=0.0)
    return (
        f"{'VIOLATIONS' if outcome.faults else 'CLEAN'}: {len(outcome.kills)} kills,"
        f" {outcome.rows_sent} rows sent, {outcome.rows_spooled} of them by the disk;"
        f" {outcome.round_trips} round trips, {outcome.left_without_postgres} left without"
        f" PostgreSQL; rows flowed again after at most {slowest:.2f} s"
    )
