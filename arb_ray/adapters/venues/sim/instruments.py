"""
The books that the simulated exchanges publish, step by step.

A book changes at events only; between two events it stands. Which steps are events is a
function of the seed, so the book at any step is one too: the shape at the last event.
What is kept between calls (the last book sent) serves the diffs and nothing else.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from arb_ray.adapters.venues.sim.book_shape import (
    Book,
    BookShape,
    Rows,
    binance_shape,
    upbit_shape,
)
from arb_ray.adapters.venues.sim.coins import E8, Coin, coin_named
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import (
    NORMALS,
    STEP_MS,
    STEP_NS,
    STEPS_PER_S,
    bits,
    key_of,
    unit,
)

SILENCE_MAX_STEPS = 600  # every book changes once a minute at least
TICKERS_PER_STEP_MAX = 60  # bookTickers of one step; update ids leave room for 61
TRADES_PER_STEP_MAX = 12
SPOT_IDS_PER_STEP = 64
USDM_IDS_PER_STEP = 6_400  # ids are shared by all symbols there, so they run faster

UPBIT_BOOKS_PER_S: Final = {"BTC": 5.7, "ETH": 4.8, "XRP": 9.2, "USDT": 5.0}  # G
BINANCE_TICKERS_PER_S = 112.0  # F, spot BTC
BINANCE_TRADES_PER_S = 31.0  # F, spot BTC
UPBIT_TRADES_PER_S = 0.9  # G: 14 a minute at the median, 52 at the 90th percentile
BUSY = 1.25 / 0.55  # how much busier F's eleven minutes were than a calm market (I)
PERP_BUSIER = 1.78  # F: the perpetual sends 1.73 times more, and our bursts are cut at 60


class Trade(msgspec.Struct, frozen=True):
    """One trade: prices and sizes in 1e-8 units, ``at_ms`` UTC."""

    id: int
    at_ms: int
    price: int
    size: int
    is_taker_sell: bool


class Change(msgspec.Struct, frozen=True):
    """
    What one event did to a Binance book.

    The diff covers update ids ``first_id`` to ``last_id``; the diff before it ended at
    ``previous_id``. ``tickers`` are (update id, best bid row, best ask row); the last one
    carries ``last_id`` and shows the book after the diff.
    """

    at_ms: int
    first_id: int
    last_id: int
    previous_id: int
    before: Book
    book: Book
    tickers: tuple[tuple[int, tuple[int, int], tuple[int, int]], ...]

    @property
    def bids(self) -> Rows:
        """The diff's bids; worked out when asked for, since most listen to whole books."""
        return _difference(self.before.bids, self.book.bids)

    @property
    def asks(self) -> Rows:
        """The diff's asks."""
        return _difference(self.before.asks, self.book.asks)


class Events:
    """Which steps change a book: independent draws, more of them in busy minutes."""

    def __init__(self, market: Market, key: int, per_s: float) -> None:
        self._market = market
        self._key = key
        self._chance = per_s / STEPS_PER_S
        self._minute = -(1 << 62)
        self._minute_chance = 0.0
        # No step after ``_known_at`` and until ``_known_to`` is an event.
        self._known_at = self._known_to = -(1 << 62)

    def is_event(self, step: int) -> bool:
        """Tell whether the book changes at ``step``."""
        minute = step // 600
        if minute != self._minute:
            self._minute = minute
            self._minute_chance = self._chance * self._market.busyness(step) ** 0.5
        drawn = bits(self._key, step)
        return (drawn >> 11) * 2.0**-53 < self._minute_chance or (
            (step + self._key) % SILENCE_MAX_STEPS == 0
        )

    def last(self, step: int, floor: int) -> int:
        """Return the last event at or before ``step``; ``floor`` if none came after it."""
        if step <= floor:
            return step
        at = step
        known_at, known_to = self._known_at, self._known_to
        # Every step is asked for in turn, so mostly only the newest has not been looked at.
        if known_at <= step:
            while at > floor and at > known_to and not self.is_event(at):
                at -= 1
            if at <= known_to:
                at = min(at, known_at)
        while at > floor and not self.is_event(at):
            at -= 1
        at = max(at, floor)
        self._known_at, self._known_to = at, step
        return at


class UpbitBook:
    """One KRW market: the whole book at its last change."""

    def __init__(self, market: Market, asset: str) -> None:
        self.code = f"KRW-{asset}"
        self._market = market
        self._asset = asset
        self.is_fx = asset == "USDT"
        coin = coin_named("BTC") if self.is_fx else market.coins[asset]
        self._key = key_of(market.seed, "upbit", asset)
        rate = UPBIT_BOOKS_PER_S.get(asset, 9.0 * coin.activity)
        self._events = Events(market, self._key, max(market.preset.upbit_rate_min, rate))
        self._shape = BookShape(
            upbit_shape(
                key_of(market.seed, "shape", self.code), coin, self._rest(coin), is_fx=self.is_fx
            )
        )
        self._coin = coin
        self._at = -(1 << 62)
        self._book: Book | None = None
        self._closings: tuple[int, int] = (-1, 0)

    def _rest(self, coin: Coin) -> float:
        krw = self._market.preset.krw_per_usdt
        return krw if self.is_fx else coin.price_usdt * krw

    def fair(self, step: int) -> float:
        """Return the fair price at ``step``, KRW."""
        if self.is_fx:
            return self._market.krw_per_usdt(step)
        return self._market.upbit_mid(self._asset, step)

    def changed_at(self, step: int) -> int:
        """Return the step of the last change at or before ``step``."""
        if self._market.forced_premium_bps(self._asset, step) is not None:
            return step
        floor = self._at if self._at <= step else step - SILENCE_MAX_STEPS
        return self._events.last(step, max(floor, step - SILENCE_MAX_STEPS))

    def book_at(self, step: int) -> tuple[int, Book]:
        """Return when the book shown at ``step`` was made, and the book."""
        at = self.changed_at(step)
        if at != self._at or self._book is None:
            is_panic = self._market.panic_bps(at) != 0
            self._book = self._shape.at(self.fair(at), at, is_panic=is_panic)
            self._at = at
        return at, self._book

    def touch_at(self, step: int) -> tuple[int, int]:
        """Return best bid and best ask at ``step``, 1e-8 KRW, without the book behind them."""
        at = self.changed_at(step)
        is_panic = self._market.panic_bps(at) != 0
        return self._shape.touch(self.fair(at), at, is_panic=is_panic)

    def last_trade_at(self, step: int) -> int:
        """Return the step of the last trade at or before ``step``, at most a minute back."""
        at = step
        while at > step - SILENCE_MAX_STEPS and not self._is_traded(at, 1.0):
            at -= 1
        return at

    def _is_traded(self, step: int, rate: float) -> bool:
        per_step = UPBIT_TRADES_PER_S * rate * max(0.05, self._coin.activity) / STEPS_PER_S
        return (bits(self._key ^ 0x7A, step) >> 11) * 2.0**-53 < per_step

    def stamp_ms(self, step: int) -> int:
        """Return the exchange's time of ``step``: a 100 ms grid with this market's phase (G)."""
        return self._market.time_ns(step) // 1_000_000 + self._key % STEP_MS

    def trades_at(self, step: int, rate: float) -> tuple[Trade, ...]:
        """Return the trades of ``step``; sizes as KRW notionals of G."""
        drawn = bits(self._key ^ 0x7A, step)
        if not self._is_traded(step, rate):
            return ()
        _, book = self.book_at(step)
        is_sell = bool(drawn & 1)
        price, _ = (book.bids if is_sell else book.asks)[0]
        notional = 100_000 * math.exp(1.6 * NORMALS[(drawn >> 1) & 1023])
        at_ms = self.stamp_ms(step)
        size = max(1, round(notional / price * E8 * E8))
        return (Trade(at_ms * 10_000 + drawn % 7, at_ms, price, size, is_sell),)

    def closing_price(self, step: int) -> int:
        """Return the price at the last midnight UTC, on the grid, 1e-8 KRW."""
        day_ns = 86_400_000_000_000
        day = self._market.time_ns(step) // day_ns
        if self._closings[0] != day:
            midnight = self._market.step_at(day * day_ns)
            bid, _ = self._shape.touch(self.fair(midnight), midnight)
            self._closings = (day, bid)
        return self._closings[1]


class BinanceBook:
    """One Binance market, spot or perpetual, with the diffs between its states."""

    def __init__(self, market: Market, asset: str, *, is_perp: bool, rate: float) -> None:
        coin = market.coins[asset]
        self.coin = coin
        self.asset = asset
        self.is_perp = is_perp
        self.symbol = coin.perp_symbol if is_perp else coin.spot_symbol
        self._market = market
        kind = "perp" if is_perp else "spot"
        self._multiplier = coin.multiplier if is_perp else 1
        self._key = key_of(market.seed, kind, asset)
        books_per_s = max(2.0, 10.0 * coin.activity**0.5)
        self._events = Events(market, self._key, books_per_s)
        busier = PERP_BUSIER if is_perp else 1.0
        tickers_per_s = BINANCE_TICKERS_PER_S * busier * coin.activity * rate
        # F was busy: its tickers share out over the events of a busy second.
        busy_books_per_s = min(STEPS_PER_S, books_per_s * BUSY**0.5)
        self._extra_tickers = max(0.0, tickers_per_s / busy_books_per_s - 1)
        self._trades_per_step = BINANCE_TRADES_PER_S * busier * coin.activity * rate / STEPS_PER_S
        self._shape = BookShape(
            binance_shape(
                key_of(market.seed, "shape", kind, asset),
                coin,
                coin.price_usdt * self._multiplier,
                is_perp=is_perp,
            )
        )
        self._ids_per_step = USDM_IDS_PER_STEP if is_perp else SPOT_IDS_PER_STEP
        self._at = -(1 << 62)
        self.book = Book((), ())
        self.last_id = 0

    def fair(self, step: int) -> float:
        """Return the fair price at ``step``, USDT per venue unit of base."""
        if self.is_perp:
            return self._market.perp_mid(self.asset, step) * self._multiplier
        return self._market.spot_mid(self.asset, step)

    def book_at(self, step: int) -> tuple[int, Book]:
        """Return when the book shown at ``step`` was made, and the book; sends nothing."""
        at = self._events.last(step, step - SILENCE_MAX_STEPS)
        return at, self._shape_at(at)

    def touch_at(self, step: int) -> tuple[int, int]:
        """Return best bid and best ask at ``step``, 1e-8 USDT, without the book behind them."""
        at = self._events.last(step, step - SILENCE_MAX_STEPS)
        is_panic = self._market.panic_bps(at) != 0
        return self._shape.touch(self.fair(at), at, is_panic=is_panic)

    def snapshot_id(self) -> int:
        """
        Return the update id of a REST snapshot of the present book.

        Spot: the last diff's. USD-M: ids are shared by all symbols, so the snapshot's
        lies behind the last diff's, where the next diff will begin (rule U <= id <= u).
        """
        return self._next_first_id() if self.is_perp else self.last_id

    def advance(self, step: int) -> Change | None:
        """Move on to ``step`` and return what changed, if anything did."""
        floor = max(self._at, step - SILENCE_MAX_STEPS)
        at = self._events.last(step, floor)
        if at <= self._at:
            return None
        is_first = not self.book.bids
        book, old = self._shape_at(at), self.book
        if book == old:
            return None
        self._at = at
        drawn = bits(self._key ^ 0x71C, at)
        count = self._count(self._extra_tickers, drawn) + 1
        base = (self._market.origin_ns // STEP_NS + at) * self._ids_per_step
        spacing = 97 if self.is_perp else 1
        last_id = base + count * spacing
        first_id = base if is_first else self._next_first_id()
        ids = range(base + spacing, last_id + 1, spacing)
        change = Change(
            at_ms=self._market.time_ns(at) // 1_000_000,
            first_id=first_id,
            last_id=last_id,
            previous_id=base - 1 if is_first else self.last_id,
            before=old,
            book=book,
            tickers=_tickers(ids, book if is_first else old, book, drawn),
        )
        self.book, self.last_id = book, last_id
        return change

    def trades_at(self, step: int) -> tuple[Trade, ...]:
        """Return the trades of ``step`` at the touch; sizes as notionals of F."""
        drawn = bits(self._key ^ 0x7A, step)
        count = min(TRADES_PER_STEP_MAX, self._count(self._trades_per_step, drawn))
        if not count or not self.book.bids:
            return ()
        median, sigma = (989.0, 2.0) if self.is_perp else (41.0, 2.6)
        lot = self.coin.perp_lot_e8 if self.is_perp else self.coin.spot_lot_e8
        at_ms = self._market.time_ns(step) // 1_000_000
        base = (self._market.origin_ns // STEP_NS + step) * TRADES_PER_STEP_MAX
        trades = []
        for i in range(count):
            own = bits(drawn, i)
            is_sell = bool(own & 1)
            price, shown = (self.book.bids if is_sell else self.book.asks)[0]
            notional = median * math.exp(sigma * NORMALS[(own >> 1) & 1023])
            size = min(shown, max(1, round(notional / price * E8 * E8 / lot)) * lot)
            trades.append(Trade(base + i, at_ms, price, size, is_sell))
        return tuple(trades)

    def _shape_at(self, step: int) -> Book:
        is_panic = self._market.panic_bps(step) != 0
        return self._shape.at(self.fair(step), step, is_panic=is_panic)

    def _next_first_id(self) -> int:
        return self.last_id + 1 + (self.last_id * 31 % 53 if self.is_perp else 0)

    @staticmethod
    def _count(mean: float, drawn: int) -> int:
        """Draw a count with this mean: geometric, because updates come in bursts (F)."""
        if mean <= 0:
            return 0
        uniform = (((drawn >> 11) & ((1 << 53) - 1)) + 0.5) * 2.0**-53
        return min(TICKERS_PER_STEP_MAX, int(math.log(uniform) / math.log(mean / (1 + mean))))


def _tickers(
    ids: range, old: Book, new: Book, drawn: int
) -> tuple[tuple[int, tuple[int, int], tuple[int, int]], ...]:
    """Return the touch at each update id: old prices first, the new book at the last."""
    tickers = []
    for i, update_id in enumerate(ids[:-1]):
        shown = old if 2 * i < len(ids) else new
        (bid, bid_size), (ask, ask_size) = shown.bids[0], shown.asks[0]
        # A doubled size on one side: something changed, on the lot grid still.
        if unit(drawn, i) < 0.5:
            bid_size *= 2
        else:
            ask_size *= 2
        tickers.append((update_id, (bid, bid_size), (ask, ask_size)))
    tickers.append((ids[-1], new.bids[0], new.asks[0]))
    return tuple(tickers)


def _difference(old: Rows, new: Rows) -> Rows:
    """Return the rows that turn ``old`` into ``new``; size 0 removes a level."""
    if old == new:
        return ()
    before, after = dict(old), dict(new)
    gone = [(price, 0) for price in before if price not in after]
    return (*gone, *(row for row in new if before.get(row[0]) != row[1]))
