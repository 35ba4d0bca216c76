"""The simulated market seen through Upbit's doors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arb_ray.adapters.venues.sim import upbit_wire as wire
from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.coins import upbit_tick_e8
from arb_ray.adapters.venues.sim.faults import FaultKind, FaultPlan
from arb_ray.adapters.venues.sim.instruments import Trade, UpbitBook
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import STEP_MS, STEPS_PER_S
from arb_ray.adapters.venues.sim.upbit_server import UpbitServer

VENUE = "upbit"
LAST_TRADE_MAX_STEPS = 600  # how far back a last trade is looked for before one is assumed


class _Instrument:
    def __init__(self, market: Market, asset: str) -> None:
        self.book = UpbitBook(market, asset)
        self.asset = asset
        self.sent_at = -(1 << 62)  # step of the book that was last published
        self.frozen: Book | None = None


class MarketSource:
    """Publishes each subscribed book when it changes, and trades and tickers as they come."""

    def __init__(
        self, market: Market, plan: FaultPlan, clock_ns: Callable[[], int], rate: float
    ) -> None:
        self._market = market
        self._plan = plan
        self._clock_ns = clock_ns
        self._rate = rate
        self._assets = {f"KRW-{asset}": asset for asset in ("USDT", *market.coins)}
        self._instruments: dict[str, _Instrument] = {}
        self._held: dict[str, str] = {}
        self.changes = 0

    def now_ms(self) -> int:
        """Return the exchange's clock, with the skew that a fault asks for."""
        return self._clock_ns() // 1_000_000 + self._plan.skew_ms(VENUE)

    def on_subscribed(self) -> None:
        """Do nothing: streams are looked up at each step."""

    def snapshot(self, kind: str, code: str, units: int, *, is_simple: bool) -> str | None:
        """Return the first frame of a stream; unknown codes are silent."""
        if code not in self._assets or self._refuses(self._assets[code]):
            return None
        one = self._instrument(code)
        step = self._step(one)
        return self._frame(one, kind, units, step, stream_type="SNAPSHOT", is_simple=is_simple)

    def markets(self) -> list[dict[str, Any]]:
        """Return the listed KRW markets."""
        cautions = (
            "PRICE_FLUCTUATIONS",
            "TRADING_VOLUME_SOARING",
            "DEPOSIT_AMOUNT_SOARING",
            "GLOBAL_PRICE_DIFFERENCES",
            "CONCENTRATION_OF_SMALL_ACCOUNTS",
        )
        return [
            {
                "market": code,
                "korean_name": asset,
                "english_name": asset,
                "market_event": {"warning": False, "caution": dict.fromkeys(cautions, False)},
            }
            for code, asset in self._assets.items()
        ]

    def orderbooks(self, codes: list[str], count: int) -> str | None:
        """Return the REST books: the DEFAULT frame's keys without type and stream type."""
        if not codes or any(code not in self._assets for code in codes):
            return None
        bodies = []
        for code in codes:
            one = self._instrument(code)
            frame = self._frame(
                one, "orderbook", count, self._step(one), stream_type="", is_simple=False
            )
            bodies.append(
                frame.replace('"type":"orderbook","code"', '"market"').replace(
                    ',"stream_type":""', ""
                )
            )
        return f"[{','.join(bodies)}]"

    def tickers(self, codes: list[str]) -> str | None:
        """Return the REST tickers: the frame's keys with ``market`` for ``code``."""
        if not codes or any(code not in self._assets for code in codes):
            return None
        bodies = []
        for code in codes:
            one = self._instrument(code)
            frame = self._frame(one, "ticker", 1, self._step(one), stream_type="", is_simple=False)
            bodies.append(
                frame.replace('"type":"ticker","code"', '"market"').replace(',"stream_type":""', "")
            )
        return f"[{','.join(bodies)}]"

    def tick_sizes(self, codes: list[str]) -> list[dict[str, Any]] | None:
        """Return tick size and levels of markets at their present price."""
        if not codes or any(code not in self._assets for code in codes):
            return None
        rows = []
        for code in codes:
            one = self._instrument(code)
            _, book = one.book.book_at(self._step(one))
            tick = wire.plain(upbit_tick_e8(book.bids[0][0]))
            rows.append(
                {
                    "market": code,
                    "quote_currency": "KRW",
                    "tick_size": tick,
                    "supported_levels": ["0"],
                }
            )
        return rows

    async def tick(self, server: UpbitServer, step: int, phase_ms: int, width_ms: int) -> None:
        """Publish what happened at ``step`` in the markets whose phase has come."""
        for code, kind in sorted(server.topics):
            asset = self._assets.get(code)
            if asset is None or self._plan.active(FaultKind.SILENCE, VENUE, asset):
                continue
            one = self._instrument(code)
            phase = one.book.stamp_ms(0) % STEP_MS
            if not phase_ms <= phase < phase_ms + width_ms:
                continue
            if kind == "orderbook":
                await self._publish_book(server, one, step)
            else:
                await self._publish_trades(server, one, kind, step)

    async def _publish_book(self, server: UpbitServer, one: _Instrument, step: int) -> None:
        frozen = self._plan.active(FaultKind.STALE_BOOK, VENUE, one.asset)
        if frozen:
            if one.frozen is None:
                _, one.frozen = one.book.book_at(step)
        else:
            one.frozen = None
            at = one.book.changed_at(step)
            if at == one.sent_at:
                return
            one.sent_at = at
            self.changes += 1
        wanted = server.wanted("orderbook", one.book.code)
        rendered = {
            key: self._frame(
                one, "orderbook", key[0], step, stream_type="REALTIME", is_simple=key[1]
            )
            for key in wanted
        }
        if not self._plan:
            await server.publish("orderbook", one.book.code, rendered)
            return
        for each in self._spoiled(one, rendered):
            await server.publish("orderbook", one.book.code, each)

    def _spoiled(
        self, one: _Instrument, rendered: dict[tuple[int, bool], str]
    ) -> list[dict[tuple[int, bool], str]]:
        """Apply the frame faults to one rendering and repeat its fate for the others."""
        marks = self._plan.spoil(VENUE, one.asset, "whole-----", {})
        arriving = []
        for mark in marks:
            is_whole = mark == "whole-----"
            arriving.append(
                {
                    key: frame if is_whole else frame[: len(frame) // 2]
                    for key, frame in rendered.items()
                }
            )
        return arriving

    async def _publish_trades(
        self, server: UpbitServer, one: _Instrument, kind: str, step: int
    ) -> None:
        for trade in one.book.trades_at(step, self._rate):
            _, book = one.book.book_at(step)
            rendered = {
                key: self._trade_frame(
                    one, kind, trade, book, stream_type="REALTIME", is_simple=key[1]
                )
                for key in server.wanted(kind, one.book.code)
            }
            await server.publish(kind, one.book.code, rendered)

    def _frame(
        self,
        one: _Instrument,
        kind: str,
        units: int,
        step: int,
        *,
        stream_type: str,
        is_simple: bool,
    ) -> str:
        at, book = one.book.book_at(step)
        if kind == "orderbook":
            if one.frozen is not None:
                at, book = step, one.frozen
            at_ms = one.book.stamp_ms(at) + self._plan.skew_ms(VENUE)
            return wire.orderbook(
                one.book.code, at_ms, book, units, stream_type=stream_type, is_simple=is_simple
            )
        trade = self._last_trade(one, step)
        return self._trade_frame(
            one, kind, trade, book, stream_type=stream_type, is_simple=is_simple
        )

    def _trade_frame(
        self,
        one: _Instrument,
        kind: str,
        trade: Trade,
        book: Book,
        *,
        stream_type: str,
        is_simple: bool,
    ) -> str:
        closing = one.book.closing_price(self._market.step_at(trade.at_ms * 1_000_000))
        if kind == "ticker":
            return wire.ticker(
                one.book.code,
                trade,
                closing,
                trade.at_ms + self._plan.skew_ms(VENUE),
                stream_type=stream_type,
                is_simple=is_simple,
            )
        return wire.trade(
            one.book.code, trade, book, closing, stream_type=stream_type, is_simple=is_simple
        )

    def _last_trade(self, one: _Instrument, step: int) -> Trade:
        for back in range(LAST_TRADE_MAX_STEPS):
            trades = one.book.trades_at(step - back, self._rate)
            if trades:
                return trades[-1]
        _, book = one.book.book_at(step)
        at_ms = one.book.stamp_ms(step - LAST_TRADE_MAX_STEPS)
        return Trade(at_ms * 10_000, at_ms, book.bids[0][0], book.bids[0][1], True)

    def _refuses(self, asset: str) -> bool:
        return self._plan.active(FaultKind.REFUSED_SUBSCRIPTION, VENUE, asset) is not None

    def _step(self, one: _Instrument) -> int:
        """Return the newest step whose moment has come in this market's phase."""
        now_ms = self._clock_ns() // 1_000_000
        step = self._market.step_at(self._clock_ns())
        return step if one.book.stamp_ms(step) <= now_ms else step - 1

    def _instrument(self, code: str) -> _Instrument:
        one = self._instruments.get(code)
        if one is None:
            one = self._instruments[code] = _Instrument(self._market, self._assets[code])
        return one


assert STEPS_PER_S * STEP_MS == 1_000
