"""``arb-ray config``: what is set, and what can be set."""

from __future__ import annotations

import argparse
import sys

import msgspec

from arb_ray.app.command_line import Parser, argument
from arb_ray.app.run_request import parse_assignment
from arb_ray.domain.errors import BadInput

EXAMPLES = """\
  arb-ray config show --env prod            (secrets are never shown)
  arb-ray config show --env dev --set risk.daily_loss_usdt=50 --json
  arb-ray config docs | less"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``config``."""
    parser.add_argument("verb", choices=("show", "docs"))
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=argument(parse_assignment),
        metavar="key.path=value",
        help="as submit would take it",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Print the settings of an environment, or the page that explains every key."""
    if said.verb == "docs":
        if said.json or said.set:
            raise BadInput("--json", "and --set belong to config show", "Leave them out")
        from arb_ray.app.config_docs import configuration_page

        sys.stdout.write(configuration_page())
        return 0
    import yaml

    from arb_ray.app.settings import load_settings

    values = load_settings(said.env, dict(said.set)).public_values()
    if said.json:
        sys.stdout.write(f"{msgspec.json.encode(values).decode()}\n")
    else:
        sys.stdout.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return 0
