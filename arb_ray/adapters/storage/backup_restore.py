"""
A backup brought back, and held against what its manifest says.

A restore takes a database without any table, or makes one. It first reads every file of the dump;
one that differs from the manifest ends it before the database is touched.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
from psycopg.conninfo import conninfo_to_dict

from arb_ray.adapters.storage import table_sums
from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from arb_ray.adapters.storage.backup import (
    DUMP,
    DUMP_TIMEOUT_S,
    Manifest,
    flaws_of_files,
    read_manifest,
)
from arb_ray.adapters.storage.pg_programs import (
    Programs,
    contents_of,
    find_programs,
    run_program,
)
from arb_ray.adapters.storage.postgres_pool import WIRE_BROKE, connect_alone
from arb_ray.domain.errors import BadInput, StoreUnavailable

THERE_ALREADY: Final = (" SCHEMA - public ", " COMMENT - SCHEMA public ")
"""Every database has the schema ``public``."""

Told = Callable[[str], None]


class Verified(msgspec.Struct, frozen=True):
    """What was compared, and every difference as a sentence."""

    backup: str
    files: int
    tables: int  # 0 when no database was named
    rows: int
    audited: tuple[str, ...]  # environments
    flaws: tuple[str, ...]


async def restore_backup(
    path: Path, dsn: str, *, jobs: int, told: Told = lambda _: None
) -> Manifest:
    """
    Bring a backup back into an empty database, which is made when it is not there.

    Raises:
        BadInput: The backup is damaged; the database holds tables; there is no pg_restore.
        StoreUnavailable: PostgreSQL is away, or the restore failed: drop the database then.
    """
    manifest = read_manifest(path)
    flaws = await asyncio.to_thread(flaws_of_files, path, manifest)
    if flaws:
        raise BadInput(str(path), flaws[0], "Use another backup; nothing was restored")
    major = await _empty_database(dsn)
    programs = await find_programs(max(major, manifest.pg_dump))
    if manifest.timescaledb is not None:
        await _take_extension(dsn, manifest.timescaledb)
        jobs = 1  # the extension's own tables must be whole before the first row of a chunk
    told(f"restoring with {programs}, {jobs} at once")
    with tempfile.NamedTemporaryFile("w", prefix="arb-restore-", suffix=".list") as chosen:
        chosen.write("\n".join(await _contents(programs, path / DUMP)))
        chosen.flush()
        words = [
            f"--jobs={jobs}",
            f"--use-list={chosen.name}",
            "--exit-on-error",
            # Rights name roles that this server may not have; arb-ray db roles gives them.
            "--no-owner",
            "--no-privileges",
            str(path / DUMP),
        ]
        await run_program(programs, "pg_restore", words, dsn, DUMP_TIMEOUT_S)
    connection = await connect_alone(dsn)
    try:
        if manifest.timescaledb is not None:
            await connection.execute(f"SELECT {await _extension(connection)}_post_restore()")
        await connection.execute("ANALYZE")
    finally:
        await connection.close()
    return manifest


async def verify_backup(path: Path, dsn: str | None, *, are_files_sound: bool = False) -> Verified:
    """
    Compare the files with the manifest, and a restored database as well when one is named.

    A restore has read every file a moment ago, and says so: they are not read again.

    Raises:
        BadInput: There is no such backup.
        StoreUnavailable: The database is away.
    """
    manifest = read_manifest(path)
    flaws = [] if are_files_sound else await asyncio.to_thread(flaws_of_files, path, manifest)
    if dsn is None:
        return Verified(str(path), len(manifest.files), 0, 0, (), tuple(flaws))
    tables, rows = 0, 0
    connection = await connect_alone(dsn)
    try:
        await connection.execute(table_sums.SETTINGS)
        there = await table_sums.tables_of(connection, "arb") if await _has_arb(connection) else []
        missing = sorted(set(manifest.tables) - set(there))
        flaws += [f"table {name} is missing" for name in missing]
        flaws += [f"table {name} is new" for name in sorted(set(there) - set(manifest.tables))]
        for name in sorted(set(there) & set(manifest.tables)):
            wanted = manifest.tables[name]
            count, row_sum = await table_sums.row_sum(connection, "arb", name)
            tables, rows = tables + 1, rows + count
            if count != wanted.rows:
                flaws.append(f"table {name} has {count:,} rows, not {wanted.rows:,}")
            elif row_sum != wanted.row_sum:
                flaws.append(f"table {name} has other content than at the backup")
    except (asyncpg.PostgresError, *WIRE_BROKE) as error:
        raise StoreUnavailable("postgres", str(error) or type(error).__name__) from error
    finally:
        await connection.close()
    # A schema that lacks a table is no schema that the audit could ask.
    audited = () if missing else manifest.envs
    for env in audited:
        flaws += await _violations(dsn, env)
    return Verified(str(path), len(manifest.files), tables, rows, audited, tuple(flaws))


async def _take_extension(dsn: str, version: str) -> None:
    """Put TimescaleDB into the database, ready for rows that lie in chunks already."""
    connection = await connect_alone(dsn)
    try:
        found = await connection.fetchval(
            "SELECT 1 FROM pg_available_extension_versions WHERE name = 'timescaledb'"
            " AND version = $1",
            version,
        )
        if not found:
            raise BadInput(
                "database",
                f"its snapshots lay in hypertables of TimescaleDB {version}, which this server"
                " has not",
                "Restore on a server with that version; update the extension there",
            )
        await connection.execute(
            f"CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public VERSION '{version}'"
        )
        there = await connection.fetchval(
            "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
        )
        if there != version:
            raise BadInput(
                "database",
                f"it has TimescaleDB {there}, the backup is of {version}",
                f"Name a new database: it gets version {version}",
            )
    except asyncpg.PostgresError as error:
        raise StoreUnavailable("postgres", str(error) or type(error).__name__) from error
    finally:
        await connection.close()
    # The one that made the extension knows the rest of it only after a new start.
    connection = await connect_alone(dsn)
    try:
        await connection.execute(f"SELECT {await _extension(connection)}_pre_restore()")
    finally:
        await connection.close()


async def _extension(connection: asyncpg.Connection) -> str:
    """Return how the names of its two functions begin."""
    return str(
        await connection.fetchval(
            "SELECT quote_ident(nspname) || '.timescaledb' FROM pg_extension AS e"
            " JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE extname = 'timescaledb'"
        )
    )


async def _violations(dsn: str, env: str) -> list[str]:
    report = await audit(dsn, Scope(env, None))
    return [
        f"the audit of {env}: {outcome.name} does not hold ({outcome.violations:,})"
        for outcome in report.outcomes
        if outcome.violations
    ]


async def _contents(programs: Programs, dump: Path) -> list[str]:
    lines = await contents_of(programs, dump)
    return [line for line in lines if not any(words in line for words in THERE_ALREADY)]


async def _empty_database(dsn: str) -> int:
    """Make the database, or make sure that it is empty; return the server's major version."""
    try:
        connection = await connect_alone(dsn)
    except StoreUnavailable as error:
        if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
            raise
        await _create(dsn)
        connection = await connect_alone(dsn)
    try:
        found = await connection.fetchval(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class AS c"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE relkind IN ('r', 'p', 'v', 'm') AND nspname IN ('arb', 'public')"
            " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e') LIMIT 1"
        )
        if found is None and await _has_arb(connection):
            found = "the schema arb"
        if found is not None:
            raise BadInput(
                "database", f"it is not empty: it has {found}", "Name one that is empty, or new"
            )
        return int(connection.get_server_version().major)
    finally:
        await connection.close()


async def _has_arb(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("SELECT to_regnamespace('arb') IS NOT NULL"))


async def _create(dsn: str) -> None:
    name = str(conninfo_to_dict(dsn)["dbname"])
    connection = await connect_alone(dsn, database="postgres")
    try:
        quoted = name.replace('"', '""')
        await connection.execute(f'CREATE DATABASE "{quoted}" TEMPLATE template0')
    except asyncpg.PostgresError as error:
        raise StoreUnavailable("postgres", f"{name} cannot be made: {error}") from error
    finally:
        await connection.close()
