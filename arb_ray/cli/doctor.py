"""``arb-ray doctor``: whether this machine has what a run needs."""

from __future__ import annotations

import argparse
import sys

import msgspec

from arb_ray.app.command_line import Parser
from arb_ray.app.exit_codes import ExitCode

EXAMPLES = """\
  arb-ray doctor
  arb-ray doctor --env prod --address http://127.0.0.1:8265
  arb-ray doctor --env staging --json
exit code 0: nothing failed (there may be warnings); 1: a check failed"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``doctor``."""
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of a Ray cluster: http://HEAD:8265, or HEAD:6379"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="as submit would take it")
    parser.add_argument("--source", choices=("sim", "paper", "recorded"), help="likewise")
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Make every check; FOUND when one failed."""
    from arb_ray.app.doctor import Verdict, examine

    overrides = {"session.data_dir": said.data_dir, "source": said.source}
    checks = examine(said.env, overrides, address=said.address)
    failed = sum(check.verdict is Verdict.FAIL for check in checks)
    if said.json:
        told = {"env": said.env, "failed": failed, "checks": checks}
        sys.stdout.write(f"{msgspec.json.encode(told).decode()}\n")
    else:
        for check in checks:
            remedy = f". {check.remedy}" if check.remedy else ""
            sys.stdout.write(f"{check.verdict:<5} {check.name:<14} {check.words}{remedy}\n")
        warned = sum(check.verdict is Verdict.WARN for check in checks)
        sys.stdout.write(f"{len(checks)} checks: {failed} failed, {warned} warnings\n")
    return ExitCode.FOUND if failed else ExitCode.CLEAN
