"""
Order books around a fair price: on the venue's grid, never crossed, alive level by level.

Levels sit in slots that are fixed on the price axis, so a moving mid keeps most of them
and a diff stays small. What a slot holds is a function of (key, slot, life); lives of
different slots end at different steps. Prices and sizes are whole numbers of 1e-8 units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from arb_ray.adapters.venues.sim.coins import E8, Coin, upbit_tick_e8
from arb_ray.adapters.venues.sim.noise import NORMALS, bits

Rows = tuple[tuple[int, int], ...]
"""(price, size) in 1e-8 units, best first."""

_Level = tuple[int, int, int, int, int]
"""
The step at which a slot is redrawn, its price and size, what it was drawn for, and the bits that
hold for all its lives.
"""

SLOT_CACHE_MAX = 512  # slots remembered per side (0.1 MB); beyond it all are drawn again, alike
WALK_MAX = 400  # empty or unreachable slots passed before a side is left short
EMPTY_BELOW = 64  # of 256: a quarter of the slots is empty at any time
SIZE_SIGMA = 0.9  # spread of log-sizes: F's p10 of a top level is far below its median
SPREAD_LIFE_STEPS = 20  # a spread is redrawn every two seconds
TOP_LIFE_STEPS = 7  # the size at the touch is redrawn so often
PANIC_THINNING = 5.0  # in the stress regime books hold a fifth and spreads are five times wider
TOP_SHARE = 0.4  # the best level against a deeper one: 5.8M of 70M KRW in five levels (G)

_SIZES: Final = tuple(math.exp(SIZE_SIGMA * z) for z in NORMALS)
_TOP_SIZES: Final = tuple(TOP_SHARE * size for size in _SIZES)


class Book(msgspec.Struct, frozen=True):
    """Both sides of a book."""

    bids: Rows
    asks: Rows


class Shape(msgspec.Struct, frozen=True):
    """
    How one market's book looks at rest.

    ``tick_e8`` gives the grid at a price. ``wide_ticks`` is what a wide spread (95th
    percentile) has beyond one tick; ``median_ticks`` the median spread, at least one.
    """

    key: int
    tick_e8: Callable[[int], int]
    lot_e8: int
    level_size: float  # median size of a level, venue units of base
    median_ticks: float
    wide_ticks: float
    median_jitter: float  # spread of the median's own share of the spread, as a ratio
    slot_ticks: int
    levels: int
    life_steps: int


def upbit_shape(key: int, coin: Coin, mid_krw: float, *, is_fx: bool = False) -> Shape:
    """Return the shape of a KRW market (G): 30 levels, spreads of whole ticks."""
    tick_bps = upbit_tick_e8(round(mid_krw * E8)) / E8 / mid_krw * 1e4
    median = 1.0 if is_fx else max(1.0, coin.upbit_spread_bps / tick_bps)
    return Shape(
        key=key,
        tick_e8=upbit_tick_e8,
        lot_e8=1,
        level_size=coin.upbit_level_krw / mid_krw,
        median_ticks=median,
        # KRW-ETH: median 4.3 bps, 95th percentile 12.8; KRW-BTC 1.3 and 9.6 (G).
        wide_ticks=0.3 if is_fx else max(0.6, 9.0 / tick_bps),
        median_jitter=0.2,
        slot_ticks=max(1, round(0.35 / tick_bps)),
        levels=30,
        life_steps=80,
    )


def binance_shape(key: int, coin: Coin, mid_usdt: float, *, is_perp: bool) -> Shape:
    """Return the shape of a Binance book (F): one tick wide mostly, sparse behind the top."""
    tick = coin.perp_tick_e8 if is_perp else coin.spot_tick_e8
    tick_bps = tick / E8 / mid_usdt * 1e4
    return Shape(
        key=key,
        tick_e8=lambda _: tick,
        lot_e8=coin.perp_lot_e8 if is_perp else coin.spot_lot_e8,
        # F: the perpetual's top holds 2.5 times the spot market's.
        level_size=coin.spot_level_usdt * (2.54 if is_perp else 1.0) / mid_usdt,
        median_ticks=1.0,
        wide_ticks=(coin.perp_wide_bps if is_perp else coin.spot_wide_bps) / tick_bps,
        # A perpetual whose spread is one tick at the 95th percentile (F) has no jitter.
        median_jitter=0.0 if is_perp else 0.2,
        slot_ticks=max(1, round(0.4 / tick_bps)),
        levels=50,
        # F: 22 levels an event on BTC, 18 on ETH.
        life_steps=8 if coin.activity == 1 else 12,
    )


class BookShape:
    """One market's books: ``at`` turns a fair price and a step into levels."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._bids: dict[int, _Level] = {}
        self._asks: dict[int, _Level] = {}

    def at(self, mid: float, step: int, *, is_panic: bool = False) -> Book:
        """
        Return the book around ``mid`` (quote units per venue unit of base) at ``step``.

        The fair price lies between best bid and best ask, both on the grid.
        """
        bid, ask = self.touch(mid, step, is_panic=is_panic)
        return Book(
            self._side(bid, step, self._bids, is_panic, falls=True),
            self._side(ask, step, self._asks, is_panic, falls=False),
        )

    def touch(self, mid: float, step: int, *, is_panic: bool = False) -> tuple[int, int]:
        """Return best bid and best ask."""
        shape = self._shape
        mid_e8 = mid * E8
        tick = shape.tick_e8(round(mid_e8))
        drawn = bits(shape.key, (step + shape.key % SPREAD_LIFE_STEPS) // SPREAD_LIFE_STEPS)
        wide = NORMALS[drawn & 1023]
        # Half of the time the median; above it, reaching ``wide_ticks`` at the 95th percentile.
        ticks = shape.median_ticks * (1 + shape.median_jitter * NORMALS[(drawn >> 20) & 1023])
        if wide > 0:
            ticks += shape.wide_ticks * (wide / 1.645) ** 2
        if is_panic:
            ticks *= PANIC_THINNING
        whole = max(1, math.floor(ticks + ((drawn >> 40) & 1023) / 1024))
        bid = math.floor(mid_e8 / tick - (whole - 1) / 2) * tick
        ask = bid + whole * tick
        # Where the tick changes between the two, the coarser grid holds for the ask.
        coarse = shape.tick_e8(ask)
        bid = max(bid, shape.tick_e8(0))
        return bid, -(-ask // coarse) * coarse

    def _side(
        self,
        best: int,
        step: int,
        cache: dict[int, _Level],
        is_panic: bool,
        *,
        falls: bool,
    ) -> Rows:
        shape = self._shape
        if len(cache) > SLOT_CACHE_MAX:
            cache.clear()
        key = shape.key + (1 if falls else 2)
        width = shape.tick_e8(best) * shape.slot_ticks
        slot = best // width
        rows = [(best, self._top_size(key, best, step, is_panic))]
        wanted, life, last = shape.levels, shape.life_steps, best
        mark = -width if is_panic else width
        move = -1 if falls else 1
        known_at, draw = cache.get, self._draw
        for index in range(slot, slot + move * WALK_MAX, move):
            known = known_at(index)
            if known is None or not 0 < known[0] - step <= life or known[3] != mark:
                known = cache[index] = draw(key, index, width, step, is_panic, known)
            _, price, size, _, _ = known
            if price <= 0:
                break  # a coin of some ticks runs out of prices before it has all its levels
            if not size or (price >= last if falls else price <= last):
                continue
            rows.append((price, size))
            last = price
            if len(rows) == wanted or price <= width:
                break
        return tuple(rows)

    def _top_size(self, key: int, best: int, step: int, is_panic: bool) -> int:
        drawn = bits(key ^ best, step // TOP_LIFE_STEPS)
        return self._size(_TOP_SIZES[drawn & 1023], is_panic)

    def _draw(
        self, key: int, index: int, width: int, step: int, is_panic: bool, former: _Level | None
    ) -> _Level:
        shape = self._shape
        life, mark = shape.life_steps, -width if is_panic else width
        if former is not None and former[3] == mark:
            # A slot keeps its price; only its size has another life.
            price, fixed = former[1], former[4]
        else:
            fixed = bits(key, index)
            slot_ticks = shape.slot_ticks
            price = index * width + (fixed >> 32) % slot_ticks * (width // slot_ticks)
            coarse = shape.tick_e8(price)
            price = -(-price // coarse) * coarse
        born = step - (step + fixed % life) % life
        drawn = bits(fixed, born)
        size = 0
        if drawn & 255 >= EMPTY_BELOW:
            size = self._size(_SIZES[(drawn >> 8) & 1023], is_panic)
        return born + life, price, size, mark, fixed

    def _size(self, factor: float, is_panic: bool) -> int:
        lot = self._shape.lot_e8
        base = self._shape.level_size * factor / (PANIC_THINNING if is_panic else 1.0)
        return max(1, round(base * E8 / lot)) * lot
