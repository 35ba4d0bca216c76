from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

import pytest

from arb_ray.adapters.venues.binance import rest as binance_rest
from arb_ray.adapters.venues.binance import rules as binance
from arb_ray.adapters.venues.binance.endpoints import snapshot_request
from arb_ray.adapters.venues.upbit import rest as upbit_rest
from arb_ray.adapters.venues.upbit import rules as upbit
from arb_ray.domain.errors import BadInput, MalformedFrame
from arb_ray.domain.instrument import FeeAsset, Venue, VenueSymbol

SPOT, USDM = Venue.BINANCE_SPOT, Venue.BINANCE_USDM
NOW_NS = 1_800_000_000_000_000_000
KRW_BTC, KRW_USDT = VenueSymbol("KRW-BTC"), VenueSymbol("KRW-USDT")

PRICE_FILTER = {"filterType": "PRICE_FILTER", "minPrice": "0.01", "tickSize": "0.01000000"}
LOT_SIZE = {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"}
MARKET_LOT = {"filterType": "MARKET_LOT_SIZE", "minQty": "0.0", "maxQty": "100", "stepSize": "0.0"}
NOTIONAL = {"filterType": "NOTIONAL", "minNotional": "5.00000000", "maxNotional": "9000000"}


def info(*filters: Mapping[str, object], status: str = "TRADING", **more: object) -> str:
    symbol = {"symbol": "BTCUSDT", "status": status, "baseAsset": "BTC", "quoteAsset": "USDT"}
    symbol |= {"filters": list(filters), **more}  # type: ignore[dict-item]
    limits = [
        {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 50},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    ]
    return json.dumps({"symbols": [symbol], "rateLimits": limits, "serverTime": 1})


def listing(raw: str, venue: Venue = SPOT) -> object:
    return binance.parse_exchange_info(raw, venue, NOW_NS)[VenueSymbol("BTCUSDT")]


def test_exchange_info_gives_exact_rules() -> None:
    rules = listing(info(PRICE_FILTER, LOT_SIZE, MARKET_LOT, NOTIONAL)).rules  # type: ignore[attr-defined]
    assert rules.tick_size(Decimal(60_000)) == Decimal("0.01")
    assert (rules.lot, rules.min_qty) == (Decimal("0.00001"), Decimal("0.00001"))
    assert rules.max_qty == 100  # a taker's order must pass both lot filters
    assert rules.min_notional == 5
    assert (rules.source, rules.valid_from_ns) == ("venue", NOW_NS)


@pytest.mark.parametrize(
    "minimum",
    [
        {"filterType": "NOTIONAL", "minNotional": "7"},
        {"filterType": "MIN_NOTIONAL", "minNotional": "7"},
        {"filterType": "MIN_NOTIONAL", "notional": "7"},
    ],
)
def test_the_minimum_notional_is_read_in_every_spelling(minimum: Mapping[str, object]) -> None:
    assert listing(info(PRICE_FILTER, LOT_SIZE, minimum), USDM).rules.min_notional == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", ["HALT", "BREAK", "CANCEL_ONLY", "PENDING_TRADING", "SOMETHING"])
def test_only_trading_is_trading(status: str) -> None:
    assert not listing(info(PRICE_FILTER, LOT_SIZE, status=status)).is_trading  # type: ignore[attr-defined]
    assert listing(info(PRICE_FILTER, LOT_SIZE)).is_trading  # type: ignore[attr-defined]


def test_perpetuals_are_told_from_dated_futures() -> None:
    assert listing(info(contractType="PERPETUAL"), USDM).is_perpetual  # type: ignore[attr-defined]
    assert not listing(info(contractType="CURRENT_QUARTER"), USDM).is_perpetual  # type: ignore[attr-defined]


def test_a_step_of_zero_switches_the_part_off() -> None:
    lot = {**LOT_SIZE, "stepSize": "0"}
    rules = listing(info({**PRICE_FILTER, "tickSize": "0.0"}, lot)).rules  # type: ignore[attr-defined]
    assert rules.lot == rules.tick_size(Decimal(1)) == Decimal("1e-8")


@pytest.mark.parametrize("step", ["NaN", "Infinity", "-1", "1e30"])
def test_impossible_filters_give_no_rules(step: str) -> None:
    assert listing(info(PRICE_FILTER, {**LOT_SIZE, "stepSize": step})).rules is None  # type: ignore[attr-defined]
    assert listing(info(PRICE_FILTER)).rules is None  # type: ignore[attr-defined]


def test_the_weight_limit_is_read_where_it_stands() -> None:
    assert binance.parse_weight_per_min(info(), SPOT) == 6_000
    assert binance.parse_weight_per_min('{"symbols":[]}', SPOT) is None


@pytest.mark.parametrize(
    "raw", ["", "[]", '{"symbols":[{}]}', '{"code":-1,"msg":"x"}', "[" * 50_000]
)
def test_a_reply_that_is_no_exchange_info_is_malformed(raw: str) -> None:
    with pytest.raises(MalformedFrame):
        binance.parse_exchange_info(raw, SPOT)


def test_a_snapshot_costs_what_the_venue_says() -> None:
    assert snapshot_request(SPOT, 1_000) == (1_000, 50)
    assert snapshot_request(SPOT, 1_001) == (5_000, 250)
    assert snapshot_request(USDM, 20) == (50, 2)
    assert snapshot_request(USDM, 99_999) == (1_000, 20)


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        ("116539000", "1000"),
        ("1000000", "1000"),
        ("999999", "500"),
        ("100000", "100"),
        ("50000", "50"),
        ("10000", "10"),
        ("5000", "5"),
        ("4999", "1"),
        ("1420", "1"),
        ("100", "1"),
        ("99.9", "0.1"),
        ("9.99", "0.01"),
        ("0.5", "0.001"),
        ("0.05", "0.0001"),
        ("0.000005", "0.00000001"),
    ],
)
def test_upbits_ticks_are_those_of_2025_07_31(price: str, tick: str) -> None:
    rules = upbit.fallback_rules(KRW_USDT, NOW_NS)
    assert rules is not None
    assert rules.tick_size(Decimal(price)) == Decimal(tick)
    assert rules.min_notional == 5_000


def test_fees_are_dated_and_name_their_source() -> None:
    for schedule in (upbit.fees(NOW_NS), binance.fees(SPOT, NOW_NS), binance.fees(USDM, 0)):
        assert schedule.source
        assert schedule.valid_from_ns > 0
    assert upbit.fees(NOW_NS).taker_bps == 5
    assert binance.fees(SPOT, NOW_NS).taker_bps == 10
    assert binance.fees(SPOT, NOW_NS).fee_asset is FeeAsset.RECEIVED
    assert binance.fees(USDM, NOW_NS).taker_bps == 5


def test_rules_are_not_guessed() -> None:
    assert upbit.fallback_rules(VenueSymbol("BTC-ETH"), NOW_NS) is None
    assert binance.fallback_rules(SPOT, VenueSymbol("NOPEUSDT"), NOW_NS) is None
    known = binance.fallback_rules(USDM, VenueSymbol("BTCUSDT"), NOW_NS)
    assert known is not None
    assert known.min_notional == 100


def test_markets_carry_their_warnings() -> None:
    caution = {"GLOBAL_PRICE_DIFFERENCES": True, "PRICE_FLUCTUATIONS": False}
    raw = json.dumps(
        [
            {"market": "KRW-BTC", "english_name": "Bitcoin"},
            {"market": "KRW-ABC", "market_event": {"warning": True, "caution": caution}},
            {"market": "BTC-OLD", "market_warning": "CAUTION"},
        ]
    )
    plain, warned, old = upbit.parse_markets(raw)
    assert (plain.base, plain.quote, plain.warnings) == ("BTC", "KRW", ())
    assert warned.warnings == ("WARNING", "GLOBAL_PRICE_DIFFERENCES")
    assert old.warnings == ("WARNING",)


def test_the_venues_tick_confirms_the_table_or_replaces_it() -> None:
    ticks = {KRW_BTC: Decimal(1000), KRW_USDT: Decimal("0.25")}
    rules = upbit.rules_from_ticks(ticks, [KRW_BTC, KRW_USDT, VenueSymbol("KRW-ETH")], NOW_NS)
    assert rules[KRW_BTC].tick_size(Decimal(900_000)) == 500
    assert rules[KRW_USDT].tick_size(Decimal(1_400)) == Decimal("0.25")
    assert [rules[market].source for market in rules] == ["venue", "venue", "fallback"]
    with pytest.raises(BadInput):
        upbit.rules_from_ticks({}, [VenueSymbol("USDT-BTC")], NOW_NS)


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        "x",
        '[{"market":"KRW-BTC","tick_size":"0"}]',
        '[{"market":"KRW-BTC","tick_size":"NaN"}]',
        '[{"market":"btc","tick_size":"1"}]',
    ],
)
def test_ticks_that_cannot_be_are_malformed(raw: str) -> None:
    with pytest.raises(MalformedFrame):
        upbit.parse_ticks(raw)


class Replies:
    """An HTTP client that answers from a table and notes what it was asked."""

    def __init__(self, *bodies: str) -> None:
        self.asked: list[tuple[str, dict[str, str | int], int, str]] = []
        self._bodies = list(bodies)

    async def get_bytes(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        weight: int = 1,
        group: str = "default",
    ) -> bytes:
        self.asked.append((path, dict(params or {}), weight, group))
        return self._bodies.pop(0).encode()


async def test_requests_carry_their_weight_and_group() -> None:
    rest = Replies(info(), "{}", "[]")
    await binance_rest.fetch_markets(rest, SPOT, NOW_NS)
    assert await binance_rest.fetch_snapshot(rest, USDM, VenueSymbol("BTCUSDT"), 700) == b"{}"
    await upbit_rest.fetch_markets(rest)
    assert rest.asked == [
        ("/api/v3/exchangeInfo", {}, 20, "weight"),
        ("/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": 1_000}, 20, "weight"),
        ("/v1/market/all", {"is_details": "true"}, 1, "market"),
    ]


async def test_upbits_rules_are_asked_for_in_parts() -> None:
    markets = [VenueSymbol(f"KRW-C{n}") for n in range(150)]
    rest = Replies('[{"market":"KRW-C0","tick_size":"1"}]', "[]")
    rules = await upbit_rest.fetch_rules(rest, [*markets, markets[0]], NOW_NS)
    assert list(rules) == markets
    assert [str(params["markets"]).count(",") + 1 for _, params, _, _ in rest.asked] == [100, 50]
    assert [rules[market].source for market in markets[:2]] == ["venue", "fallback"]
