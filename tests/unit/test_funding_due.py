"""Which funding instants are booked, at which rate."""

from decimal import Decimal

from msgspec.structs import replace

from arb_ray.domain.book import FundingUpdate
from arb_ray.engine.funding_due import RATES_MAX, FundingWatch
from arb_ray.engine.trade_state import Funding
from tests.signal_market import P_ID, S
from tests.unit.test_trade import holding

HOUR = 3600 * S
EIGHT = 8 * HOUR
OPENED = holding().plan.decided_ns
FIRST = OPENED + HOUR  # the first instant after the trade was decided


def update(next_ns, rate=0.0001):
    return FundingUpdate(P_ID, 2000.0, rate, next_ns, 0)


def watch(*updates):
    watching = FundingWatch(EIGHT)
    for one in updates:
        watching.see(one)
    return watching


def due(watching, now_ns, live=None):
    return [
        (one.event.funding_ns, one.event.rate, one.is_estimated)
        for one in watching.due(live or holding(), now_ns)
    ]


def test_an_instant_is_due_when_it_has_passed_even_before_the_stream_moves_on():
    watching = watch(update(FIRST, 0.0003))
    assert due(watching, FIRST - 1) == []
    assert due(watching, FIRST) == [(FIRST, Decimal("0.0003"), False)]


def test_the_rate_is_the_last_one_announced_for_the_instant():
    watching = watch(update(FIRST, 0.0003), update(FIRST, 0.0004), update(FIRST + EIGHT, 0.0009))
    assert due(watching, FIRST + S) == [(FIRST, Decimal("0.0004"), False)]


def test_every_instant_of_a_gap_is_due_and_unknown_rates_are_estimated():
    watching = watch(update(FIRST + 3 * EIGHT, 0.0005))
    rate = Decimal("0.0005")
    expected = [(FIRST + i * EIGHT, rate, True) for i in range(3)]
    assert due(watching, FIRST + 2 * EIGHT + S) == expected


def test_what_is_booked_or_was_before_the_trade_is_not_due():
    watching = watch(update(FIRST + EIGHT))
    live = replace(holding(), funding=(Funding(FIRST, Decimal(1)),))
    assert due(watching, FIRST + S, live) == []
    assert due(watch(), FIRST + S) == []
    assert due(watch(update(OPENED)), FIRST) == []


def test_an_instant_without_a_position_is_not_due():
    live = replace(holding(), finished=())
    assert due(watch(update(FIRST)), FIRST + S, live) == []


def test_a_venue_with_a_shorter_interval_is_believed():
    watching = watch(update(FIRST), update(FIRST + 4 * HOUR), update(FIRST + 8 * HOUR))
    assert [at_ns for at_ns, *_ in due(watching, FIRST + 5 * HOUR)] == [FIRST, FIRST + 4 * HOUR]


def test_what_is_remembered_is_bounded():
    watching = watch(*(update(FIRST + i * EIGHT) for i in range(100)))
    assert len(watching._last) == RATES_MAX


def test_instants_are_known_up_to_the_next_but_one_that_the_stream_announced():
    watching = watch(update(FIRST))
    assert watching.is_known(OPENED, FIRST + EIGHT - 1)
    assert not watching.is_known(OPENED, FIRST + EIGHT)


def test_without_a_word_of_the_stream_an_instant_is_expected_at_each_whole_interval():
    watching, midnight = watch(), 20_000 * 3 * EIGHT
    assert watching.is_known(midnight, midnight + EIGHT - 1)
    assert not watching.is_known(midnight, midnight + EIGHT)
    assert not watching.is_known(midnight - 1, midnight)


def test_an_instant_is_due_while_an_order_may_yet_tell_that_something_was_open():
    held = holding()
    opened = replace(held, finished=(), working=tuple(one.order for one in held.finished))
    assert due(watch(update(FIRST)), FIRST, opened) == [(FIRST, Decimal("0.0001"), False)]
    assert due(watch(update(FIRST)), FIRST, replace(opened, working=())) == []
