"""Old months of snapshots go, archived and verified first; everything else stays as it was."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import zstandard

from arb_ray.adapters.storage import archive, old_rows, retention
from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.retention import retain
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.ports import Snapshot
from tests.integration.conftest import execute
from tests.integration.test_migrations import run_script

NOW = datetime(2026, 11, 15, tzinfo=UTC)
MAY = datetime(2026, 5, 10, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 10, tzinfo=UTC)


def rows(moment, count=10):
    at_ns = int(moment.timestamp()) * 1_000_000_000
    return [
        Snapshot("position_snapshots", at_ns + number, "s1", "BTC", {"n": number, "text": "ü\t\\"})
        for number in range(count)
    ]


@pytest.fixture
async def dsn(postgres_dsn):
    """A database with some rows of May and of September."""
    pool = Postgres(postgres_dsn)
    store = PostgresSnapshotStore(pool, "dev")
    await store.write_batch("may", rows(MAY))
    await store.write_batch("september", rows(SEPTEMBER))
    await pool.close()
    return postgres_dsn


async def months(dsn):
    connection = await asyncpg.connect(dsn)
    found = await retention.partitions(connection)
    await connection.close()
    return [one.name for one in found if one.parent == "position_snapshots"]


async def count(dsn, table="position_snapshots"):
    ((number,),) = await execute(dsn, f"SELECT count(*) FROM arb.{table}")
    return number


async def test_only_months_that_ended_long_enough_ago_are_dropped(dsn):
    done = await retain(dsn, 60, NOW)
    assert done.before == "2026-09-16"
    assert "position_snapshots_y2026m05" in done.dropped
    assert "position_snapshots_y2026m09" in await months(dsn)
    assert "position_snapshots_y2026m05" not in await months(dsn)
    assert await count(dsn) == 10
    assert (await retain(dsn, 60, NOW)).dropped == []


async def test_a_month_is_kept_until_its_last_day_is_old_enough(dsn):
    september_ends = datetime(2026, 10, 1, tzinfo=UTC)
    early = await retain(dsn, 90, september_ends + timedelta(days=90) - timedelta(seconds=1))
    assert "position_snapshots_y2026m09" not in early.dropped
    late = await retain(dsn, 90, september_ends + timedelta(days=90))
    assert "position_snapshots_y2026m09" in late.dropped


async def test_a_dry_run_changes_nothing(dsn):
    before = await months(dsn)
    done = await retain(dsn, 60, NOW, dry_run=True)
    assert "position_snapshots_y2026m05" in done.dropped
    assert await months(dsn) == before


async def test_an_archive_holds_every_row_and_can_be_loaded_again(dsn, tmp_path):
    ((before,),) = await execute(
        dsn, "SELECT json_agg(p ORDER BY at_ns)::text FROM arb.position_snapshots AS p"
    )
    done = await retain(dsn, 30, NOW, archive=tmp_path)
    kept = {one.table: one for one in done.archived}
    may = kept["arb.position_snapshots_y2026m05_aside"]
    assert may.rows == 10
    assert await count(dsn) == 0
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT arb.ensure_partitions_of($1)", MAY)
    await connection.execute("SELECT arb.ensure_partitions_of($1)", SEPTEMBER)
    for one in done.archived:
        if one.rows:
            packed = (tmp_path / one.file).read_bytes()
            data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)

            async def source(data=data):
                yield data

            await connection.copy_to_table(
                "position_snapshots", schema_name="arb", columns=one.columns, source=source()
            )
    after = await connection.fetchval(
        "SELECT json_agg(p ORDER BY at_ns)::text FROM arb.position_snapshots AS p"
    )
    await connection.close()
    assert after == before
    manifest = json.loads((tmp_path / f"{may.file}.manifest.json").read_text())
    assert manifest["rows"] == 10
    assert not list(tmp_path.glob("*.part"))


async def test_what_does_not_verify_is_not_dropped(dsn, tmp_path, monkeypatch):
    whole = archive.archive_table

    async def damaged(connection, schema, table, folder, name):
        kept = await whole(connection, schema, table, folder, name)
        path = folder / kept.file
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        return kept

    monkeypatch.setattr(retention, "archive_table", damaged)
    with pytest.raises(BadInput, match="SHA-256"):
        await retain(dsn, 60, NOW, archive=tmp_path)
    aside = [name for name in await months(dsn) if name.endswith("_aside")]
    monkeypatch.undo()
    assert len(aside) <= 1
    with pytest.raises(BadInput, match="Move it and its manifest away and call again") as error:
        await retain(dsn, 60, NOW, archive=tmp_path)
    (damaged,) = (path for path in tmp_path.iterdir() if str(path) == error.value.place)
    damaged.unlink()
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    assert sum(one.rows for one in done.archived) == 10


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device", "/a/part"), BadInput, "^/a/part: No space left"),
        (ConnectionResetError("gone"), StoreUnavailable, "postgres is unavailable: gone"),
    ],
)
async def test_a_disk_that_fails_is_told_by_its_file_and_a_wire_as_the_wire(
    dsn, tmp_path, monkeypatch, error, kind, words
):
    def fails(*_):
        raise error

    for place in ("write_private", "_sha256"):
        monkeypatch.setattr(archive, place, fails)
        with pytest.raises(kind, match=words):
            await retain(dsn, 60, NOW, archive=tmp_path)
        monkeypatch.undo()
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    assert sum(one.rows for one in done.archived) == 10, "nothing was dropped unarchived"


async def test_a_manifest_that_cannot_be_read_is_named(dsn, tmp_path):
    connection = await asyncpg.connect(dsn)
    table = "position_snapshots_y2026m05"
    kept = await archive.archive_table(connection, "arb", table, tmp_path, table)
    archive.manifest_of(tmp_path / kept.file).write_text("{")
    with pytest.raises(BadInput, match="it is no manifest"):
        await archive.archive_table(connection, "arb", table, tmp_path, table)
    await connection.close()


async def test_an_archive_is_known_again_by_whoever_asks(dsn, tmp_path, monkeypatch):
    """A call that died before it dropped the month, then one from a machine in another place."""

    async def crash(*given):
        if given[-1].rows:
            raise KeyboardInterrupt

    monkeypatch.setattr(retention, "verify_archive", crash)
    with pytest.raises(KeyboardInterrupt):
        await retain(f"{dsn}?TimeZone=Asia/Seoul", 60, NOW, archive=tmp_path)
    monkeypatch.undo()
    done = await retain(f"{dsn}?TimeZone=America/New_York", 60, NOW, archive=tmp_path)
    assert sum(one.rows for one in done.archived) == 10
    assert not list(tmp_path.glob("*.2.copy.zst"))


async def test_a_row_that_is_another_one_is_noticed(dsn, tmp_path):
    connection = await asyncpg.connect(dsn)
    table = "position_snapshots_y2026m05"
    kept = await archive.archive_table(connection, "arb", table, tmp_path, table)
    await connection.execute(f"UPDATE arb.{table} SET payload = '{{}}' WHERE symbol = 'BTC'")
    with pytest.raises(BadInput, match="or their content differs"):
        await archive.verify_archive(connection, "arb", table, tmp_path, kept)
    await connection.close()


async def test_rows_that_were_lost_on_the_way_are_noticed(dsn, tmp_path):
    connection = await asyncpg.connect(dsn)
    table = "position_snapshots_y2026m05"
    kept = await archive.archive_table(connection, "arb", table, tmp_path, table)
    await archive.verify_archive(connection, "arb", table, tmp_path, kept)
    await connection.execute(
        f"INSERT INTO arb.{table} SELECT schema, env, 's9', symbol, at, at_ns, batch_id, crc32, "
        f"payload FROM arb.{table} LIMIT 1"
    )
    with pytest.raises(BadInput, match="holds 10 rows"):
        await archive.verify_archive(connection, "arb", table, tmp_path, kept)
    await connection.close()


@pytest.mark.parametrize("point", ["archive_table", "verify_archive"])
async def test_a_crash_half_way_is_finished_by_the_next_call(dsn, tmp_path, monkeypatch, point):
    async def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, point, crash)
    with pytest.raises(KeyboardInterrupt):
        await retain(dsn, 60, NOW, archive=tmp_path)
    monkeypatch.undo()
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    may = [one for one in done.archived if one.rows]
    assert [one.rows for one in may] == [10]
    assert len(list(tmp_path.glob("position_snapshots_y2026m05*.zst"))) == 1
    assert not any(name.endswith("_aside") for name in await months(dsn))


async def test_a_row_that_comes_while_its_month_is_aside_gets_a_month_of_its_own(
    dsn, tmp_path, monkeypatch
):
    whole = archive.archive_table

    async def crash(connection, schema, table, *more):
        if table.startswith("position"):
            raise KeyboardInterrupt
        return await whole(connection, schema, table, *more)

    monkeypatch.setattr(retention, "archive_table", crash)
    with pytest.raises(KeyboardInterrupt):
        await retain(dsn, 60, NOW, archive=tmp_path)
    monkeypatch.undo()
    assert "position_snapshots_y2026m05_aside" in await months(dsn)
    pool = Postgres(dsn)
    await PostgresSnapshotStore(pool, "dev").write_batch("late", rows(MAY, 3))
    await pool.close()
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    assert sorted(one.rows for one in done.archived if one.rows) == [3, 10]
    assert len(list(tmp_path.glob("position_snapshots_y2026m05*.zst"))) == 2


async def test_writers_are_not_blocked_while_a_month_is_detached(dsn, tmp_path, monkeypatch):
    pool = Postgres(dsn)
    store = PostgresSnapshotStore(pool, "dev")
    batches, ended = 0, asyncio.Event()
    whole = archive.archive_table

    async def write():
        nonlocal batches
        while not ended.is_set():
            await store.write_batch(f"live{batches}", rows(NOW, 50))
            batches += 1

    async def not_before_others_have_written(*arguments):
        before = batches
        async with asyncio.timeout(30):
            while batches < before + 2:  # noqa: ASYNC110 - the bound is around it
                await asyncio.sleep(0.01)
        return await whole(*arguments)

    monkeypatch.setattr(retention, "archive_table", not_before_others_have_written)
    writer = asyncio.create_task(write())
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    ended.set()
    await writer
    await pool.close()
    assert "position_snapshots_y2026m05" in done.dropped
    assert await count(dsn) == 10 + 50 * batches


async def test_keys_outlive_their_rows_by_a_week(dsn):
    """A row of the last month that is kept may be a month older than the retention."""
    for table, columns, values in (
        ("snapshot_batches", "env, batch_id, row_count, digest", "'dev', $2, 1, ''"),
        ("tuning_trials", "env, run_id, trial", "'dev', $2, 1"),
    ):
        for name, days in (("old", 99), ("young", 97)):
            recorded_ns = int((NOW - timedelta(days=days)).timestamp()) * 1_000_000_000
            await execute(
                dsn,
                f"INSERT INTO arb.{table} (recorded_ns, {columns}) VALUES ($1, {values})",
                recorded_ns,
                name,
            )
    done = await retain(dsn, 60, NOW)
    left = {row["batch_id"] for row in await execute(dsn, "SELECT * FROM arb.snapshot_batches")}
    assert done.rows_removed["snapshot_batches"] == done.rows_removed["tuning_trials"] == 1
    assert left == {"young", "may", "september"}
    (trial,) = await execute(dsn, "SELECT run_id FROM arb.tuning_trials")
    assert trial["run_id"] == "young"


async def test_what_is_kept_passes_the_audit(dsn):
    """The first days of the oldest month that stays, written when they were."""
    pool = Postgres(dsn)
    await PostgresSnapshotStore(pool, "dev").write_batch(
        "early", rows(datetime(2026, 9, 1, tzinfo=UTC))
    )
    await pool.close()
    await execute(
        dsn,
        "UPDATE arb.snapshot_batches SET recorded_ns = $1 WHERE batch_id = 'early'",
        int(datetime(2026, 9, 1, tzinfo=UTC).timestamp()) * 1_000_000_000,
    )
    await retain(dsn, 47, NOW)  # until 29 September
    assert await count(dsn) == 20
    report = await audit(dsn, Scope("dev", None))
    assert [one.told for one in report.outcomes if one.violations] == []


DAY_NS = 86_400 * 1_000_000_000
NOW_NS = int(NOW.timestamp()) * 1_000_000_000

RUNS = """
    INSERT INTO arb.sessions (env, session_id, source, started_ns, closed_ns)
        VALUES ('dev', 'closed', 'sim', 1, 2), ('dev', 'open', 'sim', 3, NULL),
               ('staging', 'long', 'sim', 3, NULL);
    INSERT INTO arb.session_runs (env, session_id, holder, started_ns, ended_ns, ending)
        VALUES ('dev', 'closed', 'a', 1, {old}, 'clean'), ('dev', 'closed', 'b', 1, {young}, 'clean'),
               ('dev', 'open', 'c', 1, {old}, 'crashed'), ('dev', 'open', 'd', 1, {old}, 'clean'),
               ('staging', 'long', 'e', 1, NULL, NULL);
    INSERT INTO arb.snapshot_quarantine (env, table_name, session_id, symbol, at_ns, batch_id,
                                         crc32, payload, reason, found_ns)
        VALUES ('dev', 'session_snapshots', 's1', '', {gone}, 'old', 1, '{{\t', 'r', {gone}),
               ('dev', 'session_snapshots', 's1', '', {gone}, 'seen lately', 1, 'x', 'r', {young}),
               ('dev', 'session_snapshots', 's1', '', {old}, 'there', 1, 'x', 'r', {old});
"""


@pytest.fixture
async def small(dsn):
    """Runs and damaged snapshots, some of them older than 60 days."""
    ages = {"old": 61, "young": 59, "gone": 92}
    await run_script(
        dsn, RUNS.format(**{name: NOW_NS - age * DAY_NS for name, age in ages.items()})
    )
    return dsn


async def names(dsn, column, table):
    return sorted(row[column] for row in await execute(dsn, f"SELECT {column} FROM arb.{table}"))


async def test_old_runs_and_damaged_snapshots_go_and_what_is_asked_for_stays(small):
    """Who runs, how an open session's last run ended, what still lies in its month."""
    dry = await retain(small, 60, NOW, dry_run=True)
    assert dry.rows_removed == {"session_runs": 2, "snapshot_quarantine": 1}
    assert len(await names(small, "holder", "session_runs")) == 5
    done = await retain(small, 60, NOW)
    assert done.rows_removed["session_runs"] == 2
    assert done.rows_removed["snapshot_quarantine"] == 1
    assert await names(small, "holder", "session_runs") == ["b", "d", "e"]
    assert await names(small, "batch_id", "snapshot_quarantine") == ["seen lately", "there"]
    again = await retain(small, 60, NOW)
    assert sum(again.rows_removed.values()) == 0


async def test_old_rows_are_archived_and_come_back_from_there(small, tmp_path):
    tables = ("session_runs", "snapshot_quarantine")
    sql = "SELECT json_agg(t ORDER BY t::text)::text AS told FROM arb.{} AS t"
    before = [await execute(small, sql.format(table)) for table in tables]
    done = await retain(small, 60, NOW, archive=tmp_path)
    kept = {one.table: one for one in done.archived}
    connection = await asyncpg.connect(small)
    for table in tables:
        one = kept[f"arb.{table}_y2026m09d16_aside"]
        assert one.rows == done.rows_removed[table]
        packed = (tmp_path / one.file).read_bytes()

        async def source(packed=packed):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(packed)

        await connection.copy_to_table(
            table, schema_name="arb", columns=one.columns, source=source()
        )
    await connection.close()
    assert [await execute(small, sql.format(table)) for table in tables] == before


@pytest.mark.parametrize("point", ["archive_table", "verify_archive"])
async def test_rows_whose_archive_did_not_end_go_with_the_next_call(
    small, tmp_path, monkeypatch, point
):
    whole = getattr(retention, point)

    async def crash(connection, schema, table, *more):
        if table.startswith("session_runs"):
            raise KeyboardInterrupt
        return await whole(connection, schema, table, *more)

    monkeypatch.setattr(retention, point, crash)
    with pytest.raises(KeyboardInterrupt):
        await retain(small, 60, NOW, archive=tmp_path)
    monkeypatch.undo()
    # They lie aside, and more have become old meanwhile.
    assert await names(small, "holder", "session_runs") == ["b", "d", "e"]
    done = await retain(small, 58, NOW, archive=tmp_path)
    rows_ = {one.table: one.rows for one in done.archived if "session_runs" in one.table}
    assert rows_ == {
        "arb.session_runs_y2026m09d16_aside": 2,
        "arb.session_runs_y2026m09d18_aside": 1,
    }


async def test_more_rows_than_one_step_takes_go_all(small, tmp_path, monkeypatch):
    monkeypatch.setattr(old_rows, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(old_rows, "KEYS_AT_ONCE", 1)
    done = await retain(small, 60, NOW, archive=tmp_path)
    assert done.rows_removed["session_runs"] == 2
    assert len(list(tmp_path.glob("session_runs_*.zst"))) == 2
    assert await names(small, "holder", "session_runs") == ["b", "d", "e"]


async def test_tuning_results_go_by_their_months(dsn, tmp_path):
    await execute(dsn, "SELECT arb.ensure_partitions_of($1)", MAY)
    await execute(
        dsn,
        "INSERT INTO arb.tuning_results VALUES (1, 'dev', 'r', 1, $1, 0, '{}', '{}'),"
        " (1, 'dev', 'r', 2, $2, 0, '{}', '{}')",
        MAY,
        SEPTEMBER,
    )
    done = await retain(dsn, 60, NOW, archive=tmp_path)
    assert "tuning_results_y2026m05" in done.dropped
    assert await count(dsn, "tuning_results") == 1
    assert {one.table: one.rows for one in done.archived}["arb.tuning_results_y2026m05_aside"] == 1


async def test_two_at_once_are_refused(dsn):
    connection = await asyncpg.connect(dsn)
    await connection.fetchval("SELECT pg_advisory_lock($1)", retention.LOCK_KEY)
    with pytest.raises(BadInput, match="another one"):
        await retain(dsn, 60, NOW)
    await connection.close()


@pytest.mark.parametrize("verb", ["retention", "backup"])
def test_an_address_that_is_none_is_told_with_its_remedy(verb, tmp_path, capsys):
    dsn = "postgresql://arb@127.0.0.1/arb?sslmode=perhaps"
    words = ["--to", str(tmp_path)] if verb == "backup" else []
    assert main(["db", verb, "--dsn", dsn, *words]) == 3
    assert "PostgreSQL's address: `sslmode` parameter must be one of" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["retention", "backup"])
async def test_a_database_that_is_none_of_ours_is_told_as_that(verb, empty_dsn, tmp_path, capsys):
    words = ["--to", str(tmp_path)] if verb == "backup" else []
    assert await asyncio.to_thread(main, ["db", verb, "--dsn", empty_dsn, *words]) == 3
    assert "it lacks tables of this code. Run arb-ray db migrate" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


async def test_a_server_that_is_away_is_told_as_that():
    with pytest.raises(StoreUnavailable):
        await retain("postgresql://arb:x@127.0.0.1:1/arb", 60, NOW)


async def test_the_command_says_what_it_did(dsn, tmp_path, capsys):
    assert await asyncio.to_thread(main, ["db", "retention", "--dsn", dsn, "--dry-run"]) == 0
    assert "would be dropped" in capsys.readouterr().out
    arguments = ["db", "retention", "--dsn", dsn, "--archive", str(tmp_path), "--json"]
    assert await asyncio.to_thread(main, arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert "position_snapshots_y2026m05" in told["dropped"]
    assert await asyncio.to_thread(main, ["db", "retention", "--dsn", dsn, "--days", "1"]) == 2
    assert "Keep a week at least" in capsys.readouterr().err
