"""
The markets of a session: which instruments, under which rules, at which fees.

Rules come from the venues' REST at start, fees from the configuration or the dated tables.
A venue that cannot be asked leaves the dated fallback rules in force, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.transport.http import RestClient, RestPolicy
from arb_ray.adapters.transport.rate_limit import Window
from arb_ray.adapters.venues.binance import rest as binance_rest
from arb_ray.adapters.venues.binance import rules as binance_rules
from arb_ray.adapters.venues.binance.endpoints import endpoints_of
from arb_ray.adapters.venues.upbit import rest as upbit_rest
from arb_ray.adapters.venues.upbit import rules as upbit_rules
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import ArbError, BadInput, VenueRefused
from arb_ray.domain.instrument import (
    RULES_UNKNOWN,
    FeeSchedule,
    Instrument,
    InstrumentId,
    Leg,
    Pair,
    TickBand,
    TradingRules,
    Venue,
    VenueSymbol,
)
from arb_ray.domain.ledger import Account, Entry, EntryKind, Posting
from arb_ray.domain.money import KRW, USDT, ZERO, Asset, floor_to

LOT_OF_INVENTORY = Decimal("1e-8")
FINEST_STEP = Decimal("1e-8")


def rest_client(settings: Settings, venue: Venue, on_reply: Any = None) -> RestClient:
    """Return a venue's REST client within the venue's budgets; enter it before use."""
    section = getattr(settings.venues, venue)
    per_s = Window(section.rest_requests_per_s_count, 1.0)
    if venue is Venue.UPBIT:
        groups = {
            upbit_rest.MARKET_GROUP: (per_s,),
            upbit_rest.ORDERBOOK_GROUP: (per_s,),
        }
    else:
        weight = Window(endpoints_of(venue).limits.rest_weight_per_min, 60.0)
        groups = {binance_rest.WEIGHT_GROUP: (weight,)}
    policy = RestPolicy(
        venue=venue, base_url=section.rest_url, groups=groups, timeout_s=section.rest_timeout_s
    )
    return RestClient(policy, on_reply=on_reply)


def leg_b_venue(settings: Settings) -> Venue:
    """Return the market of leg B."""
    return Venue.BINANCE_SPOT if settings.leg_b == "spot" else Venue.BINANCE_USDM


class Markets:
    """Reads rules once, and answers for the supervisor what hosts and guard must know."""

    def __init__(
        self, settings: Settings, pairs: Sequence[PairInstruments], log: Any, now_ns: int
    ) -> None:
        self._settings = settings
        self._wanted = {pair.symbol: pair for pair in pairs}
        self._log = log
        self._now_ns = now_ns
        self._pairs: dict[str, Pair] = {}

    def instruments(self, venue: str, symbols: Sequence[str]) -> list[InstrumentId]:
        """Return what a host with ``symbols`` wants of a venue's feed; Upbit's with KRW-USDT."""
        found = [
            instrument.id
            for symbol in symbols
            for instrument in (self._wanted[symbol].a, self._wanted[symbol].b)  # type: ignore[index]
            if instrument.venue == venue and self._wanted[symbol].has(instrument.id)  # type: ignore[index]
        ]
        first = next(iter(self._wanted.values()))
        if venue == Venue.UPBIT and symbols and first.has(first.fx.id):
            found.append(first.fx.id)
        return found

    async def pairs(self, symbols: Sequence[str]) -> list[Pair]:
        """Return the pairs with rules and fees, read from the venues at the first call."""
        if not self._pairs:
            self._pairs = await self._load()
        return [self._pairs[symbol] for symbol in symbols]

    async def opening(self) -> list[Entry]:
        """Return the configured opening balances: cash, and inventory at Upbit's price of now."""
        pairs = await self.pairs(sorted(self._wanted))
        try:
            prices = await self._prices_usdt(pairs)
        except VenueRefused as error:
            # Upbit answers for none when it does not know one; a recording lacks markets.
            self._log.warning("no_inventory", symbol="", cause=str(error))
            prices = {}
        for pair in pairs:
            if pair.symbol not in prices:
                self._log.warning("no_inventory", symbol=pair.symbol)
        assets = [pair.a.instrument.asset for pair in pairs]
        return opening_entries(self._settings, assets, prices, self._now_ns)

    async def _prices_usdt(self, pairs: Sequence[Pair]) -> Mapping[str, Decimal]:
        """Return what one unit of each asset costs, USDT, by Upbit's books."""
        codes = [pair.a.instrument.venue_symbol for pair in pairs]
        codes.append(pairs[0].fx.instrument.venue_symbol)
        async with rest_client(self._settings, Venue.UPBIT) as rest:
            raw = await rest.get_bytes(
                "/v1/orderbook",
                {"markets": ",".join(codes), "count": 1},
                group=upbit_rest.ORDERBOOK_GROUP,
            )
        mids = {
            book["market"]: _mid(book["orderbook_units"][0]) for book in msgspec.json.decode(raw)
        }
        fx = mids[pairs[0].fx.instrument.venue_symbol]
        return {
            pair.symbol: mids[pair.a.instrument.venue_symbol] / fx
            for pair in pairs
            if pair.a.instrument.venue_symbol in mids
        }

    async def _load(self) -> dict[str, Pair]:
        fx = next(iter(self._wanted.values())).fx
        a = [pair.a for pair in self._wanted.values()]
        b = [pair.b for pair in self._wanted.values()]
        rules = {
            **await self._rules_upbit([fx, *a]),
            **await self._rules_binance(b),
        }
        return {
            symbol: Pair(
                symbol,
                self._leg(wanted.a, rules),
                self._leg(wanted.b, rules),
                self._leg(wanted.fx, rules),
            )
            for symbol, wanted in self._wanted.items()
        }

    async def _rules_upbit(
        self, instruments: Sequence[Instrument]
    ) -> dict[tuple[str, VenueSymbol], TradingRules]:
        codes = [instrument.venue_symbol for instrument in instruments]
        try:
            async with rest_client(self._settings, Venue.UPBIT) as rest:
                found = await upbit_rest.fetch_rules(rest, codes, self._now_ns)
        except ArbError as error:
            self._log.warning("rules_fallback", venue="upbit", cause=str(error))
            found = {}
        return {(Venue.UPBIT, code): rules for code, rules in found.items()}

    async def _rules_binance(
        self, instruments: Sequence[Instrument]
    ) -> dict[tuple[str, VenueSymbol], TradingRules]:
        venue = leg_b_venue(self._settings)
        try:
            async with rest_client(self._settings, venue) as rest:
                listings = await binance_rest.fetch_markets(rest, venue, self._now_ns)
        except ArbError as error:
            self._log.warning("rules_fallback", venue=str(venue), cause=str(error))
            listings = {}
        wanted = {instrument.venue_symbol for instrument in instruments}
        return {
            (venue, code): listing.rules
            for code, listing in listings.items()
            if code in wanted and listing.rules is not None
        }

    def _leg(
        self, instrument: Instrument, read: Mapping[tuple[str, VenueSymbol], TradingRules]
    ) -> Leg:
        rules = read.get((instrument.venue, instrument.venue_symbol))
        if rules is None:
            rules = rules_or_unknown(instrument, self._now_ns)
            if rules.source == RULES_UNKNOWN:
                self._log.warning("rules_unknown", instrument=instrument.id)
        return Leg(instrument, rules, fees_of(self._settings, instrument.venue, self._now_ns))


def rules_or_unknown(instrument: Instrument, at_ns: int) -> TradingRules:
    """Return the dated table's rules, or ones marked unknown: such a market is only watched."""
    try:
        return fallback_rules(instrument, at_ns)
    except BadInput:
        return TradingRules(
            (TickBand(ZERO, FINEST_STEP),),
            lot=FINEST_STEP,
            min_qty=FINEST_STEP,
            max_qty=ZERO,
            min_notional=ZERO,
            source=RULES_UNKNOWN,
        )


def fallback_rules(instrument: Instrument, at_ns: int) -> TradingRules:
    """Return the dated table's rules. Raises BadInput for a market that it does not know."""
    if instrument.venue is Venue.UPBIT:
        rules = upbit_rules.fallback_rules(instrument.venue_symbol, at_ns)
    else:
        rules = binance_rules.fallback_rules(instrument.venue, instrument.venue_symbol, at_ns)
    if rules is None:
        raise BadInput(
            str(instrument.id),
            "the venue did not tell its trading rules, and the dated table has none",
            "Start when the venue answers, or leave the symbol out",
        )
    return rules


def fees_of(settings: Settings, venue: Venue, at_ns: int) -> FeeSchedule:
    """Return a venue's taker fee: the configured one, else the dated public one."""
    schedule = upbit_rules.fees(at_ns) if venue is Venue.UPBIT else binance_rules.fees(venue, at_ns)
    own_bps = getattr(settings.venues, venue).taker_fee_bps
    if own_bps is None:
        return schedule
    return msgspec.structs.replace(schedule, taker_bps=Decimal(own_bps), source="configuration")


def opening_entries(
    settings: Settings,
    assets: Sequence[Asset],
    prices_usdt: Mapping[str, Decimal],
    at_ns: int,
) -> list[Entry]:
    """Return one entry a market: the cash, and the inventory that sales on spot need."""
    balances = settings.balances
    entries = [
        _opening(Venue.UPBIT, KRW, balances.upbit.cash_krw, at_ns),
        _opening(Venue.BINANCE_SPOT, USDT, balances.binance_spot.cash_usdt, at_ns),
        _opening(Venue.BINANCE_USDM, USDT, balances.binance_usdm.cash_usdt, at_ns),
    ]
    for asset in assets:
        price = prices_usdt.get(asset)
        for venue, notional in (
            (Venue.UPBIT, balances.upbit.inventory_notional_usdt),
            (Venue.BINANCE_SPOT, balances.binance_spot.inventory_notional_usdt),
        ):
            if price:
                amount = floor_to(notional / price, LOT_OF_INVENTORY)
                entries.append(_opening(venue, asset, amount, at_ns))
    return [entry for entry in entries if entry.postings]


def _opening(venue: Venue, asset: Asset, amount: Decimal, at_ns: int) -> Entry:
    postings = (
        Posting(venue, Account.OPENING, asset, -amount),
        Posting(venue, Account.FREE, asset, amount),
    )
    entry_id = f"opening:{venue}:{asset}"
    kept = postings if amount > 0 else ()
    return Entry(entry_id, EntryKind.OPENING, None, None, at_ns, kept)


def _mid(unit: Mapping[str, Any]) -> Decimal:
    bid, ask = Decimal(repr(unit["bid_price"])), Decimal(repr(unit["ask_price"]))
    return (bid + ask) / 2
