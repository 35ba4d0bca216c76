"""
What funding does to a live trade: each instant is booked once, on what was open at that instant.

An order on the perpetual may have filled before an instant and be reported after it. So while
one is on its way that was decided before, the instant waits for its last word: an entry that
was posted cannot be taken back.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from msgspec.structs import replace

from arb_ray.domain.instrument import Kind
from arb_ray.domain.ledger import Entry
from arb_ray.domain.money import USDT_QUANTUM
from arb_ray.engine.trade_events import FundingPaid
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_settle import funding_entries
from arb_ray.engine.trade_state import Funding, Live

Booked = tuple[Live, tuple[Entry, ...]]


def take_funding(live: Live, event: FundingPaid) -> Booked:
    """Take an instant's rate; a repeat, or an instant when nothing was open, changes nothing."""
    known = {paid.funding_ns for paid in live.funding}
    known |= {waiting.funding_ns for waiting in live.funding_waiting}
    if live.plan.b.leg.instrument.kind is not Kind.PERP or event.funding_ns in known:
        return live, ()
    if _is_undecided(live, event.funding_ns):
        return replace(live, funding_waiting=(*live.funding_waiting, event)), ()
    return _book(live, event)


def book_waiting(live: Live) -> Booked:
    """Book the instants for which no order's last word is missing any more."""
    ready = [one for one in live.funding_waiting if not _is_undecided(live, one.funding_ns)]
    if not ready:
        return live, ()
    waiting = tuple(one for one in live.funding_waiting if one not in ready)
    live = replace(live, funding_waiting=waiting)
    booked: tuple[Entry, ...] = ()
    for event in ready:
        live, entries = _book(live, event)
        booked += entries
    return live, booked


def _is_undecided(live: Live, funding_ns: int) -> bool:
    perp = live.plan.b.leg.instrument.id
    return any(
        order.instrument == perp and order.decided_ns <= funding_ns for order in live.working
    )


def _book(live: Live, event: FundingPaid) -> Booked:
    position = live.position(LegKey.B, event.funding_ns)
    if position == 0:
        return live, ()
    paid = live.plan.b.leg.to_venue_qty(position) * event.mark_price * event.rate
    amount = (-paid).quantize(USDT_QUANTUM, rounding=ROUND_HALF_EVEN)
    live = replace(live, funding=(*live.funding, Funding(event.funding_ns, Decimal(amount))))
    return live, funding_entries(live)[-1:]
