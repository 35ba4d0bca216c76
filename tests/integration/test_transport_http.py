"""The REST client against a real HTTP server on loopback."""

import asyncio
import itertools
import json

import pytest
from aiohttp import web

from arb_ray.adapters.transport.backoff import Backoff, BackoffPolicy
from arb_ray.adapters.transport.http import RestClient, RestPolicy, with_retries
from arb_ray.adapters.transport.rate_limit import Window
from arb_ray.domain.errors import MalformedFrame, RateLimited, VenueRefused, VenueUnreachable
from tests.tcp_proxy import TcpProxy


class Venue:
    """Answers with whatever the test put into ``answer``."""

    def __init__(self):
        self.requests = []
        self.answer = lambda: web.Response(body=b"{}")

    async def __call__(self, request):
        self.requests.append(request)
        answer = self.answer()
        return await answer if asyncio.iscoroutine(answer) else answer


@pytest.fixture
async def venue():
    venue = Venue()
    runner = web.ServerRunner(web.Server(venue), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    venue.port = runner.addresses[0][1]
    yield venue
    await runner.cleanup()


def client_of(port, on_reply=None, **policy):
    base_url = f"http://127.0.0.1:{port}"
    return RestClient(
        RestPolicy(**({"venue": "test", "base_url": base_url} | policy)), on_reply=on_reply
    )


def answers(venue, *responses):
    queue = itertools.chain(responses)
    venue.answer = lambda: next(queue)


async def test_a_request_is_spelled_as_the_venues_do_and_its_body_is_left_alone(venue):
    body = b'{"p":1.16539E8,"s":7.9276E-4,"id":17883351803770004}'
    venue.answer = lambda: web.Response(body=body)
    async with client_of(venue.port) as client:
        got = await client.get_bytes("/v1/orderbook", {"markets": "KRW-BTC,KRW-ETH", "count": 30})
    assert got == body
    request = venue.requests[0]
    assert request.path_qs == "/v1/orderbook?markets=KRW-BTC,KRW-ETH&count=30"
    assert request.query["markets"] == "KRW-BTC,KRW-ETH"
    assert "Origin" not in request.headers


async def test_every_reply_is_shown_to_the_observer_with_request_and_headers(venue):
    seen = []
    headers = {"X-MBX-USED-WEIGHT-1M": "25"}
    answers(
        venue,
        web.Response(body=b"[1]", headers=headers),
        web.Response(status=400, body=b'{"code":-1121,"msg":"Invalid symbol."}'),
    )
    async with client_of(
        venue.port, seen.append, base_url=f"http://127.0.0.1:{venue.port}/api"
    ) as client:
        assert await client.get_bytes("/v3/depth", {"limit": 5}) == b"[1]"
        with pytest.raises(VenueRefused, match="Invalid symbol"):
            await client.get_bytes("/v3/depth")
    assert [(reply.request, reply.status) for reply in seen] == [
        ("GET /api/v3/depth?limit=5", 200),
        ("GET /api/v3/depth", 400),
    ]
    assert seen[0].headers["x-mbx-used-weight-1m"] == "25"
    assert seen[0].body == b"[1]"
    assert seen[0].recv_wall_ns > 0


@pytest.mark.parametrize("status", [300, 302, 400, 401, 403, 404, 451])
async def test_a_no_of_the_venue_is_refused_for_good(venue, status):
    venue.answer = lambda: web.Response(status=status, body=b"no", headers={"Location": "/other"})
    async with client_of(venue.port) as client:
        with pytest.raises(VenueRefused) as refused:
            await client.get_bytes("/x")
    assert refused.value.code == f"HTTP {status}"
    assert len(venue.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_failing_venue_is_unreachable(venue, status):
    venue.answer = lambda: web.Response(status=status, body=b"<html>")
    async with client_of(venue.port) as client:
        with pytest.raises(VenueUnreachable, match=f"HTTP {status}"):
            await client.get_bytes("/x")


async def test_a_silent_venue_is_unreachable_after_the_time_out(venue):
    async def never():
        await asyncio.sleep(5)

    venue.answer = never
    async with client_of(venue.port, timeout_s=0.1) as client:
        with pytest.raises(VenueUnreachable, match=r"no answer in 0\.1 s"):
            await client.get_bytes("/x")


async def test_a_cut_or_refused_connection_is_unreachable(venue):
    async def never():
        await asyncio.sleep(5)

    venue.answer = never
    async with TcpProxy("127.0.0.1", venue.port) as proxy, client_of(proxy.port) as client:
        asking = asyncio.create_task(client.get_bytes("/x"))
        while not venue.requests:  # noqa: ASYNC110  # the server sets no event
            await asyncio.sleep(0.005)
        proxy.refuse(True)
        proxy.cut()
        with pytest.raises(VenueUnreachable):
            await asking
        with pytest.raises(VenueUnreachable):
            await client.get_bytes("/x")


@pytest.mark.parametrize(
    ("status", "header", "wait_s"),
    [(429, "7", 7), (418, "120", 120), (429, None, 1), (418, "x", 60)],
)
async def test_a_rate_limit_says_how_long_and_holds_the_whole_group(venue, status, header, wait_s):
    headers = {} if header is None else {"Retry-After": header}
    venue.answer = lambda: web.Response(status=status, headers=headers)
    async with client_of(venue.port, budget_wait_max_s=0.5) as client:
        with pytest.raises(RateLimited) as limited:
            await client.get_bytes("/x")
        assert (limited.value.status, limited.value.retry_after_s) == (status, wait_s)
        with pytest.raises(RateLimited) as held:
            await client.get_bytes("/y")
        assert wait_s - 1 < held.value.retry_after_s <= wait_s
        assert len(venue.requests) == 1
        venue.answer = lambda: web.Response(body=b"{}")
        assert await client.get_bytes("/z", group="another") == b"{}"


async def test_requests_wait_for_their_groups_weight(venue):
    groups = {"weight": (Window(10, 0.4),)}
    async with client_of(venue.port, groups=groups) as client:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        ends_s = []

        async def ask():
            await client.get_bytes("/x", weight=5, group="weight")
            ends_s.append(loop.time() - began_s)

        await asyncio.gather(*(ask() for _ in range(5)))
    assert sum(1 for end_s in ends_s if end_s < 0.4) <= 2
    assert sum(1 for end_s in ends_s if end_s < 0.8) <= 4


async def test_a_body_above_the_bound_is_refused_also_when_it_is_compressed(venue):
    def zeros():
        response = web.Response(body=b"0" * 2_000_000)
        response.enable_compression()
        return response

    venue.answer = zeros
    async with client_of(venue.port, body_bytes_max=1_999_999) as client:
        with pytest.raises(MalformedFrame, match="larger than 1999999 bytes"):
            await client.get_bytes("/x")
    async with client_of(venue.port, body_bytes_max=2_000_000) as client:
        assert len(await client.get_bytes("/x")) == 2_000_000


def backoff():
    return Backoff(BackoffPolicy(initial_s=1, maximum_s=4, jitter=0.0), lambda: 0.0)


async def retried(*outcomes, attempts_max=4, wait_max_s=10.0):
    naps, left = [], list(outcomes)

    async def call():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(seconds):
        naps.append(seconds)

    try:
        answer = await with_retries(
            call, backoff(), attempts_max=attempts_max, wait_max_s=wait_max_s, sleep=sleep
        )
    except Exception as error:  # noqa: BLE001  # the test compares it
        answer = error
    return answer, naps, len(left)


DOWN = VenueUnreachable("test", "down")


async def test_retries_wait_as_told_or_as_backed_off():
    slow = RateLimited("test", 429, 7.0)
    assert await retried(DOWN, slow, DOWN, "done") == ("done", [1, 7, 4], 0)


async def test_retries_end_with_the_last_error():
    assert await retried(DOWN, DOWN, DOWN, DOWN, "late") == (DOWN, [1, 2, 4], 1)


async def test_a_ban_longer_than_the_bound_is_not_waited_for():
    ban = RateLimited("test", 418, 11.0)
    assert await retried(ban, "late") == (ban, [], 1)


async def test_a_refusal_is_not_retried():
    no = VenueRefused("test", "HTTP 400", "no")
    assert await retried(no, "late") == (no, [], 1)


async def test_json_of_a_recorded_shape_goes_through_whole(venue):
    market = [{"market": "KRW-BTC", "korean_name": "비트코인"}] * 500
    venue.answer = lambda: web.Response(body=json.dumps(market).encode())
    async with client_of(venue.port) as client:
        assert json.loads(await client.get_bytes("/v1/market/all")) == market
