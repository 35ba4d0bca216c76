"""
Snapshots that are older than their retention: archived, verified, dropped.

    attached --detach concurrently, rename--> aside --archive, verify--> archived --drop--> gone

A month is detached before it is archived, so nothing can be written to it behind the archive's
back; a row of that month that comes later gets a partition of its own. Detaching concurrently
blocks no writer. Whatever ends half-way goes on at the next call: what is left aside is found by
its name. The ledger and its idempotency keys lie in other tables and are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from arb_ray.adapters.storage import table_sums
from arb_ray.adapters.storage.archive import ArchivedTable, archive_table, verify_archive
from arb_ray.adapters.storage.postgres_pool import connect_alone, our_tables
from arb_ray.adapters.storage.snapshot_store import TABLES
from arb_ray.domain.errors import BadInput, StoreUnavailable

ASIDE: Final = "_aside"
LOCK_KEY: Final = 0x6172_625F_7265  # "arb_re"
BATCH_IDS_GRACE: Final = timedelta(days=7)
"""A batch id outlives its rows by this, so that a late repeat still finds it."""

BATCH_IDS_AT_ONCE: Final = 50_000

_CHILD = re.compile(rf"({'|'.join(sorted(TABLES))})_y(\d{{4}})m(\d{{2}})({ASIDE})?")

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
    kept: int = 0  # partitions that are younger
    batch_ids_removed: int = 0


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
                await _retire(connection, partition, archive, done, told)
        if not dry_run:
            done.batch_ids_removed = await _forget_batches(connection, before - BATCH_IDS_GRACE)
    except (OSError, asyncpg.PostgresError) as error:
        raise StoreUnavailable("postgres", str(error) or type(error).__name__) from error
    finally:
        await connection.close()
    return done


async def _retire(
    connection: asyncpg.Connection,
    partition: Partition,
    archive: Path | None,
    done: Retention,
    told: Told,
) -> None:
    aside = await _set_aside(connection, partition)
    if archive is not None:
        name = aside.removesuffix(ASIDE)
        kept = await archive_table(connection, "arb", aside, archive, name)
        await verify_archive(connection, "arb", aside, archive, kept)
        done.archived.append(kept)
        told(f"{partition.name} archived: {kept.rows:,} rows, {kept.size_bytes:,} bytes")
    await connection.execute(f'DROP TABLE arb."{aside}"')
    done.dropped.append(partition.name)
    told(f"{partition.name} dropped")


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


async def _forget_batches(connection: asyncpg.Connection, before: datetime) -> int:
    """Delete batch ids in steps, so that no transaction is long."""
    removed = 0
    while True:
        status = await connection.execute(
            "DELETE FROM arb.snapshot_batches WHERE (env, batch_id) IN ("
            "SELECT env, batch_id FROM arb.snapshot_batches WHERE recorded_ns < $1 LIMIT $2)",
            int(before.timestamp()) * 1_000_000_000,
            BATCH_IDS_AT_ONCE,
        )
        count = int(status.split()[-1])
        removed += count
        if count < BATCH_IDS_AT_ONCE:
            return removed
