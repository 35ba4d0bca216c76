"""``arb-ray sim``: the simulated exchanges alone, for any client that speaks to the real ones."""

from __future__ import annotations

import argparse
import asyncio

from arb_ray.app.command_line import Parser, argument, natural
from arb_ray.app.run_request import parse_symbols
from arb_ray.domain.errors import BadInput

PORT_MAX = 65_533  # two more ports follow it

EXAMPLES = """\
  arb-ray sim --port 9000 --preset calibrated --symbols BTC,ETH
  arb-ray sim --symbols top:50      (prints the addresses as one line of JSON)"""


def parse_port(text: str) -> int:
    """Read the first of three ports; 0 takes free ones. Raises BadInput."""
    if not (text.isascii() and text.isdigit() and int(text) <= PORT_MAX):
        raise BadInput(
            "--port", f"{text!r} is no port", f"Write 0 for free ones, or 1 to {PORT_MAX}"
        )
    return int(text)


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``sim``."""
    parser.add_argument(
        "--port",
        type=argument(parse_port),
        default=0,
        metavar="P",
        help="Upbit listens on P, Binance spot on P+1, USDT-M on P+2; 0 (default): free ports",
    )
    parser.add_argument(
        "--preset", choices=("lively", "calibrated", "stress"), default="calibrated"
    )
    parser.add_argument("--seed", type=argument(natural), default=1, metavar="N")
    parser.add_argument(
        "--symbols", type=argument(parse_symbols), default="top:20", metavar="A,B|top:N"
    )


def assets(symbols: str) -> tuple[str, ...]:
    """Return the assets behind ``BTC,ETH`` or ``top:20``, the busiest first."""
    from arb_ray.adapters.venues.sim.coins import top_assets

    top = symbols.removeprefix("top:")
    return top_assets(int(top)) if top != symbols else tuple(symbols.split(","))


def run(said: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from arb_ray.adapters.venues.sim.exchange import SimConfig, serve

    port = said.port
    ports = (port, port + 1, port + 2) if port else (0, 0, 0)
    config = SimConfig(
        preset=said.preset,
        seed=said.seed,
        symbols=assets(said.symbols),
        upbit_port=ports[0],
        binance_spot_port=ports[1],
        binance_usdm_port=ports[2],
    )
    asyncio.run(serve(config))
    return 0
