"""The doctor asks real servers: there, away, outdated, and not who they should be."""

import asyncio

import pytest
import redis.asyncio

from arb_ray.adapters.storage import migrate
from arb_ray.app import doctor_ray, doctor_services
from arb_ray.app.doctor import Verdict, examine
from tests.integration.conftest import writer_of

AWAY = "postgresql://arb:x@127.0.0.1:1/arb"


def by_name(checks):
    return {check.name: check for check in checks}


async def test_a_database_that_is_current_is_well(postgres_dsn):
    checks = await doctor_services.postgres(writer_of(postgres_dsn))
    assert {check.verdict for check in checks} == {Verdict.OK}
    assert list(by_name(checks)) == ["postgresql", "clock", "schema", "role"]


async def test_a_run_as_the_owner_of_the_schema_is_warned_about(postgres_dsn):
    role = by_name(await doctor_services.postgres(postgres_dsn))["role"]
    assert role.verdict is Verdict.WARN
    assert "may alter the schema" in role.words
    assert "arb-ray db roles" in role.remedy


async def test_a_schema_that_is_behind_fails_with_the_command_that_mends_it(empty_dsn):
    schema = by_name(await doctor_services.postgres(empty_dsn))["schema"]
    assert (schema.verdict, schema.remedy) == (Verdict.FAIL, "arb-ray db migrate")
    await asyncio.to_thread(migrate.apply, empty_dsn)
    assert by_name(await doctor_services.postgres(empty_dsn))["schema"].verdict is Verdict.OK


async def test_a_database_that_is_away_is_one_failed_check():
    (check,) = await doctor_services.postgres(AWAY)
    assert (check.name, check.verdict) == ("postgresql", Verdict.FAIL)


async def test_redis_is_asked_what_it_does_when_it_is_full(redis_url):
    client = redis.asyncio.Redis.from_url(redis_url)
    before = (await client.config_get("maxmemory-policy"))["maxmemory-policy"]
    try:
        for policy, verdict in (
            ("volatile-ttl", Verdict.OK),
            ("noeviction", Verdict.WARN),
            ("allkeys-lru", Verdict.WARN),
        ):
            await client.config_set("maxmemory-policy", policy)
            check = await doctor_services.redis_server(redis_url)
            assert check.verdict is verdict
            assert policy in check.words
    finally:
        await client.config_set("maxmemory-policy", before)
        await client.aclose()
    check = await doctor_services.redis_server("redis://127.0.0.1:1/0")
    assert check.verdict is Verdict.FAIL


async def serve(reply):
    """A server that answers every request with ``reply``; its requests are noted."""
    asked = []

    async def answer(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def http(status, body):
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, '{"ray_version": "2.60.0"}', Verdict.OK),
        (200, "<html>", Verdict.FAIL),
        (401, "{}", Verdict.FAIL),
        (302, "{}", Verdict.FAIL),
    ],
)
async def test_a_dashboard_is_known_by_its_answer(tmp_path, status, body, verdict):
    token = tmp_path / "token"
    token.write_text("secret-of-ray\n")
    server, address, asked = await serve(http(status, body))
    environ = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    async with server:
        check = await doctor_ray.reachable(f"http://{address}", environ)
        assert check.verdict is verdict
        assert "Authorization: Bearer secret-of-ray" in asked[0]
        await doctor_ray.reachable(f"http://{address}", {})
        assert "Authorization" not in asked[1]
        assert (await doctor_ray.reachable(address, {})).verdict is Verdict.OK
    assert (await doctor_ray.reachable(f"http://{address}", {})).verdict is Verdict.FAIL
    assert (await doctor_ray.reachable(address, {})).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, Verdict.OK), (404, Verdict.OK), (451, Verdict.WARN), (503, Verdict.WARN)],
)
async def test_an_exchange_only_warns(status, verdict):
    server, address, _ = await serve(http(status, "{}"))
    async with server:
        assert (await doctor_services.exchange("upbit", f"http://{address}/x")).verdict is verdict
    assert (await doctor_services.exchange("upbit", f"http://{address}/x")).verdict is Verdict.WARN


async def test_a_whole_examination_of_this_machine(tmp_path, postgres_dsn, redis_url):
    found = await asyncio.to_thread(examine, "dev", {"session.data_dir": str(tmp_path)}, environ={})
    names = set(by_name(found))
    assert {
        "python",
        "package",
        "config",
        "secret",
        "data folder",
        "disk",
        "shared memory",
    } <= names
    assert {"ray address", "ray token", "postgresql", "redis", "open files"} <= names
    assert all(check.words for check in found)
    assert all(check.remedy for check in found if check.verdict is not Verdict.OK)
