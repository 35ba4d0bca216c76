"""
The markets of a session: which instruments, under which rules, at which fees.

Rules come from the venues' REST at start, fees from the configuration or the dated tables.
A venue that cannot be asked leaves the dated fallback rules in force, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from arb_ray.adapters.venues.upbit import rest as upbit_rest
from arb_ray.app.market_rules import fees_of, read_rules, rules_or_unknown
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.app.venue_rest import ask_at_start, rest_client
from arb_ray.domain.errors import MalformedFrame, VenueRefused
from arb_ray.domain.instrument import (
    RULES_NOT_TRADING,
    RULES_UNKNOWN,
    Instrument,
    InstrumentId,
    Leg,
    Pair,
    TradingRules,
    Venue,
)
from arb_ray.domain.ledger import Account, Entry, EntryKind, Posting
from arb_ray.domain.money import KRW, USDT, Asset, floor_to

LOT_OF_INVENTORY = Decimal("1e-8")


def leg_b_venue(settings: Settings) -> Venue:
    """Return the market of leg B."""
    return Venue.BINANCE_SPOT if settings.leg_b == "spot" else Venue.BINANCE_USDM


class Markets:
    """Reads rules once, and answers for the supervisor what hosts and guard must know."""

    def __init__(
        self, settings: Settings, pairs: Sequence[PairInstruments], log: Any, now_ns: int
    ) -> None:
        self._settings = settings
        self._wanted = {str(pair.symbol): pair for pair in pairs}
        self._log = log
        self._now_ns = now_ns
        self._loading = asyncio.Lock()
        self._pairs: dict[str, Pair] = {}

    def instruments(self, venue: str, symbols: Sequence[str]) -> list[InstrumentId]:
        """Return what a host with ``symbols`` wants of a venue's feed; Upbit's with KRW-USDT."""
        found = [
            instrument.id
            for symbol in symbols
            for instrument in (self._wanted[symbol].a, self._wanted[symbol].b)
            if instrument.venue == venue and self._wanted[symbol].has(instrument.id)
        ]
        first = next(iter(self._wanted.values()))
        if venue == Venue.UPBIT and symbols and first.has(first.fx.id):
            found.append(first.fx.id)
        return found

    async def pairs(self, symbols: Sequence[str]) -> list[Pair]:
        """Return the pairs with rules and fees, read from the venues at the first call."""
        async with self._loading:  # all hosts ask at once, and the venues are asked once
            if not self._pairs:
                self._pairs = await self._load()
        return [self._pairs[symbol] for symbol in symbols]

    async def opening(self) -> list[Entry]:
        """
        Return the configured opening balances: cash, and inventory at Upbit's price of now.

        Raises:
            VenueUnreachable, RateLimited: Upbit does not tell its prices; ask again later.
        """
        pairs = await self.pairs(sorted(self._wanted))
        try:
            prices = await self._prices_usdt(pairs)
        except (VenueRefused, MalformedFrame) as error:
            # A person must look at it; without coins to sell, only purchases are made.
            self._log.warning("no_inventory", symbol="", cause=str(error))
            prices = {}
        for pair in pairs:
            if pair.symbol not in prices:
                self._log.warning("no_inventory", symbol=pair.symbol)
        assets = [pair.a.instrument.asset for pair in pairs]
        return opening_entries(self._settings, assets, prices, self._now_ns)

    async def _prices_usdt(self, pairs: Sequence[Pair]) -> Mapping[str, Decimal]:
        """Return what one unit of each asset costs, USDT, by Upbit's books."""
        # Upbit answers for none when it does not know one; a recording lacks markets.
        legs = [
            leg
            for pair in pairs
            for leg in (pair.a, pair.fx)
            if leg.rules.source != RULES_NOT_TRADING
            and self._wanted[pair.symbol].has(leg.instrument.id)
        ]
        codes = [leg.instrument.venue_symbol for leg in legs]

        async def ask() -> Mapping[Any, Decimal]:
            async with rest_client(self._settings, Venue.UPBIT) as rest:
                return await upbit_rest.fetch_mids(rest, codes)

        mids = await ask_at_start(Venue.UPBIT, ask)
        fx = mids.get(pairs[0].fx.instrument.venue_symbol)
        if fx is None:
            return {}
        return {
            pair.symbol: mids[pair.a.instrument.venue_symbol] / fx
            for pair in pairs
            if pair.a.instrument.venue_symbol in mids
        }

    async def _load(self) -> dict[str, Pair]:
        present = {
            instrument.id: instrument
            for wanted in self._wanted.values()
            for instrument in (wanted.a, wanted.b, wanted.fx)
            if wanted.has(instrument.id)
        }
        read = await read_rules(self._settings, present.values(), self._now_ns, self._log)
        rules = {
            instrument.id: read.get(instrument.id) or self._dated(instrument)
            for instrument in present.values()
        }
        return {
            symbol: Pair(
                wanted.symbol,
                self._leg(wanted.a, rules),
                self._leg(wanted.b, rules),
                self._leg(wanted.fx, rules),
            )
            for symbol, wanted in self._wanted.items()
        }

    def _dated(self, instrument: Instrument) -> TradingRules:
        rules = rules_or_unknown(instrument, self._now_ns)
        if rules.source == RULES_UNKNOWN:
            self._log.warning("rules_unknown", instrument=instrument.id)
        return rules

    def _leg(self, instrument: Instrument, rules: Mapping[InstrumentId, TradingRules]) -> Leg:
        # A market that a recording lacks is named, and no book of it will ever come.
        in_force = rules.get(instrument.id) or rules_or_unknown(instrument, self._now_ns)
        return Leg(instrument, in_force, fees_of(self._settings, instrument.venue, self._now_ns))


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
