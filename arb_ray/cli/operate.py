"""``arb-ray halt``, ``resume`` and ``flatten``: what an operator can do to a running system."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from arb_ray.app.command_line import Parser
from arb_ray.app.exit_codes import ExitCode
from arb_ray.app.person import this_person
from arb_ray.cli.gateway import add_gateway_arguments, client
from arb_ray.domain.errors import BadConfig, BadInput

if TYPE_CHECKING:
    from arb_ray.adapters.transport.gateway_client import Reply

HALT_EXAMPLES = """\
  arb-ray halt --reason "the premium looks wrong"
  arb-ray halt --reason maintenance --env prod --url http://10.0.0.5:8790 --json
exit code 0: entries are stopped; 3: it is not known or not done, ask arb-ray status"""

RESUME_EXAMPLES = """\
  arb-ray resume --reason "looked, it was the feed"
  arb-ray resume --reason maintenance-over --env prod --actor ann"""

FLATTEN_EXAMPLES = """\
  arb-ray flatten                        (close all, and stop entries until a resume)
  arb-ray flatten --symbol BTC --reason "odd book"      (this trade only; others go on)"""

WORDS = {
    "halt": "stop every entry until a resume; closes what is open if risk.flatten_on_halt",
    "resume": "allow entries again, and end every order to flatten",
    "flatten": "close every open trade and stop entries, or close one symbol's trade",
}
EXAMPLES = {"halt": HALT_EXAMPLES, "resume": RESUME_EXAMPLES, "flatten": FLATTEN_EXAMPLES}


def add_arguments(verb: str, parser: Parser) -> None:
    """Add the arguments of ``verb``."""
    add_gateway_arguments(parser)
    is_needed = verb != "flatten"
    parser.add_argument(
        "--reason",
        required=is_needed,
        metavar="TEXT",
        help="why; kept with the risk state" + ("" if is_needed else " (optional)"),
    )
    parser.add_argument("--actor", metavar="NAME", help="who asks (default user@host)")
    if verb == "flatten":
        parser.add_argument("--symbol", metavar="S", help="close this symbol's trade only")


def command(verb: str) -> Callable[[argparse.Namespace], int]:
    """Return what runs ``verb``."""

    def run(said: argparse.Namespace) -> int:
        body = {"actor": this_person() if said.actor is None else said.actor}
        if said.reason is not None:
            body["reason"] = said.reason
        if verb == "flatten" and said.symbol is not None:
            body["symbol"] = said.symbol.upper()
        gateway = client(said)
        reply = gateway.post(f"/{verb}", body)
        if reply.code != 200:
            sys.stderr.write(f"arb-ray: {_refusal(reply)}.\n")
            return ExitCode.UNAVAILABLE
        told = msgspec.json.encode(reply.body).decode() if said.json else _words(body, reply.body)
        sys.stdout.write(f"{told}\n")
        return ExitCode.CLEAN

    return run


def _words(body: dict[str, str], told: dict[str, Any]) -> str:
    from arb_ray.app.status_words import risk_in_words
    from arb_ray.domain.risk_intent import RiskStatus

    risk = msgspec.convert(told["risk"], RiskStatus, strict=False)
    lines = [f"Risk is {risk_in_words(risk)}."]
    if "symbol" in body:
        lines.append(f"The trade of {body['symbol']} is being closed; entries go on.")
    elif risk.open_trades:
        fate = "are being closed" if risk.flatten_all else "stay until they end by themselves"
        lines.append(f"{risk.open_trades} trades are open and {fate}.")
    else:
        lines.append("No trade is open.")
    if risk.unwritten:
        lines.append(
            "It is in force, but not yet written to PostgreSQL; RiskGuard tries again every second."
        )
    return "\n".join(lines)


def _refusal(reply: Reply) -> str:
    """Return why RiskGuard did not do it, or may have. Raises BadConfig, BadInput."""
    problem = str(reply.body.get("error", f"HTTP {reply.code}"))
    if reply.code in {401, 403}:
        mend = "For a run of dev name its --data-dir; else see gateway.token in the settings"
        raise BadConfig("gateway.token", problem, mend)
    if reply.code in {400, 409, 413}:
        field, _, words = problem.partition(": ")
        place = f"--{field}" if field in {"reason", "actor", "symbol"} else f"--symbol: {field}"
        text, _, mend = words.rpartition(". ")
        raise BadInput(place, text or words, mend)
    return problem.rstrip(".")
