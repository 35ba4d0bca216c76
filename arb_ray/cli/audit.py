"""``arb-ray audit``: does the ledger hold? Every check, what it looked at, what it found."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from typing import TYPE_CHECKING

import msgspec

from arb_ray.app.command_line import Parser
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.database import add_running_or_stopped, database
from arb_ray.cli.db import first_line
from arb_ray.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from arb_ray.adapters.storage.audit.runner import AuditReport

EXAMPLES = """\
  arb-ray audit --env staging
  arb-ray audit --data-dir data
  arb-ray audit --env prod --session 20261125T162047-48e55610e492 --json
exit code 1: a check found a violation, and each is named; 3: the database is not reachable.
docs/AUDIT.md tells what each check means and what it cannot see"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``audit``."""
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--session", metavar="ID", help="only the trades of this session")
    scope.add_argument("--all", action="store_true", help="every session (the default)")
    add_running_or_stopped(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Audit; 1 when something does not hold."""
    try:
        report = asyncio.run(_report(said))
    except StoreUnavailable as error:
        raise StoreUnavailable(error.store, first_line(error.problem)) from error
    sys.stdout.write(f"{_json(report) if said.json else _table(report)}\n")
    return int(ExitCode.FOUND if report.violations else ExitCode.CLEAN)


async def _report(said: argparse.Namespace) -> AuditReport:
    from arb_ray.adapters.storage.audit.check import Scope
    from arb_ray.adapters.storage.audit.runner import audit

    async with database(said) as dsn:
        return await audit(dsn, Scope(said.env, said.session))


def _json(report: AuditReport) -> str:
    found = {
        "env": report.env,
        "session_id": report.session_id,
        "is_clean": report.violations == 0,
        "is_empty": report.is_empty,
        "violations": report.violations,
        "checks": [msgspec.to_builtins(outcome) for outcome in report.outcomes],
    }
    return msgspec.json.encode(found).decode()


def _table(report: AuditReport) -> str:
    width = max(len(outcome.name) for outcome in report.outcomes)
    lines = [f"{'check':{width}} {'rows':>9} {'unchecked':>9} {'violations':>10}"]
    for outcome in report.outcomes:
        unchecked = f"{outcome.unchecked:,}" if outcome.unchecked else "-"
        violations = f"{outcome.violations:,}" if outcome.violations else "-"
        lines.append(f"{outcome.name:{width}} {outcome.rows:>9,} {unchecked:>9} {violations:>10}")
    for outcome in report.outcomes:
        if not outcome.violations:
            continue
        lines += ["", f"{outcome.name}: {outcome.meaning}. It does not hold:"]
        lines += [f"  {_sentence(told)}" for told in outcome.told]
        rest = outcome.violations - len(outcome.told)
        lines += [f"  and {rest:,} more."] if rest else []
    return "\n".join([*lines, "", _verdict(report)])


def _sentence(told: str) -> str:
    """Return a violation in one line: what a row says must not draw on a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", told).rstrip(".") + "."


def _verdict(report: AuditReport) -> str:
    where = f"{report.env}, session {report.session_id}" if report.session_id else report.env
    broken = sum(outcome.violations > 0 for outcome in report.outcomes)
    if broken:
        return f"{where}: {report.violations:,} violations of {broken} checks."
    if report.is_empty:
        return f"{where}: there is nothing to audit, no row is of this environment."
    unchecked = [outcome.name for outcome in report.outcomes if outcome.unchecked]
    rest = f", but for what could not be judged: {', '.join(unchecked)}" if unchecked else ""
    untraded = "" if report.grants else " There was no trade to look at."
    return f"{where}: all {len(report.outcomes)} checks hold{rest}.{untraded}"
