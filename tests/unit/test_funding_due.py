"""Which funding instants are booked, at which rate."""

from decimal import Decimal

from msgspec.structs import replace

from arb_ray.domain.book import FundingUpdate
from arb_ray.engine.funding_due import FundingWatch
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
    watching = watch(*(update(FIRST + i * EIGHT, i / 1000) for i in range(100)))
    found = due(watching, FIRST + 99 * EIGHT)
    assert [is_estimated for *_, is_estimated in found] == [True] * 96 + [False] * 4


def test_a_long_darkness_is_booked_in_bounded_looks():
    watching = watch(update(FIRST + 150 * EIGHT))
    first_look = due(watching, FIRST + 150 * EIGHT)
    assert [at_ns for at_ns, *_ in first_look] == [FIRST + i * EIGHT for i in range(100)]
    booked = tuple(Funding(at_ns, Decimal(1)) for at_ns, *_ in first_look)
    rest = due(watching, FIRST + 150 * EIGHT, replace(holding(), funding=booked))
    assert [at_ns for at_ns, *_ in rest] == [FIRST + i * EIGHT for i in range(100, 151)]


def test_nothing_is_due_of_a_trade_that_is_decided_later():
    for now_ns in (OPENED - EIGHT, OPENED - 1, OPENED):
        for newest_ns in (OPENED - EIGHT, OPENED - 1, OPENED, OPENED + 1, OPENED + EIGHT):
            assert due(watch(update(newest_ns)), now_ns) == []


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


def decided_at(at_ns):
    """A trade that is open at every instant that is asked about."""
    held = holding()
    return replace(held, plan=replace(held.plan, decided_ns=at_ns))


def test_instants_begin_right_after_the_decision():
    newest = FIRST + 5 * EIGHT
    for watching in (
        watch(update(newest)),
        watch(*(update(newest - i * EIGHT) for i in (3, 2, 1, 0))),
    ):
        for decided_ns, expected in (
            (newest - 2 * EIGHT - 1, [newest - 2 * EIGHT, newest - EIGHT, newest]),
            (newest - 2 * EIGHT, [newest - EIGHT, newest]),
            (newest - 2 * EIGHT + 1, [newest - EIGHT, newest]),
        ):
            found = due(watching, newest, decided_at(decided_ns))
            assert [at_ns for at_ns, *_ in found] == expected


def test_an_instant_that_waits_for_an_order_is_not_due_again():
    watching = watch(update(FIRST), update(FIRST + EIGHT))
    (first, _) = watching.due(holding(), FIRST + EIGHT)
    live = replace(holding(), funding_waiting=(first.event,))
    assert [at_ns for at_ns, *_ in due(watching, FIRST + EIGHT, live)] == [FIRST + EIGHT]


def test_an_instant_that_nobody_announced_is_due_at_its_nanosecond():
    watching = watch(update(FIRST + 3 * EIGHT))
    assert len(due(watching, FIRST + EIGHT - 1)) == 1
    assert len(due(watching, FIRST + EIGHT)) == 2


def test_an_instant_of_our_reckoning_gives_way_to_an_announced_one_near_it():
    newest = FIRST + 2 * EIGHT
    for hours, expected in (
        (-3, [FIRST, FIRST + 5 * HOUR, newest]),
        (3, [FIRST, FIRST + 11 * HOUR, newest]),
        (4, [FIRST, FIRST + EIGHT, FIRST + 12 * HOUR, newest]),
        (-5, [FIRST + 3 * HOUR, FIRST + EIGHT, newest]),
    ):
        watching = watch(update(FIRST + EIGHT + hours * HOUR), update(newest))
        assert [at_ns for at_ns, *_ in due(watching, newest)] == expected


def test_only_an_order_on_the_perpetual_leaves_open_whether_something_is():
    a, b = (one.order for one in holding().finished)
    bare = replace(holding(), finished=())
    watching = watch(update(FIRST))
    assert due(watching, FIRST, replace(bare, working=(a,))) == []
    assert len(due(watching, FIRST, replace(bare, working=(b,)))) == 1
    for decided_ns, count in ((FIRST, 1), (FIRST + 1, 0)):
        order = replace(b, decided_ns=decided_ns)
        assert len(due(watching, FIRST + S, replace(bare, working=(order,)))) == count
