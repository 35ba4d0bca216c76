"""
Upbit's trading rules and fees, from REST replies or from the dated tables here.

Pages: docs.upbit.com "krw-market-info" (read 2026-05-04) for ticks and minimum orders, the
customer centre's fee page (rendered 2026-09-23) for fees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from arb_ray.adapters.venues.upbit.endpoints import VENUE
from arb_ray.domain.errors import BadInput, MalformedFrame
from arb_ray.domain.instrument import (
    FeeAsset,
    FeeSchedule,
    TickBand,
    TradingRules,
    VenueSymbol,
)
from arb_ray.engine.market_event import MarketListing

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]{1,16}-[A-Z0-9]{1,24}$")]


class _Caution(msgspec.Struct):
    warning: bool = False
    caution: dict[str, bool] = msgspec.field(default_factory=dict)


class _Market(msgspec.Struct):
    market: _Name
    market_event: _Caution = msgspec.field(default_factory=_Caution)
    market_warning: str = "NONE"  # the flag's older spelling


class _Instrument(msgspec.Struct):
    market: _Name
    tick_size: Decimal


class _Level(msgspec.Struct):
    ask_price: Decimal
    bid_price: Decimal


class _Book(msgspec.Struct):
    market: _Name
    orderbook_units: tuple[_Level, ...]


_MARKETS = msgspec.json.Decoder(list[_Market], strict=False)
_INSTRUMENTS = msgspec.json.Decoder(list[_Instrument], strict=False)

_BOOKS = msgspec.json.Decoder(list[_Book], strict=False)

MAX_TICK = Decimal(10**9)
MAX_PRICE = Decimal(10**15)


def _day_ns(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000_000


def _bands(*rows: tuple[str, str]) -> tuple[TickBand, ...]:
    bands = [TickBand(Decimal(price_from), Decimal(tick)) for price_from, tick in rows]
    return tuple(sorted(bands, key=lambda band: band.price_from))


KRW_LOT = Decimal("1e-8")
KRW_MIN_NOTIONAL = Decimal(5_000)

KRW_TICKS_20250731 = _bands(
    ("1000000", "1000"),
    ("500000", "500"),
    ("100000", "100"),
    ("50000", "50"),
    ("10000", "10"),
    ("5000", "5"),
    ("100", "1"),
    ("10", "0.1"),
    ("1", "0.01"),
    ("0.1", "0.001"),
    ("0.01", "0.0001"),
    ("0.001", "0.00001"),
    ("0.0001", "0.000001"),
    ("0.00001", "0.0000001"),
    ("0", "0.00000001"),
)
"""In force since 2025-07-31. KRW-USDT's own tick of 0.5 (2025-03-21) ended with it: every
price seen since is whole KRW."""

KRW_RULES = (
    TradingRules(
        tick_bands=KRW_TICKS_20250731,
        lot=KRW_LOT,
        min_qty=KRW_LOT,
        max_qty=Decimal(0),
        min_notional=KRW_MIN_NOTIONAL,
        valid_from_ns=_day_ns(2025, 7, 31),
    ),
)
"""Oldest first. Tables before 2025-07-31 differed; earlier instants get the oldest one here."""

KRW_FEES = (
    FeeSchedule(
        taker_bps=Decimal(5),
        fee_asset=FeeAsset.QUOTE,
        valid_from_ns=_day_ns(2026, 9, 23),
        source="upbit.com customer centre, KRW market 0.05% with VAT, rendered 2026-09-23",
    ),
)
"""Oldest first. The rate is older than the day it was read on, so it serves earlier days too."""


def fallback_rules(venue_symbol: VenueSymbol, at_ns: int) -> TradingRules | None:
    """Return the dated rules of a KRW market; None for a market of another quote."""
    if not venue_symbol.startswith("KRW-"):
        return None
    in_force = [rules for rules in KRW_RULES if rules.valid_from_ns <= at_ns]
    return in_force[-1] if in_force else KRW_RULES[0]


def fees(at_ns: int) -> FeeSchedule:
    """Return the dated taker fee of the KRW market."""
    in_force = [schedule for schedule in KRW_FEES if schedule.valid_from_ns <= at_ns]
    return in_force[-1] if in_force else KRW_FEES[0]


def parse_markets(raw: bytes | str) -> tuple[MarketListing, ...]:
    """
    Read ``GET /v1/market/all`` (with or without ``is_details=true``).

    Upbit lists only markets that trade; ``warnings`` holds WARNING and the caution flags that
    are raised (GLOBAL_PRICE_DIFFERENCES stands on a fifth of the markets).

    Raises:
        MalformedFrame: The reply is not a list of markets.
    """
    try:
        markets = _MARKETS.decode(raw)
    except (ValueError, RecursionError) as fault:
        raise _malformed(fault, raw) from fault
    return tuple(_listing(market) for market in markets)


def _listing(market: _Market) -> MarketListing:
    quote, _, base = market.market.partition("-")
    event = market.market_event
    warned = event.warning or market.market_warning != "NONE"
    cautions = tuple(sorted(name for name, raised in event.caution.items() if raised))
    return MarketListing(
        venue_symbol=VenueSymbol(market.market),
        base=base,
        quote=quote,
        status="ACTIVE",
        is_trading=True,
        warnings=("WARNING", *cautions) if warned else cautions,
    )


def parse_ticks(raw: bytes | str) -> dict[VenueSymbol, Decimal]:
    """
    Read ``GET /v1/orderbook/instruments``: the tick in force at each market's present price.

    Raises:
        MalformedFrame: The reply is no such list, or a tick cannot be.
    """
    try:
        instruments = _INSTRUMENTS.decode(raw)
    except (ValueError, RecursionError) as fault:
        raise _malformed(fault, raw) from fault
    for instrument in instruments:
        if not (instrument.tick_size.is_finite() and 0 < instrument.tick_size <= MAX_TICK):
            raise _malformed(ValueError(f"tick of {instrument.tick_size}"), raw)
    return {VenueSymbol(each.market): each.tick_size for each in instruments}


def parse_mids(raw: bytes | str) -> dict[VenueSymbol, Decimal]:
    """
    Read ``GET /v1/orderbook``: the middle of each market's best bid and ask, in its quote.

    A market with an empty side is left out: it has no middle.

    Raises:
        MalformedFrame: The reply is no such list, or a price cannot be.
    """
    try:
        books = _BOOKS.decode(raw)
    except (ValueError, RecursionError) as fault:
        raise _malformed(fault, raw) from fault
    mids: dict[VenueSymbol, Decimal] = {}
    for book in books:
        for level in book.orderbook_units[:1]:
            bid, ask = level.bid_price, level.ask_price
            if not all(price.is_finite() and 0 <= price <= MAX_PRICE for price in (bid, ask)):
                raise _malformed(ValueError(f"prices of {bid} and {ask}"), raw)
            if bid and ask:
                mids[VenueSymbol(book.market)] = (bid + ask) / 2
    return mids


def rules_from_ticks(
    ticks: Mapping[VenueSymbol, Decimal], markets: Iterable[VenueSymbol], at_ns: int
) -> dict[VenueSymbol, TradingRules]:
    """
    Combine the venue's present ticks with the dated table.

    The venue tells one tick, the table tells the ticks at other prices. A tick that the table
    knows confirms it; one that it does not know replaces it, at every price.

    Raises:
        BadInput: A market is not quoted in KRW.
    """
    rules: dict[VenueSymbol, TradingRules] = {}
    for market in markets:
        table = fallback_rules(market, at_ns)
        if table is None:
            raise BadInput(market, "Upbit's rules are known for KRW markets only", "Use KRW-...")
        if (tick := ticks.get(market)) is not None:
            known = any(band.tick_size == tick for band in table.tick_bands)
            bands = table.tick_bands if known else (TickBand(Decimal(0), tick),)
            table = msgspec.structs.replace(table, tick_bands=bands, source="venue")
        rules[market] = table
    return rules


def _malformed(fault: Exception, raw: bytes | str) -> MalformedFrame:
    text = raw if isinstance(raw, str) else raw[:800].decode("utf-8", "replace")
    return MalformedFrame(VENUE, str(fault)[:200], text)
