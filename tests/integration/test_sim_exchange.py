"""The simulated exchanges over real sockets: protocol answers, limits and faults."""

import asyncio
import contextlib
import itertools
import socket
from decimal import Decimal

import aiohttp
import msgspec
import pytest

from arb_ray.adapters.venues.sim.clients import Limits
from arb_ray.adapters.venues.sim.coins import upbit_tick_e8
from arb_ray.adapters.venues.sim.exchange import SimConfig, SimExchanges
from arb_ray.adapters.venues.sim.faults import Fault, FaultKind
from arb_ray.domain.errors import BadConfig, BadInput

WAIT_S = 30.0
FREE = Limits(messages=((1_000, 1.0),), connects=(1_000, 1.0))


@contextlib.asynccontextmanager
async def running(**changes):
    config = SimConfig(symbols=("BTC", "ETH", "PEPE"), upbit_limits=FREE, **changes)
    exchanges = SimExchanges(config)
    urls = await exchanges.start()
    async with aiohttp.ClientSession() as http:
        try:
            yield exchanges, urls, http
        finally:
            await exchanges.stop()


async def next_json(ws):
    message = await ws.receive(timeout=WAIT_S)
    assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
    return msgspec.json.decode(message.data)


async def take(ws, count, keep=lambda _: True):
    found = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            frame = await next_json(ws)
            if keep(frame):
                found.append(frame)
    return found


async def upbit(http, urls, *parts):
    ws = await http.ws_connect(urls.upbit_ws)
    await ws.send_bytes(msgspec.json.encode([{"ticket": "t"}, *parts]))
    return ws


BOOKS = {"type": "orderbook", "codes": ["KRW-BTC", "KRW-USDT.1", "krw-eth", "KRW-NOPE"]}


async def test_upbit_answers_with_binary_snapshots_then_changes_and_is_silent_on_unknown_codes():
    async with running() as (_, urls, http):
        ws = await upbit(http, urls, BOOKS, {"format": "DEFAULT"})
        message = await ws.receive(timeout=WAIT_S)
        assert message.type is aiohttp.WSMsgType.BINARY
        first = [msgspec.json.decode(message.data), await next_json(ws)]
        assert [(f["code"], f["stream_type"]) for f in first] == [
            ("KRW-BTC", "SNAPSHOT"),
            ("KRW-USDT", "SNAPSHOT"),
        ]
        assert [len(f["orderbook_units"]) for f in first] == [30, 1]
        later = await take(ws, 15)
        assert {f["stream_type"] for f in later} == {"REALTIME"}
        assert {f["code"] for f in later} == {"KRW-BTC", "KRW-USDT"}
        stamps = [f["timestamp"] for f in later if f["code"] == "KRW-BTC"]
        assert len({stamp % 100 for stamp in stamps}) == 1  # one phase on the 100 ms grid
        for frame in first + later:
            best = frame["orderbook_units"][0]
            assert best["bid_price"] < best["ask_price"]
            assert int(best["bid_price"] * 10**8) % upbit_tick_e8(int(best["bid_price"] * 1e8)) == 0


async def test_upbits_second_request_replaces_the_first_and_lists_are_arrays():
    async with running() as (_, urls, http):
        ws = await upbit(http, urls, BOOKS)
        await take(ws, 2)
        again = {"type": "trade", "codes": ["KRW-BTC"]}
        await ws.send_json([{"ticket": "u"}, again, {"format": "SIMPLE_LIST"}])
        frames = await take(ws, 1, lambda f: isinstance(f, list))
        assert frames[0][0]["ty"] == "trade"
        assert frames[0][0]["st"] == "SNAPSHOT"
        await ws.send_json([{"ticket": "v"}, {"method": "LIST_SUBSCRIPTIONS"}])
        listing = (await take(ws, 1, lambda f: isinstance(f, dict)))[0]
        assert listing == {
            "mthd": "LIST_SUBSCRIPTIONS",
            "rslt": [{"ty": "trade", "cds": ["KRW-BTC"], "lv": 0}],
            "tckt": "v",
        }


@pytest.mark.parametrize(
    ("request_text", "name"),
    [
        ("nonsense", "WRONG_FORMAT"),
        ('[{"type":"orderbook","codes":["KRW-BTC"]}]', "NO_TICKET"),
        ('[{"ticket":"t"}]', "NO_TYPE"),
        ('[{"ticket":"t"},{"type":"nope","codes":["KRW-BTC"]}]', "INVALID_PARAM"),
        ('[{"ticket":"t"},{"type":"orderbook","codes":[]}]', "NO_CODES"),
        ('[{"ticket":"t"},{"type":"orderbook","codes":["A"]},{"format":"X"}]', "WRONG_FORMAT"),
    ],
)
async def test_upbit_names_the_error_and_closes_with_1000(request_text, name):
    async with running() as (_, urls, http):
        ws = await http.ws_connect(urls.upbit_ws)
        await ws.send_str(request_text)
        assert (await next_json(ws))["error"]["name"] == name
        assert (await ws.receive(timeout=WAIT_S)).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1000


async def test_upbit_cuts_idle_sockets_unless_they_ping():
    limits = Limits(messages=((5, 1.0),), connects=(1_000, 1.0), idle_s=1.0, status_every_s=0.5)
    exchanges = SimExchanges(SimConfig(symbols=("BTC",), upbit_limits=limits))
    urls = await exchanges.start()
    async with aiohttp.ClientSession() as http:
        idle, pinging = await http.ws_connect(urls.upbit_ws), await http.ws_connect(urls.upbit_ws)
        await pinging.send_str("PING")
        assert await next_json(pinging) == {"status": "UP"}
        await idle.receive(timeout=WAIT_S)
        assert idle.close_code == 1006
        assert await next_json(pinging) == {"status": "UP"}
        assert not pinging.closed
    await exchanges.stop()


async def test_upbit_rest_serves_markets_books_ticks_and_refuses_unknown_ones():
    async with running() as (_, urls, http):

        async def get(path):
            async with http.get(urls.upbit_rest + path) as reply:
                assert reply.headers["Remaining-Req"].startswith("group=")
                return reply.status, await reply.json()

        status, markets = await get("/market/all?is_details=true")
        assert status == 200
        assert [m["market"] for m in markets] == ["KRW-USDT", "KRW-BTC", "KRW-ETH", "KRW-PEPE"]
        assert len(markets[0]["market_event"]["caution"]) == 5
        _, books = await get("/orderbook?markets=KRW-BTC,KRW-USDT&count=5")
        assert [len(b["orderbook_units"]) for b in books] == [5, 5]
        _, ticks = await get("/orderbook/instruments?markets=KRW-USDT,KRW-BTC")
        assert [row["tick_size"] for row in ticks] == ["1", "1000"]
        _, tickers = await get("/ticker?markets=KRW-BTC")
        assert tickers[0]["trade_price"] > 1e7
        assert (await get("/orderbook?markets=KRW-BTC,KRW-NOPE"))[0] == 404


class Diffs:
    """A client's book by the documented rules of both Binance markets."""

    def __init__(self, snapshot, is_usdm):
        self.id, self.is_usdm, self.gaps, self.applied = snapshot["lastUpdateId"], is_usdm, 0, 0
        self.previous = None
        self.sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}

    def apply(self, diff):
        if diff["u"] < self.id + (0 if self.is_usdm else 1):
            return
        if self.previous is None:
            reach = self.id if self.is_usdm else self.id + 1
            assert diff["U"] <= reach <= diff["u"]
        elif self.is_usdm:
            self.gaps += diff["pu"] != self.previous
        else:
            self.gaps += diff["U"] != self.previous + 1
        self.previous = self.id = diff["u"]
        self.applied += 1
        for side, levels in self.sides.items():
            for price, size in diff[side]:
                if Decimal(size):
                    levels[price] = size
                else:
                    levels.pop(price, None)

    def best(self):
        bid, ask = max(self.sides["b"], key=Decimal), min(self.sides["a"], key=Decimal)
        return bid, self.sides["b"][bid], ask, self.sides["a"][ask]


async def follow(ws, http, url, *, is_usdm, frames=250):
    """Rebuild the book as a client does; return it and how often bookTicker agreed."""
    buffered = await take(ws, 3, lambda f: f.get("stream", "").endswith("@depth@100ms"))
    async with http.get(url) as reply:
        assert int(reply.headers["X-MBX-USED-WEIGHT-1M"]) > 0
        book = Diffs(await reply.json(), is_usdm)
    for frame in buffered:
        book.apply(frame["data"])
    touches, compared = {}, 0
    for frame in await take(ws, frames):
        data = frame["data"]
        if "B" in data:
            touches[data["u"]] = (data["b"], data["B"], data["a"], data["A"])
        else:
            book.apply(data)
            if book.previous in touches:
                assert touches[book.previous] == book.best()
                compared += 1
    return book, compared


async def test_binance_spot_diffs_continue_the_snapshot_and_agree_with_book_ticker():
    async with running() as (_, urls, http):
        ws = await http.ws_connect(urls.binance_spot_ws + "/stream")
        await ws.send_json(
            {
                "method": "SUBSCRIBE",
                "params": ["btcusdt@bookTicker", "btcusdt@depth@100ms"],
                "id": 7,
            }
        )
        assert await next_json(ws) == {"result": None, "id": 7}
        url = urls.binance_spot_rest + "/api/v3/depth?symbol=BTCUSDT&limit=1000"
        book, compared = await follow(ws, http, url, is_usdm=False, frames=45)
        assert (book.gaps, book.applied > 4, compared > 4) == (0, True, True)


async def test_binance_usdm_routes_classes_and_keeps_its_own_sequence_rule():
    async with running() as (_, urls, http):
        streams = "btcusdt@bookTicker/btcusdt@depth@100ms/btcusdt@markPrice@1s"
        ws = await http.ws_connect(f"{urls.binance_usdm_ws}/public/stream?streams={streams}")
        market = await http.ws_connect(f"{urls.binance_usdm_ws}/market/stream?streams={streams}")
        url = urls.binance_usdm_rest + "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
        book, compared = await follow(ws, http, url, is_usdm=True, frames=45)
        assert (book.gaps, book.applied > 4, compared > 4) == (0, True, True)
        mark = await next_json(market)  # nothing but its own class arrives on that path
        assert mark["stream"] == "btcusdt@markPrice@1s"
        assert mark["data"]["T"] > mark["data"]["E"]


async def test_binance_controls_answer_and_errors_leave_the_socket_open():
    async with running() as (_, urls, http):
        ws = await http.ws_connect(urls.binance_spot_ws + "/ws/pepeusdt@depth5@100ms")
        await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": "a"})
        reply = (await take(ws, 1, lambda f: "result" in f))[0]
        assert reply == {"result": ["pepeusdt@depth5@100ms"], "id": "a"}
        partial = (await take(ws, 1, lambda f: "lastUpdateId" in f))[0]
        assert list(partial) == ["lastUpdateId", "bids", "asks"]
        assert len(partial["bids"]) == 5
        await ws.send_str("{nonsense")
        assert (await take(ws, 1, lambda f: "code" in f))[0]["code"] == 3
        await ws.send_json({"method": "SET_PROPERTY", "params": ["combined", True], "id": 2})
        assert (await take(ws, 1, lambda f: "stream" in f))[0]["stream"] == "pepeusdt@depth5@100ms"
        await ws.send_json({"method": "UNSUBSCRIBE", "params": ["pepeusdt@depth5@100ms"], "id": 3})
        await take(ws, 1, lambda f: f.get("id") == 3)
        for i in range(9):
            await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": i})
        while (await ws.receive(timeout=WAIT_S)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert ws.close_code == 1008  # five messages a second and no more


async def test_binance_rest_names_filters_and_refuses_wrong_symbols():
    async with running() as (_, urls, http):
        async with http.get(urls.binance_usdm_rest + "/fapi/v1/exchangeInfo") as reply:
            rows = {row["symbol"]: row for row in (await reply.json())["symbols"]}
        assert set(rows) == {"BTCUSDT", "ETHUSDT", "1000PEPEUSDT"}
        filters = {one["filterType"]: one for one in rows["BTCUSDT"]["filters"]}
        assert filters["PRICE_FILTER"]["tickSize"] == "0.1"
        assert filters["MIN_NOTIONAL"]["notional"] == "100"
        async with http.get(urls.binance_spot_rest + "/api/v3/depth?symbol=NOPE") as reply:
            assert (reply.status, (await reply.json())["code"]) == (400, -1121)
        async with http.get(urls.binance_usdm_rest + "/fapi/v1/premiumIndex?symbol=BTCUSDT") as r:
            assert "lastFundingRate" in await r.json()


async def test_a_restarted_exchange_continues_prices_and_ids():
    books = []
    for _ in range(2):
        async with running() as (_, urls, http):
            reply = await http.get(urls.binance_spot_rest + "/api/v3/depth?symbol=BTCUSDT")
            books.append(await reply.json())
    old, new = books
    assert new["lastUpdateId"] >= old["lastUpdateId"]
    drift = float(new["bids"][0][0]) / float(old["bids"][0][0]) - 1
    assert abs(drift) < 20e-4


async def test_a_forced_premium_shows_in_the_books():
    async with running() as (exchanges, urls, http):
        exchanges.inject(Fault(FaultKind.PREMIUM, symbol="BTC", bps=250, duration_s=60))
        await asyncio.sleep(0.2)  # the next step of 100 ms shows it
        ws = await upbit(http, urls, {"type": "orderbook", "codes": ["KRW-BTC.1", "KRW-USDT.1"]})
        spot = await http.ws_connect(urls.binance_spot_ws + "/ws/btcusdt@bookTicker")
        books = {f["code"]: f["orderbook_units"][0] for f in await take(ws, 2)}
        usdt = float((await next_json(spot))["b"])
        implied = books["KRW-BTC"]["bid_price"] / books["KRW-USDT"]["ask_price"] / usdt - 1
        assert 0.0225 < implied < 0.0275


async def collect_diffs(ws, count):
    return [f["data"] for f in await take(ws, count, lambda f: "depth" in f.get("stream", ""))]


@pytest.mark.parametrize("kind", [FaultKind.GAP, FaultKind.REORDER, FaultKind.DUPLICATE])
async def test_frame_faults_break_the_sequence_once(kind):
    async with running() as (exchanges, urls, http):
        ws = await http.ws_connect(
            urls.binance_spot_ws + "/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms"
        )
        before = await collect_diffs(ws, 4)
        exchanges.inject(Fault(kind, venue="binance_spot", symbol="BTC"))
        diffs = before + await collect_diffs(ws, 14)
        for symbol, breaks in (("BTCUSDT", True), ("ETHUSDT", False)):
            ids = [(d["U"], d["u"]) for d in diffs if d["s"] == symbol]
            broken = [a for a, b in itertools.pairwise(ids) if b[0] != a[1] + 1]
            assert bool(broken) is breaks
        if kind is FaultKind.DUPLICATE:
            assert len({d["u"] for d in diffs if d["s"] == "BTCUSDT"}) < len(
                [d for d in diffs if d["s"] == "BTCUSDT"]
            )


async def test_a_malformed_frame_arrives_and_the_stream_goes_on():
    async with running() as (exchanges, urls, http):
        ws = await upbit(http, urls, BOOKS)
        await take(ws, 2)
        exchanges.inject(Fault(FaultKind.MALFORMED, venue="upbit"))
        bad = 0
        for _ in range(12):
            message = await ws.receive(timeout=WAIT_S)
            try:
                msgspec.json.decode(message.data)
            except msgspec.DecodeError:
                bad += 1
        assert bad == 1


async def test_silence_stops_data_and_keeps_the_connection():
    async with running() as (exchanges, urls, http):
        ws = await http.ws_connect(urls.binance_spot_ws + "/stream?streams=btcusdt@bookTicker")
        await take(ws, 3)
        exchanges.inject(Fault(FaultKind.SILENCE, venue="binance_spot", duration_s=0.6))
        await asyncio.sleep(0.15)
        began = asyncio.get_running_loop().time()
        longest = 0.0
        for _ in range(8):
            await next_json(ws)
            now = asyncio.get_running_loop().time()
            longest, began = max(longest, now - began), now
        assert longest > 0.3
        assert not ws.closed


async def test_a_stale_book_comes_with_fresh_times():
    async with running() as (exchanges, urls, http):
        ws = await upbit(http, urls, {"type": "orderbook", "codes": ["KRW-BTC.5"]})
        await take(ws, 2)
        exchanges.inject(Fault(FaultKind.STALE_BOOK, venue="upbit", duration_s=30))
        await asyncio.sleep(0.2)
        frames = (await take(ws, 8))[3:]
        assert len({msgspec.json.encode(f["orderbook_units"]) for f in frames}) == 1
        stamps = [f["timestamp"] for f in frames]
        assert stamps == sorted(set(stamps))


async def test_clock_skew_moves_stamps_and_the_time_endpoint():
    async with running() as (exchanges, urls, http):
        exchanges.inject(
            Fault(FaultKind.CLOCK_SKEW, venue="binance_usdm", offset_ms=-90_000, duration_s=60)
        )
        ws = await http.ws_connect(urls.binance_usdm_ws + "/public/ws/btcusdt@bookTicker")
        frame = await next_json(ws)
        for base, path, late in (
            (urls.binance_usdm_rest, "/fapi/v1/time", 90_000),
            (urls.binance_spot_rest, "/api/v3/time", 0),
        ):
            async with http.get(base + path) as reply:
                server_ms = (await reply.json())["serverTime"]
            behind = exchanges._clock_ns() // 1_000_000 - server_ms
            assert abs(behind - late) < 2_000
        assert abs(exchanges._clock_ns() // 1_000_000 - frame["E"] - 90_000) < 2_000


@pytest.mark.parametrize("planned", [False, True])
async def test_a_disconnect_cuts_or_announces_itself(planned):
    async with running() as (exchanges, urls, http):
        ws = await http.ws_connect(urls.binance_spot_ws + "/stream?streams=btcusdt@bookTicker")
        await take(ws, 1)
        exchanges.inject(Fault(FaultKind.DISCONNECT, venue="binance_spot", planned=planned))
        seen = []
        async for message in ws:
            seen.append(msgspec.json.decode(message.data))  # noqa: PERF401  # ends with the socket
        assert ws.close_code == (1001 if planned else 1006)
        assert ("!serverShutdown" in {f["stream"] for f in seen}) is planned


async def test_a_refusal_of_one_coin_leaves_the_others_alone():
    async with running() as (exchanges, urls, http):
        exchanges.inject(Fault(FaultKind.REFUSED_SUBSCRIPTION, symbol="PEPE", duration_s=30))
        ws = await http.ws_connect(urls.binance_usdm_ws + "/public/stream")
        for number, (name, is_refused) in enumerate(
            [("ethusdt@depth", False), ("1000pepeusdt@depth", True)]
        ):
            await ws.send_json({"method": "SUBSCRIBE", "params": [name], "id": number})
            (reply,) = await take(ws, 1, lambda f, number=number: f.get("id") == number)
            assert ("code" in reply) is is_refused
        ws = await upbit(http, urls, {"type": "orderbook", "codes": ["KRW-BTC.5"]})
        assert (await take(ws, 1))[0]["code"] == "KRW-BTC"
        ws = await upbit(http, urls, {"type": "orderbook", "codes": ["KRW-PEPE.5"]})
        assert (await take(ws, 1))[0]["error"]["name"] == "INVALID_PARAM"


async def test_the_stress_fault_sinks_prices_in_krw_over_the_sockets():
    async with running() as (exchanges, urls, http):
        ws = await upbit(http, urls, {"type": "orderbook", "codes": ["KRW-BTC"]})
        (frame,) = await take(ws, 1)
        before = frame["orderbook_units"][0]["ask_price"]
        # An hour in ten seconds: a tenth is lost after 1.4 and won back after nine.
        exchanges.inject(Fault(FaultKind.STRESS, speed=360.0))
        await take(ws, 1, lambda f: f["orderbook_units"][0]["ask_price"] < 0.9 * before)


async def test_refused_subscriptions_and_slow_consumers():
    async with running() as (exchanges, urls, http):
        ws = await http.ws_connect(urls.binance_spot_ws + "/stream?streams=btcusdt@depth@100ms")
        await take(ws, 1)
        exchanges.inject(Fault(FaultKind.REFUSED_SUBSCRIPTION, duration_s=30))
        await ws.send_json({"method": "SUBSCRIBE", "params": ["ethusdt@depth"], "id": 1})
        assert (await take(ws, 1, lambda f: "code" in f))[0] == {
            "code": 2,
            "msg": "Invalid request: subscription refused",
            "id": 1,
        }
        exchanges.inject(
            Fault(FaultKind.SLOW_CONSUMER, venue="binance_spot", delay_ms=400, duration_s=2.5)
        )
        frame = (await take(ws, 5))[-1]
        assert exchanges._clock_ns() // 1_000_000 - frame["data"]["E"] > 300
        async for _ in ws:
            pass
        assert ws.close_code == 1006
        assert exchanges.spot.counters.dropped_slow == 1


async def test_a_peer_that_does_not_read_is_cut_at_the_bound(monkeypatch):
    monkeypatch.setattr("arb_ray.adapters.venues.sim.clients.WRITE_BUFFER_BYTES_MAX", 50_000)
    async with running() as (exchanges, urls, _):
        host, port = urls.binance_spot_ws.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024)
        writer.write(
            b"GET /ws/btcusdt@depth@100ms HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            while exchanges.spot.counters.dropped_slow == 0:
                # Fill its pipe faster than the market would.
                await exchanges.spot.publish(("btcusdt", "diff"), '"' + "x" * 100_000 + '"')
                await asyncio.sleep(0)
        writer.close()


async def test_the_control_endpoint_takes_faults_and_tells_status():
    async with running(control_token="secret") as (_, urls, http):
        url = urls.control + "/sim/faults"
        body = {"kind": "silence", "venue": "upbit", "duration_s": 5}
        async with http.post(url, json=body) as reply:
            assert reply.status == 403
        token = {"Authorization": "Bearer secret"}
        async with http.post(url, json=body, headers=token) as reply:
            assert reply.status == 200
        async with http.post(url, json={"kind": "nope"}, headers=token) as reply:
            assert reply.status == 400
            assert "Kinds are silence" in (await reply.json())["error"]
        async with http.get(urls.control + "/sim/status") as reply:
            status = await reply.json()
        assert status["faults"][0]["kind"] == "silence"
        assert status["preset"] == "calibrated"


async def test_impossible_faults_and_occupied_ports_are_refused():
    async with running() as (exchanges, urls, _):
        for fault in (
            Fault(FaultKind.PREMIUM),
            Fault(FaultKind.GAP, count=0),
            Fault(FaultKind.SILENCE, venue="nyse"),
            Fault(FaultKind.SILENCE, symbol="NOPE"),
        ):
            with pytest.raises(BadInput):
                exchanges.inject(fault)
        port = int(urls.upbit_rest.split(":")[2].split("/")[0])
        with pytest.raises(BadConfig, match="Free the port"):
            await SimExchanges(SimConfig(upbit_port=port)).start()


def own_address():
    """This machine's address on a network, or None: asking the kernel for a route sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


async def test_on_a_clusters_head_the_control_endpoint_listens_to_its_own_machine():
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but the loopback's")
    async with running(host=address) as (_, urls, http):
        body = {"kind": "silence", "venue": "upbit", "duration_s": 5}
        async with http.post(urls.control + "/sim/faults", json=body) as reply:
            assert reply.status == 200
