"""The simulated market seen through Binance's doors, spot or USD-M."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arb_ray.adapters.venues.sim import binance_wire as wire
from arb_ray.adapters.venues.sim.binance_server import BinanceServer
from arb_ray.adapters.venues.sim.coins import E8, Coin
from arb_ray.adapters.venues.sim.faults import FaultKind, FaultPlan
from arb_ray.adapters.venues.sim.instruments import BinanceBook, Change
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import STEPS_PER_S

FUNDING_MS = 8 * 3_600 * 1_000  # funding at 00, 08 and 16 UTC
PARTIALS = (5, 10, 20)


class _Instrument:
    def __init__(self, market: Market, coin: Coin, *, is_perp: bool, rate: float) -> None:
        self.book = BinanceBook(market, coin.asset, is_perp=is_perp, rate=rate)
        self.stream = self.book.symbol.lower()
        price_decimals = wire.decimals_of(coin.perp_tick_e8) if is_perp else 8
        size_decimals = wire.decimals_of(coin.perp_lot_e8) if is_perp else 8
        self.spell = wire.Spelling(self.book.symbol, price_decimals, size_decimals)
        self.change: Change | None = None


class MarketSource:
    """Steps the books that somebody listens to, and renders each change once."""

    def __init__(
        self,
        market: Market,
        plan: FaultPlan,
        clock_ns: Callable[[], int],
        *,
        is_perp: bool,
        rate: float,
    ) -> None:
        self.venue = "binance_usdm" if is_perp else "binance_spot"
        self._market = market
        self._plan = plan
        self._clock_ns = clock_ns
        self._is_perp = is_perp
        self._rate = rate
        self._coins = {
            (coin.perp_symbol if is_perp else coin.spot_symbol).lower(): coin
            for coin in market.coins.values()
        }
        self._instruments: dict[str, _Instrument] = {}
        self._held: dict[str, str] = {}
        self.changes = 0

    def now_ms(self) -> int:
        """Return the exchange's clock, with the skew that a fault asks for."""
        return self._clock_ns() // 1_000_000 + self._plan.skew_ms(self.venue)

    def on_subscribed(self) -> None:
        """Do nothing: streams are looked up at each step."""

    async def depth(self, symbol: str, limit: int) -> str | None:
        """Return the REST snapshot that the next diff continues."""
        coin = self._coins.get(symbol.lower())
        if coin is None or symbol != symbol.upper():
            return None
        one = self._instrument(symbol.lower(), coin)
        if not one.book.book.bids:
            one.change = one.book.advance(self._market.step_at(self._clock_ns()))
        bids, asks = one.book.book.bids[:limit], one.book.book.asks[:limit]
        update_id = one.book.snapshot_id()
        if self._is_perp:
            return wire.usdm_rest_depth(one.spell, update_id, self.now_ms(), bids, asks)
        return wire.spot_partial_depth(one.spell, update_id, bids, asks)

    def exchange_info(self) -> dict[str, Any]:
        """Return filters and status of every listed symbol."""
        return {
            "timezone": "UTC",
            "serverTime": self.now_ms(),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": 2_400 if self._is_perp else 6_000,
                }
            ],
            "exchangeFilters": [],
            "symbols": [
                _perp_row(coin) if self._is_perp else _spot_row(coin)
                for coin in self._coins.values()
            ],
        }

    def premium_index(self) -> list[dict[str, Any]]:
        """Return mark price and funding of every perpetual."""
        step = self._market.step_at(self._clock_ns())
        rows = []
        for coin in self._coins.values():
            mark, index, rate, next_ms = self._marks(coin, step)
            rows.append(
                {
                    "symbol": coin.perp_symbol,
                    "markPrice": wire.fixed(mark),
                    "indexPrice": wire.fixed(index),
                    "estimatedSettlePrice": wire.fixed(mark),
                    "lastFundingRate": f"{rate:.8f}",
                    "interestRate": "0.00010000",
                    "nextFundingTime": next_ms,
                    "time": self.now_ms(),
                }
            )
        return rows

    async def tick(self, server: BinanceServer, step: int, phase: int, phases: int) -> None:
        """Publish what happened at ``step`` to the symbols of this ``phase``."""
        for stream in sorted(server.topics.symbols()):
            coin = self._coins.get(stream)
            if coin is None or _phase(stream, phases) != phase:
                continue
            if self._plan.active(FaultKind.SILENCE, self.venue, coin.asset):
                continue
            await self._publish(server, self._instrument(stream, coin), step)

    async def _publish(self, server: BinanceServer, one: _Instrument, step: int) -> None:
        topics, stream, spell = server.topics, one.stream, one.spell
        asset = one.book.asset
        skew = self._plan.skew_ms(self.venue)
        if self._plan.active(FaultKind.STALE_BOOK, self.venue, asset):
            await self._publish_frozen(server, one, skew)
        elif (change := one.book.advance(step)) is not None:
            one.change = change
            self.changes += 1
            at_ms = change.at_ms + skew
            await self._publish_tickers(server, one, change, at_ms)
            if topics.has((stream, "diff")):
                frame = self._diff(spell, change, at_ms)
                frames = [frame]
                if self._plan:
                    frames = self._plan.spoil(self.venue, asset, frame, self._held)
                for each in frames:
                    await server.publish((stream, "diff"), each)
            for count in PARTIALS:
                topic = (stream, f"partial{count}")
                if topics.has(topic):
                    await server.publish(topic, self._partial(spell, change, count, at_ms))
        for channel in ("trade", "aggTrade"):
            if topics.has((stream, channel)):
                await self._publish_trades(server, one, step, channel, skew)
        if self._is_perp and topics.has((stream, "markPrice")) and step % STEPS_PER_S == 0:
            mark, index, rate, next_ms = self._marks(one.book.coin, step)
            at_ms = self._market.time_ns(step) // 1_000_000 + skew
            frame = wire.mark_price(spell, (mark, index), rate, next_ms, at_ms)
            await server.publish((stream, "markPrice"), frame)

    async def _publish_tickers(
        self, server: BinanceServer, one: _Instrument, change: Change, at_ms: int
    ) -> None:
        topic = (one.stream, "bookTicker")
        if not server.topics.has(topic):
            return
        for update_id, bid, ask in change.tickers:
            await server.publish(topic, self._ticker(one.spell, update_id, bid, ask, at_ms))

    async def _publish_frozen(self, server: BinanceServer, one: _Instrument, skew: int) -> None:
        """Send the last book again: its prices are old, its stamps are fresh."""
        change = one.change
        if change is None:
            return
        at_ms = self._clock_ns() // 1_000_000 + skew
        _, bid, ask = change.tickers[-1]
        # Between this book's last id and the next event's first there is room for few; a
        # repeated id would be dropped as old, so the freshest id is simply sent again.
        ticker = self._ticker(one.spell, change.last_id, bid, ask, at_ms)
        await server.publish((one.stream, "bookTicker"), ticker)
        for count in PARTIALS:
            frame = self._partial(one.spell, change, count, at_ms)
            await server.publish((one.stream, f"partial{count}"), frame)

    async def _publish_trades(
        self, server: BinanceServer, one: _Instrument, step: int, channel: str, skew: int
    ) -> None:
        for trade in one.book.trades_at(step):
            at_ms = trade.at_ms + skew
            if channel == "aggTrade":
                frame = wire.agg_trade(one.spell, trade, at_ms, is_perp=self._is_perp)
            elif self._is_perp:
                frame = wire.usdm_trade(one.spell, trade, at_ms)
            else:
                frame = wire.spot_trade(one.spell, trade, at_ms)
            await server.publish((one.stream, channel), frame)

    def _ticker(
        self,
        spell: wire.Spelling,
        update_id: int,
        bid: tuple[int, int],
        ask: tuple[int, int],
        at_ms: int,
    ) -> str:
        if self._is_perp:
            return wire.usdm_book_ticker(spell, update_id, bid, ask, at_ms)
        return wire.spot_book_ticker(spell, update_id, bid, ask)

    def _diff(self, spell: wire.Spelling, change: Change, at_ms: int) -> str:
        if self._is_perp:
            return wire.usdm_depth_update(spell, change, at_ms, change.bids, change.asks)
        return wire.spot_depth_update(spell, change, at_ms)

    def _partial(self, spell: wire.Spelling, change: Change, count: int, at_ms: int) -> str:
        bids, asks = change.book.bids[:count], change.book.asks[:count]
        if self._is_perp:
            return wire.usdm_depth_update(spell, change, at_ms, bids, asks)
        return wire.spot_partial_depth(spell, change.last_id, bids, asks)

    def _marks(self, coin: Coin, step: int) -> tuple[int, int, float, int]:
        index = self._market.spot_mid(coin.asset, step) * coin.multiplier
        mark = self._market.perp_mid(coin.asset, step) * coin.multiplier
        now_ms = self._market.time_ns(step) // 1_000_000
        next_ms = (now_ms // FUNDING_MS + 1) * FUNDING_MS
        rate = self._market.funding_rate(coin.asset, step)
        return round(mark * E8), round(index * E8), rate, next_ms

    def _instrument(self, stream: str, coin: Coin) -> _Instrument:
        one = self._instruments.get(stream)
        if one is None:
            one = self._instruments[stream] = _Instrument(
                self._market, coin, is_perp=self._is_perp, rate=self._rate
            )
        return one


def _phase(stream: str, phases: int) -> int:
    # Not hash(): that differs from process to process.
    return sum(stream.encode()) % phases


def _spot_row(coin: Coin) -> dict[str, Any]:
    return {
        "symbol": coin.spot_symbol,
        "status": "TRADING",
        "baseAsset": coin.asset,
        "baseAssetPrecision": 8,
        "quoteAsset": "USDT",
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            _price_filter(coin.spot_tick_e8, 8),
            _lot_filter("LOT_SIZE", coin.spot_lot_e8, 8),
            _lot_filter("MARKET_LOT_SIZE", coin.spot_lot_e8, 8),
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
    }


def _perp_row(coin: Coin) -> dict[str, Any]:
    price_decimals = wire.decimals_of(coin.perp_tick_e8)
    size_decimals = wire.decimals_of(coin.perp_lot_e8)
    return {
        "symbol": coin.perp_symbol,
        "pair": coin.perp_symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": 1_569_398_400_000,
        "status": "TRADING",
        "baseAsset": coin.perp_symbol.removesuffix("USDT"),
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": price_decimals,
        "quantityPrecision": size_decimals,
        "filters": [
            _price_filter(coin.perp_tick_e8, price_decimals),
            _lot_filter("LOT_SIZE", coin.perp_lot_e8, size_decimals),
            _lot_filter("MARKET_LOT_SIZE", coin.perp_lot_e8, size_decimals),
            {"filterType": "MIN_NOTIONAL", "notional": str(coin.perp_min_notional)},
        ],
    }


def _price_filter(tick_e8: int, decimals: int) -> dict[str, Any]:
    return {
        "filterType": "PRICE_FILTER",
        "minPrice": wire.fixed(tick_e8, decimals),
        "maxPrice": wire.fixed(1_000_000 * E8, decimals),
        "tickSize": wire.fixed(tick_e8, decimals),
    }


def _lot_filter(kind: str, lot_e8: int, decimals: int) -> dict[str, Any]:
    return {
        "filterType": kind,
        "minQty": wire.fixed(lot_e8, decimals),
        "maxQty": wire.fixed(1_000_000_000_000 * E8, decimals),
        "stepSize": wire.fixed(lot_e8, decimals),
    }
