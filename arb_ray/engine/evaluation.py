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
    is_repeat: bool = False  # nothing had moved enough since the last look to matter


REFUSED = {refusal: Evaluation(refusal) for refusal in Refusal}
"""One shared answer per refusal: most looks end in one, and need no new object."""

REPEATED = Evaluation(Refusal.NO_EDGE, None, is_repeat=True)


class EvaluationStats(msgspec.Struct):
    """What one symbol's evaluations led to since its strategy started."""

    evaluations: int = 0
    repeats: int = 0
    opportunities: int = 0
    refusals: dict[Refusal, int] = {}
    best_gross_bps: float | None = None  # at best prices, either direction
    best_net_bps: float | None = None  # the same, less every cost

    def refuse(self, refusal: Refusal) -> None:
        """Count one refusal; the shell's own (RISK_REFUSED after asking) are counted here too."""
        self.refusals[refusal] = self.refusals.get(refusal, 0) + 1

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
    """A market in which nothing pays, however it moves within these bounds."""

    until_ns: int
    bounds: tuple[float, ...]  # low and high of U bid, U ask, N bid, N ask, F bid, F ask

    def holds(self, u: LiveBook, n: LiveBook, f: LiveBook, now_ns: int) -> bool:
        """Tell whether the best prices are still within bounds, and the look recent enough."""
        b = self.bounds
        return (
            now_ns < self.until_ns
            and b[0] <= u.bids[0][0] <= b[1]
            and b[2] <= u.asks[0][0] <= b[3]
            and b[4] <= n.bids[0][0] <= b[5]
            and b[6] <= n.asks[0][0] <= b[7]
            and b[8] <= f.bids[0][0] <= b[9]
            and b[10] <= f.asks[0][0] <= b[11]
        )

    @classmethod
    def around(
        cls,
        books: tuple[LiveBook, LiveBook, LiveBook],
        *,
        headroom_bps: float,
        move_bps: float,
        until_ns: int,
    ) -> QuietMarket | None:
        """
        Draw bounds of ``move_bps`` around the best prices of U, N and F.

        ``headroom_bps`` is what the better direction lacks at best prices. Returns None when
        a move within the bounds could make it pay after all.
        """
        if headroom_bps <= move_bps * EDGE_PER_MOVE:
            return None
        low, high = 1 - move_bps / BPS, 1 + move_bps / BPS
        bounds: list[float] = []
        for book in books:
            for price in (book.bids[0][0], book.asks[0][0]):
                bounds += (price * low, price * high)
        return cls(until_ns, tuple(bounds))
