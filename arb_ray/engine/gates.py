"""
Every condition an entry must meet before and beside its edge (DESIGN section 1).

Three functions, cheapest first: what the symbol's own standing forbids, which books cannot be
acted upon, what else makes fresh books doubtful. Each gives the first refusal it finds; the
caller counts it. Free balance and minimums depend on the size, so ``balance_refusal`` and
``minimum_refusal`` are asked where sizes are tried.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.instrument import Kind, Pair
from arb_ray.domain.opportunity import Direction, Opportunity, Refusal
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.fx import is_in_range
from arb_ray.engine.market_view import LiveBook
from arb_ray.engine.strategy_params import GateLimits


class FreeBalances(msgspec.Struct, frozen=True):
    """What is free on both venues; a signal's float64, the reservation is exact."""

    krw_a: float
    base_a: float  # units of the asset on Upbit
    usdt_b: float
    base_b: float  # units of the asset on Binance spot; unused on a perpetual


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the shell knows about a symbol besides the market.

    It changes rarely: the shell builds a new one when it does, not at every tick.
    """

    balances: FreeBalances
    is_busy: bool = False  # a trade of the symbol is open or pending
    is_owner: bool = True  # our owner epoch holds
    is_draining: bool = False
    is_store_up: bool = True  # the journal takes writes; without it entries stop
    is_asset_known: bool = True  # the registry vouches that both tickers mean this asset
    is_venue_healthy: bool = True  # neither venue is in maintenance or refuses orders
    is_guard_reachable: bool = True
    risk_state: RiskState = RiskState.ACTIVE


def standing_refusal(standing: Standing) -> Refusal | None:
    """Return what forbids an entry whatever the market does."""
    refusal: Refusal | None = None
    if standing.is_busy:
        refusal = Refusal.BUSY
    elif not standing.is_owner:
        refusal = Refusal.NOT_OWNER
    elif standing.is_draining:
        refusal = Refusal.DRAINING
    elif not standing.is_guard_reachable:
        refusal = Refusal.RISK_UNREACHABLE
    elif standing.risk_state is not RiskState.ACTIVE:
        refusal = Refusal.RISK_REFUSED
    elif not standing.is_store_up:
        refusal = Refusal.STORE_UNAVAILABLE
    elif not standing.is_asset_known:
        refusal = Refusal.ASSET_UNKNOWN
    elif not standing.is_venue_healthy:
        refusal = Refusal.VENUE_UNHEALTHY
    return refusal


def confirm_refusal(standing: Standing | None) -> Refusal | None:
    """
    Return what forbids to go on with an entry that has its room already.

    It is busy with itself, of course; whatever else changed while RiskGuard was asked counts.
    A standing that nobody has told yet (a process that has just started) is none.
    """
    if standing is None:
        return Refusal.NOT_OWNER
    return standing_refusal(msgspec.structs.replace(standing, is_busy=False))


def freshness_refusal(
    u: LiveBook | None,
    n: LiveBook | None,
    f: LiveBook | None,
    now_mono_ns: int,
    limits: GateLimits,
) -> Refusal | None:
    """
    Return why U, N or F cannot be acted upon at all; exits obey this gate too.

    STALE_FX comes last, so it means that both legs are fresh.
    """
    if u is None or n is None or f is None:
        return Refusal.BOOK_MISSING
    if u.problem or n.problem or f.problem:
        return Refusal.BOOK_INVALID
    stale = _stale_leg(u, n, now_mono_ns, limits)
    if stale is not None:
        return stale
    alive = f.connection
    if not alive.is_up or now_mono_ns - alive.alive_mono_ns > limits.max_age_fx_ns:
        return Refusal.STALE_FX
    return None


def legs_refusal(
    u: LiveBook | None, n: LiveBook | None, now_mono_ns: int, limits: GateLimits
) -> Refusal | None:
    """Return why U or N cannot be acted upon, whatever F is like: what a stop-loss needs."""
    if u is None or n is None:
        return Refusal.BOOK_MISSING
    if u.problem or n.problem:
        return Refusal.BOOK_INVALID
    return _stale_leg(u, n, now_mono_ns, limits)


def is_fx_plausible(f: LiveBook | None, limits: GateLimits) -> bool:
    """Tell whether F's mid can value KRW, however old the book is."""
    return (
        f is not None
        and not f.problem
        and is_in_range(f.bids[0][0], f.asks[0][0], limits.fx_min_krw, limits.fx_max_krw)
    )


def _stale_leg(u: LiveBook, n: LiveBook, now_mono_ns: int, limits: GateLimits) -> Refusal | None:
    alive = u.connection
    if not alive.is_up or now_mono_ns - alive.alive_mono_ns > limits.max_age_a_ns:
        return Refusal.STALE_A
    alive = n.connection
    if not alive.is_up or now_mono_ns - alive.alive_mono_ns > limits.max_age_b_ns:
        return Refusal.STALE_B
    if 0 < limits.max_event_delay_b_ns < n.event_delay_ns:
        return Refusal.STALE_B
    return None


def sanity_refusal(u: LiveBook, n: LiveBook, f: LiveBook, limits: GateLimits) -> Refusal | None:
    """Return why fresh books must not open a trade: FX out of range, or clocks in doubt."""
    if not is_in_range(f.bids[0][0], f.asks[0][0], limits.fx_min_krw, limits.fx_max_krw):
        return Refusal.FX_OUT_OF_RANGE
    a, b = u.connection, n.connection
    feed_a, feed_b = a.feed, b.feed
    limit_ms = limits.max_clock_offset_ms
    if not -limit_ms <= feed_a.clock_offset_ms <= limit_ms:
        return Refusal.CLOCK_OFFSET
    if not -limit_ms <= feed_b.clock_offset_ms <= limit_ms:
        return Refusal.CLOCK_OFFSET
    limit_ms = limits.max_clock_skew_ms
    if feed_a.clock_skew_ms > limit_ms or feed_b.clock_skew_ms > limit_ms:
        return Refusal.CLOCK_OFFSET
    limit_ns = limits.max_book_skew_ns
    if not -limit_ns <= a.alive_mono_ns - b.alive_mono_ns <= limit_ns:
        return Refusal.BOOK_SKEW
    return None


class PairFacts(msgspec.Struct, frozen=True):
    """The rules of a pair's two markets that a signal must respect, as float64."""

    fee_a_bps: float
    fee_b_bps: float
    multiplier_a: float
    multiplier_b: float
    is_perp: bool
    perp_margin_ratio: float
    min_qty_a: float  # venue units
    min_qty_b: float
    min_notional_a_krw: float
    min_notional_b_usdt: float

    @classmethod
    def of(cls, pair: Pair, perp_margin_ratio: float) -> PairFacts:
        """Read them off the pair; exact sizing checks them again in Decimal."""
        a, b = pair.a, pair.b
        return cls(
            float(a.fees.taker_bps),
            float(b.fees.taker_bps),
            float(a.instrument.multiplier),
            float(b.instrument.multiplier),
            b.instrument.kind is Kind.PERP,
            perp_margin_ratio,
            float(max(a.rules.min_qty, a.rules.lot)),
            float(max(b.rules.min_qty, b.rules.lot)),
            float(a.rules.min_notional),
            float(b.rules.min_notional),
        )


MINIMUM_MARGIN = 1.1
"""A size must clear every minimum by this factor, so that it can be left after a fall too."""


def minimum_refusal(opportunity: Opportunity, facts: PairFacts) -> Refusal | None:
    """Return BELOW_MINIMUM when either venue would refuse an order this small."""
    qty_a = opportunity.qty / facts.multiplier_a
    qty_b = opportunity.qty / facts.multiplier_b
    is_below = (
        qty_a < facts.min_qty_a * MINIMUM_MARGIN
        or qty_b < facts.min_qty_b * MINIMUM_MARGIN
        or qty_a * opportunity.price_a < facts.min_notional_a_krw * MINIMUM_MARGIN
        or opportunity.notional_usdt < facts.min_notional_b_usdt * MINIMUM_MARGIN
    )
    return Refusal.BELOW_MINIMUM if is_below else None


def balance_refusal(
    opportunity: Opportunity, balances: FreeBalances, facts: PairFacts
) -> Refusal | None:
    """
    Return INSUFFICIENT_BALANCE when either leg could not be paid or delivered.

    Selling on spot needs inventory; a perpetual needs margin whichever side it takes.
    """
    qty, usdt = opportunity.qty, opportunity.notional_usdt
    fee_b_usdt = usdt * facts.fee_b_bps / 10_000
    if opportunity.direction is Direction.LONG_A_SHORT_B:
        krw = opportunity.price_a * qty / facts.multiplier_a
        is_short_a = balances.krw_a < krw * (1 + facts.fee_a_bps / 10_000)
        is_short_b = balances.base_b < qty
    else:
        is_short_a = balances.base_a < qty
        is_short_b = balances.usdt_b < usdt + fee_b_usdt
    if facts.is_perp:
        is_short_b = balances.usdt_b < usdt * facts.perp_margin_ratio + fee_b_usdt
    return Refusal.INSUFFICIENT_BALANCE if is_short_a or is_short_b else None
