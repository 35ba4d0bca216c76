"""``arb-ray status``: is it well, what is open, and who stopped it."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from arb_ray.app.command_line import Parser, argument, positive_float
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.gateway import add_gateway_arguments, client

EXAMPLES = """\
  arb-ray status
  arb-ray status --env prod --url http://10.0.0.5:8790 --json
  arb-ray status --data-dir data --watch 2
exit code 0: healthy; 1: unhealthy, the problems are listed; 3: nobody answers"""

CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``status``."""
    add_gateway_arguments(parser)
    parser.add_argument(
        "--watch",
        type=argument(positive_float),
        metavar="SECONDS",
        help="show it again and again, until Ctrl-C",
    )


def run(said: argparse.Namespace) -> int:
    """Show the status once, or until interrupted; FOUND when it is not healthy."""
    code = _show(said)
    while said.watch is not None:
        sys.stdout.flush()
        try:
            time.sleep(said.watch)
        except KeyboardInterrupt:  # how a watch ends
            return code
        code = _show(said)
    return code


def _show(said: argparse.Namespace) -> int:
    from arb_ray.app.status_words import status_in_words, without_supervisor_in_words
    from arb_ray.domain.errors import BadInput
    from arb_ray.engine.health import StatusAnswer

    gateway = client(said)
    reply = gateway.get("/status")
    if "health" not in reply.body:
        problem = f"HTTP {reply.code} without a status; another program may be there"
        raise BadInput(gateway.url, problem, "Correct the address")
    is_healthy = reply.body["health"]["healthy"]
    if said.json:
        words = msgspec.json.encode(reply.body).decode()
    elif reply.code == 200:
        status = msgspec.convert(reply.body, StatusAnswer, strict=False)
        words = status_in_words(status, gateway.url)
    else:
        words = without_supervisor_in_words(reply.body, gateway.url)
    is_screen = said.watch is not None and not said.json and sys.stdout.isatty()
    sys.stdout.write(f"{CLEAR if is_screen else ''}{words}\n")
    return ExitCode.CLEAN if is_healthy else ExitCode.FOUND
