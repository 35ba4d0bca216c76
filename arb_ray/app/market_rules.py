"""
Trading rules and fees of a session's markets: from the venues, else from the dated tables.

A venue's market list decides whether a market may be traded at all. One that is halted,
delisted or was never listed keeps a grid, so that a position in it can be valued and, should
it trade again, closed; its rules are marked, and the host makes no entries there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.transport.http import RestClient
from arb_ray.adapters.venues.binance import rest as binance_rest
from arb_ray.adapters.venues.binance import rules as binance_rules
from arb_ray.adapters.venues.upbit import rest as upbit_rest
from arb_ray.adapters.venues.upbit import rules as upbit_rules
from arb_ray.app.settings import Settings
from arb_ray.app.venue_rest import ask_at_start, rest_client
from arb_ray.domain.errors import ArbError, MalformedFrame, VenueRefused
from arb_ray.domain.instrument import (
    RULES_NOT_TRADING,
    RULES_UNKNOWN,
    FeeSchedule,
    Instrument,
    InstrumentId,
    Kind,
    TickBand,
    TradingRules,
    Venue,
    VenueSymbol,
)
from arb_ray.domain.money import ZERO
from arb_ray.engine.market_event import MarketListing

FINEST_STEP = Decimal("1e-8")

Listings = Mapping[VenueSymbol, MarketListing]


async def read_rules(
    settings: Settings, instruments: Iterable[Instrument], now_ns: int, log: Any
) -> dict[InstrumentId, TradingRules]:
    """
    Return what the venues say of ``instruments``; one without an answer is left out.

    A venue that cannot be asked, after a few attempts, leaves all of its own out.
    """
    by_venue: defaultdict[Venue, list[Instrument]] = defaultdict(list)
    for instrument in instruments:
        by_venue[instrument.venue].append(instrument)
    found = await asyncio.gather(
        *(_read_venue(settings, venue, wanted, now_ns, log) for venue, wanted in by_venue.items())
    )
    return {instrument: rules for venue in found for instrument, rules in venue.items()}


async def _read_venue(
    settings: Settings, venue: Venue, wanted: Sequence[Instrument], now_ns: int, log: Any
) -> dict[InstrumentId, TradingRules]:
    async def ask() -> Listings:
        async with rest_client(settings, venue) as rest:
            if venue is Venue.UPBIT:
                return await _upbit_listings(rest, wanted, now_ns, log)
            return await binance_rest.fetch_markets(rest, venue, now_ns)

    try:
        listings = await ask_at_start(venue, ask)
    except ArbError as error:
        log.warning("rules_fallback", venue=str(venue), cause=str(error))
        return {}
    read = {one.id: _judged(one, listings.get(one.venue_symbol), now_ns, log) for one in wanted}
    return {instrument: rules for instrument, rules in read.items() if rules is not None}


async def _upbit_listings(
    rest: RestClient, wanted: Sequence[Instrument], now_ns: int, log: Any
) -> Listings:
    """Return Upbit's list, with the rules of what is wanted and listed."""
    listings = {one.venue_symbol: one for one in await upbit_rest.fetch_markets(rest)}
    # One code that it does not know, and Upbit tells the ticks of none.
    codes = [one.venue_symbol for one in wanted if one.venue_symbol in listings]
    try:
        rules = await upbit_rest.fetch_rules(rest, codes, now_ns)
    except (VenueRefused, MalformedFrame) as error:
        log.warning("rules_fallback", venue=str(Venue.UPBIT), cause=str(error))
        rules = {}
    known = {
        code: msgspec.structs.replace(listings[code], rules=told) for code, told in rules.items()
    }
    return {**listings, **known}


def _judged(
    instrument: Instrument, listing: MarketListing | None, now_ns: int, log: Any
) -> TradingRules | None:
    """Return a listed market's rules (None: it names none), marked where it does not trade."""
    if listing is not None and listing.warnings:
        log.warning("market_warned", instrument=instrument.id, warnings=list(listing.warnings))
    if listing is not None and listing.is_trading:
        is_meant = instrument.kind is Kind.SPOT or listing.is_perpetual
        if is_meant:
            return listing.rules
    status = listing.status if listing is not None else "not listed"
    log.warning("market_not_trading", instrument=instrument.id, status=status)
    told = listing.rules if listing is not None else None
    rules = told or rules_or_unknown(instrument, now_ns)
    return msgspec.structs.replace(rules, source=RULES_NOT_TRADING)


def rules_or_unknown(instrument: Instrument, at_ns: int) -> TradingRules:
    """Return the dated table's rules, or ones marked unknown: such a market is only watched."""
    if instrument.venue is Venue.UPBIT:
        rules = upbit_rules.fallback_rules(instrument.venue_symbol, at_ns)
    else:
        rules = binance_rules.fallback_rules(instrument.venue, instrument.venue_symbol, at_ns)
    return rules or TradingRules(
        (TickBand(ZERO, FINEST_STEP),),
        lot=FINEST_STEP,
        min_qty=FINEST_STEP,
        max_qty=ZERO,
        min_notional=ZERO,
        source=RULES_UNKNOWN,
    )


def fees_of(settings: Settings, venue: Venue, at_ns: int) -> FeeSchedule:
    """Return a venue's taker fee: the configured one, else the dated public one."""
    schedule = upbit_rules.fees(at_ns) if venue is Venue.UPBIT else binance_rules.fees(venue, at_ns)
    own_bps = getattr(settings.venues, venue).taker_fee_bps
    if own_bps is None:
        return schedule
    return msgspec.structs.replace(schedule, taker_bps=Decimal(own_bps), source="configuration")
