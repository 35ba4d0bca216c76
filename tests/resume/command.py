"""The command: how soon a killed session with many positions trades again."""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys

from tests.resume.run import resume

EXIT_OK, EXIT_VIOLATION, EXIT_TERMINATED = 0, 1, 143

BUDGET_S = 5.0
"""From a PostgreSQL that accepts connections to trading, with 200 positions (issue 5)."""

EXAMPLES = """\
examples:
  python -m tests.resume                       200 positions, three times
  python -m tests.resume --positions 50 --repeats 1

The time holds the start of the process, its imports, RiskGuard's recovery, every symbol's claim and
journal, the first marks, and the entry of one more symbol. Ray's start of an actor is not in it.

exit codes: 0 in time and nothing lost; 1 otherwise; 2 usage
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    said = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    times, is_clean = [], True
    for _ in range(said.repeats):
        done = asyncio.run(resume(said.positions))
        times.append(done.seconds)
        is_clean = is_clean and not done.faults
        for fault in done.faults:
            print(f"VIOLATION {fault}")
        print(f"{done.positions} positions: trading again after {done.seconds:.2f} s", flush=True)
    is_kept = statistics.median(times) < BUDGET_S
    print(
        f"{'KEPT' if is_kept and is_clean else 'MISSED'}: median {statistics.median(times):.2f} s,"
        f" at most {max(times):.2f} s of {BUDGET_S:g}; {'audit clean' if is_clean else 'VIOLATIONS'}"
    )
    return EXIT_OK if is_kept and is_clean else EXIT_VIOLATION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.resume",
        description="Everything is killed with many positions open, and started again.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--positions", type=int, default=200, help="open at the kill (200)")
    parser.add_argument("--repeats", type=int, default=3, help="how often (3)")
    return parser
