"""The backup's script against a real PostgreSQL: dumps, rotation, health, restore."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from arb_ray.adapters.storage.embedded_postgres import find_binaries
from tests.integration.conftest import execute

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "backup" / "backup.sh"
OLD = ["arb-20260101T000000Z.dump", "arb-20260102T000000Z.dump", "arb-20260103T000000Z.dump"]


@pytest.fixture
def backup(postgres_dsn, embedded_postgres, tmp_path):
    """The script with a database of its own and room for two dumps."""
    folder = tmp_path / "backups"
    folder.mkdir()
    password = tmp_path / "password"
    password.write_text(f"{embedded_postgres.password}\n")
    database = postgres_dsn.rpartition("/")[2].partition("?")[0]
    environ = {
        "PATH": f"{find_binaries()}:/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(embedded_postgres.port),
        "PGUSER": "arb",
        "PGDATABASE": database,
        "PASSWORD_FILE": str(password),
        "BACKUP_DIR": str(folder),
        "BACKUP_INTERVAL_S": "60",
        "BACKUP_KEEP_COUNT": "2",
    }

    def run(*arguments, **more):
        return subprocess.run(
            ["sh", SCRIPT, *arguments],
            check=False,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def names():
        return sorted(path.name for path in folder.iterdir())

    return SimpleNamespace(run=run, folder=folder, names=names, database=database)


def make_old(backup):
    for name in OLD:
        (backup.folder / name).write_text("old")


def test_a_backup_keeps_the_newest_and_no_more(backup):
    make_old(backup)
    done = backup.run("once")
    assert done.returncode == 0, done.stderr
    kept = backup.names()
    assert len(kept) == 2
    assert OLD[-1] in kept


def test_a_dump_that_failed_leaves_nothing_and_removes_nothing(backup):
    make_old(backup)
    done = backup.run("once", PGDATABASE="no_such_database")
    assert done.returncode == 1
    assert "the dump of no_such_database" in done.stderr
    assert backup.names() == OLD


def test_a_backup_is_healthy_while_its_newest_dump_is_young(backup):
    assert backup.run("health").returncode == 1
    assert backup.run("once").returncode == 0
    assert backup.run("health").returncode == 0
    for path in backup.folder.iterdir():
        os.utime(path, (0, 0))
    assert backup.run("health").returncode == 1


@pytest.mark.parametrize("wrong", [{"BACKUP_KEEP_COUNT": "0"}, {"BACKUP_INTERVAL_S": "6h"}])
def test_a_backup_that_would_keep_nothing_is_refused(backup, wrong):
    assert backup.run("once", **wrong).returncode == 2
    assert backup.names() == []


async def test_what_was_dumped_is_there_again_after_a_restore(backup, postgres_dsn):
    await execute(postgres_dsn, "INSERT INTO arb.trade_numbers VALUES ('prod', 'BTC', 7)")
    assert backup.run("once").returncode == 0
    (dump,) = backup.folder.iterdir()
    restored = f"{backup.database}_restored"
    done = backup.run("restore", str(dump), restored)
    assert done.returncode == 0, done.stderr
    there = postgres_dsn.replace(f"/{backup.database}", f"/{restored}")
    with pytest.raises(asyncpg.UniqueViolationError, match="trade_numbers_pkey"):
        await execute(there, "INSERT INTO arb.trade_numbers VALUES ('prod', 'BTC', 8)")


def test_a_restore_goes_over_no_database_that_exists(backup):
    assert backup.run("once").returncode == 0
    (dump,) = backup.folder.iterdir()
    done = backup.run("restore", str(dump), backup.database)
    assert done.returncode == 1
    assert "already exists" in done.stderr


def test_the_password_is_not_told(backup, embedded_postgres):
    done = backup.run("once")
    assert embedded_postgres.password not in done.stdout + done.stderr
