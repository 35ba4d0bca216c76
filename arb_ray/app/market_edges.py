"""
How often a taker would have had an edge: one sample a second and symbol, and the verdict.

The seconds are taken in whole minutes spread evenly over weeks, because neighbouring
seconds tell the same story and an hour has one mood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.coins import E8
from arb_ray.adapters.venues.sim.instruments import BinanceBook, UpbitBook
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import STEPS_PER_DAY, STEPS_PER_S, unit
from arb_ray.app.market_errors import Tell, bootstrap_error, silent
from arb_ray.domain.instrument import Symbol
from arb_ray.engine.spread import (
    BPS,
    CostTerms,
    FixedCosts,
    Sides,
    both_directions,
    target_qty,
    top_edge,
)

LegB = Literal["spot", "perp"]
Edge = tuple[float, float]
"""The better direction's (gross - entry fees, net), bps."""

Evaluate = Callable[[str, Sides, Sides, Sides], Edge | None]
"""Prices one sample: symbol, Upbit's book, Binance's, KRW-USDT's; None when depth is short."""

BOUNDS_PERCENT: Final = {"after_entry_fees": 2.0, "net": 0.2}
"""CALIBRATION H: shares of samples that a believable market stays under."""

ERRORS_MAX = 3.0  # a bound is exceeded when the share is so many errors above it
SECONDS_PER_MINUTE = 60
SIDES_LEVELS = 20  # levels a side that are walked
FEE_A_BPS = 5.0  # H: takers at VIP0
FEE_B_BPS: Final[dict[str, float]] = {"spot": 10.0, "perp": 5.0}
ALLOWANCE_BPS = 2.0  # for slippage, and as much again for safety: the settings' own defaults
HOLD_S = 600.0  # and theirs for the expected holding time
BASIS_AGE_S = 2_600  # mean age of what a rolling basis with 30 min of half-life has seen
FUNDING_S = 28_800


def terms_at(market: Market, symbol: str, step: int, leg_b: LegB) -> CostTerms:
    """Return a taker's costs: fees of VIP0, and on the perpetual what a rolling basis says."""
    basis = funding = 0.0
    if leg_b == "perp":
        basis = market.slow_premium_bps(symbol, step - BASIS_AGE_S * STEPS_PER_S)
        basis -= market.rest_basis_bps(symbol)
        funding = market.funding_rate(symbol, step) * BPS * HOLD_S / FUNDING_S
    return CostTerms(
        FEE_A_BPS,
        FEE_B_BPS[leg_b],
        slippage_allowance_bps=ALLOWANCE_BPS,
        safety_buffer_bps=ALLOWANCE_BPS,
        basis_bps=basis,
        long_funding_bps=funding,
        exit_premium_credit_max_bps=10.0,
        multiplier_b=market.coins[symbol].multiplier if leg_b == "perp" else 1.0,
    )


class _Minute(msgspec.Struct):
    """What one minute's samples came to."""

    samples: int = 0
    short: int = 0
    after_entry_fees: int = 0
    net: int = 0


class _Pair:
    """One symbol's two books."""

    def __init__(self, market: Market, symbol: str, leg_b: LegB, notional_usdt: float) -> None:
        self.symbol = symbol
        self._market = market
        self._leg_b: LegB = leg_b
        self._notional_usdt = notional_usdt
        self._a = UpbitBook(market, symbol)
        self._b = BinanceBook(market, symbol, is_perp=leg_b == "perp", rate=0.0)

    def sample(self, fx: UpbitBook, step: int, evaluate: Evaluate | None) -> Edge | None:
        """
        Return the edge at the traded size; None when depth is short.

        Depth only worsens a price, so where best prices do not pay the entry fees nothing
        is walked, and what is returned is the best prices' edge: below zero either way.
        """
        terms = terms_at(self._market, self.symbol, step, self._leg_b)
        touches = (_touch(self._a, step), _touch(self._b, step), _touch(fx, step))
        top = top_edge(*touches, terms, FixedCosts.of(terms))
        after_fees = max(top.gross_ab_bps, top.gross_ba_bps) - terms.fee_a_bps - terms.fee_b_bps
        if after_fees <= 0:
            return after_fees, max(top.net_ab_bps, top.net_ba_bps)
        sides = (
            _sides(self._a.book_at(step)[1]),
            _sides(self._b.book_at(step)[1]),
            _sides(fx.book_at(step)[1]),
        )
        if evaluate is not None:
            return evaluate(self.symbol, *sides)
        qty = target_qty(sides[1], self._notional_usdt, terms.multiplier_b)
        priced = both_directions(*sides, qty, terms, symbol=Symbol(self.symbol), at_ns=0)
        found = [one for one in priced if one is not None]
        if not found:
            return None
        return max(one.after_entry_fees_bps for one in found), max(one.net_bps for one in found)


def count_edges(
    market: Market,
    symbols: Sequence[str],
    hours: float,
    span_days: float,
    leg_b: LegB,
    notional_usdt: float,
    *,
    evaluate: Evaluate | None = None,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Count samples with an edge; ``best_net_bps`` is at best prices where nothing paid."""
    fx = UpbitBook(market, "USDT")
    pairs = [_Pair(market, symbol, leg_b, notional_usdt) for symbol in symbols]
    count = max(1, round(hours * 60))
    every = span_days * STEPS_PER_DAY / count
    minutes = []
    best = -math.inf
    for index in range(count):
        start = round((index + unit(market.seed ^ 0xED6E, index)) * every)
        minute = _Minute()
        for second in range(SECONDS_PER_MINUTE):
            for pair in pairs:
                edge = pair.sample(fx, start + second * STEPS_PER_S, evaluate)
                if edge is None:
                    minute.short += 1
                    continue
                minute.samples += 1
                minute.after_entry_fees += edge[0] > 0
                minute.net += edge[1] > 0
                best = max(best, edge[1])
        minutes.append(minute)
        tell(index + 1, count, "minutes of edges")
    found: dict[str, Any] = {
        "samples": sum(one.samples for one in minutes),
        "depth_short": sum(one.short for one in minutes),
        "best_net_bps": best,
    }
    for name in BOUNDS_PERCENT:
        positive = [(float(getattr(one, name)), one.samples) for one in minutes]
        found[f"{name}_share"] = _ratio(positive)
        error = bootstrap_error(_ratio, positive, 1) if count > 1 else 0.0
        # No surer than if one symbol had had an edge for one minute more.
        found[f"{name}_share_se"] = max(error, SECONDS_PER_MINUTE / max(1, found["samples"]))
    return found


def verdict(edges: dict[str, Any]) -> dict[str, Any]:
    """Say whether a bound is exceeded beyond its sampling error, and in which words."""
    over, parts = [], []
    for name, bound in BOUNDS_PERCENT.items():
        share, error = edges[f"{name}_share"] * 100, edges[f"{name}_share_se"] * 100
        parts.append(f"{name} > 0 in {share:.3g} ± {error:.2g} % of samples (bound {bound:g} %)")
        if share - ERRORS_MAX * error > bound:
            over.append(name)
    head = f"Not believable: {' and '.join(over)} too often." if over else "Within both bounds."
    return {"is_exceeded": bool(over), "exceeded": over, "sentence": f"{head} {'; '.join(parts)}."}


def _ratio(minutes: Sequence[tuple[float, int]]) -> float:
    return sum(hits for hits, _ in minutes) / max(1, sum(samples for _, samples in minutes))


def _touch(book: UpbitBook | BinanceBook, step: int) -> Sides:
    bid, ask = book.touch_at(step)
    return ((bid / E8, 1.0),), ((ask / E8, 1.0),)


def _sides(book: Book) -> Sides:
    return (
        tuple([(price / E8, size / E8) for price, size in book.bids[:SIDES_LEVELS]]),
        tuple([(price / E8, size / E8) for price, size in book.asks[:SIDES_LEVELS]]),
    )
