"""``arb-ray db``: the schema of a PostgreSQL database, forwards and backwards."""

from __future__ import annotations

import argparse
import sys

import msgspec

from arb_ray.app.command_line import Parser, argument, natural
from arb_ray.cli.database import add_database_arguments, dsn_of
from arb_ray.domain.errors import BadInput, StoreUnavailable

EXAMPLES = """\
  arb-ray db status --env staging
  arb-ray db migrate --dsn postgresql://arb:secret@db:5432/arb
  arb-ray db rollback --env staging --count 1 --yes"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``db``."""
    parser.add_argument("verb", choices=("status", "migrate", "rollback"))
    add_database_arguments(parser)
    parser.add_argument(
        "--count", type=argument(natural), default=1, metavar="N", help="of rollback (default 1)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="rollback deletes data; say that you know"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Show or change the schema; 1 when ``status`` finds the database not up to date."""
    if said.verb == "rollback" and not said.yes:
        raise BadInput(
            "--yes", "is missing, and a rollback deletes the data of its tables", "Add it if meant"
        )
    dsn = dsn_of(said)
    try:
        return _on_database(said, dsn)
    except StoreUnavailable as error:
        raise StoreUnavailable(error.store, first_line(error.problem)) from error


def _on_database(said: argparse.Namespace, dsn: str) -> int:
    from arb_ray.adapters.storage import migrate

    if said.verb == "status":
        found = migrate.status(dsn)
        for name in () if said.json else (*found.applied, *found.pending, *found.unknown):
            state = "applied" if name in found.applied else "pending"
            _print(f"{'unknown to this code' if name in found.unknown else state:22}{name}")
        if said.json:
            _print(msgspec.json.encode(found).decode())
        return 1 if found.pending or found.unknown else 0
    changed = migrate.apply(dsn) if said.verb == "migrate" else migrate.rollback(dsn, said.count)
    if said.json:
        _print(msgspec.json.encode({"verb": said.verb, "changed": changed}).decode())
    else:
        _print("\n".join(changed) if changed else "Nothing to do.")
    return 0


def first_line(text: str) -> str:
    """Return the first line that says something: psycopg adds advice, and lists attempts."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), text)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
