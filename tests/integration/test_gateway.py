"""The gateway over real HTTP."""

import asyncio
import socket

import aiohttp
import pytest

from arb_ray.actors.gateway import Gateway
from arb_ray.domain.errors import OutcomeUnknown
from tests.shell_world import Ends, Log
from tests.status_examples import persistence, status


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
async def served():
    """A serving gateway, its answers, and a client."""
    told = {"answer": status()}

    async def ask(method):
        assert method == "status"
        if isinstance(told["answer"], Exception):
            raise told["answer"]
        return told["answer"]

    port, ends = free_port(), Ends()
    gateway = Gateway(host="127.0.0.1", port=port, ask_supervisor=ask, log=Log(), loops=ends.loops)
    gateway.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        for _ in range(500):
            try:
                (await client.get("/ready")).close()
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
        yield told, client, gateway
    await gateway.stop()
    assert ends.ended == []


async def fetch(client, path):
    async with client.get(path) as reply:
        return reply.status, await reply.json()


async def test_probes_and_people_are_answered(served):
    _, client, gateway = served
    assert await fetch(client, "/health") == (200, {"healthy": True, "problems": []})
    assert await fetch(client, "/ready") == (200, {"ready": True, "problems": []})
    code, told = await fetch(client, "/status")
    assert code == 200
    assert told["risk"]["daily_limit_usdt"] == "200"
    assert isinstance(next(iter(told["hosts"].values()))["realized_usdt"], str)
    assert (await gateway.status())["ready"]
    assert (await fetch_code(client, "/nothing")) == 404


async def fetch_code(client, path):
    async with client.get(path) as reply:
        return reply.status


async def test_trouble_is_a_503_with_its_reason(served):
    told, client, _ = served
    told["answer"] = status(persistence=persistence(postgres="down"))
    code, body = await fetch(client, "/health")
    assert code == 503
    assert "PostgreSQL" in body["problems"][0]
    assert (await fetch(client, "/ready"))[0] == 200
    told["answer"] = OutcomeUnknown("supervisor.status", 5)
    for path in ("/health", "/ready", "/status"):
        assert (await fetch(client, path))[0] == 503


async def test_after_the_stop_nobody_answers(served):
    _, client, gateway = served
    await gateway.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get("/health")
