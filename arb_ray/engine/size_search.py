"""Which size of which direction earns most, of those that could be traded."""

from __future__ import annotations

from collections.abc import Sequence

from arb_ray.domain.book import depth_qty
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.opportunity import Direction, Opportunity, Refusal
from arb_ray.engine.gates import FreeBalances, PairFacts, balance_refusal, minimum_refusal
from arb_ray.engine.spread import CostTerms, Sides, price_direction, target_qty, walk_legs
from arb_ray.engine.strategy_params import StrategyParams

_HOW_FAR = {
    Refusal.DEPTH_SHORT: 0,
    Refusal.NO_EDGE: 1,
    Refusal.BELOW_MINIMUM: 2,
    Refusal.INSUFFICIENT_BALANCE: 3,
}
"""When every size was refused, the refusal that came furthest is the one reported."""


def best_size(
    directions: Sequence[Direction],
    u: Sides,
    n: Sides,
    f: Sides,
    *,
    terms: CostTerms,
    params: StrategyParams,
    facts: PairFacts,
    balances: FreeBalances,
    symbol: Symbol,
    at_ns: int,
) -> Opportunity | Refusal:
    """
    Try the ladder of sizes, over depth.

    Returns:
        The opportunity that earns most USDT net; when no size passes, the refusal of the one
        that came furthest.
    """
    full_qty = target_qty(n, params.trade_notional_usdt, terms.multiplier_b)
    most_qty = params.depth_share_max * min(
        depth_qty(u[0]) * terms.multiplier_a,
        depth_qty(u[1]) * terms.multiplier_a,
        depth_qty(n[0]) * terms.multiplier_b,
        depth_qty(n[1]) * terms.multiplier_b,
    )
    best: Opportunity | None = None
    refusal = Refusal.DEPTH_SHORT
    for fraction in params.size_fractions:
        qty = full_qty * fraction
        walked = walk_legs(u, n, qty, terms) if qty <= most_qty else None
        if walked is None:
            continue
        for direction in directions:
            priced = price_direction(direction, walked, f, qty, terms, symbol=symbol, at_ns=at_ns)
            if priced is None:
                continue
            reason = _size_refusal(priced, params.min_net_bps, facts, balances)
            if reason is not None:
                refusal = max(refusal, reason, key=_HOW_FAR.__getitem__)
            elif best is None or _profit(priced) > _profit(best):
                best = priced
    return best if best is not None else refusal


def _size_refusal(
    priced: Opportunity, min_net_bps: float, facts: PairFacts, balances: FreeBalances
) -> Refusal | None:
    if priced.net_bps < min_net_bps:
        return Refusal.NO_EDGE
    return minimum_refusal(priced, facts) or balance_refusal(priced, balances, facts)


def _profit(priced: Opportunity) -> float:
    return priced.net_bps * priced.notional_usdt
