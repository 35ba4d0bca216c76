"""
Binance's trading rules and fees, from exchangeInfo or from the dated tables here.

Filters: binance-spot-api-docs, filters.md; USD-M: developers.binance.com, "Exchange
Information". The minimum notional goes by ``minNotional`` in NOTIONAL and MIN_NOTIONAL on
spot, and by ``notional`` in MIN_NOTIONAL on USD-M.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, TypeVar

import msgspec

from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import (
    FeeAsset,
    FeeSchedule,
    TickBand,
    TradingRules,
    Venue,
    VenueSymbol,
)
from arb_ray.engine.market_event import MarketListing

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
ZERO = Decimal(0)
FINEST = Decimal("1e-8")
"""Stands in for a step of 0, which switches that part of a filter off."""
LARGEST = Decimal(10) ** 18

T = TypeVar("T")


class _Filter(msgspec.Struct, rename="camel"):
    filter_type: str
    tick_size: Decimal | None = None
    step_size: Decimal | None = None
    min_qty: Decimal | None = None
    max_qty: Decimal | None = None
    min_notional: Decimal | None = None
    notional: Decimal | None = None

    def is_possible(self) -> bool:
        """Tell whether every number can be meant; NaN compares with nothing."""
        numbers = (
            self.tick_size,
            self.step_size,
            self.min_qty,
            self.max_qty,
            self.min_notional,
            self.notional,
        )
        return all(n is None or (n.is_finite() and 0 <= n <= LARGEST) for n in numbers)


class _Symbol(msgspec.Struct, rename="camel"):
    symbol: _Name
    status: str
    base_asset: _Name
    quote_asset: _Name
    filters: tuple[_Filter, ...] = ()
    contract_type: str | None = None


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: tuple[_Symbol, ...]


class _RateLimits(msgspec.Struct, rename="camel"):
    rate_limits: tuple[_RateLimit, ...] = ()


_INFO = msgspec.json.Decoder(_ExchangeInfo, strict=False)
_LIMITS = msgspec.json.Decoder(_RateLimits, strict=False)


def _day_ns(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000_000


def _dated(tick: str, lot: str, min_notional: str, valid_from_ns: int) -> TradingRules:
    return TradingRules(
        tick_bands=(TickBand(ZERO, Decimal(tick)),),
        lot=Decimal(lot),
        min_qty=Decimal(lot),
        max_qty=ZERO,
        min_notional=Decimal(min_notional),
        valid_from_ns=valid_from_ns,
    )


FALLBACK_RULES: dict[Venue, dict[str, tuple[TradingRules, ...]]] = {
    Venue.BINANCE_SPOT: {
        # Seen on 2026-10-03 in third-party copies of exchangeInfo.
        "BTCUSDT": (_dated("0.01", "0.00001", "5", _day_ns(2026, 10, 3)),),
        # Captured exchangeInfo of 2021-10-12; XRP's step became 0.1 later.
        "ETHUSDT": (_dated("0.01", "0.0001", "10", _day_ns(2021, 10, 12)),),
        "XRPUSDT": (_dated("0.0001", "1", "10", _day_ns(2021, 10, 12)),),
    },
    Venue.BINANCE_USDM: {
        # Third-party fixtures of 2026.
        "BTCUSDT": (_dated("0.10", "0.001", "100", _day_ns(2026, 10, 3)),),
    },
}
"""Only what was seen somewhere, oldest first. A symbol that is not here has no rules until
the venue is asked: a guessed lot size would be worse than no trade."""

FEES: dict[Venue, tuple[FeeSchedule, ...]] = {
    Venue.BINANCE_SPOT: (
        FeeSchedule(
            taker_bps=Decimal(10),
            fee_asset=FeeAsset.RECEIVED,
            valid_from_ns=_day_ns(2026, 7, 26),
            source="binance.com fee page, VIP 0 0.1000%, captured 2026-07-26",
        ),
    ),
    Venue.BINANCE_USDM: (
        FeeSchedule(
            taker_bps=Decimal(5),
            fee_asset=FeeAsset.QUOTE,
            valid_from_ns=_day_ns(2026, 7, 26),
            source="USD-M VIP 0 taker 0.0500%, official examples, read 2026-07-26",
        ),
    ),
}
"""Oldest first, without the discount for paying in BNB. The rates are older than the day they
were read on, so they serve earlier days too."""


def fallback_rules(venue: Venue, venue_symbol: VenueSymbol, at_ns: int) -> TradingRules | None:
    """Return the dated rules of a symbol; None for one that the table does not know."""
    known = FALLBACK_RULES[venue].get(venue_symbol, ())
    in_force = [rules for rules in known if rules.valid_from_ns <= at_ns]
    return in_force[-1] if in_force else next(iter(known), None)


def fees(venue: Venue, at_ns: int) -> FeeSchedule:
    """Return the dated taker fee of an account without a tier."""
    in_force = [schedule for schedule in FEES[venue] if schedule.valid_from_ns <= at_ns]
    return in_force[-1] if in_force else FEES[venue][0]


def parse_exchange_info(
    raw: bytes | str, venue: Venue, at_ns: int = 0
) -> dict[VenueSymbol, MarketListing]:
    """
    Read exchangeInfo: every symbol with its status and rules.

    Only TRADING counts as trading; HALT, BREAK, CANCEL_ONLY, PENDING_TRADING and whatever
    comes next do not. ``rules`` is None where a symbol's filters are missing or impossible.

    Raises:
        MalformedFrame: The reply is no exchangeInfo.
    """
    info = _parse(_INFO, raw, venue)
    return {VenueSymbol(each.symbol): _listing(each, venue, at_ns) for each in info.symbols}


def parse_weight_per_min(raw: bytes | str, venue: Venue) -> int | None:
    """
    Read the request weight a minute that exchangeInfo grants; None when it says nothing.

    Raises:
        MalformedFrame: The reply is no exchangeInfo.
    """
    for limit in _parse(_LIMITS, raw, venue).rate_limits:
        is_weight = limit.rate_limit_type == "REQUEST_WEIGHT" and limit.interval == "MINUTE"
        if is_weight and limit.interval_num == 1 and limit.limit > 0:
            return limit.limit
    return None


def _parse(decoder: msgspec.json.Decoder[T], raw: bytes | str, venue: Venue) -> T:
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError) as fault:
        text = raw if isinstance(raw, str) else raw[:800].decode("utf-8", "replace")
        raise MalformedFrame(venue, str(fault)[:200], text) from fault


def _listing(symbol: _Symbol, venue: Venue, at_ns: int) -> MarketListing:
    return MarketListing(
        venue_symbol=VenueSymbol(symbol.symbol),
        base=symbol.base_asset,
        quote=symbol.quote_asset,
        status=symbol.status,
        is_trading=symbol.status == "TRADING",
        is_perpetual=venue is Venue.BINANCE_USDM and symbol.contract_type == "PERPETUAL",
        rules=_rules(symbol.filters, at_ns),
    )


def _rules(filters: tuple[_Filter, ...], at_ns: int) -> TradingRules | None:
    by_type = {each.filter_type: each for each in filters}
    price, lot = by_type.get("PRICE_FILTER"), by_type.get("LOT_SIZE")
    if price is None or lot is None or not all(each.is_possible() for each in filters):
        return None
    market_lot = by_type.get("MARKET_LOT_SIZE")
    notional = by_type.get("NOTIONAL") or by_type.get("MIN_NOTIONAL")
    minimum = (notional.min_notional or notional.notional or ZERO) if notional else ZERO
    # A taker's order must pass both lot filters; 0 switches a bound off.
    maxima = [each.max_qty for each in (lot, market_lot) if each and each.max_qty]
    return TradingRules(
        tick_bands=(TickBand(ZERO, price.tick_size or FINEST),),
        lot=max(lot.step_size or FINEST, (market_lot and market_lot.step_size) or ZERO),
        min_qty=max(lot.min_qty or ZERO, (market_lot and market_lot.min_qty) or ZERO),
        max_qty=min(maxima, default=ZERO),
        min_notional=minimum,
        valid_from_ns=at_ns,
        source="venue",
    )
