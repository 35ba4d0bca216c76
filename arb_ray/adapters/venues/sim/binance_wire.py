"""Binance's frames, byte for byte: eight decimals on spot, the grid's decimals on USD-M."""

from __future__ import annotations

import math
from functools import lru_cache

from arb_ray.adapters.venues.sim.book_shape import Rows
from arb_ray.adapters.venues.sim.coins import E8
from arb_ray.adapters.venues.sim.instruments import Change, Trade

NUMBERS_CACHED = 16_384  # spellings kept, 4 MB: fifty books on show, full within two minutes


@lru_cache(maxsize=NUMBERS_CACHED)
def fixed(value_e8: int, decimals: int = 8) -> str:
    """Spell a number with a fixed count of decimals."""
    whole, rest = divmod(value_e8, E8)
    if not decimals:
        return str(whole)
    return f"{whole}.{f'{rest:08d}'[:decimals]}"


def decimals_of(grid_e8: int) -> int:
    """Return how many decimals a grid's numbers are written with."""
    return max(0, 8 - round(math.log10(grid_e8)))


class Spelling:
    """One symbol's numbers on one market."""

    def __init__(self, symbol: str, price_decimals: int, size_decimals: int) -> None:
        self.symbol = symbol
        self._price = price_decimals
        self._size = size_decimals

    def price(self, value_e8: int) -> str:
        """Spell a price."""
        return fixed(value_e8, self._price)

    def size(self, value_e8: int) -> str:
        """Spell a size."""
        return fixed(value_e8, self._size)

    def rows(self, rows: Rows) -> str:
        """Spell levels as a JSON array of pairs."""
        price, size = self._price, self._size
        return "[" + ",".join([f'["{fixed(p, price)}","{fixed(q, size)}"]' for p, q in rows]) + "]"


def spot_book_ticker(
    spell: Spelling, update_id: int, bid: tuple[int, int], ask: tuple[int, int]
) -> str:
    """Render a spot bookTicker: no event type, no time."""
    return (
        f'{{"u":{update_id},"s":"{spell.symbol}","b":"{spell.price(bid[0])}",'
        f'"B":"{spell.size(bid[1])}","a":"{spell.price(ask[0])}","A":"{spell.size(ask[1])}"}}'
    )


def usdm_book_ticker(
    spell: Spelling, update_id: int, bid: tuple[int, int], ask: tuple[int, int], at_ms: int
) -> str:
    """Render a USD-M bookTicker in the shape since June 2026 (``ps`` and ``st``)."""
    return (
        f'{{"e":"bookTicker","u":{update_id},"s":"{spell.symbol}","ps":"{spell.symbol}",'
        f'"b":"{spell.price(bid[0])}","B":"{spell.size(bid[1])}","a":"{spell.price(ask[0])}",'
        f'"A":"{spell.size(ask[1])}","T":{at_ms},"E":{at_ms + 1},"st":1}}'
    )


def spot_depth_update(spell: Spelling, change: Change, at_ms: int) -> str:
    """Render a spot diff."""
    return (
        f'{{"e":"depthUpdate","E":{at_ms},"s":"{spell.symbol}","U":{change.first_id},'
        f'"u":{change.last_id},"b":{spell.rows(change.bids)},"a":{spell.rows(change.asks)}}}'
    )


def usdm_depth_update(spell: Spelling, change: Change, at_ms: int, bids: Rows, asks: Rows) -> str:
    """Render a USD-M diff; partial depth has the same shape with whole rows."""
    return (
        f'{{"e":"depthUpdate","E":{at_ms + 1},"T":{at_ms},"s":"{spell.symbol}",'
        f'"ps":"{spell.symbol}","U":{change.first_id},"u":{change.last_id},'
        f'"pu":{change.previous_id},"b":{spell.rows(bids)},"a":{spell.rows(asks)},"st":1}}'
    )


def spot_partial_depth(spell: Spelling, update_id: int, bids: Rows, asks: Rows) -> str:
    """Render spot partial depth or a REST snapshot: no symbol, no time."""
    return f'{{"lastUpdateId":{update_id},"bids":{spell.rows(bids)},"asks":{spell.rows(asks)}}}'


def usdm_rest_depth(spell: Spelling, update_id: int, at_ms: int, bids: Rows, asks: Rows) -> str:
    """Render USD-M's REST snapshot."""
    return (
        f'{{"lastUpdateId":{update_id},"E":{at_ms + 1},"T":{at_ms},'
        f'"bids":{spell.rows(bids)},"asks":{spell.rows(asks)}}}'
    )


def spot_trade(spell: Spelling, one: Trade, at_ms: int) -> str:
    """Render a spot trade; ``m`` true means the taker sold."""
    return (
        f'{{"e":"trade","E":{at_ms + 1},"s":"{spell.symbol}","t":{one.id},'
        f'"p":"{spell.price(one.price)}","q":"{spell.size(one.size)}","T":{at_ms},'
        f'"m":{_json(one.is_taker_sell)},"M":true}}'
    )


def usdm_trade(spell: Spelling, one: Trade, at_ms: int) -> str:
    """Render a USD-M trade (undocumented stream, ``X`` as captured)."""
    return (
        f'{{"e":"trade","E":{at_ms + 1},"T":{at_ms},"s":"{spell.symbol}","t":{one.id},'
        f'"p":"{spell.price(one.price)}","q":"{spell.size(one.size)}","X":"MARKET",'
        f'"m":{_json(one.is_taker_sell)}}}'
    )


def agg_trade(spell: Spelling, one: Trade, at_ms: int, *, is_perp: bool) -> str:
    """Render an aggregate trade of one fill."""
    price, size = spell.price(one.price), spell.size(one.size)
    if is_perp:
        return (
            f'{{"e":"aggTrade","E":{at_ms + 1},"a":{one.id},"s":"{spell.symbol}","p":"{price}",'
            f'"q":"{size}","nq":"{size}","f":{one.id},"l":{one.id},"T":{at_ms},'
            f'"m":{_json(one.is_taker_sell)},"st":1}}'
        )
    return (
        f'{{"e":"aggTrade","E":{at_ms + 1},"s":"{spell.symbol}","a":{one.id},"p":"{price}",'
        f'"q":"{size}","f":{one.id},"l":{one.id},"T":{at_ms},'
        f'"m":{_json(one.is_taker_sell)},"M":true}}'
    )


def mark_price(
    spell: Spelling, prices: tuple[int, int], rate: float, next_funding_ms: int, at_ms: int
) -> str:
    """Render markPrice of (mark, index): ``r`` the interval's rate, ``T`` when it is paid."""
    mark, index = (fixed(price) for price in prices)
    return (
        f'{{"e":"markPriceUpdate","E":{at_ms},"s":"{spell.symbol}","p":"{mark}",'
        f'"ap":"{mark}","P":"{mark}","i":"{index}","r":"{rate:.8f}",'
        f'"T":{next_funding_ms},"st":1}}'
    )


def enveloped(stream: str, payload: str) -> bytes:
    """Put a payload into the combined streams' envelope."""
    return f'{{"stream":"{stream}","data":{payload}}}'.encode()


def _json(flag: bool) -> str:
    return "true" if flag else "false"
