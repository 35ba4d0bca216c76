"""What the commands that talk to PostgreSQL share: which database is meant."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from arb_ray.app.command_line import Parser
from arb_ray.domain.errors import BadInput


def add_database_arguments(parser: Parser) -> None:
    """Add how to find the database."""
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument("--dsn", metavar="URI", help="instead of the settings of --env")


def add_running_or_stopped(parser: Parser) -> None:
    """Add how to find the database of a run that goes on, or of one that is over."""
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--dsn", metavar="URI", help="instead of the settings of --env")
    where.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="start the PostgreSQL of a run that is over"
    )


@contextlib.asynccontextmanager
async def database(said: argparse.Namespace) -> AsyncIterator[str]:
    """Lend the URI of the database that ``add_running_or_stopped`` found. Raises BadInput."""
    if said.data_dir is None:
        yield dsn_of(said)
        return
    folder = said.data_dir / "postgres"
    if not (folder / "pgdata" / "PG_VERSION").is_file():
        raise BadInput("--data-dir", f"{folder} holds no database", "Name a run's data folder")
    from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres

    async with EmbeddedPostgres(folder) as postgres:
        yield postgres.dsn


def dsn_of(said: argparse.Namespace) -> str:
    """Return the database's URI: ``--dsn``, or by the settings of ``--env``. Raises BadInput."""
    if said.dsn is not None:
        return uri_of("--dsn", said.dsn, "PostgreSQL URI", ("postgresql://", "postgres://"))
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


def uri_of(option: str, text: str, kind: str, beginnings: tuple[str, ...]) -> str:
    """Return a server's URI as it was written. Raises BadInput, which never repeats a password."""
    if not text.startswith(beginnings):
        raise BadInput(option, f"is no {kind}", f"Begin it with {beginnings[0]}")
    try:
        for server in urlsplit(text).netloc.rpartition("@")[2].split(","):  # stand-bys follow
            _ = urlsplit(f"//{server}").port
    except ValueError as error:
        raise BadInput(option, f"is no {kind}", "Write HOST:PORT, the port as a number") from error
    return text
