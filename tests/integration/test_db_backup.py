"""A backup under load, brought back, holds what its manifest says; damage is found by name."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from arb_ray.adapters.storage import backup as backups
from arb_ray.adapters.storage import backup_restore, pg_programs
from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from arb_ray.adapters.storage.backup import flaws_of_files, make_backup, read_manifest
from arb_ray.adapters.storage.backup_restore import restore_backup, verify_backup
from arb_ray.adapters.storage.pg_programs import find_programs
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.roles import make_roles
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput, StoreUnavailable
from tests import audited_ledger
from tests.integration.conftest import execute, writer_of
from tests.ledger_world import LedgerWorld
from tests.trade_world import PEPE_PERP

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "backup" / "nightly.sh"
NOW = datetime(2026, 11, 26, tzinfo=UTC)

WRITE = """
    WITH e AS (INSERT INTO arb.entries (env, entry_id, kind, epoch, at_ns, posting_count, digest)
               VALUES ('load', $1, 'opening', 1, 0, 2, ''))
    INSERT INTO arb.postings (env, entry_id, line, venue, account, asset, amount)
    VALUES ('load', $1, 0, 'upbit', 'free', 'KRW', 5), ('load', $1, 1, 'upbit', 'opening', 'KRW', -5)
"""


@pytest.fixture
async def ledger_dsn(postgres_dsn):
    """A database with a small ledger that the audit finds clean."""
    await audited_ledger.build(postgres_dsn)
    return postgres_dsn


@pytest.fixture
async def backup(ledger_dsn, tmp_path):
    """A backup of it."""
    return Path((await make_backup(ledger_dsn, tmp_path / "backups", jobs=2, now=NOW)).path)


def restored_of(dsn):
    """A database that is not there."""
    return f"{dsn}_restored"


async def count(dsn, table):
    return (await execute(dsn, f"SELECT count(*) FROM arb.{table}"))[0]["count"]


@contextlib.asynccontextmanager
async def load(dsn):
    """Write balanced entries as fast as it goes, three at once; yield the ids as they commit."""
    committed = []
    is_under_way = asyncio.Event()

    async def write(name):
        connection = await asyncpg.connect(writer_of(dsn))
        number = 0
        try:
            while True:
                await connection.execute(WRITE, f"{name}-{number}")
                committed.append(f"{name}-{number}")
                number += 1
                if len(committed) >= 50:
                    is_under_way.set()
        finally:
            await connection.close()

    tasks = [asyncio.create_task(write(name)) for name in "abc"]
    try:
        await asyncio.wait_for(is_under_way.wait(), 30)
        yield committed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_backup_under_load_restores_to_one_moment_and_passes_the_audit(
    ledger_dsn, tmp_path
):
    async with load(ledger_dsn) as committed:
        before = set(committed)
        done = await make_backup(ledger_dsn, tmp_path, jobs=2)
        after = len(committed)
        assert after > len(before), "nothing was written meanwhile, so nothing was tested"
    restored = restored_of(ledger_dsn)
    await restore_backup(Path(done.path), restored, jobs=2)
    found = await verify_backup(Path(done.path), restored)
    assert found.flaws == ()
    assert found.audited == ("dev",)
    assert found.rows == done.rows > 0
    kept = {
        row["entry_id"]
        for row in await execute(restored, "SELECT entry_id FROM arb.entries WHERE env = 'load'")
    }
    assert before <= kept, "what had committed before it began is in it"
    assert len(kept) < await count(ledger_dsn, "entries")
    assert await count(restored, "postings") == done.manifest.tables["postings"].rows


async def test_a_restored_database_is_used_and_guarded_like_the_first(backup, ledger_dsn):
    restored = restored_of(ledger_dsn)
    await restore_backup(backup, restored, jobs=2)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await execute(restored, "DELETE FROM arb.postings")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="0 postings where 2"):
        await execute(
            restored,
            "INSERT INTO arb.entries (env, entry_id, kind, epoch, at_ns, posting_count, digest)"
            " VALUES ('dev', 'more', 'hold', 1, 0, 2, '')",
        )
    last = await execute(restored, "SELECT max(number) AS n FROM arb.reservation_outcomes")
    (added,) = await execute(
        restored,
        "INSERT INTO arb.reservation_outcomes"
        " (env, trade_id, symbol, epoch, kind, closed_ns, realized_usdt, content)"
        " VALUES ('dev', 'y', 'BTC', 1, 'voided', 0, 0, '{}') RETURNING number",
    )
    assert added["number"] > last[0]["n"], "numbers go on where they were"
    assert main(["db", "status", "--dsn", restored]) == 0


async def test_trading_goes_on_in_a_restored_database_by_the_writer(backup, ledger_dsn):
    """A new guard and new owners, the open session, the next trade number; the books stay clean."""
    restored = restored_of(ledger_dsn)
    await restore_backup(backup, restored, jobs=2)
    await asyncio.to_thread(make_roles, restored)
    pool = Postgres(writer_of(restored))
    before = await count(restored, "trades")
    try:
        world = LedgerWorld(pool, audited_ledger.ENV)
        await world.take_over()
        await world.resume()
        await world.live(PEPE_PERP, audited_ledger.A, 9)
        await world.snap()
    finally:
        await pool.close()
    assert await count(restored, "trades") == before + 1
    assert await count(restored, "sessions") == await count(ledger_dsn, "sessions")
    report = await audit(restored, Scope(audited_ledger.ENV, None))
    assert report.violations == 0


async def test_a_flipped_byte_is_found_and_not_restored(backup, ledger_dsn):
    manifest = read_manifest(backup)
    largest = max(manifest.files, key=lambda name: manifest.files[name].size_bytes)
    path = backup / "dump" / largest
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (flaw,) = (await verify_backup(backup, None)).flaws
    assert largest in flaw
    assert "damaged" in flaw
    with pytest.raises(BadInput, match=largest):
        await restore_backup(backup, restored_of(ledger_dsn), jobs=2)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await execute(restored_of(ledger_dsn), "SELECT 1")


async def test_a_missing_a_shorter_and_a_foreign_file_are_found(backup):
    manifest = read_manifest(backup)
    first, second, *_ = sorted(manifest.files)
    (backup / "dump" / first).unlink()
    os.truncate(backup / "dump" / second, 3)
    (backup / "dump" / "more").write_text("x")
    flaws = flaws_of_files(backup, manifest)
    assert flaws == [
        f"{first} is missing",
        "more is not in the manifest",
        f"{second} has 3 bytes, not {manifest.files[second].size_bytes}",
    ]


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (
            "INSERT INTO arb.topology (env, version, desired) VALUES ('dev', 3, '{}')",
            "table topology has 3 rows, not 2",
        ),
        (
            "UPDATE arb.sessions SET started_ns = started_ns + 1",
            "table sessions has other content than at the backup",
        ),
        ("DROP TABLE arb.tuning_results", "table tuning_results is missing"),
        ("CREATE TABLE arb.more (n int)", "table more is new"),
    ],
)
async def test_whatever_differs_from_the_backup_is_named(backup, ledger_dsn, change, flaw):
    assert (await verify_backup(backup, ledger_dsn)).flaws == ()
    connection = await asyncpg.connect(ledger_dsn)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(change)
    await connection.close()
    assert flaw in (await verify_backup(backup, ledger_dsn)).flaws


async def test_a_ledger_that_was_spoilt_before_the_backup_fails_the_audit(ledger_dsn, tmp_path):
    """Files and rows are as they were; what they say does not hold."""
    connection = await asyncpg.connect(ledger_dsn)
    await audited_ledger.plant_row(
        connection, "UPDATE postings SET amount = amount + 1 WHERE account = 'fees'"
    )
    await connection.close()
    done = await make_backup(ledger_dsn, tmp_path, jobs=2)
    found = await verify_backup(Path(done.path), ledger_dsn)
    assert found.flaws
    assert all("the audit of dev" in flaw for flaw in found.flaws)


async def test_a_database_that_is_not_empty_is_refused(backup, ledger_dsn, empty_dsn):
    with pytest.raises(BadInput, match="not empty"):
        await restore_backup(backup, ledger_dsn, jobs=2)
    await execute(empty_dsn, "CREATE TABLE public.mine (n int)")
    with pytest.raises(BadInput, match=r"it has public\.mine"):
        await restore_backup(backup, empty_dsn, jobs=2)


async def test_an_empty_database_that_is_there_is_taken(backup, empty_dsn):
    await restore_backup(backup, empty_dsn, jobs=1)
    assert (await verify_backup(backup, empty_dsn)).flaws == ()


async def test_only_the_newest_are_kept_and_only_ours_are_removed(ledger_dsn, tmp_path):
    (tmp_path / "other-20200101T000000Z.backup").mkdir()
    (tmp_path / "arb-notes.backup").mkdir()
    made = [
        await make_backup(ledger_dsn, tmp_path, jobs=2, keep=2, now=NOW + timedelta(days=day))
        for day in range(3)
    ]
    assert made[1].removed == ()
    assert made[2].removed == (Path(made[0].path).name,)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        [
            Path(made[1].path).name,
            Path(made[2].path).name,
            "arb-notes.backup",
            "other-20200101T000000Z.backup",
        ]
    )


async def test_a_backup_that_fails_leaves_nothing_and_removes_nothing(
    backup, ledger_dsn, tmp_path, monkeypatch
):
    monkeypatch.setattr(backups, "DUMP_TIMEOUT_S", 0.0)
    with pytest.raises(StoreUnavailable, match="pg_dump took over"):
        await make_backup(ledger_dsn, backup.parent, jobs=2, keep=1)
    assert [one.name for one in backup.parent.iterdir()] == [backup.name]


async def test_what_a_killed_backup_left_goes_with_the_next_and_one_under_way_stays(
    ledger_dsn, tmp_path
):
    database = ledger_dsn.rpartition("/")[2]
    left, written, other = (
        tmp_path / f"{name}-20200101T00000{n}Z.backup.part"
        for n, name in enumerate((database, database, "other"))
    )
    for folder in (left, written, other):
        (folder / "dump").mkdir(parents=True)
    (tmp_path / f"{database}-notes.backup.part").mkdir()
    with backups._locked(written) as is_ours:
        assert is_ours
        done = await make_backup(ledger_dsn, tmp_path, jobs=2, now=NOW)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        [written.name, other.name, f"{database}-notes.backup.part", Path(done.path).name]
    )


async def test_while_a_backup_is_written_its_folder_is_nobody_else_s(
    ledger_dsn, tmp_path, monkeypatch
):
    seen = []
    write = backups._write

    async def look(connection, programs, dsn, part, *rest):
        with backups._locked(part) as is_free:
            seen.append(is_free)
        return await write(connection, programs, dsn, part, *rest)

    monkeypatch.setattr(backups, "_write", look)
    await make_backup(ledger_dsn, tmp_path, jobs=2)
    assert seen == [False]


async def test_a_full_disk_is_told_with_its_file_and_leaves_nothing(
    ledger_dsn, tmp_path, monkeypatch
):
    def full(path, _text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(backups, "write_private", full)
    with pytest.raises(BadInput, match=r"manifest\.json: No space left on device\. Name a folder"):
        await make_backup(ledger_dsn, tmp_path, jobs=2)
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_gives_a_file_no_more_is_told_with_its_file(backup, monkeypatch):
    def broken(file):
        raise OSError(errno.EIO, "Input/output error", str(file))

    monkeypatch.setattr(backups, "_sum_of", broken)
    with pytest.raises(BadInput, match=r"dump/.*: Input/output error\. Use another backup"):
        await verify_backup(backup, None)


async def test_a_wire_that_breaks_is_no_fault_of_the_folder(ledger_dsn, tmp_path, monkeypatch):
    async def breaks(*_):
        raise ConnectionResetError("the server went away")

    monkeypatch.setattr(backups, "_tables", breaks)
    with pytest.raises(StoreUnavailable, match="the server went away"):
        await make_backup(ledger_dsn, tmp_path, jobs=2)


async def test_a_dump_that_cannot_be_listed_in_time_is_told(backup, monkeypatch):
    monkeypatch.setattr(pg_programs, "CONTENTS_TIMEOUT_S", 0.0)
    with pytest.raises(BadInput, match="did not list it within 0 s"):
        await pg_programs.contents_of(await find_programs(10), backup / "dump")


async def test_a_backup_is_for_its_owner_only(backup):
    for path in (backup, backup / "manifest.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_an_older_pg_dump_is_not_used_and_the_remedy_names_the_package(monkeypatch):
    found = await find_programs(10)
    assert found.major >= 10
    with pytest.raises(BadInput, match="apt-get install postgresql-client-99"):
        await find_programs(99)
    monkeypatch.setattr(pg_programs, "_folders", lambda: iter([Path("/nowhere")]))
    with pytest.raises(BadInput, match="neither is on the PATH"):
        await find_programs(10)


async def test_a_password_is_no_argument(ledger_dsn):
    login, environ = pg_programs._login(ledger_dsn)
    assert environ["PGPASSWORD"]
    assert environ["PGPASSWORD"] not in login


@pytest.mark.parametrize("spoilt", ["{", '{"schema": 9}'])
async def test_a_manifest_that_cannot_be_read_is_said_plainly(backup, spoilt):
    (backup / "manifest.json").write_text(spoilt)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        await verify_backup(backup, None)
    shutil.rmtree(backup)
    with pytest.raises(BadInput, match="it is no backup"):
        await verify_backup(backup, None)


def test_the_commands_back_up_restore_and_verify(ledger_dsn, tmp_path, capsys, monkeypatch):
    read, flaws = [], backup_restore.flaws_of_files
    there = ["--dsn", ledger_dsn]
    assert main(["db", "backup", *there, "--to", str(tmp_path), "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["path"]
    restored = ["--from", path, "--dsn", restored_of(ledger_dsn)]
    assert main(["db", "verify", "--from", path]) == 0
    monkeypatch.setattr(
        backup_restore, "flaws_of_files", lambda *told: read.append(told[0]) or flaws(*told)
    )
    assert main(["db", "restore", *restored]) == 0
    assert read == [Path(path)], "each file is read and summed up once"
    assert "All equal." in capsys.readouterr().out
    assert main(["db", "restore", *restored]) == 3
    assert "not empty" in capsys.readouterr().err
    assert main(["db", "verify", *restored, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flaws"] == []
    (first, *_) = sorted((Path(path) / "dump").iterdir())
    first.unlink()
    assert main(["db", "verify", *restored]) == 1
    assert "is missing" in capsys.readouterr().out
    assert main(["db", "backup", *there]) == 2
    assert main(["db", "backup", *there, "--to", str(tmp_path), "--keep", "0"]) == 2
    away = "postgresql://arb:x@127.0.0.1:1/arb"
    assert main(["db", "backup", "--dsn", away, "--to", str(tmp_path)]) == 3


def test_the_script_of_the_night_backs_up_looks_and_rotates(ledger_dsn, tmp_path):
    """What cron runs: twice, with room for one, and another database's backup beside it."""
    folder = tmp_path / "backups"
    other = folder / "zzz-20260101T000000Z.backup"
    other.mkdir(parents=True)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "BACKUP_DIR": str(folder),
        "BACKUP_KEEP_COUNT": "1",
        "ARCHIVE_DIR": str(tmp_path / "archive"),
        "ARB_ENV": "dev",
        "DSN": ledger_dsn,
    }

    def run():
        return subprocess.run(
            ["sh", SCRIPT], check=False, env=environ, capture_output=True, text=True, timeout=120
        )

    done = run()
    assert done.returncode == 0, done.stderr
    (first,) = set(folder.glob("*.backup")) - {other}
    assert f"{first}: " in done.stdout
    assert "All equal." in done.stdout
    assert "months of snapshots" in done.stdout
    time.sleep(1.1)  # a backup is named by its second
    done = run()
    assert done.returncode == 0, done.stderr
    (second,) = set(folder.glob("*.backup")) - {other}
    assert first.name < second.name
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run().returncode == 3
    environ["DSN"] = "postgresql://arb:x@127.0.0.1:1/arb"
    assert run().returncode == 3
    assert set(folder.glob("*.backup")) == {second, other}
