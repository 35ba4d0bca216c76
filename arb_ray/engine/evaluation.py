"""What looking at the market leads to, counted; and when looking again is not worth it."""

from __future__ import annotations

import msgspec

from arb_ray.domain.opportunity import Opportunity, Refusal
from arb_ray.engine.exits import Closing
from arb_ray.engine.market_view import LiveBook
from arb_ray.engine.spread import BPS, TopEdge
from arb_ray.engine.trade_events import ExitReason

EDGE_PER_MOVE = 10.0
"""
Six best prices that each move by x move the edge bound by less than ten x: U's and N's entry
sides count twice (edge and spread), the others once, and an edge under 3 % adds little.
"""


class Evaluation(msgspec.Struct, frozen=True):
    """What one look at the market led to: an opportunity, or the first reason against one."""

    refusal: Refusal | None
    opportunity: Opportunity | None = None
    is_repeat: bool = False  # nothing had moved enough since the last look to matter: no decision


REFUSED = {refusal: Evaluation(refusal) for refusal in Refusal}
"""One shared answer per refusal: most looks end in one, and need no new object."""

REPEATED = Evaluation(Refusal.NO_EDGE, None, is_repeat=True)


class EvaluationStats(msgspec.Struct):
    """What one symbol's evaluations led to since its strategy started."""

    evaluations: int = 0
    repeats: int = 0  # of them: nothing had moved enough to matter, and there was no edge before
    opportunities: int = 0
    refusals: dict[Refusal, int] = {}  # without the repeats
    best_gross_bps: float | None = None  # at best prices, either direction, whenever looked at
    best_net_bps: float | None = None  # the same, less every cost

    def refuse(self, refusal: Refusal) -> None:
        """Count one refusal; the shell's own (RISK_REFUSED after asking) are counted here too."""
        self.refusals[refusal] = self.refusals.get(refusal, 0) + 1

    def all_refusals(self) -> dict[Refusal, int]:
        """Return how often each reason was given; a repeat repeats that there is no edge."""
        counts = dict(self.refusals)
        if self.repeats:
            counts[Refusal.NO_EDGE] = counts.get(Refusal.NO_EDGE, 0) + self.repeats
        return counts

    def see(self, top: TopEdge) -> None:
        """Keep the best edge seen."""
        gross = top.gross_ab_bps if top.gross_ab_bps > top.gross_ba_bps else top.gross_ba_bps
        net = top.net_ab_bps if top.net_ab_bps > top.net_ba_bps else top.net_ba_bps
        if self.best_gross_bps is None or gross > self.best_gross_bps:
            self.best_gross_bps = gross
        if self.best_net_bps is None or net > self.best_net_bps:
            self.best_net_bps = net


class Review(msgspec.Struct, frozen=True):
    """One look at an open trade; ``value`` is None unless both legs' books are fresh."""

    reason: ExitReason | None
    value: Closing | None

    @property
    def mark_usdt(self) -> float | None:
        """What closing now would realize: conservative, executable; None when unknown."""
        return None if self.value is None else self.value.net_usdt


class QuietMarket(msgspec.Struct, frozen=True):
    """
    A market in which nothing pays, however it moves within these bounds.

    Asked at nearly every tick, so the bounds are plain fields: this is the whole cost of most.
    """

    until_ns: int
    u_bid_low: float
    u_bid_high: float
    u_ask_low: float
    u_ask_high: float
    n_bid_low: float
    n_bid_high: float
    n_ask_low: float
    n_ask_high: float
    f_bid_low: float
    f_bid_high: float
    f_ask_low: float
    f_ask_high: float

    def holds(self, u: LiveBook, n: LiveBook, f: LiveBook, now_ns: int) -> bool:
        """
        Tell whether the best prices are still within bounds, and the look recent enough.

        A book with a problem has no best price and lies within no bounds.
        """
        return (
            now_ns < self.until_ns
            and self.u_bid_low <= u.bid <= self.u_bid_high
            and self.n_bid_low <= n.bid <= self.n_bid_high
            and self.u_ask_low <= u.ask <= self.u_ask_high
            and self.n_ask_low <= n.ask <= self.n_ask_high
            and self.f_bid_low <= f.bid <= self.f_bid_high
            and self.f_ask_low <= f.ask <= self.f_ask_high
        )

    @classmethod
    def around(
        cls,
        books: tuple[LiveBook, LiveBook, LiveBook],
        *,
        headroom_bps: float,
        move_bps: float,
        until_ns: int,
    ) -> QuietMarket:
        """
        Draw bounds around the best prices of U, N and F.

        ``headroom_bps`` is what the better direction lacks at best prices: no bound is so far
        that a move to it could make it pay after all, nor farther than ``move_bps``.
        """
        move_bps = min(move_bps, headroom_bps / EDGE_PER_MOVE)
        low, high = 1 - move_bps / BPS, 1 + move_bps / BPS
        bounds: list[float] = []
        for book in books:
            for price in (book.bid, book.ask):
                bounds += (price * low, price * high)
        return cls(until_ns, *bounds)
