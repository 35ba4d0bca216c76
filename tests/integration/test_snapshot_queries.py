"""The program's queries of snapshots go by their indexes, however old and long a session is."""

import asyncio
import zlib
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest

from arb_ray.adapters.storage import snapshot_store
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.snapshot_store import (
    ALWAYS,
    BY_MONTH,
    MONTHS_AHEAD,
    READ_BACK_MAX,
    TABLES,
    PostgresSnapshotStore,
)
from arb_ray.ports import Snapshot
from tests.integration.conftest import execute, writer_of

MONTHS = [datetime(2031, month, 1, tzinfo=UTC) for month in range(1, 7)]
MIDDLE = datetime(2031, 3, 20, tzinfo=UTC)
ROWS = 4_000
PAYLOAD = "{}"
BY_SYMBOL = ("metrics_snapshots", "position_snapshots")


@pytest.fixture(scope="module")
def filled_dsn(embedded_postgres, server_thread):
    """A database that is filled once for all the questions."""
    return server_thread.run(fill(embedded_postgres))


async def fill(server):
    """Half a year of one session that was open all the time, in all four tables."""
    await execute(server.dsn, "CREATE DATABASE queries TEMPLATE migrated")
    dsn = server.dsn_of("queries")
    connection = await asyncpg.connect(dsn)
    for table in TABLES:
        symbol = "'C' || n % 10" if table in BY_SYMBOL else "''"
        for month in MONTHS:
            await connection.execute("SELECT arb.ensure_partitions_of($1)", month)
            await connection.execute(
                f"""
                INSERT INTO arb.{table}
                    (schema, env, session_id, symbol, at, at_ns, batch_id, crc32, payload)
                SELECT 1, 'dev', 'long', {symbol}, at, (extract(epoch FROM at) * 1e9)::bigint,
                       'b', {zlib.crc32(PAYLOAD.encode())}, '{PAYLOAD}'
                FROM generate_series(1, {ROWS}) AS n,
                     LATERAL (SELECT $1::timestamptz + n * interval '27 days' / {ROWS} AS at) AS t
                """,
                month,
            )
        await connection.execute(f"ANALYZE arb.{table}")
    await connection.close()
    return dsn


def nodes(plan):
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def explained(dsn, table, symbol, before):
    """What the server does for the query as the store asks it: prepared, by a generic plan."""
    before_ns = None if before is None else int(before.timestamp()) * 1_000_000_000
    connection = await asyncpg.connect(writer_of(dsn))
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        sql = snapshot_store._NEWEST_SQL.format(table=table)
        values = ("dev", "long", symbol, table, before_ns, READ_BACK_MAX, before or ALWAYS)
        told = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
    finally:
        await connection.close()
    return list(nodes(msgspec.json.decode(told)[0]["Plan"]))


@pytest.mark.parametrize("before", [None, MIDDLE, MONTHS[0] - timedelta(days=1)])
@pytest.mark.parametrize("table", sorted(TABLES))
async def test_the_newest_is_found_by_index_and_few_rows_are_touched(filled_dsn, table, before):
    symbol = "C7" if table in BY_SYMBOL else ""
    plan = await explained(filled_dsn, table, symbol, before)
    scans = [node for node in plan if node.get("Relation Name", "").startswith(table)]
    assert scans
    for scan in scans:  # the months that the migration made are empty, and read as they are
        assert "Index" in scan["Node Type"] or "_y2031" not in scan["Relation Name"], scan
    touched = sum(
        (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
        for scan in scans
    )
    assert touched <= 2 * READ_BACK_MAX, f"{touched} rows for {READ_BACK_MAX}"
    assert sum(node.get("Sort Space Used", 0) for node in plan) < 1_000


@pytest.mark.parametrize("nanosecond", [0, 1, 999])
async def test_the_moment_before_is_told_to_the_nanosecond(postgres_dsn, nanosecond):
    """The index cuts to microseconds, and the bound must not."""
    store = PostgresSnapshotStore(Postgres(postgres_dsn), "dev")
    at_ns = 1_900_000_000_000_000_000 + nanosecond
    await store.write_batch(
        "b", [Snapshot("session_snapshots", at_ns + n, "s1", "", {"n": n}) for n in (-1, 0, 1)]
    )

    async def newest(before_ns):
        found = await store.newest("session_snapshots", "s1", "", lambda *_: "", before_ns)
        return None if found is None else found[0]["n"]

    assert await newest(at_ns + 2) == 1
    assert await newest(at_ns + 1) == 0
    assert await newest(at_ns) == -1
    assert await newest(at_ns - 1) is None
    assert await newest(None) == 1
    await store.close()


async def test_who_writes_in_a_month_makes_those_that_follow_ahead_of_time(postgres_dsn):
    """In the owner's name, as the writer: the first row of a month waits for nobody."""
    owner = await asyncpg.connect(postgres_dsn)
    now = await owner.fetchval("SELECT date_trunc('month', now() AT TIME ZONE 'UTC')")
    ahead = [
        await owner.fetchval(
            "SELECT to_char($1::timestamp + $2 * interval '1 month', '\"y\"YYYY\"m\"MM')", now, n
        )
        for n in range(MONTHS_AHEAD + 1)
    ]
    for table in BY_MONTH:
        await owner.execute(f"DROP TABLE arb.{table}_{ahead[-1]}")
    store = PostgresSnapshotStore(Postgres(writer_of(postgres_dsn)), "dev")
    at_ns = int(now.replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    await store.write_batch("b", [Snapshot("session_snapshots", at_ns, "s1", "", {})])
    await store.close()
    rows = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
        " AND relnamespace = 'arb'::regnamespace"
    )
    await owner.close()
    there = {row["relname"] for row in rows}
    assert {f"{table}_{month}" for table in BY_MONTH for month in ahead} <= there


async def test_a_month_is_made_while_readers_and_writers_go_on(postgres_dsn):
    """ATTACH asks for no lock that a reader's or writer's open transaction has to give up."""
    busy = await asyncpg.connect(postgres_dsn)
    transaction = busy.transaction()
    await transaction.start()
    await busy.fetch("SELECT 1 FROM arb.session_snapshots LIMIT 1")
    await busy.execute(
        "INSERT INTO arb.session_snapshots VALUES (1, 't', 's', '', now(), 0, 'b', 0, '{}')"
    )
    made = await asyncio.wait_for(
        execute(postgres_dsn, "SELECT arb.ensure_partitions_of('2033-03-03') AS made"), 10
    )
    assert made[0]["made"] == len(BY_MONTH)
    await transaction.rollback()
    await busy.close()
