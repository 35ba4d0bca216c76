"""
Snapshots and tuning results older than their retention: archived, verified, dropped.

    attached --detach concurrently, rename--> aside --archive, verify--> archived --drop--> gone

A month is detached before it is archived, so nothing can be written to it behind the archive's
back; a row of that month that comes later gets a partition of its own. Detaching concurrently
blocks no writer. Whatever ends half-way goes on at the next call: what is left aside is found by
its name. The ledger and its idempotency keys lie in other tables and are never touched; the small
tables around it go row by row (``old_rows``). Hypertables have chunks instead (``chunks``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from arb_ray.adapters.storage import chunks, old_rows, table_sums
from arb_ray.adapters.storage.archive import ArchivedTable, archive_table, verify_archive
from arb_ray.adapters.storage.old_rows import ASIDE
from arb_ray.adapters.storage.postgres_pool import connect_alone, our_tables
from arb_ray.adapters.storage.snapshot_store import BY_MONTH
from arb_ray.domain.errors import BadInput, StoreUnavailable

LOCK_KEY: Final = 0x6172_625F_7265  # "arb_re"

_CHILD = re.compile(rf"({'|'.join(sorted(BY_MONTH))})_y(\d{{4}})m(\d{{2}})({ASIDE})?")

Told = Callable[[str], None]


class Partition(msgspec.Struct, frozen=True):
    """One month of one table."""

    parent: str
    name: str
    until: datetime  # its first moment that is no longer in it
    is_attached: bool
    is_detaching: bool  # a detach began and did not end


class Retention(msgspec.Struct):
    """What was done, or would be of a dry run."""

    dry_run: bool
    before: str  # what ended before this day has outlived its retention
    archived: list[ArchivedTable] = []
    dropped: list[str] = []
    kept: int = 0  # months or chunks that are younger
    pieces: str = "months"  # or chunks
    rows_removed: dict[str, int] = {}  # of the small tables, and of keys that nobody repeats


async def partitions(connection: asyncpg.Connection) -> list[Partition]:
    """Return the months of all snapshot tables, oldest first, what lies aside before the rest."""
    rows = await connection.fetch(
        """
        SELECT c.relname AS name, i.inhparent IS NOT NULL AS is_attached,
               coalesce(i.inhdetachpending, false) AS is_detaching
        FROM pg_class AS c
        LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
        WHERE c.relnamespace = 'arb'::regnamespace AND c.relkind = 'r'
        """
    )
    found = []
    for row in rows:
        match = _CHILD.fullmatch(row["name"])
        if match:
            year, month = int(match[2]), int(match[3])
            until = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            found.append(
                Partition(match[1], match[0], until, row["is_attached"], row["is_detaching"])
            )
    return sorted(found, key=lambda one: (one.until, one.is_attached, one.name))


async def retain(
    dsn: str,
    days: int,
    now: datetime,
    *,
    archive: Path | None = None,
    dry_run: bool = False,
    told: Told = lambda _: None,
) -> Retention:
    """
    Drop every month that ended ``days`` days before ``now``, after archiving it if asked to.

    Rows of small tables go with the months: see ``old_rows``.

    Raises:
        BadInput: Another retention runs; the archive cannot be written, or does not verify: the
            month is left aside then, complete.
        StoreUnavailable: PostgreSQL is away, or the login may not change these tables.
    """
    before = now - timedelta(days=days)
    done = Retention(dry_run, f"{before:%Y-%m-%d}")
    connection = await connect_alone(dsn)
    try:
        await connection.execute(table_sums.SETTINGS)
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
            raise BadInput("retention", "another one is under way", "Wait for its end")
        with our_tables():
            found = await partitions(connection)
        for partition in found:
            if partition.until > before:
                done.kept += 1
            elif dry_run:
                done.dropped.append(partition.name)
            else:
                aside = await _set_aside(connection, partition)
                await _retire(connection, aside, archive, done, told)
                done.dropped.append(partition.name)
                told(f"{partition.name} dropped")
        for chunk in await chunks.chunks(connection):
            done.pieces = "chunks"
            if chunk.until > before:
                done.kept += 1
                continue
            if not dry_run:
                kept = await chunks.retire_chunk(connection, chunk, archive)
                if kept is not None:
                    done.archived.append(kept)
                    told(_archived(chunk.name, kept))
                told(f"{chunk.name} dropped")
            done.dropped.append(chunk.name)
        await _retire_rows(connection, before, archive, done, told)
    except (OSError, asyncpg.PostgresError) as error:
        raise StoreUnavailable("postgres", str(error) or type(error).__name__) from error
    finally:
        await connection.close()
    return done


async def _retire_rows(
    connection: asyncpg.Connection,
    before: datetime,
    archive: Path | None,
    done: Retention,
    told: Told,
) -> None:
    """Take what is as old out of the small tables, and then forget keys."""
    for table in old_rows.TABLES:
        if done.dry_run:
            done.rows_removed[table.name] = await old_rows.count(connection, table, before)
            continue
        for aside in await old_rows.left_aside(connection, table):
            await _retire(connection, aside, archive, done, told)
        while removed := await old_rows.set_aside(connection, table, before):
            await _retire(connection, table.aside_of(before), archive, done, told)
            done.rows_removed[table.name] = done.rows_removed.get(table.name, 0) + removed
            told(f"{removed:,} rows of {table.name} removed")
    if not done.dry_run:
        for name, removed in (await old_rows.forget_keys(connection, before)).items():
            done.rows_removed[name] = removed


async def _retire(
    connection: asyncpg.Connection,
    aside: str,
    archive: Path | None,
    done: Retention,
    told: Told,
) -> None:
    """Archive and verify what lies aside, if asked to, and drop it."""
    if archive is not None:
        name = aside.removesuffix(ASIDE)
        kept = await archive_table(connection, "arb", aside, archive, name)
        await verify_archive(connection, "arb", aside, archive, kept)
        done.archived.append(kept)
        told(_archived(name, kept))
    await connection.execute(f'DROP TABLE arb."{aside}"')


def _archived(name: str, kept: ArchivedTable) -> str:
    return f"{name} archived: {kept.rows:,} rows, {kept.size_bytes:,} bytes"


async def _set_aside(connection: asyncpg.Connection, partition: Partition) -> str:
    """Detach and rename, or finish what an earlier call began; return its present name."""
    name = partition.name
    if name.endswith(ASIDE):
        return name
    if partition.is_detaching:
        await connection.execute(
            f'ALTER TABLE arb.{partition.parent} DETACH PARTITION arb."{name}" FINALIZE'
        )
    elif partition.is_attached:
        await connection.execute(
            f'ALTER TABLE arb.{partition.parent} DETACH PARTITION arb."{name}" CONCURRENTLY'
        )
    aside = f"{name}{ASIDE}"
    await connection.execute(f'ALTER TABLE arb."{name}" RENAME TO "{aside}"')
    return aside
