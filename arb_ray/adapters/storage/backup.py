"""
A backup of the database: a dump by pg_dump, and a manifest that says what must be in it.

    NAME/dump/           pg_dump's directory format, written in parallel
    NAME/manifest.json   rows and sums of each table, SHA-256 of each file, versions

Dump and manifest come from one snapshot of the database, so they agree however much is written
meanwhile, and nobody waits for either. A folder without ``.part`` in its name is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from arb_ray import __version__
from arb_ray.adapters.storage import table_sums
from arb_ray.adapters.storage.chunks import version_in_use
from arb_ray.adapters.storage.pg_programs import Programs, contents_of, find_programs, run_program
from arb_ray.adapters.storage.postgres_pool import WIRE_BROKE, connect_alone, our_tables
from arb_ray.adapters.storage.process import files_of, sync_folder, write_private
from arb_ray.domain.errors import BadInput, StoreUnavailable

SCHEMA: Final = 1
SUFFIX: Final = ".backup"
PART: Final = ".part"
MANIFEST: Final = "manifest.json"
DUMP: Final = "dump"
DUMP_TIMEOUT_S: Final = 6 * 3600.0
SCHEMAS: Final = ("arb", "public")
"""Ours, and where the migrations are recorded. What an extension keeps for itself stays out."""

CHUNKS: Final = "_timescaledb_internal"
"""Where the rows of hypertables lie."""

_NAME: Final = re.compile(r".+-\d{8}T\d{6}Z" + re.escape(SUFFIX))

Told = Callable[[str], None]


class TableSum(msgspec.Struct, frozen=True):
    """What a table held at the moment of the backup."""

    rows: int
    row_sum: str


class FileSum(msgspec.Struct, frozen=True):
    """A file of the dump."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What is in a backup."""

    schema: int
    at: str
    database: str
    arb_ray: str  # versions
    server: str
    pg_dump: int
    migrations: tuple[str, ...]
    envs: tuple[str, ...]  # whose ledgers are in it
    tables: dict[str, TableSum]
    files: dict[str, FileSum]
    timescaledb: str | None = None  # its version, where the snapshots lay in hypertables


class Backup(msgspec.Struct, frozen=True):
    """A backup that was made, and the older ones that made way for it."""

    path: str
    rows: int
    size_bytes: int
    removed: tuple[str, ...]
    manifest: Manifest


async def make_backup(
    dsn: str,
    folder: Path,
    *,
    jobs: int,
    keep: int | None = None,
    now: datetime | None = None,
    told: Told = lambda _: None,
) -> Backup:
    """
    Write a backup into ``folder``, whole and on the disk, and keep the newest ``keep``.

    Raises:
        BadInput: The folder cannot be written or is full; there is no pg_dump that fits the
            server; the database is none of ours.
        StoreUnavailable: PostgreSQL is away, or the dump failed; nothing is left of it then, and
            no older backup was removed.
    """
    at = now or datetime.now(UTC)
    connection = await connect_alone(dsn)
    try:
        programs = await find_programs(connection.get_server_version().major)
        told(f"dumping with {programs}, {jobs} at once")
        name = f"{await connection.fetchval('SELECT current_database()')}-{at:%Y%m%dT%H%M%SZ}"
        path = folder / f"{name}{SUFFIX}"
        with files_of(folder, "Name a folder that can be written, with room for a dump"):
            with _part(folder, path) as part:
                with our_tables():
                    manifest = await _write(connection, programs, dsn, part, jobs, at)
                part.rename(path)
                sync_folder(folder)
            removed = () if keep is None else await asyncio.to_thread(_rotate, folder, path, keep)
    except (asyncpg.PostgresError, *WIRE_BROKE) as error:
        raise StoreUnavailable("postgres", str(error) or type(error).__name__) from error
    finally:
        await connection.close()
    return Backup(
        path=str(path),
        rows=sum(table.rows for table in manifest.tables.values()),
        size_bytes=sum(file.size_bytes for file in manifest.files.values()),
        removed=removed,
        manifest=manifest,
    )


async def _write(
    connection: asyncpg.Connection,
    programs: Programs,
    dsn: str,
    part: Path,
    jobs: int,
    at: datetime,
) -> Manifest:
    """Dump, and meanwhile count what that same snapshot holds."""
    await connection.execute(table_sums.SETTINGS)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        timescaledb = await version_in_use(connection)
        words = _words(snapshot, part, jobs, with_chunks=timescaledb is not None)
        dumped = asyncio.create_task(run_program(programs, "pg_dump", words, dsn, DUMP_TIMEOUT_S))
        try:
            tables = await _tables(connection)
            facts = await _facts(connection)
            await dumped
        finally:
            dumped.cancel()
            await asyncio.gather(dumped, return_exceptions=True)
    await contents_of(programs, part / DUMP)  # raises when it is none
    manifest = Manifest(
        schema=SCHEMA,
        at=f"{at:%Y-%m-%dT%H:%M:%SZ}",
        arb_ray=__version__,
        pg_dump=programs.major,
        tables=tables,
        files=await asyncio.to_thread(_sealed, part / DUMP),
        timescaledb=timescaledb,
        **facts,
    )
    write_private(part / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)).decode())
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Return a backup's manifest. Raises BadInput when there is none, or it cannot be read."""
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise BadInput(str(path), f"it is no backup ({error})", "Name a *.backup folder") from error
    except msgspec.DecodeError as error:
        raise BadInput(str(path / MANIFEST), str(error), "Use another backup") from error
    if manifest.schema != SCHEMA:
        raise BadInput(
            str(path / MANIFEST),
            f"it has form {manifest.schema}, this code knows {SCHEMA}",
            "Use the arb_ray that wrote it",
        )
    return manifest


def flaws_of_files(path: Path, manifest: Manifest) -> list[str]:
    """
    Compare the dump's files with the manifest; return what differs, in sentences.

    Raises:
        BadInput: The disk does not give a file back.
    """
    with files_of(path, "Use another backup"):
        return list(_flaws(path, manifest))


def _flaws(path: Path, manifest: Manifest) -> Iterator[str]:
    there = {one.name for one in (path / DUMP).glob("*")}
    yield from (f"{name} is missing" for name in sorted(manifest.files.keys() - there))
    yield from (f"{name} is not in the manifest" for name in sorted(there - manifest.files.keys()))
    for name in sorted(manifest.files.keys() & there):
        wanted, found = manifest.files[name], _sum_of(path / DUMP / name)
        if found.size_bytes != wanted.size_bytes:
            yield f"{name} has {found.size_bytes} bytes, not {wanted.size_bytes}"
        elif found != wanted:
            yield f"{name} is damaged: its SHA-256 is not the manifest's"


def _words(snapshot: str, part: Path, jobs: int, *, with_chunks: bool) -> list[str]:
    schemas = (*SCHEMAS, CHUNKS) if with_chunks else SCHEMAS
    # With the extension come its tables that say which chunk belongs where.
    extension = ["--extension=timescaledb"] if with_chunks else []
    return [
        "--format=directory",
        f"--file={part / DUMP}",
        f"--jobs={jobs}",
        f"--snapshot={snapshot}",
        *(f"--schema={schema}" for schema in schemas),
        *extension,
    ]


@contextlib.contextmanager
def _part(folder: Path, path: Path) -> Iterator[Path]:
    """
    Lend the folder that a backup is written in, locked; it goes unless it has been renamed.

    What a killed backup left is removed first. One that is being written is locked, and stays.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.glob(f"*{SUFFIX}{PART}"):
        if _NAME.fullmatch(left.name.removesuffix(PART)) and _stem(left) == _stem(path):
            with _locked(left) as is_ours:
                if is_ours:
                    shutil.rmtree(left, ignore_errors=True)
    part = path.with_name(path.name + PART)
    if path.exists() or part.exists():
        raise BadInput(str(path), "is there already", "Wait a second")
    part.mkdir(mode=0o700)
    with _locked(part):
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[bool]:
    """Hold a folder against whoever cleans up; tell whether it was free."""
    descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another has it, or this disk knows no locks: then nothing is removed
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _stem(path: Path) -> str:
    """Return which database a backup is of."""
    return path.name.rpartition("-")[0]


async def _tables(connection: asyncpg.Connection) -> dict[str, TableSum]:
    return {
        table: TableSum(*await table_sums.row_sum(connection, "arb", table))
        for table in await table_sums.tables_of(connection, "arb")
    }


async def _facts(connection: asyncpg.Connection) -> dict[str, Any]:
    migrations = await connection.fetch(
        "SELECT migration_id FROM public._yoyo_migration ORDER BY applied_at_utc, migration_id"
    )
    envs = await connection.fetch("SELECT DISTINCT env FROM arb.sessions ORDER BY env")
    return {
        "database": await connection.fetchval("SELECT current_database()"),
        "server": await connection.fetchval("SHOW server_version"),
        "migrations": tuple(row["migration_id"] for row in migrations),
        "envs": tuple(row["env"] for row in envs),
    }


def _sealed(dump: Path) -> dict[str, FileSum]:
    """Put every file on the disk, and sum it up as it lies there."""
    found = {}
    for file in sorted(dump.iterdir()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        found[file.name] = _sum_of(file)
    sync_folder(dump)
    return found


def _sum_of(file: Path) -> FileSum:
    with file.open("rb") as opened:
        return FileSum(file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest())


def _rotate(folder: Path, newest: Path, keep: int) -> tuple[str, ...]:
    """Remove what is beyond the number to keep, oldest first; names sort by time."""
    ours = sorted(
        one
        for one in folder.iterdir()
        if one.is_dir() and _NAME.fullmatch(one.name) and _stem(one) == _stem(newest)
    )
    removed = ours[: max(0, len(ours) - keep)]
    for one in removed:
        # Under its final name it would count as whole, until the last file of it is gone.
        gone = one.with_name(one.name + PART)
        one.rename(gone)
        shutil.rmtree(gone)
    return tuple(one.name for one in removed)
