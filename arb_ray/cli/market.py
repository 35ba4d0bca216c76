"""``arb-ray market``: how a simulated market measures up against real ones."""

from __future__ import annotations

import argparse
import sys

import msgspec

from arb_ray.app.command_line import Parser, argument, natural, positive_float
from arb_ray.app.exit_codes import ExitCode
from arb_ray.app.progress import Progress
from arb_ray.app.run_request import parse_symbols
from arb_ray.cli.sim import assets

EXAMPLES = """\
  arb-ray market                                    (the calibrated market, about a minute)
  arb-ray market --hours 6 --leg-b perp --symbols top:50
  arb-ray market --preset stress --hours 0.5 --days 3 --symbols BTC,ETH --json
exit code 1: edges came more often than a believable market has them"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``market``."""
    parser.add_argument(
        "--preset", choices=("lively", "calibrated", "stress"), default="calibrated"
    )
    parser.add_argument("--seed", type=argument(natural), default=1, metavar="N")
    parser.add_argument(
        "--hours",
        type=argument(positive_float),
        default=1.0,
        metavar="H",
        help="hours of seconds in which edges are counted, in minutes spread over 10 D (default 1)",
    )
    parser.add_argument(
        "--days",
        type=argument(positive_float),
        default=21.0,
        metavar="D",
        help="days of table C; table A and the edges span ten times as many (default 21)",
    )
    parser.add_argument(
        "--symbols",
        type=argument(parse_symbols),
        default="top:20",
        metavar="A,B|top:N",
        help="for the edges (default top:20)",
    )
    parser.add_argument(
        "--leg-b", choices=("spot", "perp"), default="spot", help="Binance's market (default spot)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Measure, print, and return FOUND when the market is too good to be believed."""
    from arb_ray.app.market_report import report

    progress = Progress(sys.stderr)
    measured = report(
        said.preset,
        said.seed,
        said.hours,
        assets(said.symbols),
        days=said.days,
        leg_b=said.leg_b,
        tell=progress.count,
    )
    if said.json:
        sys.stdout.write(f"{msgspec.json.encode(measured).decode()}\n")
    else:
        from rich.console import Console

        from arb_ray.cli.market_tables import render

        Console().print(render(measured))
    return ExitCode.FOUND if measured["verdict"]["is_exceeded"] else ExitCode.CLEAN
