"""What the commands that talk to PostgreSQL share: which database is meant."""

from __future__ import annotations

import argparse

from arb_ray.app.command_line import Parser
from arb_ray.domain.errors import BadInput


def add_database_arguments(parser: Parser) -> None:
    """Add how to find the database."""
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument("--dsn", metavar="URI", help="instead of the settings of --env")


def dsn_of(said: argparse.Namespace) -> str:
    """Return the database's URI: ``--dsn``, or by the settings of ``--env``. Raises BadInput."""
    if said.dsn is not None:
        if not said.dsn.startswith(("postgresql://", "postgres://")):
            raise BadInput("--dsn", "is no PostgreSQL URI", "Begin it with postgresql://")
        return str(said.dsn)
    from arb_ray.app.settings import load_settings
    from arb_ray.app.stores import postgres_dsn

    settings = load_settings(said.env)
    if settings.postgres.embedded:
        raise BadInput(
            "--env",
            f"{said.env} embeds its PostgreSQL, which a run starts and brings up to date itself",
            "Name a running server with --dsn",
        )
    return postgres_dsn(settings)
