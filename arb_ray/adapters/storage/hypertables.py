"""
Snapshots as hypertables of TimescaleDB, in a database that has the extension.

The extension that is installed in the database decides, not one that could be: `arb-ray db migrate`
then makes hypertables of the tables that lie in months, and a rollback to before migration 0016
makes months of them again. A table is turned in one transaction: it is one or the other. The names,
columns, indexes and triggers stay, and so do the queries. All functions block
(docs/decisions/0019-hypertables-where-the-extension-is.md).
"""

from __future__ import annotations

from typing import Final, LiteralString, Self, cast

import msgspec
import psycopg
from psycopg import sql

from arb_ray.adapters.storage.retention import LOCK_KEY
from arb_ray.adapters.storage.snapshot_store import BY_MONTH
from arb_ray.domain.errors import BadInput

EXTENSION: Final = "timescaledb"
SINCE: Final = "0016.tuning_months"
"""The first migration whose functions know that a table may be a hypertable."""

CHUNK: Final = "7 days"
"""Chunks are less than a month, so that retention need not wait for a month's last day."""

_BEFORE: Final = "_before"


class SnapshotsIn(msgspec.Struct, frozen=True):
    """Where snapshots lie: ``hypertables``, ``months``, or ``nothing`` yet."""

    kind: str
    timescaledb: str | None = None  # version of the extension, None where the database has none
    hypertables: tuple[str, ...] = ()
    months: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()  # what the extension left behind when it was dropped


def look(connection: psycopg.Connection) -> SnapshotsIn:
    """Tell which of the tables is what. It only reads."""
    row = connection.execute(
        "SELECT extversion FROM pg_extension WHERE extname = %s", (EXTENSION,)
    ).fetchone()
    rows = connection.execute(
        "SELECT relname, relkind = 'p' FROM pg_class WHERE relnamespace = to_regnamespace('arb')"
        " AND relname = ANY(%s) ORDER BY relname",
        (list(BY_MONTH),),
    ).fetchall()
    hypertables = _hypertables(connection) if row else set()
    months = tuple(name for name, is_by_month in rows if is_by_month)
    plain = tuple(name for name, is_by_month in rows if not is_by_month and name not in hypertables)
    kind = "hypertables" if hypertables else "months" if months else "nothing"
    version = None if row is None else str(row[0])
    return SnapshotsIn(kind, version, tuple(sorted(hypertables)), months, plain)


def make_hypertable(connection: psycopg.Connection, table: str) -> None:
    """
    Turn a table that lies in months; the caller's transaction makes it all or nothing.

    Raises:
        BadInput: Retention is under way, or has begun to detach a month; the extension lies in
            our schema.
    """
    schema = _schema_of_extension(connection)
    with _Turned(connection, table) as turned:
        turned.create(sql.SQL(""))
        connection.execute(
            sql.SQL(
                "SELECT {}.create_hypertable(%s::regclass, 'at', create_default_indexes => false,"
                " chunk_time_interval => %s::interval)"
            ).format(schema),
            (f"arb.{table}", CHUNK),
        )


def make_months(connection: psycopg.Connection, table: str) -> None:
    """Turn a hypertable back; otherwise as ``make_hypertable``."""
    with _Turned(connection, table) as turned:
        turned.create(sql.SQL("PARTITION BY RANGE (at)"))
        months = connection.execute(
            sql.SQL("SELECT DISTINCT date_trunc('month', at, 'UTC') FROM arb.{}").format(
                sql.Identifier(table + _BEFORE)
            )
        ).fetchall()
        connection.execute("SELECT arb.ensure_partitions(2)")
        for (month,) in months:
            connection.execute("SELECT arb.ensure_partitions_of(%s)", (month,))


class _Turned:
    """A table's old form aside, its rows into the new one at the end, then its indexes and all."""

    def __init__(self, connection: psycopg.Connection, table: str) -> None:
        self._connection = connection
        self._table = sql.Identifier(table)
        self._before = sql.Identifier(table + _BEFORE)
        self._name = table
        self._definitions: list[LiteralString] = []

    def __enter__(self) -> Self:
        """Keep retention and the makers of months out, and then everybody."""
        run = self._connection.execute
        free = run("SELECT pg_try_advisory_xact_lock(%s)", (LOCK_KEY,)).fetchone()
        if not free or not free[0]:
            raise BadInput("retention", "one is under way", "Wait for its end")
        run("SELECT pg_advisory_xact_lock(hashtext('arb.ensure_partitions'))")
        run(sql.SQL("LOCK TABLE arb.{} IN ACCESS EXCLUSIVE MODE").format(self._table))
        half = run(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = %s::regclass AND inhdetachpending",
            (f"arb.{self._name}",),
        ).fetchone()
        if half:
            # Its rows are no longer seen through their table, and would go with it.
            raise BadInput(str(half[0]), "it is half detached", "Run arb-ray db retention first")
        self._definitions = [
            # From the server's own catalogue, which quotes them.
            cast("LiteralString", definition.replace(" ON ONLY arb.", " ON arb."))
            for (definition,) in run(_DEFINITIONS_SQL, {"table": f"arb.{self._name}"}).fetchall()
        ]
        run(sql.SQL("ALTER TABLE arb.{} RENAME TO {}").format(self._table, self._before))
        return self

    def create(self, more: sql.SQL) -> None:
        """Make the new form, empty."""
        self._connection.execute(
            sql.SQL(
                "CREATE TABLE arb.{} (LIKE arb.{} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) {}"
            ).format(self._table, self._before, more)
        )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Bring the rows over, and drop where they were."""
        if kind is not None:
            return
        run = self._connection.execute
        run(sql.SQL("INSERT INTO arb.{} SELECT * FROM arb.{}").format(self._table, self._before))
        run(sql.SQL("DROP TABLE arb.{}").format(self._before))
        # After the rows: they have their trials already, and an index is made sooner at once.
        for definition in self._definitions:
            run(sql.SQL(definition))
        run(sql.SQL("ANALYZE arb.{}").format(self._table))


def _schema_of_extension(connection: psycopg.Connection) -> sql.Identifier:
    row = connection.execute(
        "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = %s",
        (EXTENSION,),
    ).fetchone()
    assert row is not None, "it was found a moment ago"
    if row[0] == "arb":
        # The first schema on the path of a user of that name, and a backup's and a role's border.
        raise BadInput(
            f"the extension {EXTENSION}",
            "it lies in the schema arb, which is ours alone",
            f"DROP EXTENSION {EXTENSION}; CREATE EXTENSION {EXTENSION} SCHEMA public",
        )
    return sql.Identifier(row[0])


def _hypertables(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute(
        "SELECT hypertable_name FROM timescaledb_information.hypertables"
        " WHERE hypertable_schema = 'arb' AND hypertable_name = ANY(%s)",
        (list(BY_MONTH),),
    ).fetchall()
    return {str(row[0]) for row in rows}


_DEFINITIONS_SQL: Final = """
    SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %(table)s::regclass
    UNION ALL
    SELECT pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal AND tgname <> 'ts_insert_blocker'
"""
