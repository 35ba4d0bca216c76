"""Market lists, rules and opening prices, read from venues that answer on loopback."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal

import msgspec
import pytest
from aiohttp import web

from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.venues.binance import rest as binance_rest
from arb_ray.app import venue_rest
from arb_ray.app.feeds import SnapshotFetcher, make_socket, make_venue_feed
from arb_ray.app.markets import Markets
from arb_ray.app.registry import load_registry
from arb_ray.app.settings import load_settings
from arb_ray.domain.errors import RateLimited, VenueUnreachable
from arb_ray.domain.instrument import RULES_NOT_TRADING, Symbol, Venue
from arb_ray.domain.ledger import Account
from tests.shell_world import Log

NOW_NS = 1_800_000_000_000_000_000
WARNED = {"warning": True, "caution": {"PRICE_FLUCTUATIONS": True}}


def row(symbol, status="TRADING", lot="0.001", contract="PERPETUAL"):
    return {
        "symbol": symbol, "status": status, "contractType": contract,
        "baseAsset": symbol.removesuffix("USDT"), "quoteAsset": "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "stepSize": lot, "minQty": lot, "maxQty": "9000"},
            {"filterType": "NOTIONAL", "minNotional": "5"},
        ],
    }  # fmt: skip


class Venues:
    """All three venues behind one port; a test changes what they say."""

    def __init__(self):
        self.asked = Counter()
        self.fails = Counter()  # path -> answers of 503 to come
        self.weight_used = "0"
        self.upbit = [
            {"market": f"KRW-{coin}", "market_event": {}} for coin in ("USDT", "BTC", "ETH", "XRP")
        ]
        self.books = {"KRW-USDT": 1_400, "KRW-BTC": 140_000_000, "KRW-ETH": 7_000_000}
        self.books |= {"KRW-XRP": 2_800}
        self.raw_books = None
        self.spot = [row("BTCUSDT"), row("ETHUSDT"), row("XRPUSDT")]
        self.usdm = [row("BTCUSDT", lot="0.1"), row("ETHUSDT", lot="0.1")]
        self.limit = 6_000

    async def answer(self, request):
        path = request.path
        self.asked[path] += 1
        await asyncio.sleep(0.01)
        if self.fails[path] > 0:
            self.fails[path] -= 1
            return web.Response(status=503)
        headers = {"X-MBX-USED-WEIGHT-1M": self.weight_used}
        return web.Response(body=self._body(request), headers=headers)

    def _body(self, request):
        codes = request.query.get("markets", "").split(",")
        limits = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        match request.path:
            case "/v1/market/all":
                return json.dumps(self.upbit)
            case "/v1/orderbook/instruments":
                return json.dumps([{"market": code, "tick_size": "1"} for code in codes])
            case "/v1/orderbook":
                books = [
                    {
                        "market": code,
                        "orderbook_units": [
                            {"bid_price": self.books[code], "ask_price": self.books[code]}
                        ],
                    }
                    for code in codes
                ]
                return self.raw_books or json.dumps(books)
            case "/api/v3/exchangeInfo":
                return json.dumps(
                    {"symbols": self.spot, "rateLimits": [{**limits, "limit": self.limit}]}
                )
            case "/fapi/v1/exchangeInfo":
                return json.dumps({"symbols": self.usdm, "rateLimits": []})
            case _:
                return "{}"


@pytest.fixture
async def venues():
    venues = Venues()
    runner = web.ServerRunner(web.Server(venues.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venues.port = runner.addresses[0][1]
    yield venues
    await runner.cleanup()


def settings_at(port, **more):
    rest = {f"venues.{venue}.rest_url": f"http://127.0.0.1:{port}" for venue in Venue}
    return load_settings("dev", rest | more)


def instruments(*symbols, leg_b="spot"):
    return load_registry().instruments_for([Symbol(one) for one in symbols], leg_b)


def markets_of(port, *symbols, pairs=None):
    log = Log()
    return Markets(settings_at(port), pairs or instruments(*symbols), log, NOW_NS), log


def said(log, event):
    return [fields for name, fields in log.said if name == event]


async def test_the_venues_rules_are_read_once_however_many_ask_at_first(venues):
    markets, log = markets_of(venues.port, "BTC", "ETH", "XRP")
    answers = await asyncio.gather(*(markets.pairs(["BTC", "ETH"]) for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert [pair.symbol for pair in answers[0]] == ["BTC", "ETH"]
    assert answers[0][0].b.rules.source == answers[0][0].a.rules.source == "venue"
    assert set(venues.asked.values()) == {1}
    assert log.events == []


@pytest.mark.parametrize("status", ["HALT", "BREAK", None])
async def test_a_market_that_does_not_trade_is_only_watched(venues, status):
    venues.spot[1:2] = [row("ETHUSDT", status)] if status else []
    venues.upbit = [one for one in venues.upbit if one["market"] != "KRW-XRP"]
    markets, log = markets_of(venues.port, "BTC", "ETH", "XRP")
    btc, eth, xrp = await markets.pairs(["BTC", "ETH", "XRP"])
    assert btc.a.rules.is_tradable
    assert btc.b.rules.is_tradable
    assert eth.b.rules.source == xrp.a.rules.source == RULES_NOT_TRADING
    assert not eth.b.rules.is_tradable
    assert not xrp.a.rules.is_tradable
    assert xrp.a.rules.tick_size(Decimal(2_800)) == 1  # a position in it has a grid still
    told = [(one["instrument"], one["status"]) for one in said(log, "market_not_trading")]
    wanted = [("upbit:XRP-KRW", "not listed"), ("binance_spot:ETH-USDT", status or "not listed")]
    assert sorted(told) == sorted(wanted)
    # And the one that Upbit does not list must not cost the others their inventory.
    entries = await markets.opening()
    assert {one.entry_id for one in entries} >= {"opening:upbit:BTC", "opening:upbit:ETH"}


async def test_a_dated_future_is_no_perpetual(venues):
    venues.usdm[0] = row("BTCUSDT", contract="CURRENT_QUARTER")
    pairs = instruments("BTC", "ETH", leg_b="perp")
    markets, _ = markets_of(venues.port, pairs=pairs)
    btc, eth = await markets.pairs(["BTC", "ETH"])
    assert (btc.b.rules.is_tradable, eth.b.rules.is_tradable) == (False, True)


async def test_upbits_warnings_are_told_once_a_market(venues):
    venues.upbit[1]["market_event"] = WARNED
    markets, log = markets_of(venues.port, "BTC", "ETH")
    for _ in range(3):
        (btc,) = await markets.pairs(["BTC"])
    assert btc.a.rules.is_tradable
    (told,) = said(log, "market_warned")
    assert told["instrument"] == "upbit:BTC-KRW"
    assert told["warnings"] == ["WARNING", "PRICE_FLUCTUATIONS"]


async def test_a_pair_on_the_other_binance_market_gets_the_rules_of_that_one(venues):
    pairs = (*instruments("BTC"), *instruments("ETH", leg_b="perp"))
    markets, _ = markets_of(venues.port, pairs=pairs)
    btc, eth = await markets.pairs(["BTC", "ETH"])
    assert (btc.b.rules.lot, eth.b.rules.lot) == (Decimal("0.001"), Decimal("0.1"))


async def test_a_venue_that_is_on_its_way_up_is_asked_again(venues):
    venues.fails.update({"/v1/market/all": 1, "/api/v3/exchangeInfo": 2})
    markets, log = markets_of(venues.port, "BTC")
    (btc,) = await markets.pairs(["BTC"])
    assert btc.a.rules.source == btc.b.rules.source == "venue"
    assert log.events == []


async def test_a_venue_that_stays_away_leaves_the_dated_table_in_force(monkeypatch):
    monkeypatch.setattr(venue_rest, "START_ATTEMPTS_MAX", 2)
    markets, log = markets_of(free_port(), "BTC", "DOGE")
    btc, doge = await markets.pairs(["BTC", "DOGE"])
    assert btc.a.rules.source == btc.b.rules.source == doge.a.rules.source == "fallback"
    assert not doge.b.rules.is_tradable  # its grid is nowhere known
    told = sorted(one["venue"] for one in said(log, "rules_fallback"))
    assert told == ["binance_spot", "upbit"]
    with pytest.raises(VenueUnreachable):
        await markets.opening()


async def test_a_venue_that_never_answers_is_waited_for_so_long_and_no_longer(venues, monkeypatch):
    monkeypatch.setattr(venue_rest, "START_READ_MAX_S", 0.2)
    hung = asyncio.Event()
    with pytest.raises(VenueUnreachable, match="no answer within"):
        await venue_rest.ask_at_start(Venue.UPBIT, hung.wait)


async def test_the_opening_inventory_is_priced_by_upbits_books(venues):
    markets, _ = markets_of(venues.port, "BTC", "ETH")
    amounts = {
        (posting.venue, posting.asset): posting.amount
        for entry in await markets.opening()
        for posting in entry.postings
        if posting.account is Account.FREE
    }
    notional = settings_at(venues.port).balances.upbit.inventory_notional_usdt
    assert amounts[Venue.UPBIT, "BTC"] == notional / 100_000
    assert amounts[Venue.UPBIT, "ETH"] == notional / 5_000


@pytest.mark.parametrize(
    "raw",
    [
        "<html>",
        "{}",
        '[{"market":"KRW-BTC"}]',
        '[{"market":"KRW-BTC","orderbook_units":[{"bid_price":"x","ask_price":1}]}]',
        '[{"market":"KRW-BTC","orderbook_units":[{"bid_price":-1,"ask_price":1}]}]',
        '[{"market":"KRW-BTC","orderbook_units":[{"bid_price":1e99,"ask_price":1}]}]',
        '[{"market":"KRW-BTC","orderbook_units":[]}]',
    ],
)
async def test_odd_prices_mean_no_inventory_and_no_crash(venues, raw):
    venues.raw_books = raw
    markets, log = markets_of(venues.port, "BTC")
    entries = await markets.opening()
    assert {one.entry_id for one in entries} >= {"opening:upbit:KRW"}
    assert not any(one.entry_id.endswith("BTC") for one in entries)
    assert said(log, "no_inventory")


@pytest.fixture
async def fetcher(venues):
    fetcher = SnapshotFetcher(settings_at(venues.port), Venue.BINANCE_SPOT, None)
    yield fetcher
    await fetcher.close()


async def test_the_weight_limit_and_its_use_come_from_the_venue(venues, fetcher):
    venues.limit, venues.weight_used = 200, "40"
    assert fetcher.used_ratio == 0.0
    books = await asyncio.gather(fetcher("BTCUSDT"), fetcher("BTCUSDT"))
    assert books == [b"{}", b"{}"]
    assert venues.asked["/api/v3/exchangeInfo"] == 1
    # All that our address used, as the first reply told, and two books of 50 each.
    assert fetcher.used_ratio == pytest.approx((40 + 2 * 50) / 200)


async def test_a_weight_that_others_used_is_waited_for(venues, fetcher):
    venues.limit, venues.weight_used = 6_000, "5990"
    with pytest.raises(RateLimited):  # a wait of a minute is beyond the policy's bound
        await fetcher("BTCUSDT")
    assert venues.asked["/api/v3/depth"] == 0


@pytest.mark.parametrize("told", ["", "x", "-5", "٣", "9" * 5_000])
def test_an_odd_weight_header_says_nothing(told):
    used = binance_rest.weight_used({"X-MBX-USED-WEIGHT-1M": told})
    assert used is None or used == 3


def test_upbit_gets_text_pings_and_a_recording_asks_for_trades(tmp_path):
    settings = settings_at(1, **{"recording.record_dir": str(tmp_path)})
    pairs = instruments("BTC")
    feed = make_venue_feed(settings, Venue.UPBIT, pairs, "s")
    (request,) = feed.subscribe_messages(0)
    assert {"trade", "orderbook"} == {
        part["type"] for part in msgspec.json.decode(request) if "type" in part
    }
    upbit = make_socket(settings, Venue.UPBIT, feed.plans()[0], None)
    assert upbit._policy.text_ping == "PING"
    assert upbit._policy.ping_interval_s == upbit._policy.text_ping_interval_s <= 20
    spot = make_venue_feed(settings, Venue.BINANCE_SPOT, pairs, "s")
    assert (
        make_socket(settings, Venue.BINANCE_SPOT, spot.plans()[0], None)._policy.text_ping is None
    )
    assert any("@trade" in message for message in spot.subscribe_messages(0))
