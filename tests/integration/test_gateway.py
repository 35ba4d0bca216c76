"""The gateway over real HTTP: what it tells, and what an operator can do by the commands."""

import asyncio
import json
import socket

import aiohttp
import msgspec
import pytest
from pydantic import SecretStr

from arb_ray.actors.gateway import Gateway
from arb_ray.actors.gateway_actions import BODY_BYTES_MAX, Actions
from arb_ray.cli import main
from arb_ray.domain.errors import BadInput, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.risk_intent import RiskStatus
from tests.shell_world import Ends, Log
from tests.status_examples import persistence, risk, status

TOKEN = "a-token-of-this-test-only"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Served:
    """A serving gateway, what it is told, and a client."""

    def __init__(self, token=TOKEN):
        self.answer, self.risk = status(), risk()
        self.commands, self.outcome = [], None
        self.port, self.ends, self.log = free_port(), Ends(), Log()
        self.url = f"http://127.0.0.1:{self.port}"
        secret = SecretStr(token) if token else None
        self.gateway = Gateway(
            host="127.0.0.1",
            port=self.port,
            ask_supervisor=self._ask_supervisor,
            ask_guard=self._ask_guard,
            actions=Actions(self._command, secret, self.log),
            metrics_page=lambda: asyncio.sleep(0, b"arb_x 1.0\n"),
            log=self.log,
            loops=self.ends.loops,
        )

    async def _ask_supervisor(self, method):
        assert method == "status"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def _ask_guard(self, method):
        return self.risk

    async def _command(self, *said):
        self.commands.append(said)
        if self.outcome is not None:
            raise self.outcome
        told = self.risk | {"state": "halted", "reason": said[1], "actor": said[2]}
        return msgspec.convert(told, RiskStatus, strict=False)

    async def __aenter__(self):
        self.gateway.start()
        self.client = aiohttp.ClientSession(self.url)
        for _ in range(500):
            try:
                (await self.client.get("/ready")).close()
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        await self.gateway.stop()
        assert self.ends.ended == []

    async def get(self, path):
        async with self.client.get(path) as reply:
            return reply.status, await reply.json()

    async def post(self, path, body=None, headers=BEARER, data=None):
        data = json.dumps(body or {}).encode() if data is None else data
        async with self.client.post(path, data=data, headers=headers) as reply:
            return reply.status, await reply.json()


@pytest.fixture
async def served():
    async with Served() as one:
        yield one


async def test_probes_and_people_are_answered(served):
    well = {"problems": [], "warnings": []}
    assert await served.get("/health") == (200, {"healthy": True, **well})
    assert await served.get("/ready") == (200, {"ready": True, **well})
    code, told = await served.get("/status")
    assert code == 200
    assert told["risk"]["daily_limit_usdt"] == "200"
    assert told["health"]["healthy"]
    assert isinstance(next(iter(told["hosts"].values()))["realized_usdt"], str)
    assert (await served.gateway.status())["ready"]
    async with served.client.get("/nothing") as reply:
        assert reply.status == 404
    async with served.client.get("/metrics") as reply:
        assert (reply.status, await reply.read()) == (200, b"arb_x 1.0\n")
        assert reply.headers["Content-Type"].startswith("text/plain")


async def test_trouble_is_a_503_with_its_reason(served):
    served.answer = status(persistence=persistence(postgres="down"))
    code, body = await served.get("/health")
    assert code == 503
    assert "PostgreSQL" in body["problems"][0]
    assert (await served.get("/ready"))[0] == 200
    served.answer = OutcomeUnknown("supervisor.status", 5)
    for path in ("/health", "/ready", "/status"):
        assert (await served.get(path))[0] == 503


async def test_after_the_stop_nobody_answers(served):
    await served.gateway.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await served.client.get("/health")


async def test_an_action_reaches_the_guard_and_answers_with_its_state(served):
    served.answer = OutcomeUnknown("supervisor.status", 5)  # who is not asked
    code, body = await served.post("/halt", {"reason": "lunch", "actor": "ann"})
    assert (code, body["done"]) == (200, "halt")
    assert (body["risk"]["state"], body["risk"]["daily_limit_usdt"]) == ("halted", "200")
    assert (await served.post("/resume", {"reason": "back"}))[0] == 200
    assert (await served.post("/flatten"))[0] == 200
    assert (await served.post("/flatten", {"symbol": "BTC", "reason": "odd"}))[0] == 200
    assert served.commands == [
        ("halt", "lunch", "ann", ""),
        ("resume", "back", "unnamed", ""),
        ("flatten", "asked for by the operator", "unnamed", ""),
        ("flatten", "odd", "unnamed", "BTC"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"bearer {TOKEN.upper()}"},
        {"Authorization": f"Basic {TOKEN}"},
    ],
)
async def test_without_the_very_token_nothing_is_done(served, headers):
    for verb in ("halt", "resume", "flatten"):
        code, body = await served.post(f"/{verb}", {"reason": "x"}, headers=headers)
        assert (code, body["outcome"]) == (401, "not_done")
        assert TOKEN not in json.dumps(body)
    assert served.commands == []
    assert served.log.events.count("action_refused") == 3
    assert TOKEN not in repr(served.log.said)


async def test_a_gateway_without_a_token_refuses_every_action():
    async with Served(token=None) as served:
        for headers in ({}, BEARER, {"Authorization": "Bearer None"}, {"Authorization": "Bearer "}):
            code, body = await served.post("/halt", {"reason": "x"}, headers=headers)
            assert code == 403
            assert "gateway.token" in body["error"]
        assert served.commands == []
        assert (await served.get("/health"))[0] == 200


async def test_a_bad_body_is_a_400_and_a_large_one_a_413(served):
    code, body = await served.post("/halt", {"actor": "ann"})
    assert (code, body["error"].split(":")[0]) == (400, "reason")
    assert (await served.post("/halt", data=b"{"))[0] == 400
    assert (await served.post("/halt", data=b" " * BODY_BYTES_MAX))[0] == 400
    assert (await served.post("/halt", data=b" " * (BODY_BYTES_MAX + 1)))[0] == 413

    async def endless():
        for _ in range(64):
            yield b" " * BODY_BYTES_MAX

    assert (await served.post("/halt", data=endless()))[0] == 413

    async def stuck():
        yield b" " * 2 * BODY_BYTES_MAX
        await asyncio.sleep(3600)

    async with asyncio.timeout(10):  # it is not read to its end
        assert (await served.post("/halt", data=stuck()))[0] == 413
    assert served.commands == []
    async with served.client.get("/halt", headers=BEARER) as reply:
        assert reply.status == 405


@pytest.mark.parametrize(
    ("error", "code", "outcome", "words"),
    [
        (BadInput("flatten BTC", "no trade is open on it", ""), 409, "not_done", "no trade"),
        (StoreUnavailable("RiskGuard", "still recovering"), 503, "not_done", "recovering"),
        (OutcomeUnknown("risk.command", 5), 503, "unknown", "it may have been done; ask status"),
    ],
)
async def test_a_guard_that_does_not_do_it_is_told_apart(served, error, code, outcome, words):
    served.outcome = error
    told = await served.post("/flatten", {"symbol": "BTC"})
    assert (told[0], told[1]["outcome"]) == (code, outcome)
    assert words in told[1]["error"]


# The commands, as an operator calls them


async def arb_ray(*arguments):
    """Call a command in a thread, for the gateway lives in this loop."""
    return await asyncio.to_thread(main.main, arguments)


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("ARB_GATEWAY__TOKEN", TOKEN)


async def test_status_tells_it_in_words_and_in_json(served, capsys):
    assert await arb_ray("status", "--url", served.url) == 0
    assert f"arb_ray is healthy, ready · {served.url}" in capsys.readouterr().out
    assert await arb_ray("status", "--url", served.url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["risk"]["daily_limit_usdt"] == "200"
    served.answer = status(persistence=persistence(postgres="down"))
    assert await arb_ray("status", "--url", served.url) == 1
    assert "PostgreSQL is away" in capsys.readouterr().out
    served.answer = OutcomeUnknown("supervisor.status", 5)
    served.risk = risk(state="halted", reason="lunch")
    assert await arb_ray("status", "--url", served.url) == 1
    told = capsys.readouterr().out
    assert "halted: lunch" in told
    assert "supervisor" in told


async def test_halt_by_command_says_what_is_in_force(served, token, capsys):
    served.risk = risk(flatten_all=True, since_ns=10**18, open_trades=2)
    code = await arb_ray("halt", "--url", served.url, "--reason", "odd", "--actor", "ann")
    assert code == 0
    assert served.commands == [("halt", "odd", "ann", "")]
    told = capsys.readouterr().out
    assert "halted since 2001-09-09 01:46:40 UTC, by ann: odd" in told
    assert "2 trades are open and are being closed" in told
    served.risk = risk(unwritten=1, open_trades=0)
    assert await arb_ray("flatten", "--url", served.url, "--symbol", "btc") == 0
    assert served.commands[-1][3] == "BTC"
    assert "@" in served.commands[-1][2]
    assert "not yet written" in capsys.readouterr().out
    assert await arb_ray("resume", "--url", served.url, "--reason", "x", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == "resume"


async def test_each_refusal_has_its_exit_code(served, token, capsys, monkeypatch):
    url = ("--url", served.url)
    assert await arb_ray("halt", *url, "--reason", "x" * 501) == 2
    assert "--reason: it has 501 characters" in capsys.readouterr().err
    served.outcome = BadInput("flatten BTC", "no trade is open on it", "Nothing was done")
    assert await arb_ray("flatten", *url, "--symbol", "BTC") == 2
    assert "no trade is open" in capsys.readouterr().err
    served.outcome = OutcomeUnknown("risk.command", 5)
    assert await arb_ray("halt", *url, "--reason", "x") == 3
    assert "it may have been done; ask status" in capsys.readouterr().err
    served.outcome = StoreUnavailable("RiskGuard", "still recovering")
    assert await arb_ray("resume", *url, "--reason", "x") == 3
    assert "was not done" in capsys.readouterr().err
    monkeypatch.setenv("ARB_GATEWAY__TOKEN", "another-token-of-sixteen")
    assert await arb_ray("halt", *url, "--reason", "x") == 2
    assert "token" in capsys.readouterr().err


async def test_nobody_there_and_somebody_else_there_are_code_3(capsys):
    assert await arb_ray("status", "--url", f"http://127.0.0.1:{free_port()}") == 3
    assert "no answer" in capsys.readouterr().err

    async def shout(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async def hang_up(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    for other, verb, words in (
        (shout, "status", "another program"),
        (hang_up, "status", "no answer"),
        (hang_up, "halt", "it may have been done"),
    ):
        async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            reason = ("--reason", "x") if verb == "halt" else ()
            assert await arb_ray(verb, "--url", url, *reason) == 3
            assert words in capsys.readouterr().err
