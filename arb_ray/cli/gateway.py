"""What the commands that talk to the Gateway share: how they find it, and who asks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arb_ray.app.command_line import Parser

if TYPE_CHECKING:
    from arb_ray.adapters.transport.gateway_client import GatewayClient


def add_gateway_arguments(parser: Parser) -> None:
    """Add how to find the Gateway."""
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument(
        "--url", metavar="URL", help="the Gateway's address, instead of what is found for --env"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="data folder of a run of dev (default: of the settings)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def client(said: argparse.Namespace) -> GatewayClient:
    """Return a client of the Gateway that was asked for. Raises BadInput, StoreUnavailable."""
    from arb_ray.adapters.transport.gateway_client import GatewayClient
    from arb_ray.app.gateway_access import find_gateway, parse_url

    url = None if said.url is None else parse_url(said.url)
    access = find_gateway(said.env, url, said.data_dir)
    return GatewayClient(access.url, access.token.get_secret_value() if access.token else None)
