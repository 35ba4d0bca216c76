"""``arb-ray sessions``: what sessions there were, and the end of one by hand."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from arb_ray.app.command_line import Parser, argument, natural
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.database import add_database_arguments, dsn_of
from arb_ray.domain.errors import BadInput

if TYPE_CHECKING:
    from arb_ray.adapters.storage.session_records import SessionRecord, SessionRecords

EXAMPLES = """\
  arb-ray sessions list --env staging
  arb-ray sessions show 20261123T064151-08f7ae4e29f1 --env staging --json
  arb-ray sessions close 20261123T064151-08f7ae4e29f1 --env staging --yes
exit code 3: there is no such session, it cannot be closed, or PostgreSQL is away"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``sessions``."""
    parser.add_argument("verb", choices=("list", "show", "close"))
    parser.add_argument("session_id", nargs="?", metavar="ID", help="of show and close")
    add_database_arguments(parser)
    parser.add_argument(
        "--count", type=argument(natural), default=20, metavar="N", help="of list (default 20)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="a closed session is never continued; say that you know"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """List, show or close."""
    if (said.verb == "list") is (said.session_id is not None):
        raise BadInput("--help", f"sessions {said.verb} and an ID do not go together so", "See it")
    if said.verb == "close" and not said.yes:
        raise BadInput(
            "--yes", "is missing, and a closed session is never continued", "Add it if meant"
        )
    return asyncio.run(_on_database(said, dsn_of(said)))


async def _on_database(said: argparse.Namespace, dsn: str) -> int:
    from arb_ray.adapters.storage.postgres_pool import Postgres, our_tables
    from arb_ray.adapters.storage.session_records import SessionRecords

    postgres = Postgres(dsn)
    try:
        with our_tables():
            words, told = await _carry_out(said, SessionRecords(postgres, said.env))
    finally:
        await postgres.close()
    sys.stdout.write(f"{msgspec.json.encode(told).decode() if said.json else words}\n")
    return ExitCode.CLEAN


async def _carry_out(said: argparse.Namespace, records: SessionRecords) -> tuple[str, Any]:
    from arb_ray.adapters.clock import SystemClock

    if said.verb == "list":
        found = await records.newest(said.count)
        words = "\n".join(_line(record) for record in found)
        return words or f"{said.env} has no session yet.", {"sessions": found}
    if said.verb == "show":
        record, summary = await records.find(said.session_id)
        return _sheet(record, summary), {"session": record, "summary": summary}
    closed = await records.close(said.session_id, SystemClock().now_ns())
    return f"{closed.session_id} is closed.", {"session": closed}


def _line(record: SessionRecord) -> str:
    from arb_ray.app.status_words import clock_text

    state = "open  " if record.closed_ns is None else "closed"
    market = f"{record.source} {record.preset}".rstrip()
    return (
        f"{record.session_id}  {state}  {clock_text(record.started_ns)}  {market:<16}  "
        f"{record.trades_closed} closed  {record.trades_open} open  {record.realized_usdt:.2f} USDT"
        f"{'  crashed' if record.last_run == 'crashed' else ''}"
    )


def _sheet(record: SessionRecord, summary: dict[str, Any] | None) -> str:
    from arb_ray.app.status_words import clock_text

    end = "open" if record.closed_ns is None else f"closed {clock_text(record.closed_ns)}"
    lines = [
        record.session_id,
        f"  market    {record.source} {record.preset}, seed {record.seed}",
        f"  started   {clock_text(record.started_ns)}, {end}",
        f"  trades    {record.trades_closed} closed, {record.trades_open} open",
        f"  realized  {record.realized_usdt} USDT",
        f"  runs      {record.runs}, the last {record.last_run or 'not known'}",
        f"  summary   {'none was left' if summary is None else 'see --json'}",
    ]
    return "\n".join(lines)
