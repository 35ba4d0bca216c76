"""
The brain of one symbol: what the newest books mean for it.

It decides and remembers, and does nothing: the shell gives it the time and the symbol's
standing, asks RiskGuard, sends orders and tells it how that ended. Equal input gives equal
decisions, in one process or in many.

    moved enough to matter? -> books fresh? -> entry allowed? -> could the best prices pay?
        -> which size pays most?

Most evaluations end at the first question. After a look at which no direction could pay, bounds
are drawn around the best prices within which none can; as long as they hold, the books are fresh
and the symbol's standing is the same, the answer is the same too, and nothing else is asked.
Most others end at the fourth question, which walks no book.
"""

from __future__ import annotations

import sys

from arb_ray.domain.instrument import Kind, Pair, Symbol
from arb_ray.domain.opportunity import Direction, Opportunity, Refusal
from arb_ray.engine.evaluation import (
    REFUSED,
    REPEATED,
    Evaluation,
    EvaluationStats,
    QuietMarket,
    Review,
)
from arb_ray.engine.exits import Closing, ExitTerms, OpenPosition, closing, exit_reason
from arb_ray.engine.gates import (
    FreeBalances,
    PairFacts,
    Standing,
    freshness_refusal,
    is_fx_plausible,
    legs_refusal,
    sanity_refusal,
    standing_refusal,
)
from arb_ray.engine.market_view import LiveBook, MarketView
from arb_ray.engine.rolling_premium import RollingPremium, premium_bps
from arb_ray.engine.size_search import best_size
from arb_ray.engine.spread import (
    BPS,
    CostTerms,
    FixedCosts,
    Sides,
    both_directions,
    funding_settlements,
    price_direction,
    target_qty,
    top_edge,
    walk_legs,
)
from arb_ray.engine.strategy_params import NS_PER_MS, NS_PER_S, GateLimits, StrategyParams
from arb_ray.engine.trade_events import ExitReason


class SymbolStrategy:
    """Evaluates one pair; holds its premium, pace and statistics, and no clock."""

    def __init__(self, pair: Pair, params: StrategyParams) -> None:
        self.pair = pair
        self.params = params
        self.stats = EvaluationStats()
        self.premium = RollingPremium(params.basis_half_life_s)
        self.terms = CostTerms.of(pair, params)
        self._fixed = FixedCosts.of(self.terms)
        self._facts = PairFacts.of(pair, params.perp_margin_ratio)
        self._limits = GateLimits.of(params)
        self._exit_terms = ExitTerms.of(pair, params)
        self._is_perp = pair.b.instrument.kind is Kind.PERP
        self._is_funding_known = False
        self._sample_due_ns = 0
        self._fresh_since_ns: int | None = None
        self._not_before_ns = 0
        self._quiet: QuietMarket | None = None
        self._quiet_standing: Standing | None = None  # with it all gates let the last look pass
        self._fresh_until_mono_ns = 0  # no book of that look grows stale before, unless...
        self._doubts = 0  # ...the view has had a doubt since
        # Of N's own stamp; without a bound nothing comes too late.
        self._event_delay_max_ns = self._limits.max_event_delay_b_ns or sys.maxsize
        self._ids = (pair.a.instrument.id, pair.b.instrument.id, pair.fx.instrument.id)
        self._warm_up_ns = int(params.warm_up_s * NS_PER_S)
        self._fx_mid_krw: float | None = None

    @property
    def symbol(self) -> Symbol:
        """What is traded."""
        return self.pair.symbol

    def trade_closed(self, at_ns: int) -> None:
        """Cool down after a trade. A restarted strategy waits for its warm-up instead."""
        self._wait_until(at_ns + int(self.params.cool_down_s * NS_PER_S))

    def attempt_failed(self, at_ns: int, refusal: Refusal) -> None:
        """Count an attempt that came to nothing after the evaluation, and wait a little."""
        self.stats.refuse(refusal)
        self._wait_until(at_ns + int(self.params.retry_cool_down_s * NS_PER_S))

    def _wait_until(self, due_ns: int) -> None:
        self._not_before_ns = max(self._not_before_ns, due_ns)
        self._quiet_standing = None

    def evaluate(
        self, view: MarketView, now_ns: int, now_mono_ns: int, standing: Standing
    ) -> Evaluation:
        """
        Look at the newest books once, and count what it led to.

        Call it when U, N or F changed; the cheapest questions come first.
        """
        u, n, f = self._read(view)
        stats = self.stats
        stats.evaluations += 1
        quiet = self._quiet
        if (
            quiet is not None
            and standing is self._quiet_standing
            # No book can have grown stale since: connections prove alive, or are in doubt.
            and now_mono_ns <= self._fresh_until_mono_ns
            and view.doubts == self._doubts
            and now_ns < self._sample_due_ns
            and n.event_delay_ns <= self._event_delay_max_ns  # type: ignore[union-attr]
            and quiet.holds(u, n, f, now_ns)  # type: ignore[arg-type]  # none is missing
        ):
            stats.repeats += 1
            return REPEATED
        stale = freshness_refusal(u, n, f, now_mono_ns, self._limits)
        self._note_fx(f)
        self._follow(view, stale, now_ns)
        found: Opportunity | Refusal | None = (
            standing_refusal(standing) or stale or self._pace_refusal(now_ns)
        )
        self._quiet_standing = None
        if found is None:
            assert u is not None and n is not None and f is not None  # noqa: PT018 (for mypy)
            found = sanity_refusal(u, n, f, self._limits)
            if found is None:
                self._quiet_standing = standing
                self._note_freshness(u, n, f, view.doubts)
                if not (self._quiet and self._quiet.holds(u, n, f, now_ns)):
                    found = self._seek(u, n, f, now_ns, standing.balances)
        if isinstance(found, Opportunity):
            stats.opportunities += 1
            return Evaluation(None, found)
        if found is None:  # nothing moved enough to matter
            stats.repeats += 1
            return REPEATED
        stats.refuse(found)
        return REFUSED[found]

    def rests(
        self, f: LiveBook, doubts: int, now_ns: int, now_mono_ns: int, standing: Standing
    ) -> bool:
        """
        Tell whether a new F can be left alone, because U, N and time alone would say the same.

        One F concerns every symbol, and seldom moves. It need not be looked at while it lies
        within the bounds of a quiet market, the last look's gates would still pass (nothing
        has grown stale, no connection was in doubt), and no sample of the premium is due. Only
        a venue clock's offset or the skew of both legs could forbid an entry unseen, and there
        is none to forbid; the host looks four times a second all the same.
        """
        quiet = self._quiet
        return (
            quiet is not None
            and quiet.f_bid_low <= f.bid <= quiet.f_bid_high
            and quiet.f_ask_low <= f.ask <= quiet.f_ask_high
            and now_ns < quiet.until_ns
            and now_ns < self._sample_due_ns
            and now_mono_ns <= self._fresh_until_mono_ns
            and doubts == self._doubts
            and standing is self._quiet_standing
        )

    def _note_freshness(self, u: LiveBook, n: LiveBook, f: LiveBook, doubts: int) -> None:
        limits = self._limits
        self._doubts = doubts
        self._fresh_until_mono_ns = min(
            u.connection.alive_mono_ns + limits.max_age_a_ns,
            n.connection.alive_mono_ns + limits.max_age_b_ns,
            f.connection.alive_mono_ns + limits.max_age_fx_ns,
        )

    def _follow(self, view: MarketView, stale: Refusal | None, now_ns: int) -> None:
        """Keep premium and warm-up going, also while a trade is open."""
        if stale is None:
            if self._fresh_since_ns is None:
                self._fresh_since_ns = now_ns
            if now_ns >= self._sample_due_ns:
                self._sample(view, now_ns)
        elif stale is not Refusal.BOOK_INVALID:
            self._fresh_since_ns = None  # after an outage the market is met anew

    def _pace_refusal(self, now_ns: int) -> Refusal | None:
        since_ns = self._fresh_since_ns
        assert since_ns is not None, "asked for fresh books only"
        if now_ns < since_ns + self._warm_up_ns:
            return Refusal.WARMING_UP
        if self._is_perp and not (
            self._is_funding_known and self.premium.observed_s >= self.params.basis_warm_up_s
        ):
            return Refusal.WARMING_UP
        return Refusal.COOLING_DOWN if now_ns < self._not_before_ns else None

    def _seek(
        self, u: LiveBook, n: LiveBook, f: LiveBook, now_ns: int, balances: FreeBalances
    ) -> Opportunity | Refusal:
        params = self.params
        sides_u, sides_n, sides_f = (u.bids, u.asks), (n.bids, n.asks), (f.bids, f.asks)
        top = top_edge(sides_u, sides_n, sides_f, self.terms, self._fixed)
        self.stats.see(top)
        least = params.min_net_bps
        if top.net_ab_bps < least and top.net_ba_bps < least:
            self._quiet = QuietMarket.around(
                (u, n, f),
                headroom_bps=least - max(top.net_ab_bps, top.net_ba_bps),
                move_bps=params.evaluation_epsilon_bps,
                until_ns=now_ns + int(params.reevaluate_after_ms * NS_PER_MS),
            )
            return Refusal.NO_EDGE
        self._quiet = None
        if max(top.gross_ab_bps, top.gross_ba_bps) > params.plausible_cap_bps:
            return Refusal.IMPLAUSIBLE_EDGE
        directions = [
            direction
            for direction, net_bps in (
                (Direction.LONG_A_SHORT_B, top.net_ab_bps),
                (Direction.LONG_B_SHORT_A, top.net_ba_bps),
            )
            if net_bps >= least
        ]
        return best_size(
            directions,
            sides_u,
            sides_n,
            sides_f,
            terms=self.terms,
            params=params,
            facts=self._facts,
            balances=balances,
            symbol=self.symbol,
            at_ns=now_ns,
        )

    def recheck(
        self, view: MarketView, now_ns: int, now_mono_ns: int, granted: Opportunity
    ) -> Opportunity | Refusal:
        """
        Price the granted size and direction again, when RiskGuard's yes has arrived.

        Returns:
            The opportunity at the prices of now; a gate's refusal, or EDGE_GONE, means that
            the reservation must be voided. ``attempt_failed`` counts it.
        """
        u, n, f = self._read(view)
        stale = freshness_refusal(u, n, f, now_mono_ns, self._limits)
        if stale is not None:
            return stale
        assert u is not None and n is not None and f is not None  # noqa: PT018 (for mypy)
        refusal = sanity_refusal(u, n, f, self._limits)
        if refusal is not None:
            return refusal
        sides_u, sides_n, sides_f = (u.bids, u.asks), (n.bids, n.asks), (f.bids, f.asks)
        walked = walk_legs(sides_u, sides_n, granted.qty, self.terms)
        priced = walked and price_direction(
            granted.direction,
            walked,
            sides_f,
            granted.qty,
            self.terms,
            symbol=self.symbol,
            at_ns=now_ns,
        )
        if priced is None or priced.net_bps < self.params.min_net_bps:
            return Refusal.EDGE_GONE
        if priced.gross_bps > self.params.plausible_cap_bps:
            return Refusal.IMPLAUSIBLE_EDGE
        return priced

    def review(
        self,
        view: MarketView,
        position: OpenPosition,
        now_ns: int,
        now_mono_ns: int,
        *,
        asked: ExitReason | None = None,
    ) -> Review:
        """
        Value an open trade and ask whether to leave it; call it on a timer too.

        The value needs fresh legs and no more: while F is missing, in disorder or stale, its
        last good mid (the plan's, when none was seen) serves the mark and the stop-loss.
        Maximum holding and an ``asked`` exit work with any books or none.
        """
        u, n, f = self._read(view)
        self._note_fx(f)
        value: Closing | None = None
        reverse_edge_bps: float | None = None
        is_fx_fresh = False
        if legs_refusal(u, n, now_mono_ns, self._limits) is None:
            assert u is not None and n is not None  # noqa: PT018 (for mypy)
            sides_u, sides_n = (u.bids, u.asks), (n.bids, n.asks)
            fx_mid_krw = self._fx_mid_krw or position.fx_mid_entry_krw
            value = closing(position, sides_u, sides_n, fx_mid_krw, self._exit_terms)
            stale = freshness_refusal(u, n, f, now_mono_ns, self._limits)
            if f is not None and stale is None and is_fx_plausible(f, self._limits):
                is_fx_fresh = True
                sides_f = (f.bids, f.asks)
                reverse_edge_bps = self._reverse_edge_bps(position, sides_u, sides_n, sides_f)
        reason = exit_reason(
            position,
            now_ns,
            asked=asked,
            value=value,
            is_fx_fresh=is_fx_fresh,
            reverse_edge_bps=reverse_edge_bps,
        )
        return Review(reason, value)

    @property
    def last_fx_mid_krw(self) -> float | None:
        """F's last good mid, KRW per USDT; None until one was seen."""
        return self._fx_mid_krw

    def _note_fx(self, f: LiveBook | None) -> None:
        if f is not None and is_fx_plausible(f, self._limits):
            self._fx_mid_krw = (f.bids[0][0] + f.asks[0][0]) / 2

    def _reverse_edge_bps(
        self, position: OpenPosition, u: Sides, n: Sides, f: Sides
    ) -> float | None:
        qty, terms = position.base_qty, self.terms
        walked = walk_legs(u, n, qty, terms)
        reverse = position.direction.reverse
        priced = walked and price_direction(
            reverse, walked, f, qty, terms, symbol=self.symbol, at_ns=0
        )
        return None if priced is None else priced.gross_bps - terms.exit_premium_bps(reverse)

    def quote(self, view: MarketView, now_ns: int) -> tuple[Opportunity | None, Opportunity | None]:
        """
        Price both directions at the target size, whatever the gates say: for display.

        Returns:
            LONG_A_SHORT_B and LONG_B_SHORT_A; None where a book is missing or too short.
        """
        u, n, f = self._books(view)
        if u is None or n is None or f is None or u.problem or n.problem or f.problem:
            return None, None
        sides_n = (n.bids, n.asks)
        qty = target_qty(sides_n, self.params.trade_notional_usdt, self.terms.multiplier_b)
        return both_directions(
            (u.bids, u.asks),
            sides_n,
            (f.bids, f.asks),
            qty,
            self.terms,
            symbol=self.symbol,
            at_ns=now_ns,
        )

    def _books(self, view: MarketView) -> tuple[LiveBook | None, LiveBook | None, LiveBook | None]:
        books, (u, n, f) = view.books, self._ids
        return books.get(u), books.get(n), books.get(f)

    def _read(self, view: MarketView) -> tuple[LiveBook | None, LiveBook | None, LiveBook | None]:
        books, ids = view.books, self._ids
        u, n, f = found = books.get(ids[0]), books.get(ids[1]), books.get(ids[2])
        if u is not None and not u.is_read:
            u.is_read = True
            view.counts.read += 1
        if n is not None and not n.is_read:
            n.is_read = True
            view.counts.read += 1
        if f is not None and not f.is_read:
            f.is_read = True
            view.counts.read += 1
        return found

    def _sample(self, view: MarketView, now_ns: int) -> None:
        """Learn the premium once per sampling period, and renew what depends on it."""
        self._sample_due_ns = now_ns + int(self.params.premium_sample_ms * NS_PER_MS)
        u, n, f = self._books(view)
        assert u is not None and n is not None and f is not None  # noqa: PT018 (for mypy)
        scale = self.terms.multiplier_a / self.terms.multiplier_b
        self.premium.add(
            now_ns,
            premium_bps((u.bids, u.asks), (n.bids, n.asks), (f.bids, f.asks), scale),
        )
        if not self._is_perp:
            return
        self.terms = CostTerms.of(
            self.pair,
            self.params,
            basis_bps=self.premium.mean_bps,
            long_funding_bps=self._long_funding_bps(view, now_ns),
        )
        self._fixed = FixedCosts.of(self.terms)
        self._quiet = None  # its bounds were drawn with the former costs

    def _long_funding_bps(self, view: MarketView, now_ns: int) -> float:
        funding = view.funding.get(self.pair.b.instrument.id)
        self._is_funding_known = funding is not None
        if funding is None:
            return 0.0
        settlements = funding_settlements(
            now_ns,
            int(self.params.expected_hold_s * NS_PER_S),
            funding.next_funding_ns,
            int(self.params.funding_interval_s * NS_PER_S),
        )
        return funding.funding_rate * settlements * BPS
