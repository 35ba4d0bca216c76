"""``make cluster-test``, or ``python -m tests.cluster``: as root on Debian."""

from __future__ import annotations

import argparse
import sys

from tests.cluster import machine
from tests.cluster.guide import ROOT
from tests.cluster.progress import Failed, say

LIMIT_S = 840.0  # fifteen minutes, less what make and the look afterwards take
WORK = ROOT / "build" / "cluster-test"

EXAMPLES = """\
exit codes: 0 when everything held, 1 when it did not; the last line says which

examples:
  make cluster-test
  make cluster-test ARGS=--bare              the cluster alone: up, three nodes, down

Logs of the last run are in build/cluster-test/logs."""


def parser() -> argparse.ArgumentParser:
    """Return the options; the same ones inside the namespaces and outside."""
    options = argparse.ArgumentParser(
        prog="make cluster-test",
        description="Three hosts as namespaces, a real `ray up`, and the guide's commands.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--bare", action="store_true", help="start and stop the cluster only")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return options


def main(arguments: list[str]) -> int:
    """Run; the verdict is the last line."""
    said = parser().parse_args(arguments)
    if said.inside:
        from tests.cluster.scenario import Scenario

        return _told(lambda: Scenario(ROOT, WORK, said).play())
    code = _told(lambda: _outside(arguments))
    say("cluster-test: PASSED" if code == 0 else "cluster-test: FAILED")
    return code


def _outside(arguments: list[str]) -> None:
    machine.check_needs(ROOT)
    before = machine.shared_state()
    machine.node_image(ROOT, WORK)
    try:
        code = machine.run_inside(arguments, LIMIT_S)
    finally:
        left = machine.leftovers(before)
        say("nothing is left behind" if not left else f"LEFT BEHIND: {', '.join(left)}")
    if code != 0 or left:
        raise Failed("see above; the logs are in build/cluster-test/logs")


def _told(play) -> int:  # type: ignore[no-untyped-def]
    try:
        play()
    except Failed as failed:
        say(f"cluster-test: {failed}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
