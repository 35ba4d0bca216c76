"""The embedded servers: their data, their port, their folder, and their end."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from arb_ray.adapters.storage import embedded_postgres, process
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey
from arb_ray.domain.errors import BadInput
from tests.integration.conftest import execute

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def seed_folder(tmp_path_factory):
    """An initialised PostgreSQL folder to copy, because initdb takes half a second."""
    folder = tmp_path_factory.mktemp("seed") / "pg"

    async def make():
        async with EmbeddedPostgres(folder) as pg:
            await execute(pg.dsn, "CREATE TABLE kept (n int)")

    asyncio.run(make())
    return folder


@pytest.fixture
def pg_folder(seed_folder, tmp_path):
    folder = tmp_path / "pg"
    shutil.copytree(seed_folder, folder)
    return folder


def kept_port(folder, name):
    return json.loads((folder / f"{name}.server.json").read_text())["port"]


def wait_until_gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


async def test_postgres_kept_its_data_and_port_over_a_kill(pg_folder):
    async with EmbeddedPostgres(pg_folder) as pg:
        port = pg.port
        await execute(pg.dsn, "INSERT INTO kept VALUES (1)")
        os.kill(pg.pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
    assert (pg_folder / "pgdata" / "postmaster.pid").exists(), "the test must leave a stale file"

    async with EmbeddedPostgres(pg_folder) as pg:
        assert pg.port == port
        assert [row["n"] for row in await execute(pg.dsn, "SELECT n FROM kept")] == [1]
        assert (await execute(pg.dsn, "SHOW fsync"))[0]["fsync"] == "on"


async def test_a_stale_pid_file_that_names_a_living_stranger_does_not_stop_the_start(pg_folder):
    stranger = psutil.Popen(["sleep", "60"])
    try:
        pid_file = pg_folder / "pgdata" / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{pg_folder}/pgdata\n1\n5432\n\n\n0 0\nready\n")
        kept = json.dumps({"port": process.free_port(), "pid": stranger.pid})
        (pg_folder / "postgres.server.json").write_text(kept)
        async with EmbeddedPostgres(pg_folder) as pg:
            assert pg.pid
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_second_owner_of_the_folder_is_refused(pg_folder):
    async with EmbeddedPostgres(pg_folder):
        with pytest.raises(BadInput, match="another run uses this data folder"):
            await EmbeddedPostgres(pg_folder).__aenter__()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
async def test_an_occupied_port_is_refused_when_named_and_replaced_when_chosen(
    kind, pg_folder, tmp_path
):
    folder = pg_folder if kind is EmbeddedPostgres else tmp_path / "valkey"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port}: .*occupied"):
            await kind(folder, port).__aenter__()

        folder.mkdir(exist_ok=True)
        (folder / f"{kind.name}.server.json").write_text(json.dumps({"port": port}))
        async with kind(folder) as server:
            assert server.port != port
            assert kept_port(folder, kind.name) == server.port


async def test_a_folder_of_another_major_version_is_refused(pg_folder):
    (pg_folder / "pgdata" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(BadInput, match=r"holds data of PostgreSQL 9\.6, this is PostgreSQL 17"):
        await EmbeddedPostgres(pg_folder).__aenter__()


async def test_a_lost_or_wrong_password_is_said(pg_folder):
    password = pg_folder / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    password.write_text("wrong")
    with pytest.raises(BadInput, match="does not take this password"):
        await EmbeddedPostgres(pg_folder).__aenter__()
    password.unlink()
    with pytest.raises(BadInput, match="password is missing"):
        await EmbeddedPostgres(pg_folder).__aenter__()


async def test_the_database_asks_for_the_password(pg_folder):
    async with EmbeddedPostgres(pg_folder) as pg:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(pg.dsn, password="guess")


async def test_a_long_path_with_spaces_works_after_a_cut_initialisation(tmp_path):
    folder = tmp_path / ("a folder with spaces " * 8) / "pg"
    (folder / "pgdata.new" / "base").mkdir(parents=True)
    async with EmbeddedPostgres(folder) as pg:
        assert len(str(folder)) > 180
        assert await execute(pg.dsn, "SELECT 1")
    assert not (folder / "pgdata.new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to drop privileges")
async def test_where_user_namespaces_are_refused_root_drops_to_another_user(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_postgres, "in_user_namespace", lambda: None)
    folder = Path("/var/tmp") / f"arb_ray-test-{os.getpid()}"
    try:
        async with EmbeddedPostgres(folder / "pg") as pg:
            assert psutil.Process(pg.pid).uids().real == process.NOBODY
            assert (folder / "pg" / "pgdata").stat().st_uid == process.NOBODY
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(BadInput, match="PostgreSQL does not run as root"):
        await EmbeddedPostgres(closed / "pg").__aenter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")
async def test_in_the_closed_home_of_another_user_that_user_runs_the_server(tmp_path):
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        parent.chmod(0o711)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 1, 1)
    async with EmbeddedPostgres(home / "data" / "pg") as pg:
        assert psutil.Process(pg.pid).uids().real == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to drop privileges")
async def test_programs_that_the_other_user_cannot_reach_are_copied(tmp_path, monkeypatch):
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    monkeypatch.setattr(embedded_postgres, "in_user_namespace", lambda: None)
    binaries = embedded_postgres.find_binaries()
    shutil.copytree(binaries.parent, hidden / "pginstall", symlinks=True)
    monkeypatch.setattr(embedded_postgres, "find_binaries", lambda: hidden / "pginstall" / "bin")
    folder = Path("/var/tmp") / f"arb_ray-test-{os.getpid()}"
    copies = folder / "copies"
    monkeypatch.setattr(embedded_postgres, "COPIES", copies)
    copies.mkdir(parents=True)
    try:
        async with EmbeddedPostgres(folder / "pg") as pg:
            assert psutil.Process(pg.pid).exe().startswith(str(copies))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


OWNER = """
    import asyncio, sys
    from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
    from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey

    async def main(folder, die):
        async with (
            EmbeddedPostgres(folder + "/pg", die_with_parent=die) as pg,
            EmbeddedValkey(folder + "/valkey", die_with_parent=die) as valkey,
        ):
            print(pg.pid, valkey.pid, flush=True)
            await asyncio.sleep(60)

    asyncio.run(main(sys.argv[1], sys.argv[2] == "die"))
"""


@pytest.mark.parametrize("die", ["die", "stay"])
async def test_servers_end_with_a_killed_owner_only_when_asked_to(pg_folder, tmp_path, die):
    owner = psutil.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path), die],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    pids = [int(word) for word in owner.stdout.readline().split()]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    try:
        if die == "die":
            async with EmbeddedPostgres(pg_folder):  # at once, while the old one shuts down
                pass
            for pid in pids:
                wait_until_gone(pid)
        else:
            await asyncio.sleep(0.3)
            assert all(psutil.pid_exists(pid) for pid in pids)
            with pytest.raises(BadInput, match="postgres still runs there"):
                await EmbeddedPostgres(pg_folder, die_with_parent=False).__aenter__()
    finally:
        for pid in filter(psutil.pid_exists, pids):
            os.kill(pid, signal.SIGKILL)
            wait_until_gone(pid)


async def test_valkey_keeps_its_data_and_asks_for_its_password(tmp_path):
    password = 'quoted "word" \\ and @:/'
    folder = tmp_path / "with space"
    async with EmbeddedValkey(folder, password=password) as valkey:
        client = redis.asyncio.Redis.from_url(valkey.url)
        await client.set("k", "v")
        assert (await client.config_get("appendonly", "appendfsync")) == {
            "appendonly": "yes",
            "appendfsync": "everysec",
        }
        await client.aclose()
        stranger = redis.asyncio.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.exceptions.AuthenticationError):
            await stranger.get("k")
        await stranger.aclose()
        command = " ".join(psutil.Process(valkey.pid).cmdline())
        assert "quoted" not in command
    async with EmbeddedValkey(folder, password=password) as valkey:
        client = redis.asyncio.Redis.from_url(valkey.url)
        assert await client.get("k") == b"v"
        await client.aclose()


async def test_nothing_listens_beyond_loopback(pg_folder, tmp_path):
    async with EmbeddedPostgres(pg_folder) as pg, EmbeddedValkey(tmp_path / "v") as valkey:
        for pid in (pg.pid, valkey.pid):
            sockets = psutil.Process(pid).net_connections("all")
            listening = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN]
            assert [address.ip for address in listening] == ["127.0.0.1"]
            assert not [s for s in sockets if s.family == socket.AF_UNIX and s.laddr]


async def test_a_cancelled_start_leaves_nothing_running(pg_folder):
    server = EmbeddedPostgres(pg_folder)
    start = asyncio.create_task(server.__aenter__())
    async with asyncio.timeout(10):
        while not server.pid:  # noqa: ASYNC110 - the start has no event to wait for
            await asyncio.sleep(0)
    pid = server.pid
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    wait_until_gone(pid)
    async with EmbeddedPostgres(pg_folder) as again:
        assert again.pid


def test_a_free_port_is_none_that_ray_or_the_kernel_hands_out_and_no_two_are_equal():
    ports = [process.free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert all(20_000 <= port < 32_768 for port in ports)


def test_a_port_that_is_taken_is_not_called_free(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(process, "PORTS", (port, port + 1))
        monkeypatch.setattr(process, "_given", set())
        assert process.free_port() == port + 1
