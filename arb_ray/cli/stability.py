"""``arb-ray stability``: what must hold when sockets, servers and processes fail, tried out."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

import msgspec

from arb_ray.app.command_line import Parser
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.database import dsn_of

if TYPE_CHECKING:
    from arb_ray.app.stability.check import Result

EXAMPLES = """\
  arb-ray stability
  arb-ray stability --env staging --dsn postgresql://owner@db:5432/arb --json
It works in a database of its own on that server, which it drops, and under Redis keys of its own,
which it deletes. What is embedded is started in a folder of its own.
exit code 0: all passed; 1: a check failed; 3: PostgreSQL is away or refuses a database"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``stability``."""
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument(
        "--dsn", metavar="URI", help="of PostgreSQL, with a login that may make databases"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Make every check; FOUND when one failed."""
    from arb_ray.app.settings import load_settings
    from arb_ray.app.stability.run import servers_of, stability

    settings = load_settings(said.env)
    dsn = None if said.dsn is None else dsn_of(said)

    async def made() -> list[Result]:
        async with servers_of(settings, dsn) as servers:
            return await stability(servers, (lambda _: None) if said.json else _tell)

    results = asyncio.run(made())
    failed = sum(not result.is_passed for result in results)
    if said.json:
        told = {"env": said.env, "failed": failed, "checks": results}
        sys.stdout.write(f"{msgspec.json.encode(told).decode()}\n")
    else:
        sys.stdout.write(f"{len(results)} checks: {failed} failed\n")
    return ExitCode.FOUND if failed else ExitCode.CLEAN


def _tell(result: Result) -> None:
    verdict = "ok" if result.is_passed else "FAIL"
    sys.stdout.write(f"{verdict:<5} {result.name:<30} {result.took_ms:>6} ms  {result.words}\n")
    sys.stdout.flush()
