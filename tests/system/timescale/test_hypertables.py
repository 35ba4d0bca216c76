"""Snapshots in hypertables: made of months and made months again, asked, retired, backed up."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import zstandard

from arb_ray.adapters.storage import chunks, migrate, retention
from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from arb_ray.adapters.storage.backup import make_backup
from arb_ray.adapters.storage.backup_restore import restore_backup, verify_backup
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.retention import retain
from arb_ray.adapters.storage.roles import WRITER, look_at_roles, make_roles
from arb_ray.adapters.storage.snapshot_store import (
    BY_MONTH,
    READ_BACK_MAX,
    TABLES,
    PostgresSnapshotStore,
)
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput
from tests import audited_ledger
from tests.integration.conftest import execute, writer_of
from tests.integration.test_migrations import ALL, FILL, described, run_script
from tests.integration.test_retention import MAY, NOW, SEPTEMBER, count, rows
from tests.integration.test_snapshot_queries import BY_SYMBOL, MIDDLE, MONTHS, explained, fill

# The first test of all waits for the build.
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

HYPERTABLES = tuple(sorted(BY_MONTH))
EXTENSION = "CREATE EXTENSION timescaledb SCHEMA public"
EVERYTHING = "SELECT json_agg(t ORDER BY t::text)::text AS told FROM arb.{} AS t"


async def contents(dsn):
    return {table: await execute(dsn, EVERYTHING.format(table)) for table in HYPERTABLES}


@pytest.fixture
async def months_dsn(empty_dsn):
    """A filled database in whose months TimescaleDB has no part yet."""
    await asyncio.to_thread(migrate.apply, empty_dsn)
    await asyncio.to_thread(make_roles, empty_dsn)
    await run_script(empty_dsn, FILL)
    pool = Postgres(empty_dsn)
    store = PostgresSnapshotStore(pool, "dev")
    await store.write_batch("may", rows(MAY))
    await store.write_batch("september", rows(SEPTEMBER))
    await pool.close()
    return empty_dsn


async def test_a_server_that_could_is_left_alone_until_the_database_has_it(months_dsn):
    found = await asyncio.to_thread(migrate.snapshots_in, months_dsn)
    assert (found.kind, found.timescaledb, found.months) == ("months", None, HYPERTABLES)
    assert await asyncio.to_thread(migrate.apply, months_dsn) == ()
    assert (await asyncio.to_thread(migrate.snapshots_in, months_dsn)) == found


async def test_months_become_hypertables_and_months_again_with_every_row(months_dsn, capsys):
    plain, before = await described(months_dsn), await contents(months_dsn)
    await execute(months_dsn, EXTENSION)
    status = ["db", "status", "--dsn", months_dsn]
    assert await asyncio.to_thread(main, status) == 1
    assert "arb-ray db migrate makes hypertables" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["db", "migrate", "--dsn", months_dsn]) == 0
    assert "position_snapshots is a hypertable now" in capsys.readouterr().out
    assert await asyncio.to_thread(main, [*status, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["snapshots"]
    assert (told["kind"], tuple(told["hypertables"])) == ("hypertables", HYPERTABLES)
    assert await contents(months_dsn) == before
    assert all(not state.problems for state in await asyncio.to_thread(look_at_roles, months_dsn))
    assert migrate.rollback(months_dsn, 1) == ALL[-1:]
    assert migrate.snapshots_in(months_dsn).hypertables == ()
    await execute(months_dsn, "DROP EXTENSION timescaledb")
    assert migrate.apply(months_dsn) == ALL[-1:]
    assert await contents(months_dsn) == before
    # But for months in which a table has no row: those are made when they are needed.
    differ = set(await described(months_dsn)) ^ set(plain)
    assert [one for one in differ if not re.search(r"_y\d{4}m\d{2}", one[1])] == []


async def test_runs_at_the_same_moment_make_each_hypertable_once(months_dsn):
    before = await contents(months_dsn)
    await execute(months_dsn, EXTENSION)
    told = []
    await asyncio.gather(
        *(asyncio.to_thread(migrate.apply, months_dsn, None, told.append) for _ in range(4))
    )
    assert sorted(told) == [f"{table} is a hypertable now" for table in HYPERTABLES]
    assert await contents(months_dsn) == before


async def test_a_half_detached_month_and_a_retention_under_way_are_waited_for(months_dsn):
    await execute(months_dsn, EXTENSION)
    connection = await asyncpg.connect(months_dsn)
    await connection.fetchval("SELECT pg_advisory_lock($1)", retention.LOCK_KEY)
    with pytest.raises(BadInput, match="retention: one is under way"):
        await asyncio.to_thread(migrate.apply, months_dsn)
    await connection.fetchval("SELECT pg_advisory_unlock($1)", retention.LOCK_KEY)
    reader = await asyncpg.connect(months_dsn)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT 1 FROM arb.position_snapshots")
    await connection.execute("SET statement_timeout = '1s'")
    with pytest.raises(asyncpg.QueryCanceledError):
        await connection.execute(
            "ALTER TABLE arb.position_snapshots"
            " DETACH PARTITION arb.position_snapshots_y2026m05 CONCURRENTLY"
        )
    await transaction.rollback()
    with pytest.raises(BadInput, match=r"y2026m05: it is half detached"):
        await asyncio.to_thread(migrate.apply, months_dsn)
    done = await retain(months_dsn, 60, NOW)
    assert "position_snapshots_y2026m05" in done.dropped
    await asyncio.to_thread(migrate.apply, months_dsn)
    assert (await asyncio.to_thread(migrate.snapshots_in, months_dsn)).months == ()
    await connection.close()
    await reader.close()


async def test_an_extension_in_our_own_schema_is_refused(months_dsn):
    await execute(months_dsn, "CREATE EXTENSION timescaledb SCHEMA arb")
    with pytest.raises(BadInput, match="CREATE EXTENSION timescaledb SCHEMA public"):
        await asyncio.to_thread(migrate.apply, months_dsn)
    assert (await asyncio.to_thread(migrate.snapshots_in, months_dsn)).months == HYPERTABLES


@pytest.fixture(scope="module")
def filled_dsn(embedded_postgres, server_thread):
    """Half a year of one session, for all the questions."""
    return server_thread.run(fill(embedded_postgres))


@pytest.mark.parametrize("before", [None, MIDDLE, MONTHS[0] - timedelta(days=8)])
@pytest.mark.parametrize("table", sorted(TABLES))
async def test_the_newest_is_found_by_index_and_few_rows_are_touched(filled_dsn, table, before):
    symbol = "C7" if table in BY_SYMBOL else ""
    plan = await explained(filled_dsn, table, symbol, before)
    scans = [node for node in plan if node.get("Relation Name", "").startswith("_hyper_")]
    assert all("Index" in scan["Node Type"] for scan in scans), scans
    touched = sum(
        (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
        for scan in scans
    )
    assert touched <= 2 * READ_BACK_MAX, f"{touched} rows for {READ_BACK_MAX}"
    assert sum(node.get("Sort Space Used", 0) for node in plan) < 1_000


async def test_chunks_of_another_time_are_not_looked_at(filled_dsn):
    """As an operator asks: a week of half a year."""
    connection = await asyncpg.connect(filled_dsn)
    told = await connection.fetch(
        "EXPLAIN SELECT count(*) FROM arb.metrics_snapshots WHERE env = 'dev'"
        " AND session_id = 'long' AND symbol = 'C7' AND at >= '2031-03-06' AND at < '2031-03-13'"
    )
    await connection.close()
    looked_at = {word for row in told for word in row[0].split() if word.startswith("_hyper_")}
    assert 1 <= len({word for word in looked_at if word.endswith("_chunk")}) <= 2, told


async def relations(dsn, table="position_snapshots"):
    connection = await asyncpg.connect(dsn)
    found = await chunks.chunks(connection)
    await connection.close()
    return {chunk.name: chunk for chunk in found if chunk.table == table}


async def test_only_chunks_that_ended_long_enough_ago_are_dropped(dsn):
    (may, september) = await relations(dsn)
    dry = await retain(dsn, 60, NOW, dry_run=True)
    assert dry.dropped == [may]
    assert await count(dsn) == 20
    done = await retain(dsn, 60, NOW)
    assert (done.dropped, done.kept, done.pieces) == ([may], 1, "chunks")
    assert list(await relations(dsn)) == [september]
    assert await count(dsn) == 10
    assert (await retain(dsn, 60, NOW)).dropped == []


async def test_a_chunk_is_archived_and_comes_back_from_there(dsn, tmp_path):
    before = await execute(dsn, EVERYTHING.format("position_snapshots"))
    done = await retain(dsn, 30, NOW, archive=tmp_path)
    assert [one.rows for one in done.archived] == [10, 10]
    assert await count(dsn) == 0
    connection = await asyncpg.connect(dsn)
    for one in done.archived:
        packed = (tmp_path / one.file).read_bytes()

        async def source(packed=packed):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(packed)

        await connection.copy_to_table(
            "position_snapshots", schema_name="arb", columns=one.columns, source=source()
        )
    await connection.close()
    assert await execute(dsn, EVERYTHING.format("position_snapshots")) == before


@pytest.mark.parametrize("point", ["archive_table", "verify_archive"])
async def test_what_does_not_verify_is_there_and_goes_with_the_next_call(
    dsn, tmp_path, monkeypatch, point
):
    async def crash(*_):
        raise BadInput("the archive", "it is damaged", "Mend it")

    monkeypatch.setattr(chunks, point, crash)
    with pytest.raises(BadInput, match="damaged"):
        await retain(dsn, 60, NOW, archive=tmp_path)
    monkeypatch.undo()
    assert await count(dsn) == 20
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    assert [one.rows for one in done.archived] == [10]
    assert await count(dsn) == 10
    assert len(list(tmp_path.glob("position_snapshots_y2026m05*.zst"))) == 1


async def test_writers_go_on_and_a_row_that_comes_late_is_archived_too(dsn, tmp_path, monkeypatch):
    """Into the very chunk that is being archived: it is archived again, and dropped then."""
    pool = Postgres(dsn)
    store = PostgresSnapshotStore(pool, "dev")
    whole = chunks.archive_table
    written = []

    async def meanwhile(*arguments):
        kept = await whole(*arguments)
        if not written:
            written.append(await asyncio.wait_for(store.write_batch("late", rows(MAY, 3)), 10))
            await asyncio.wait_for(store.write_batch("now", rows(NOW, 50)), 10)
        return kept

    monkeypatch.setattr(chunks, "archive_table", meanwhile)
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    await pool.close()
    assert [one.rows for one in done.archived] == [13]
    assert await count(dsn) == 10 + 50
    (left,) = tmp_path.glob("*.zst")
    assert left.name == done.archived[0].file


async def test_a_backup_under_way_holds_up_retention_and_no_writer(dsn, monkeypatch):
    monkeypatch.setattr(chunks, "TRIES", 2)
    monkeypatch.setattr(chunks, "PAUSE_S", 0.01)
    reader = await asyncpg.connect(dsn)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT 1 FROM arb.position_snapshots")
    with pytest.raises(BadInput, match=r"position_snapshots_y2026m05d07: .* reads it"):
        await retain(dsn, 60, NOW)
    pool = Postgres(dsn)
    await PostgresSnapshotStore(pool, "dev").write_batch("now", rows(NOW, 5))
    await pool.close()
    await transaction.rollback()
    await reader.close()
    assert "position_snapshots_y2026m05d07" in (await retain(dsn, 60, NOW)).dropped


async def test_what_lay_aside_when_hypertables_were_made_goes_too(
    months_dsn, tmp_path, monkeypatch
):
    whole = retention.archive_table

    async def crash(connection, schema, table, *more):
        if table.startswith("position"):
            raise KeyboardInterrupt
        return await whole(connection, schema, table, *more)

    monkeypatch.setattr(retention, "archive_table", crash)
    with pytest.raises(KeyboardInterrupt):
        await retain(months_dsn, 60, NOW, archive=tmp_path)
    monkeypatch.undo()
    await execute(months_dsn, EXTENSION)
    await asyncio.to_thread(migrate.apply, months_dsn)
    done = await retain(months_dsn, 60, NOW, archive=tmp_path)
    assert done.dropped[0] == "position_snapshots_y2026m05_aside"
    assert sum(one.rows for one in done.archived if one.file.startswith("position")) == 10


async def test_the_writer_can_drop_no_chunk(dsn):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(
            writer_of(dsn),
            "SELECT drop_chunks('arb.position_snapshots', '2031-01-01'::timestamptz)",
        )
    (may, _) = (await relations(dsn)).values()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(writer_of(dsn), f'DELETE FROM {may.schema}."{may.relation}"')
    assert WRITER in {state.name for state in await asyncio.to_thread(look_at_roles, dsn)}


@pytest.fixture
async def backup(dsn, tmp_path):
    """A backup of a ledger and of snapshots in hypertables."""
    await audited_ledger.build(dsn)
    return Path((await make_backup(dsn, tmp_path / "backups", jobs=2)).path)


async def test_a_restored_database_has_hypertables_that_are_used_and_retired(backup, dsn):
    restored = f"{dsn}_restored"
    await restore_backup(backup, restored, jobs=2)
    found = await verify_backup(backup, restored)
    assert found.flaws == ()
    assert migrate.snapshots_in(restored) == migrate.snapshots_in(dsn)
    assert await contents(restored) == await contents(dsn)
    assert await asyncio.to_thread(migrate.apply, restored) == ()
    pool = Postgres(restored)
    await PostgresSnapshotStore(pool, "dev").write_batch("later", rows(SEPTEMBER, 5))
    await pool.close()
    # The snapshot of the ledger is of the first days of 1970.
    done = await retain(restored, 60, NOW)
    assert "position_snapshots_y2026m05d07" in done.dropped
    assert await count(restored) == 15
    report = await audit(restored, Scope("dev", None))
    assert [one.told for one in report.outcomes if one.violations] == []


async def test_a_server_without_that_timescaledb_is_refused(backup, dsn):
    manifest = backup / "manifest.json"
    version = json.loads(manifest.read_text())["timescaledb"]
    manifest.write_text(manifest.read_text().replace(f'"{version}"', '"99.0.1"'))
    with pytest.raises(BadInput, match=r"hypertables of TimescaleDB 99\.0\.1"):
        await restore_backup(backup, f"{dsn}_restored", jobs=2)


async def test_the_audit_holds_on_hypertables(dsn):
    await audited_ledger.build(dsn)
    report = await audit(dsn, Scope("dev", None))
    assert [one.told for one in report.outcomes if one.violations] == []
    assert {one.name for one in report.outcomes} >= {"snapshots.checksum", "records.tuning"}


def test_a_moment_is_told_by_its_chunk():
    chunk = chunks.Chunk("t", "s", "r", datetime(2026, 5, 7, tzinfo=UTC), MAY)
    assert chunk.name == "t_y2026m05d07"
