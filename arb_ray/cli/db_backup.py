"""``arb-ray db backup|restore|verify``: a copy of the database, brought back, and compared."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from arb_ray.app.command_line import Parser, argument, natural
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.database import dsn_of
from arb_ray.domain.errors import BadInput

JOBS = 2


def add_backup_arguments(parser: Parser) -> None:
    """Add the arguments of ``db backup``, ``restore`` and ``verify``."""
    parser.add_argument("--to", type=Path, metavar="DIR", help="backup writes its folder here")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="BACKUP", help="what restore and verify read"
    )
    parser.add_argument(
        "--keep", type=argument(natural), metavar="N", help="backup removes older ones beyond N"
    )
    parser.add_argument(
        "--jobs",
        type=argument(natural),
        default=JOBS,
        metavar="N",
        help=f"tables at once of backup and restore (default {JOBS})",
    )


def run_backup(said: argparse.Namespace) -> ExitCode:
    """Back up, restore or verify; 1 when something differs."""
    option = "--to" if said.verb == "backup" else "--from"
    if (said.to if said.verb == "backup" else said.source) is None:
        raise BadInput(option, "is missing", f"Name the folder of {said.verb}")
    for name, value in (("--keep", said.keep), ("--jobs", said.jobs)):
        if value == 0:
            raise BadInput(name, "0 is too few", "Write at least 1")
    return asyncio.run(
        {"backup": _back_up, "restore": _restore, "verify": _verify}[said.verb](said)
    )


async def _back_up(said: argparse.Namespace) -> ExitCode:
    from arb_ray.adapters.storage.backup import make_backup
    from arb_ray.app.progress import Progress

    done = await make_backup(
        dsn_of(said), said.to, jobs=said.jobs, keep=said.keep, told=Progress(sys.stderr).say
    )
    lines = [f"{done.path}: {done.rows:,} rows, {done.size_bytes:,} bytes"]
    lines += [f"removed {name}" for name in done.removed]
    _print(said, done, lines)
    return ExitCode.CLEAN


async def _restore(said: argparse.Namespace) -> ExitCode:
    from arb_ray.adapters.storage.backup_restore import restore_backup, verify_backup
    from arb_ray.app.progress import Progress

    dsn = dsn_of(said)
    await restore_backup(said.source, dsn, jobs=said.jobs, told=Progress(sys.stderr).say)
    found = await verify_backup(said.source, dsn, are_files_sound=True)
    lines = [f"restored {found.rows:,} rows of {found.tables} tables from {found.backup}"]
    lines += _flaws(found.flaws)
    lines.append("Rights are not in a backup: arb-ray db roles gives them.")
    _print(said, found, lines)
    return ExitCode.FOUND if found.flaws else ExitCode.CLEAN


async def _verify(said: argparse.Namespace) -> ExitCode:
    from arb_ray.adapters.storage.backup_restore import verify_backup

    found = await verify_backup(said.source, None if said.dsn is None else dsn_of(said))
    lines = [f"{found.backup}: {found.files} files looked at"]
    if said.dsn is not None:
        audited = ", ".join(found.audited) or "nothing"
        lines.append(f"{found.tables} tables with {found.rows:,} rows compared; audited: {audited}")
    lines += _flaws(found.flaws)
    _print(said, found, lines)
    return ExitCode.FOUND if found.flaws else ExitCode.CLEAN


def _flaws(flaws: tuple[str, ...]) -> list[str]:
    return [
        *(f"  {flaw}" for flaw in flaws),
        f"{len(flaws)} differences." if flaws else "All equal.",
    ]


def _print(said: argparse.Namespace, told: object, lines: list[str]) -> None:
    words = msgspec.json.encode(told).decode() if said.json else "\n".join(lines)
    sys.stdout.write(f"{words}\n")
