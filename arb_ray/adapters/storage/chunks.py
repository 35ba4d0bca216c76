"""
Chunks of hypertables, as retention takes them: listed, archived, verified, dropped.

A chunk cannot be detached. It is archived as it lies, and dropped in a short transaction that keeps
writers of its table out: were rows added to it meanwhile, it is archived again. Locking the chunk
alone for as long would end in a deadlock with whoever writes into it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from arb_ray.adapters.storage.archive import (
    ArchivedTable,
    archive_table,
    manifest_of,
    verify_archive,
)
from arb_ray.adapters.storage.snapshot_store import BY_MONTH
from arb_ray.domain.errors import BadInput

LOCK_WAIT_MS: Final = 500
"""Writers of the table wait behind this."""

TRIES: Final = 20
PAUSE_S: Final = 1.0
"""A backup holds every chunk as long as it lasts: retention ends then, and goes on another day."""


class Chunk(msgspec.Struct, frozen=True):
    """A week of one table."""

    table: str
    schema: str
    relation: str
    since: datetime
    until: datetime  # its first moment that is no longer in it

    @property
    def name(self) -> str:
        """What people and archives call it: the server gives it a number."""
        return f"{self.table}_y{self.since:%Y}m{self.since:%m}d{self.since:%d}"


async def chunks(connection: asyncpg.Connection) -> list[Chunk]:
    """Return the chunks of all our hypertables, oldest first; none without TimescaleDB."""
    if not await connection.fetchval("SELECT to_regclass('timescaledb_information.chunks')"):
        return []
    rows = await connection.fetch(
        "SELECT hypertable_name, chunk_schema, chunk_name, range_start, range_end"
        " FROM timescaledb_information.chunks"
        " WHERE hypertable_schema = 'arb' AND hypertable_name = ANY($1)"
        " ORDER BY range_end, hypertable_name",
        list(BY_MONTH),
    )
    return [Chunk(*row.values()) for row in rows]


async def version_in_use(connection: asyncpg.Connection) -> str | None:
    """Return TimescaleDB's version where our tables are hypertables, None where none is."""
    if not await connection.fetchval("SELECT to_regclass('timescaledb_information.hypertables')"):
        return None
    version = await connection.fetchval(
        "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb' AND EXISTS ("
        " SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = 'arb')"
    )
    return None if version is None else str(version)


async def retire_chunk(
    connection: asyncpg.Connection, chunk: Chunk, archive: Path | None
) -> ArchivedTable | None:
    """
    Archive and verify a chunk if asked to, and drop it; return what was archived.

    Raises:
        BadInput: As ``archive_table`` and ``verify_archive``, or somebody reads the chunk for long;
            it is there then.
    """
    at = (chunk.schema, chunk.relation)
    stale: set[Path] = set()
    for number in range(TRIES):
        if number:
            await asyncio.sleep(PAUSE_S)
        kept = None
        if archive is not None:
            # One moment for all: what comes meanwhile is found by the drop.
            async with connection.transaction(isolation="repeatable_read"):
                kept = await archive_table(connection, *at, archive, chunk.name)
                await verify_archive(connection, *at, archive, kept)
        try:
            is_gone = await _drop(connection, chunk, None if kept is None else kept.rows)
        except asyncpg.LockNotAvailableError:
            continue
        if is_gone:
            for path in stale - ({archive / kept.file} if archive and kept else set()):
                # All of its rows are in the one that was made after it.
                path.unlink()
                manifest_of(path).unlink()
            return kept
        assert archive is not None
        assert kept is not None
        stale.add(archive / kept.file)
    raise BadInput(
        chunk.name, "a backup or a long query reads it", "Call again when that has ended"
    )


async def _drop(connection: asyncpg.Connection, chunk: Chunk, rows: int | None) -> bool:
    """Drop it, unless it has more than these rows: some came late, and the archive lacks them."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'")
        # Writers first, at the table: one that had found its chunk would hold what the drop needs.
        await connection.execute(
            f'LOCK TABLE ONLY arb."{chunk.table}" IN SHARE ROW EXCLUSIVE MODE;'
            f' LOCK TABLE ONLY {chunk.schema}."{chunk.relation}" IN ACCESS EXCLUSIVE MODE'
        )
        if rows is not None:
            # Rows are only ever added, so that as many are the same ones.
            there = await connection.fetchval(
                f'SELECT count(*) FROM {chunk.schema}."{chunk.relation}"'
            )
            if there != rows:
                return False
        schema = await connection.fetchval(
            "SELECT quote_ident(nspname) FROM pg_extension AS e"
            " JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE extname = 'timescaledb'"
        )
        dropped = await connection.fetch(
            f"SELECT {schema}.drop_chunks($1::text::regclass, older_than => $2::timestamptz,"
            " newer_than => $3::timestamptz) AS name",
            f"arb.{chunk.table}",
            chunk.until,
            chunk.since,
        )
        assert [row["name"] for row in dropped] == [f"{chunk.schema}.{chunk.relation}"]
    return True
