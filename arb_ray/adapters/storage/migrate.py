"""
The database's schema: plain SQL files with a rollback each, run by yoyo-migrations.

yoyo finds, orders, splits and records the files. Three of its habits are replaced here,
and docs/decisions/0003-migrations-by-yoyo.md says why: a migration and its mark are one
transaction, the lock is PostgreSQL's own, and nothing asks the network for a host name.
All functions block; call them from a thread.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.exceptions import BadMigration
from yoyo.migrations import Migration, MigrationList, default_migration_table, read_migrations

from arb_ray.adapters.storage import hypertables
from arb_ray.adapters.storage.hypertables import SnapshotsIn
from arb_ray.adapters.storage.roles import regrant
from arb_ray.domain.errors import BadInput, StoreUnavailable

LOCK_KEY = 0x6172_625F_7261_79  # "arb_ray"
LOCK_WAIT_S = 120
CONNECT_TIMEOUT_S = 10

Told = Callable[[str], None]


class MigrationStatus(msgspec.Struct, frozen=True):
    """Which migrations a database has, oldest first."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]  # in the database, not in this code: the code is too old


def migrations_dir() -> Path:
    """Return the folder of SQL files: in the repository, or inside the installed wheel."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_data" / "migrations", package.parent / "migrations"):
        if any(folder.glob("*.sql")):
            return folder
    raise BadInput(str(package), "the migrations are missing", "Install arb_ray again.")


def status(dsn: str, folder: Path | None = None) -> MigrationStatus:
    """
    Compare the database with the code. It only reads, so any role of ours may ask.

    Raises:
        BadInput: This login may not even look.
        StoreUnavailable: No connection.
    """
    with _errors(), psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        found = connection.execute(
            "SELECT to_regclass(%s)", (f"public.{default_migration_table}",)
        ).fetchone()
        rows = (
            connection.execute(
                f"SELECT migration_id FROM public.{default_migration_table} "
                "ORDER BY applied_at_utc, migration_id"
            ).fetchall()
            if found and found[0]
            else []
        )
    return _compared(rows, _read(folder))


def snapshots_in(dsn: str) -> SnapshotsIn:
    """Tell where the snapshots lie: in months or in hypertables. Raises as ``status``."""
    with _errors(), psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        return hypertables.look(connection)


def apply(dsn: str, folder: Path | None = None, told: Told = lambda _: None) -> tuple[str, ...]:
    """
    Bring the schema up to date; return the ids applied, none when it was.

    A database that has TimescaleDB gets hypertables (see ``hypertables``); ``told`` hears of each.
    Two runs at once are safe: the second waits and finds nothing to do.

    Raises:
        BadInput: The database is newer than this code, or a migration fails.
        StoreUnavailable: No connection, or another run holds the lock for two minutes.
    """
    with _open(dsn) as backend:
        migrations = _read(folder)
        _refuse_newer(_status(backend, migrations))
        pending = backend.to_apply(migrations)
        for migration in pending:
            _run(backend, migration, "apply")
        if hypertables.SINCE in _status(backend, migrations).applied:
            _make_hypertables(backend, told)
        _put_rights_right(backend)
        return tuple(migration.id for migration in pending)


def rollback(
    dsn: str, count: int, folder: Path | None = None, told: Told = lambda _: None
) -> tuple[str, ...]:
    """
    Undo the newest ``count`` migrations with the data they hold; return their ids.

    Hypertables are months again before a schema comes back that does not know them.

    Raises: as ``apply``.
    """
    assert count >= 0
    with _open(dsn) as backend:
        migrations = _read(folder)
        _refuse_newer(_status(backend, migrations))
        undone = list(backend.to_rollback(migrations))[:count]
        if any(migration.id == hypertables.SINCE for migration in undone):
            _make_months(backend, told)
        for migration in undone:
            _run(backend, migration, "rollback")
        _put_rights_right(backend)
        return tuple(migration.id for migration in undone)


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo has no types
    """yoyo's backend for psycopg 3, with a lock that dies with its connection."""

    @contextlib.contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Do nothing: ``_open`` holds the advisory lock as long as the connection lives."""
        del timeout
        yield

    def log_of(self, migration: Migration, operation: str) -> None:
        """Write yoyo's log row without a reverse look-up of this machine's name."""
        row = {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id,
            "migration_hash": migration.hash,
            "username": str(self.uri.username),
            "hostname": "",
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }
        self.execute(self.format_sql(self.log_migration_sql), row)


@contextlib.contextmanager
def _open(dsn: str) -> Iterator[_Backend]:
    scheme, _, rest = dsn.partition("://")
    assert scheme in {"postgres", "postgresql"}, "a PostgreSQL URI"
    uri = parse_uri(f"postgresql+psycopg://{rest}")
    # The schema is named: "$user", first in the default path, would be ours once we are it.
    args = {"connect_timeout": str(CONNECT_TIMEOUT_S), **uri.args, "schema": "public"}
    uri = uri._replace(args=args)
    with _errors(), _Backend(uri, default_migration_table) as backend:
        backend.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
        backend.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        backend.ensure_internal_schema_updated()
        yield backend


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise StoreUnavailable("postgres", str(error).strip()) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise BadInput(
            "database",
            f"this login may not do it: {str(error).strip().splitlines()[0]}",
            "Log in as the owner of the schema; the running system is not",
        ) from error


def _read(folder: Path | None) -> MigrationList:
    migrations = read_migrations(str(folder or migrations_dir()))
    for migration in migrations:
        # yoyo would skip a file that it cannot load and carry on with the next.
        try:
            migration.load()
        except BadMigration as error:
            raise BadInput(migration.path, str(error), "Mend the file.") from error
    return migrations


def _status(backend: _Backend, migrations: MigrationList) -> MigrationStatus:
    rows = backend.execute(
        f"SELECT migration_id FROM {backend.migration_table_quoted} "
        "ORDER BY applied_at_utc, migration_id"
    ).fetchall()
    return _compared(rows, migrations)


def _compared(rows: Sequence[Sequence[object]], migrations: MigrationList) -> MigrationStatus:
    applied = tuple(str(row[0]) for row in rows)
    known = [migration.id for migration in migrations]
    return MigrationStatus(
        applied=applied,
        pending=tuple(name for name in known if name not in applied),
        unknown=tuple(name for name in applied if name not in known),
    )


def _refuse_newer(found: MigrationStatus) -> None:
    if found.unknown:
        raise BadInput(
            "database",
            f"it has migrations that this code does not know: {', '.join(found.unknown)}",
            "Run the newer arb_ray, or roll them back with it.",
        )


def _put_rights_right(backend: _Backend) -> None:
    """Give writer and reader their rights on what is new; there may be no such roles."""
    with backend.transaction():
        regrant(backend.connection)


def _make_hypertables(backend: _Backend, told: Told) -> None:
    """Turn what still lies in months, where the extension is; the second time finds nothing."""
    with backend.transaction():
        found = hypertables.look(backend.connection)
    for table in found.months if found.timescaledb else ():
        with backend.transaction():
            hypertables.make_hypertable(backend.connection, table)
            regrant(backend.connection)
        told(f"{table} is a hypertable now")


def _make_months(backend: _Backend, told: Told) -> None:
    with backend.transaction():
        found = hypertables.look(backend.connection)
    for table in found.hypertables:
        with backend.transaction():
            hypertables.make_months(backend.connection, table)
            regrant(backend.connection)
        told(f"{table} lies in months again")


def _run(backend: _Backend, migration: Migration, direction: str) -> None:
    """Run one migration and its mark in one transaction."""
    try:
        with backend.transaction():
            migration.process_steps(backend, direction)
            backend.log_of(migration, direction)
            if direction == "apply":
                backend.mark_one(migration, log=False)
            else:
                backend.unmark_one(migration, log=False)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise BadInput(migration.path, str(error).strip(), "Nothing of it was kept.") from error
