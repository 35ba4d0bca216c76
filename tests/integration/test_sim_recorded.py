"""Recordings served again over real sockets: verbatim frames, consistent snapshots."""

import asyncio
import contextlib
from pathlib import Path

import aiohttp
import msgspec
import pytest

from arb_ray.adapters.storage.recordings import read_recording
from arb_ray.adapters.venues.sim.recorded import RecordedConfig, RecordedExchanges
from arb_ray.domain.errors import BadConfig, BadInput
from tests.integration.test_sim_exchange import Diffs, next_json, take

SHARED = Path(__file__).parents[3] / "shared" / "market_data"
SPOT = SHARED / "binance_spot_btcusdt_20240808_650s.jsonl.zst"
USDM = SHARED / "binance_usdm_btcusdt_20240808_345s.jsonl.zst"
UPBIT = SHARED / "upbit_20210417_30s.jsonl.zst"
needs_recordings = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the recorded frames of ../shared/market_data are not there"
)


def head(source, target, lines):
    """Cut a recording short, so that reading it through stays cheap."""
    frames = []
    with contextlib.closing(read_recording(source)) as reader:
        for frame, _ in zip(reader, range(lines), strict=False):
            frames.append(msgspec.json.encode(frame))
    target.write_bytes(b"\n".join(frames) + b"\n")
    return str(target)


@contextlib.asynccontextmanager
async def serving(*files, speed=1.0):
    exchanges = RecordedExchanges(RecordedConfig(files=files, speed=speed))
    urls = await exchanges.start()
    async with aiohttp.ClientSession() as http:
        try:
            yield exchanges, urls, http
        finally:
            await exchanges.stop()


def line(recv_ns, raw, request=None, venue="binance_spot"):
    made = {"recv_ns": recv_ns, "venue": venue, "raw": raw}
    return msgspec.json.encode(made | ({"request": request} if request else {}))


def diff(first, last, price):
    return (
        f'{{"stream":"abcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"ABCUSDT",'
        f'"U":{first},"u":{last},"b":[["{price}","1.50"]],"a":[]}}}}'
    )


@pytest.fixture
def small(tmp_path):
    """Six diffs, 100 ms apart, with the snapshot between the second and the third."""
    snapshot = '{"lastUpdateId":25,"bids":[["9.00","1.00"]],"asks":[["11.00","1.00"]]}'
    lines = [line(10**9 + i * 10**8, diff(10 * i, 10 * i + 9, f"9.{i}0")) for i in range(30)]
    lines.insert(3, line(10**9 + 25 * 10**7, snapshot, "GET /api/v3/depth?symbol=ABCUSDT&limit=9"))
    path = tmp_path / "small.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


@pytest.mark.parametrize("late_s", [0.0, 1.0])
async def test_a_snapshot_continues_the_stream_early_and_late(small, late_s):
    async with serving(small) as (exchanges, urls, http):
        assert exchanges.symbols["binance_spot"] == ("ABCUSDT",)
        ws = await http.ws_connect(f"{urls.binance_spot_ws}/stream?streams=abcusdt@depth@100ms")
        frames = await take(ws, 1)
        await asyncio.sleep(late_s)
        url = f"{urls.binance_spot_rest}/api/v3/depth?symbol=ABCUSDT&limit=100"
        async with http.get(url) as reply:
            snapshot = await reply.json()
        if late_s == 0:
            assert snapshot["lastUpdateId"] == 29  # the diff that spans 25 was applied
        book = Diffs(snapshot, is_usdm=False)
        for frame in frames + await take(ws, 14):
            book.apply(frame["data"])
        assert book.gaps == 0
        assert book.applied > 0
        async with http.get(f"{urls.binance_spot_rest}/api/v3/exchangeInfo") as reply:
            row = (await reply.json())["symbols"][0]
        assert (row["baseAsset"], row["quoteAsset"]) == ("ABC", "USDT")
        assert row["filters"][0]["tickSize"] == "0.01"
        async with http.get(url.replace("ABC", "XYZ")) as reply:
            assert reply.status == 400


async def test_nothing_plays_before_somebody_subscribes(small):
    async with serving(small, speed=20) as (exchanges, urls, http):
        ws = await http.ws_connect(f"{urls.binance_spot_ws}/ws")
        await asyncio.sleep(0.1)
        assert exchanges.played == 0
        await ws.send_json({"method": "SUBSCRIBE", "params": ["abcusdt@depth"], "id": 1})
        assert await next_json(ws) == {"result": None, "id": 1}
        assert (await next_json(ws))["U"] == 0  # its own first frame, bare on this path
        async with asyncio.timeout(5):
            await exchanges.finished.wait()
        assert exchanges.played == 31
        assert not ws.closed


async def test_bad_files_are_named(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    strange = tmp_path / "strange.jsonl"
    strange.write_bytes(line(1, "{}", venue="nyse") + b"\n")
    for path, problem in (
        (empty, "is empty"),
        (strange, "'nyse' is no venue"),
        (tmp_path / "missing.jsonl", "No such file"),
    ):
        with pytest.raises(BadInput, match=problem):
            await RecordedExchanges(RecordedConfig(files=(str(path),))).start()
    with pytest.raises(BadConfig, match="no file is named"):
        RecordedExchanges(RecordedConfig(files=()))


@needs_recordings
@pytest.mark.shared_data
@pytest.mark.parametrize(("source", "venue"), [(SPOT, "binance_spot"), (USDM, "binance_usdm")])
async def test_recorded_binance_books_rebuild_without_gaps(tmp_path, source, venue):
    is_usdm = venue == "binance_usdm"
    path = head(source, tmp_path / "head.jsonl", 4_000)
    async with serving(path, speed=8.0) as (_, urls, http):
        base = urls.binance_usdm_ws + "/public" if is_usdm else urls.binance_spot_ws
        ws = await http.ws_connect(f"{base}/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker")
        first = await take(ws, 2, lambda f: "U" in f["data"])
        rest = (
            urls.binance_usdm_rest + "/fapi/v1" if is_usdm else urls.binance_spot_rest + "/api/v3"
        )
        async with http.get(f"{rest}/depth?symbol=BTCUSDT&limit=1000") as reply:
            book = Diffs(await reply.json(), is_usdm)
        touches, compared = {}, 0
        for frame in first + await take(ws, 2_500):
            data = frame["data"]
            if "U" not in data:
                touches[data["u"]] = (data["b"], data["B"], data["a"], data["A"])
                continue
            book.apply(data)
            if book.previous in touches:
                assert touches[book.previous] == book.best()
                compared += 1
        assert (book.gaps, book.applied > 20, compared > 1) == (0, True, True)


@needs_recordings
@pytest.mark.shared_data
@pytest.mark.parametrize("style", ["SIMPLE", "DEFAULT"])
async def test_recorded_upbit_frames_come_in_the_format_asked_for(style):
    async with serving(str(UPBIT), speed=20) as (exchanges, urls, http):
        codes = [code for code in exchanges.symbols["upbit"] if code.startswith("KRW-")]
        ws = await http.ws_connect(urls.upbit_ws)
        await ws.send_json(
            [{"ticket": "t"}, {"type": "orderbook", "codes": codes}, {"format": style}]
        )
        message = await ws.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.BINARY
        frame = msgspec.json.decode(message.data)
        if style == "SIMPLE":
            recorded = set()
            with contextlib.closing(read_recording(UPBIT)) as reader:
                recorded = {one.raw for one in reader}
            assert message.data.decode() in recorded
        else:
            assert list(frame)[:3] == ["type", "code", "timestamp"]
            assert set(frame["orderbook_units"][0]) == {
                "ask_price",
                "bid_price",
                "ask_size",
                "bid_size",
            }
        async with http.get(f"{urls.upbit_rest}/orderbook?markets={codes[0]}&count=3") as reply:
            assert len((await reply.json())[0]["orderbook_units"]) == 3


@needs_recordings
@pytest.mark.shared_data
def test_simulated_frames_have_the_recorded_key_sets():
    from arb_ray.adapters.venues.sim import binance_wire, upbit_wire
    from arb_ray.adapters.venues.sim.instruments import BinanceBook, Trade, UpbitBook
    from arb_ray.adapters.venues.sim.market import Market
    from arb_ray.adapters.venues.sim.presets import CALIBRATED

    market = Market(CALIBRATED, 1, ("BTC",), 0)
    spell = binance_wire.Spelling("BTCUSDT", 8, 8)
    spot = BinanceBook(market, "BTC", is_perp=False, rate=1.0)
    change = spot.advance(100)
    trade = Trade(1, 2, 3, 4, is_taker_sell=False)
    _, book = UpbitBook(market, "BTC").book_at(100)
    made = {
        ("binance_spot", "depth@100ms"): binance_wire.spot_depth_update(spell, change, 1),
        ("binance_spot", "bookTicker"): binance_wire.spot_book_ticker(spell, *change.tickers[-1]),
        ("binance_spot", "trade"): binance_wire.spot_trade(spell, trade, 1),
        ("binance_spot", "aggTrade"): binance_wire.agg_trade(spell, trade, 1, is_perp=False),
        ("binance_usdm", "trade"): binance_wire.usdm_trade(spell, trade, 1),
        ("binance_usdm", "REST depth"): binance_wire.usdm_rest_depth(spell, 1, 1, (), ()),
        ("binance_usdm", "bookTicker (2026 schema)"): binance_wire.usdm_book_ticker(
            spell, *change.tickers[-1], 1
        ),
        ("upbit", "orderbook DEFAULT SNAPSHOT"): upbit_wire.orderbook(
            "KRW-BTC", 1, book, 30, stream_type="SNAPSHOT", is_simple=False
        ),
        ("upbit", "orderbook SIMPLE SNAPSHOT"): upbit_wire.orderbook(
            "KRW-BTC", 1, book, 30, stream_type="SNAPSHOT", is_simple=True
        ),
        ("upbit", "trade DEFAULT SNAPSHOT"): upbit_wire.trade(
            "KRW-BTC", trade, book, 5, stream_type="SNAPSHOT", is_simple=False
        ),
    }
    compared = 0
    for text in (SHARED / "example_messages.jsonl").read_text().splitlines():
        example = msgspec.json.decode(text)
        ours = made.get((example["venue"], example["kind"]))
        if ours is None:
            continue
        raw = msgspec.json.decode(example["raw"])
        assert list(msgspec.json.decode(ours)) == list(raw.get("data", raw)), example["kind"]
        compared += 1
    assert compared >= 10
