"""The stability checks pass on this system, and each falls where what it looks for is broken."""

import asyncio
import contextlib
import json

import pytest
import redis.asyncio

from arb_ray.adapters.storage import redis_state, snapshot_store
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.transport.backoff import Backoff
from arb_ray.app.settings import load_settings
from arb_ray.app.stability import run
from arb_ray.app.stability import snapshots as snapshot_checks
from arb_ray.app.stability.check import Check, Result, carry_out, require
from arb_ray.app.stability.guard import GuardChecks
from arb_ray.app.stability.redis_server import RedisChecks
from arb_ray.app.stability.run import Servers, servers_of, stability
from arb_ray.app.stability.snapshots import SnapshotChecks
from arb_ray.app.stability.sockets import CHECKS
from arb_ray.cli import main
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.engine.risk import RiskBook
from tests.integration.conftest import execute

NAMES = (
    "websocket: maximum backoff",
    "websocket: counter reset",
    "websocket: resubscription",
    "redis: fallback timing",
    "redis: key consistency",
    "snapshot: missing key",
    "snapshot: wrong session",
    "snapshot: too many orders",
    "snapshot: flipped bytes",
    "snapshot: truncated",
    "restart: no duplicate entry",
    "restart: daily limit",
    "restart: state by symbol",
)


@pytest.fixture
async def owner(shared_dsn):
    """Who may damage a snapshot: not the writer."""
    pool = Postgres(shared_dsn)
    yield pool
    await pool.close()


async def databases(dsn):
    rows = await execute(dsn, "SELECT datname FROM pg_database ORDER BY datname")
    return [row["datname"] for row in rows]


async def test_on_configured_servers_all_pass_and_nothing_is_left_behind(
    embedded_postgres, embedded_valkey, redis_url, monkeypatch, capsys
):
    """As an operator runs it: the settings name the servers, and a session lives on them."""
    for name, value in {
        "POSTGRES__HOST": "127.0.0.1",
        "POSTGRES__PORT": embedded_postgres.port,
        "POSTGRES__USER": "arb",
        "POSTGRES__PASSWORD": embedded_postgres.password,
        "REDIS__HOST": "127.0.0.1",
        "REDIS__PORT": embedded_valkey.port,
        "REDIS__USER": "operator",
        "REDIS__PASSWORD": "of-a-test",
    }.items():
        monkeypatch.setenv(f"ARB_{name}", str(value))
    client = redis.asyncio.Redis.from_url(redis_url)
    await client.execute_command("ACL SETUSER operator on >of-a-test ~* &* +@all")
    await client.set("arb:v1:prod:state:s1:session", b"live")
    before = await databases(embedded_postgres.dsn)
    code = await asyncio.to_thread(main.main, ("stability", "--env", "prod", "--json"))
    told = json.loads(capsys.readouterr().out)
    results = [(one["name"], one["is_passed"]) for one in told["checks"]]
    assert results == [(name, True) for name in NAMES], told
    assert (code, told["failed"], told["env"]) == (0, 0, "prod")
    assert await databases(embedded_postgres.dsn) == before
    assert await client.keys("*") == [b"arb:v1:prod:state:s1:session"]
    assert await client.get("arb:v1:prod:state:s1:session") == b"live"
    await client.acl_deluser("operator")
    await client.aclose()


async def test_a_failed_check_is_told_and_exits_with_1(monkeypatch, capsys):
    @contextlib.asynccontextmanager
    async def nowhere(_settings, _dsn):
        yield Servers("", "")

    async def one_failed(_servers, tell):
        results = [Result("a", True, "fine", 1), Result("b", False, "it was green", 2)]
        for result in results:
            tell(result)
        return results

    monkeypatch.setattr(run, "servers_of", nowhere)
    monkeypatch.setattr(run, "stability", one_failed)
    assert await asyncio.to_thread(main.main, ("stability",)) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("ok    a ")
    assert told[1].startswith("FAIL  b ")
    assert told[1].endswith("it was green")
    assert told[2] == "2 checks: 1 failed"


async def test_embedded_servers_are_brought_along_where_none_is_configured():
    async with servers_of(load_settings("dev", environ={}), None) as servers:
        assert await databases(servers.postgres)
        client = redis.asyncio.Redis.from_url(servers.redis)
        assert await client.ping()
        await client.aclose()


async def test_servers_that_are_named_are_used():
    changes = {"postgres.embedded": False, "postgres.host": "db", "redis.embedded": False}
    settings = load_settings("dev", changes, environ={})
    async with servers_of(settings, None) as servers:
        assert "@db:" in servers.postgres
        assert servers.redis.startswith("redis://")
    async with servers_of(settings, "postgresql://owner@other/arb") as servers:
        assert servers.postgres == "postgresql://owner@other/arb"


async def test_a_server_that_is_away_or_refuses_is_told(postgres_dsn, embedded_postgres):
    with pytest.raises(StoreUnavailable):
        await stability(Servers("postgresql://arb:x@127.0.0.1:1/arb", ""), lambda _: None)
    await execute(postgres_dsn, "CREATE ROLE weak LOGIN PASSWORD 'weak-password'")
    own = embedded_postgres.dsn.split("@")[1]
    with pytest.raises(BadInput, match="CREATEDB"):
        await stability(Servers(f"postgresql://weak:weak-password@{own}", ""), lambda _: None)
    await execute(postgres_dsn, "DROP ROLE weak")


async def test_a_check_that_fails_or_meets_a_server_that_is_away_has_failed():
    async def fails():
        require(False, "it was green")

    async def is_away():
        raise StoreUnavailable("redis", "gone")

    failed = await carry_out(Check("a", fails))
    assert (failed.is_passed, failed.words) == (False, "it was green")
    away = await carry_out(Check("b", is_away))
    assert not away.is_passed
    assert "gone" in away.words


async def verdict(checks, name):
    (check,) = (check for check in checks if check.name == name)
    return (await carry_out(check)).is_passed


# -- each falls where what it looks for is broken -------------------------------------------------


async def test_a_backoff_that_grows_for_ever_is_found(monkeypatch):
    def failed(self):
        self.failures += 1
        return 0.02 * 2**self.failures

    monkeypatch.setattr(Backoff, "failed", failed)
    assert not await verdict(CHECKS, NAMES[0])


async def test_a_counter_that_is_never_reset_is_found(monkeypatch):
    monkeypatch.setattr(Backoff, "reset", lambda self: None)
    assert not await verdict(CHECKS, NAMES[1])


async def test_a_redis_that_is_given_up_too_soon_is_found(monkeypatch, redis_url, env):
    real = redis_state.RedisStateStore.__init__
    monkeypatch.setattr(
        redis_state.RedisStateStore,
        "__init__",
        lambda self, *said, **named: real(self, *said, **named, failures_to_fallback=2),
    )
    assert not await verdict(RedisChecks(redis_url, env).checks(), NAMES[3])


async def test_a_return_without_republishing_is_found(monkeypatch, redis_url, env):
    async def nothing(self):
        return None

    monkeypatch.setattr(redis_state.RedisStateStore, "_republish", nothing)
    assert not await verdict(RedisChecks(redis_url, env).checks(), NAMES[3])


async def test_keys_without_an_end_are_found(monkeypatch, redis_url, env):
    async def write(self, items):
        for key, _, value in items:
            await self._client.set(key, value)

    monkeypatch.setattr(redis_state.RedisStateStore, "_write", write)
    assert not await verdict(RedisChecks(redis_url, env).checks(), NAMES[4])


@pytest.mark.parametrize("name", NAMES[5:8])
async def test_a_judge_that_believes_everything_is_found(monkeypatch, owner, env, name):
    monkeypatch.setattr(snapshot_checks, "damage", lambda *_: "")
    assert not await verdict(SnapshotChecks(owner, env).checks(), name)


@pytest.mark.parametrize("name", NAMES[8:10])
async def test_a_store_that_checks_no_checksum_is_found(monkeypatch, owner, env, name):
    monkeypatch.setattr(snapshot_checks, "damage", lambda *_: "")
    real = snapshot_store._read

    def read(text, _crc32):
        return real(text, snapshot_store.zlib.crc32(text.encode()))

    monkeypatch.setattr(snapshot_store, "_read", read)
    passed = await verdict(SnapshotChecks(owner, env).checks(), name)
    # What is cut off is no object any more: that alone is found too.
    assert passed is (name == NAMES[9])


async def guard_verdict(dsn, env, name):
    postgres = Postgres(dsn)
    try:
        return await verdict(GuardChecks(postgres, env).checks(), name)
    finally:
        await postgres.close()


async def test_a_guard_that_forgets_open_trades_is_found(monkeypatch, postgres_dsn, env):
    monkeypatch.setattr(RiskBook, "_objection_to_asker", lambda *_: None)
    assert not await guard_verdict(postgres_dsn, env, NAMES[10])


async def test_a_guard_that_forgets_the_day_s_loss_is_found(monkeypatch, postgres_dsn, env):
    monkeypatch.setattr(RiskBook, "_objection_to_loss", lambda *_: None)
    assert not await guard_verdict(postgres_dsn, env, NAMES[11])
    assert not await guard_verdict(postgres_dsn, f"{env}-2", NAMES[12])
