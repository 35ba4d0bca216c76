"""
What both directions of a pair would pay, over depth, at a real size, with every cost named.

    LONG_A_SHORT_B  buy on Upbit, sell on Binance: USDT proceeds p are worth p*vwap_bids(F, p)
    LONG_B_SHORT_A  buy on Binance, sell on Upbit: USDT cost c costs c*vwap_asks(F, c)

The premium is measured in one way throughout: executable, in the direction of the entry.
``gross_bps`` is its distance from zero, paid at once by crossing U, N and F. On the way out
each leg crosses from the side it came in by to the other, so ``exit_spread_bps`` is, for each
leg, the difference between entry-side and exit-side average price at the traded size: a round
trip through unchanged books loses just that (and the fees).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from arb_ray.domain.book import Levels, walk
from arb_ray.domain.instrument import Kind, Pair, Symbol
from arb_ray.domain.opportunity import Costs, Direction, Opportunity
from arb_ray.engine.fx import krw_for_usdt, krw_to_buy_usdt
from arb_ray.engine.strategy_params import StrategyParams

BPS = 10_000.0

Sides = tuple[Levels, Levels]
"""A book as ``(bids, asks)``, best first."""


class CostTerms(msgspec.Struct, frozen=True):
    """
    What pricing must know of a pair besides its books.

    ``basis_bps`` is the rolling premium of U over the perpetual, 0 on spot.
    ``long_funding_bps`` is what a long of leg B is expected to pay (negative: to receive)
    over the expected holding time, 0 on spot.
    """

    fee_a_bps: float
    fee_b_bps: float
    slippage_allowance_bps: float = 0.0
    safety_buffer_bps: float = 0.0
    basis_bps: float = 0.0
    long_funding_bps: float = 0.0
    exit_premium_credit_max_bps: float = 0.0
    multiplier_a: float = 1.0
    multiplier_b: float = 1.0

    @classmethod
    def of(
        cls,
        pair: Pair,
        params: StrategyParams,
        *,
        basis_bps: float = 0.0,
        long_funding_bps: float = 0.0,
    ) -> CostTerms:
        """Gather the terms of a pair; basis and funding count on a perpetual only."""
        is_perp = pair.b.instrument.kind is Kind.PERP
        return cls(
            float(pair.a.fees.taker_bps),
            float(pair.b.fees.taker_bps),
            params.slippage_allowance_bps,
            params.safety_buffer_bps,
            basis_bps if is_perp else 0.0,
            long_funding_bps if is_perp else 0.0,
            params.exit_premium_credit_max_bps,
            float(pair.a.instrument.multiplier),
            float(pair.b.instrument.multiplier),
        )

    def exit_premium_bps(self, direction: Direction) -> float:
        """
        Return the premium that is expected to be still there at the exit, as a cost.

        Who is long A earns when the premium rises, so a basis above zero is a credit to him;
        a credit is bounded, because a large one is a regime that will not be paid out.
        """
        cost = self.basis_bps if direction is Direction.LONG_B_SHORT_A else 0.0 - self.basis_bps
        return max(cost, -self.exit_premium_credit_max_bps)

    def costs(self, direction: Direction, exit_spread_bps: float) -> Costs:
        """Name every term for one direction."""
        is_long_b = direction is Direction.LONG_B_SHORT_A
        return Costs(
            self.fee_a_bps,
            self.fee_b_bps,
            self.fee_a_bps,
            self.fee_b_bps,
            exit_spread_bps,
            self.slippage_allowance_bps,
            self.exit_premium_bps(direction),
            self.long_funding_bps if is_long_b else 0.0 - self.long_funding_bps,
            self.safety_buffer_bps,
        )


class Walked(NamedTuple):
    """One size walked through all four sides of both legs, in quote units."""

    krw_to_buy: float
    krw_from_sale: float
    usdt_to_buy: float
    usdt_from_sale: float


def walk_legs(u: Sides, n: Sides, qty: float, terms: CostTerms) -> Walked | None:
    """
    Walk ``qty`` units of the asset into both sides of both legs.

    Returns:
        None when any side displays less: a trade that cannot be left is not entered.
    """
    qty_a = qty / terms.multiplier_a
    qty_b = qty / terms.multiplier_b
    taken, krw_to_buy = walk(u[1], qty_a)
    if taken != qty_a:
        return None
    taken, krw_from_sale = walk(u[0], qty_a)
    if taken != qty_a:
        return None
    taken, usdt_to_buy = walk(n[1], qty_b)
    if taken != qty_b:
        return None
    taken, usdt_from_sale = walk(n[0], qty_b)
    if taken != qty_b:
        return None
    return Walked(krw_to_buy, krw_from_sale, usdt_to_buy, usdt_from_sale)


def price_direction(
    direction: Direction,
    walked: Walked,
    f: Sides,
    qty: float,
    terms: CostTerms,
    *,
    symbol: Symbol,
    at_ns: int,
) -> Opportunity | None:
    """Price one direction of a walked size; None when F displays too little for it."""
    fx_mid_krw = (f[0][0][0] + f[1][0][0]) / 2
    qty_a = qty / terms.multiplier_a
    qty_b = qty / terms.multiplier_b
    if direction is Direction.LONG_A_SHORT_B:
        usdt, leg_krw = walked.usdt_from_sale, walked.krw_to_buy
        fx_leg_krw = krw_for_usdt(f[0], usdt)
        if fx_leg_krw is None:
            return None
        gross = fx_leg_krw / leg_krw - 1
        exit_spread = (leg_krw - walked.krw_from_sale) / leg_krw + (
            walked.usdt_to_buy - usdt
        ) / usdt
    else:
        usdt, leg_krw = walked.usdt_to_buy, walked.krw_from_sale
        fx_leg_krw = krw_to_buy_usdt(f[1], usdt)
        if fx_leg_krw is None:
            return None
        gross = leg_krw / fx_leg_krw - 1
        exit_spread = (walked.krw_to_buy - leg_krw) / leg_krw + (
            usdt - walked.usdt_from_sale
        ) / usdt
    return Opportunity(
        symbol,
        direction,
        at_ns,
        qty,
        usdt,
        leg_krw / qty_a,
        usdt / qty_b,
        fx_leg_krw / usdt,
        fx_mid_krw,
        gross * BPS,
        terms.costs(direction, exit_spread * BPS),
    )


def both_directions(
    u: Sides, n: Sides, f: Sides, qty: float, terms: CostTerms, *, symbol: Symbol, at_ns: int
) -> tuple[Opportunity | None, Opportunity | None]:
    """
    Price ``qty`` units of the asset both ways; needs no strategy and applies no gate.

    Returns:
        LONG_A_SHORT_B and LONG_B_SHORT_A; None where displayed depth is short. Both results
        carry ``gross_bps``, ``after_entry_fees_bps`` and ``net_bps``.
    """
    assert qty > 0
    walked = walk_legs(u, n, qty, terms)
    if walked is None:
        return None, None
    return (
        price_direction(
            Direction.LONG_A_SHORT_B, walked, f, qty, terms, symbol=symbol, at_ns=at_ns
        ),
        price_direction(
            Direction.LONG_B_SHORT_A, walked, f, qty, terms, symbol=symbol, at_ns=at_ns
        ),
    )


def target_qty(n: Sides, notional_usdt: float, multiplier_b: float) -> float:
    """Return the units of the asset that ``notional_usdt`` stands for at N's mid."""
    return notional_usdt / ((n[0][0][0] + n[1][0][0]) / 2) * multiplier_b


class TopEdge(NamedTuple):
    """
    The edge of both directions at best prices, the most that any size can have.

    Going deeper only worsens ``gross`` and widens the exit spread, so a direction whose
    ``net_*`` here is too small is too small at every size, and no book need be walked.
    """

    gross_ab_bps: float
    net_ab_bps: float
    gross_ba_bps: float
    net_ba_bps: float


def top_edge(u: Sides, n: Sides, f: Sides, terms: CostTerms, fixed: FixedCosts) -> TopEdge:
    """Return the bound; every book must have both sides."""
    scale = terms.multiplier_a / terms.multiplier_b
    u_bid, u_ask = u[0][0][0], u[1][0][0]
    n_bid, n_ask = n[0][0][0], n[1][0][0]
    gross_ab = (n_bid * f[0][0][0] * scale / u_ask - 1) * BPS
    gross_ba = (u_bid / (n_ask * f[1][0][0] * scale) - 1) * BPS
    u_wide, n_wide = (u_ask - u_bid) * BPS, (n_ask - n_bid) * BPS
    return TopEdge(
        gross_ab,
        gross_ab - u_wide / u_ask - n_wide / n_bid - fixed.ab_bps,
        gross_ba,
        gross_ba - u_wide / u_bid - n_wide / n_ask - fixed.ba_bps,
    )


class FixedCosts(NamedTuple):
    """All costs that do not depend on the books, of both directions."""

    ab_bps: float
    ba_bps: float

    @classmethod
    def of(cls, terms: CostTerms) -> FixedCosts:
        """Add up the terms once, whenever they change, not at every evaluation."""
        return cls(
            terms.costs(Direction.LONG_A_SHORT_B, 0.0).total_bps,
            terms.costs(Direction.LONG_B_SHORT_A, 0.0).total_bps,
        )


def funding_settlements(now_ns: int, hold_ns: int, next_funding_ns: int, interval_ns: int) -> int:
    """
    Return how many funding instants lie within the next ``hold_ns``.

    A ``next_funding_ns`` that has passed is moved on by whole intervals: the update that
    named it is older than the last settlement.
    """
    assert interval_ns > 0
    if next_funding_ns <= now_ns:
        next_funding_ns += ((now_ns - next_funding_ns) // interval_ns + 1) * interval_ns
    left_ns = now_ns + hold_ns - next_funding_ns
    return 0 if left_ns < 0 else left_ns // interval_ns + 1
