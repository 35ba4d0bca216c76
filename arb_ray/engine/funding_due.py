"""
Which funding instants of an open perpetual are still to be booked, and at which rate.

An instant is due once it has passed, whether the stream has moved on or not: a trade may be
left in the second after. The instants before the stream's next one lie a whole number of
intervals before it, so a gap (a venue that was dark, a process that was away) loses none.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from arb_ray.domain.book import FundingUpdate
from arb_ray.engine.trade_events import FundingPaid
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Live

RATES_MAX = 4
"""Instants whose last rate is remembered; a trade spans one or two."""

INSTANTS_MAX = 100
"""Instants booked at one look, a month at eight hours each; the rest follows at the next."""


class Due(msgspec.Struct, frozen=True):
    """A payment to book; ``is_estimated`` when the rate is another instant's."""

    event: FundingPaid
    is_estimated: bool


class FundingWatch:
    """Remembers the last rate that was announced for each instant."""

    def __init__(self, interval_ns: int) -> None:
        assert interval_ns > 0
        self._interval_ns = interval_ns
        self._last: dict[int, FundingUpdate] = {}

    def see(self, update: FundingUpdate) -> None:
        """Take in the stream's newest word."""
        self._last[update.next_funding_ns] = update
        if len(self._last) > RATES_MAX:
            del self._last[min(self._last)]

    def due(self, live: Live, now_ns: int) -> tuple[Due, ...]:
        """Return what passed since the trade was decided and is not booked, oldest first."""
        if not self._last:
            return ()
        newest_ns = max(self._last)
        after_ns, until_ns = live.plan.decided_ns, min(newest_ns, now_ns)
        interval_ns = self._interval_ns
        # The first of the stream's instants after the decision, also where that is still ahead.
        first_ns = newest_ns - (newest_ns - after_ns - 1) // interval_ns * interval_ns
        booked = {paid.funding_ns for paid in live.funding}
        booked |= {waiting.funding_ns for waiting in live.funding_waiting}
        # What the stream itself announced comes first, should a venue keep another interval.
        announced = {at_ns for at_ns in self._last if after_ns < at_ns <= until_ns}
        known = booked | self._last.keys()
        between = {
            at_ns
            for at_ns in range(first_ns, until_ns + 1, interval_ns)
            if all(abs(at_ns - other_ns) >= interval_ns // 2 for other_ns in known)
        }
        passed = (announced | between) - booked
        wanted = [at_ns for at_ns in sorted(passed) if _may_be_open(live, at_ns)]
        return tuple(self._paid(at_ns, now_ns) for at_ns in wanted[:INSTANTS_MAX])

    def is_known(self, after_ns: int, until_ns: int) -> bool:
        """
        Tell whether every instant after the one and up to the other can be told of.

        Until the stream has said a word, instants are expected at whole intervals of UTC, as
        the venue has them.
        """
        interval_ns = self._interval_ns
        newest_ns = max(self._last) if self._last else after_ns // interval_ns * interval_ns
        return newest_ns + interval_ns > until_ns

    def _paid(self, funding_ns: int, now_ns: int) -> Due:
        known = self._last.get(funding_ns)
        update = known or self._last[max(self._last)]
        event = FundingPaid(
            at_ns=now_ns,
            funding_ns=funding_ns,
            mark_price=Decimal(repr(update.mark_price)),
            rate=Decimal(repr(update.funding_rate)),
        )
        return Due(event, known is None)


def _may_be_open(live: Live, at_ns: int) -> bool:
    """Tell whether the perpetual was open, or an order on its way may yet say that it was."""
    perp = live.plan.b.leg.instrument.id
    is_undecided = any(
        order.instrument == perp and order.decided_ns <= at_ns for order in live.working
    )
    return is_undecided or live.position(LegKey.B, at_ns) != 0
