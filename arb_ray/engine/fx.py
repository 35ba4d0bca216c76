"""
KRW per USDT from the executable KRW-USDT book of Upbit; never a constant, never a ratio.

No FX order is sent. The side that would have to be paid is the conservative price of the
conversion that rebalancing needs one day; the mid values KRW in reports and nowhere else.
"""

from __future__ import annotations

from arb_ray.domain.book import Levels, walk


def krw_for_usdt(fx_bids: Levels, usdt: float) -> float | None:
    """Return the KRW that selling ``usdt`` would bring; None when displayed depth is short."""
    sold, krw = walk(fx_bids, usdt)
    return krw if sold == usdt else None


def krw_to_buy_usdt(fx_asks: Levels, usdt: float) -> float | None:
    """Return the KRW that buying ``usdt`` would cost; None when displayed depth is short."""
    bought, krw = walk(fx_asks, usdt)
    return krw if bought == usdt else None


def is_in_range(fx_bid_krw: float, fx_ask_krw: float, min_krw: float, max_krw: float) -> bool:
    """Tell whether both sides lie in the sanity range, which is given in KRW per USDT."""
    return min_krw <= fx_bid_krw and fx_ask_krw <= max_krw
