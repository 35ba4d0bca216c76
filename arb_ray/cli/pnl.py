"""``arb-ray pnl``: what was earned and lost, and why, by trade, symbol, day or session."""

from __future__ import annotations

import argparse
import asyncio
import csv
import datetime as dt
import io
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from arb_ray.app.command_line import Parser, argument
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.database import add_running_or_stopped, database
from arb_ray.domain.errors import BadInput

if TYPE_CHECKING:
    from arb_ray.adapters.storage.pnl_records import PnlReport, PnlRow

EXAMPLES = """\
  arb-ray pnl --env staging
  arb-ray pnl --env prod --by trade --from 2026-11-01 --to 2026-11-30 --csv > november.csv
  arb-ray pnl --data-dir data --by symbol
  arb-ray pnl --env prod --session 20261125T162047-48e55610e492 --by trade --json
exit code 2: there is no such session, or too many rows; 3: the database is not reachable.
docs/LEDGER.md tells what each column means"""

PARTS = ("spread", "fx", "fees", "slippage", "funding")


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``pnl``."""
    parser.add_argument(
        "--by",
        choices=("trade", "symbol", "day", "session"),
        default="day",
        help="a row for each (default day)",
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--session", metavar="ID", help="only the trades of this session")
    scope.add_argument("--all", action="store_true", help="every session (the default)")
    parser.add_argument(
        "--from", dest="first_day", type=argument(utc_day), metavar="DAY", help="first UTC day"
    )
    parser.add_argument(
        "--to",
        dest="last_day",
        type=argument(utc_day),
        metavar="DAY",
        help="last UTC day, included",
    )
    add_running_or_stopped(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    form.add_argument("--csv", action="store_true", help="exact figures, a row each, no total")


def utc_day(text: str) -> dt.date:
    """Read a day as YYYY-MM-DD. Raises BadInput."""
    try:
        day = dt.datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no zone
    except ValueError as error:
        raise BadInput("", f"{text!r} is no day", "Write YYYY-MM-DD") from error
    if not dt.date(1970, 1, 1) <= day <= dt.date(2200, 1, 1):  # what fits into ns of 64 bits
        raise BadInput("", f"{text!r} lies outside 1970 to 2200", "Name a day of trading")
    return day


def run(said: argparse.Namespace) -> int:
    """Read and show."""
    if said.first_day and said.last_day and said.first_day > said.last_day:
        raise BadInput("--from", f"{said.first_day} is after --to {said.last_day}", "Swap them")
    report = asyncio.run(_report(said))
    form = _json if said.json else _csv if said.csv else _words
    sys.stdout.write(f"{form(report)}\n")
    return ExitCode.CLEAN


async def _report(said: argparse.Namespace) -> PnlReport:
    from arb_ray.adapters.storage.pnl_records import By, PnlScope, read_pnl
    from arb_ray.adapters.storage.postgres_pool import Postgres, our_tables

    scope = PnlScope(said.env, said.session, said.first_day, said.last_day)
    async with database(said) as dsn:
        postgres = Postgres(dsn, size=1, statement_timeout_ms=60_000)
        try:
            with our_tables():
                return await read_pnl(postgres, By(said.by), scope)
        finally:
            await postgres.close()


def _json(report: PnlReport) -> str:
    return msgspec.json.encode(report).decode()


def _csv(report: PnlReport) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = report.total.__struct_fields__
    writer.writerow([str(report.by), *fields[1:]])
    for row in report.rows:
        writer.writerow([_exact(getattr(row, name)) for name in fields])
    return text.getvalue().rstrip("\n")


def _exact(value: str | int | Decimal) -> str:
    """Return all decimals and no exponent, which spreadsheets read as they please."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _words(report: PnlReport) -> str:
    from arb_ray.app.status_words import clock_text

    if not report.rows:
        return f"{_scope(report)}: no trades closed.{_still_open(report)}"
    rows = [*report.rows, report.total]
    is_single = str(report.by) == "trade"  # its row is one trade: when it closed tells more
    cells = [
        [str(report.by), "closed" if is_single else "trades", "turnover", "realized", *PARTS],
        *(
            [
                row.key or "(none)",
                clock_text(row.last_closed_ns)
                if is_single and row is not rows[-1]
                else f"{row.trades:,}",
                f"{row.notional_usdt:,.2f}",
                *_money(row),
            ]
            for row in rows
        ),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    rule = "-" * len(lines[0])
    gap = report.total.gap_loss_usdt
    return "\n".join([
        f"{_scope(report)}, USDT; realized = {' + '.join(PARTS)}",
        *lines[:-1],
        rule,
        lines[-1],
        *([f"Of it {gap:,.4f} USDT were lost beyond reservations (gap loss)."] if gap else []),
        f"Balances that no trade moved are not valued here.{_still_open(report)}",
    ])  # fmt: skip


def _money(row: PnlRow) -> list[str]:
    figures = (row.realized_usdt, *(getattr(row, f"{part}_usdt") for part in PARTS))
    return [f"{figure:+,.4f}" for figure in figures]


def _scope(report: PnlReport) -> str:
    scope = report.scope
    words = scope.env if scope.session_id is None else f"{scope.env}, session {scope.session_id}"
    if scope.first_day:
        words += f", from {scope.first_day}"
    return f"{words}, to {scope.last_day}" if scope.last_day else words


def _still_open(report: PnlReport) -> str:
    match report.open_trades:
        case 0:
            return ""
        case 1:
            return " 1 trade is open and not counted."
        case count:
            return f" {count} trades are open and not counted."
