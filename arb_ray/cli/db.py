"""``arb-ray db``: a PostgreSQL database's schema, who may do what with it, and what it keeps."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arb_ray.app.command_line import Parser, argument, natural
from arb_ray.cli.database import add_database_arguments, dsn_of
from arb_ray.cli.db_backup import add_backup_arguments, run_backup
from arb_ray.cli.db_roles import add_role_arguments, run_roles
from arb_ray.domain.errors import BadInput, StoreUnavailable

if TYPE_CHECKING:
    from arb_ray.adapters.storage.hypertables import SnapshotsIn

EXAMPLES = """\
  arb-ray db status --env staging
  arb-ray db migrate --dsn postgresql://arb:secret@db:5432/arb
  arb-ray db rollback --env staging --count 1 --yes
  arb-ray db roles --env prod --writer-password-file secrets/postgres_writer_password
  arb-ray db roles --env prod --check
  arb-ray db retention --env prod --archive /backups/snapshots --dry-run
  arb-ray db backup --env prod --to /backups --keep 28
  arb-ray db restore --from /backups/arb-20260101T000000Z.backup --dsn postgresql://arb@db/arb_2
  arb-ray db verify --from /backups/arb-20260101T000000Z.backup --dsn postgresql://arb@db/arb_2"""

VERBS = ("status", "migrate", "rollback", "roles", "retention", "backup", "restore", "verify")
RETENTION_DAYS = 90
RETENTION_DAYS_MIN = 7
"""A spool may hold rows of some days: their month must not be gone before they are written."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``db``."""
    parser.add_argument("verb", choices=VERBS)
    add_database_arguments(parser)
    parser.add_argument(
        "--count", type=argument(natural), default=1, metavar="N", help="of rollback (default 1)"
    )
    parser.add_argument(
        "--days",
        type=argument(natural),
        default=RETENTION_DAYS,
        metavar="N",
        help=f"of retention: how long snapshots are kept (default {RETENTION_DAYS})",
    )
    parser.add_argument(
        "--archive", type=Path, metavar="DIR", help="retention writes them here and verifies first"
    )
    add_role_arguments(parser)
    add_backup_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="retention says what it would drop")
    parser.add_argument(
        "--yes", action="store_true", help="rollback deletes data; say that you know"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Show or change the schema; 1 when a look finds it not as it should be."""
    if said.verb == "rollback" and not said.yes:
        raise BadInput(
            "--yes", "is missing, and a rollback deletes the data of its tables", "Add it if meant"
        )
    if said.days < RETENTION_DAYS_MIN:
        raise BadInput(
            "--days", f"{said.days} is less than {RETENTION_DAYS_MIN}", "Keep a week at least"
        )
    if said.verb in ("backup", "restore", "verify"):
        return run_backup(said)
    dsn = dsn_of(said)
    if said.verb == "retention":
        return asyncio.run(_retain(said, dsn))
    try:
        return _on_database(said, dsn)
    except StoreUnavailable as error:
        raise StoreUnavailable(error.store, first_line(error.problem)) from error


def _on_database(said: argparse.Namespace, dsn: str) -> int:
    from arb_ray.adapters.storage import migrate

    if said.verb == "roles":
        return run_roles(said, dsn)
    if said.verb == "status":
        return _status(said, dsn)
    turned: list[str] = []
    if said.verb == "migrate":
        changed = migrate.apply(dsn, told=turned.append)
    else:
        changed = migrate.rollback(dsn, said.count, told=turned.append)
    if said.json:
        told = {"verb": said.verb, "changed": changed, "turned": turned}
        _print(msgspec.json.encode(told).decode())
    else:
        _print("\n".join((*changed, *turned)) or "Nothing to do.")
    return 0


def _status(said: argparse.Namespace, dsn: str) -> int:
    from arb_ray.adapters.storage import migrate

    found, snapshots = migrate.status(dsn), migrate.snapshots_in(dsn)
    is_to_turn = bool(snapshots.plain or (snapshots.timescaledb and snapshots.months))
    if said.json:
        told = msgspec.structs.asdict(found) | {"snapshots": snapshots}
        _print(msgspec.json.encode(told).decode())
    else:
        for name in (*found.applied, *found.pending, *found.unknown):
            state = "applied" if name in found.applied else "pending"
            _print(f"{'unknown to this code' if name in found.unknown else state:22}{name}")
        _print("\n".join(_where(snapshots)))
    return 1 if found.pending or found.unknown or is_to_turn else 0


def _where(snapshots: SnapshotsIn) -> list[str]:
    """Tell in which form the snapshots lie, and what is to be done about it."""
    version = snapshots.timescaledb
    kind = f"hypertables of TimescaleDB {version}" if snapshots.hypertables else snapshots.kind
    lines = [f"snapshots lie in      {kind}"]
    if version and snapshots.months:
        lines.append(f"TimescaleDB {version} is here: arb-ray db migrate makes hypertables of them")
    if snapshots.plain:
        lines.append(
            f"{', '.join(snapshots.plain)}: neither months nor hypertables (DEPLOYMENT_GUIDE)"
        )
    return lines


async def _retain(said: argparse.Namespace, dsn: str) -> int:
    from arb_ray.adapters.storage.retention import retain
    from arb_ray.app.progress import Progress

    done = await retain(
        dsn,
        said.days,
        datetime.now(UTC),
        archive=said.archive,
        dry_run=said.dry_run,
        told=Progress(sys.stderr).say,
    )
    if said.json:
        _print(msgspec.json.encode(done).decode())
        return 0
    verb = "would be dropped" if said.dry_run else "dropped"
    for name in done.dropped:
        _print(f"{verb:18}{name}")
    _print(
        f"{len(done.dropped)} {done.pieces} of snapshots that ended before {done.before} {verb}, "
        f"{len(done.archived)} tables archived; {done.kept} are younger and stay."
    )
    for name, count in done.rows_removed.items():
        if count:
            _print(f"{count:,} rows of {name} {'would be removed' if said.dry_run else 'removed'}.")
    return 0


def first_line(text: str) -> str:
    """Return the first line that says something: psycopg adds advice, and lists attempts."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), text)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
