"""Which state is in force, what a command makes of it, and what a rebuilt book takes over."""

import pytest
from msgspec.structs import replace

from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import Venue
from arb_ray.domain.risk_intent import Refused, RiskRefusal, RiskState
from arb_ray.engine.risk import GUARD, StateChange
from arb_ray.engine.risk_commands import change_asked_for
from tests import risk_world as rw
from tests.risk_world import LIMITS, NOON, SECOND, intent, mark, settlement
from tests.unit.test_risk import grant, refusal


def test_the_state_goes_up_by_itself_and_down_by_an_operator_alone():
    book = rw.book(state=RiskState.REDUCE_ONLY, state_reason="odd")
    assert book.is_stricter(RiskState.HALTED)
    assert not book.is_stricter(RiskState.REDUCE_ONLY)
    assert not book.is_stricter(RiskState.ACTIVE)
    book.enforce(StateChange(RiskState.ACTIVE, "calm", "ann", NOON))
    assert book.state is RiskState.REDUCE_ONLY
    book.enforce(StateChange(RiskState.HALTED, "stop", "ann", NOON, is_flattening_all=True))
    assert (book.state, book.status(NOON).flatten_all) == (RiskState.HALTED, True)
    book.enforce(StateChange(RiskState.HALTED, "stop", "ann", NOON))
    assert book.must_flatten_whatever_is_set, "an order to flatten all stays until a resume"
    book.set_state(StateChange(RiskState.ACTIVE, "go on", "ann", NOON + 1))
    status = book.status(NOON + 1)
    assert (status.state, status.flatten_all, status.flatten) == (RiskState.ACTIVE, False, ())
    assert (status.actor, status.since_ns, status.reason) == ("ann", NOON + 1, "go on")


def test_only_a_gap_that_the_guard_itself_found_flattens_whatever_is_set():
    quiet = replace(LIMITS, flatten_on_halt=False)
    halted = {"state": RiskState.HALTED, "state_reason": "gap_loss: t lost 1 USDT"}
    assert rw.book(quiet, state_actor=GUARD, **halted).must_flatten_whatever_is_set
    assert not rw.book(quiet, state_actor="ann", **halted).must_flatten_whatever_is_set
    reduced = halted | {"state": RiskState.REDUCE_ONLY}
    assert not rw.book(quiet, state_actor=GUARD, **reduced).must_flatten_whatever_is_set
    other = halted | {"state_reason": "daily_loss: gap_loss"}
    assert not rw.book(quiet, state_actor=GUARD, **other).must_flatten_whatever_is_set
    assert rw.book(LIMITS, state_actor=GUARD, **other).status(NOON).flatten_all
    assert not rw.book(quiet, state_actor=GUARD, **other).status(NOON).flatten_all


def test_a_book_takes_over_marks_answers_and_unproven_room():
    former = rw.book()
    known = grant(former, intent(1, "A", worst="10"))
    unproven = grant(former, intent(1, "B", worst="10"))
    lost = grant(former, intent(1, "C", worst="10"))
    former.apply_mark(mark(known, "-15"), NOON)
    former.apply_mark(mark(unproven, "-12"), NOON)
    former.note_refused(Refused("test:D:1", RiskRefusal.STORE, "away"))
    former.note_ended("test:E:1")
    book = rw.book(open_reservations=(rw.stored(known),))
    book.inherit(former, {unproven.trade_id})
    assert book.used_usdt() == 27, "marks and the room of a grant that may be written"
    assert not book.is_granted(lost.trade_id)
    assert refusal(book, intent(1, "D")) is RiskRefusal.STORE
    assert refusal(book, intent(1, "E")) is RiskRefusal.TOMBSTONE
    assert set(book.status(NOON).flatten) == {"A", "B"}
    assert book.free(Venue.UPBIT, "KRW") == 999_000


def test_a_book_does_not_take_over_what_has_ended_meanwhile():
    former = rw.book()
    held = grant(former, intent(1, "A", worst="10"))
    former.apply_mark(mark(held, "-15"), NOON)
    book = rw.book(settled_today=(settlement(held, "-3"),))
    book.inherit(former, {held.trade_id})
    assert not book.is_granted(held.trade_id)
    assert (book.used_usdt(), book.status(NOON).flatten) == (3, ())


def test_the_more_severe_state_is_taken_over_and_of_two_alike_the_former_s():
    for mine, former_state, wins_over in (
        (RiskState.ACTIVE, RiskState.HALTED, "former"),
        (RiskState.REDUCE_ONLY, RiskState.REDUCE_ONLY, "former"),
        (RiskState.HALTED, RiskState.REDUCE_ONLY, "mine"),
    ):
        former = rw.book(state=former_state, state_reason="former", state_since_ns=1)
        book = rw.book(state=mine, state_reason="mine", state_since_ns=2)
        book.inherit(former, ())
        assert book.status(NOON).reason == wins_over
        assert book.status(NOON).since_ns == (1 if wins_over == "former" else 2)


def test_changes_of_its_own_are_handed_out_once():
    book = rw.book()
    assert not book.has_state_changes
    held = grant(book, intent(1, worst="20"))
    book.halt_by(settlement(held, "-21"), NOON)
    assert book.has_state_changes
    (change,) = book.take_state_changes()
    assert (change.state, change.actor, change.at_ns) == (RiskState.HALTED, GUARD, NOON)
    assert change.reason == "gap_loss: test:BTC:1 lost 1 USDT more than its reservation"
    assert (book.take_state_changes(), book.has_state_changes) == ((), False)


def test_a_rebuilt_book_waits_no_longer_than_the_former_one_would():
    stored = (rw.stored(intent(1, "A")),)
    former = rw.book(open_reservations=stored)
    book = rw.book(open_reservations=stored, now=NOON + 4 * SECOND)
    book.inherit(former, ())
    end = NOON + 5 * SECOND
    assert [book.unheard_count(now) for now in (end - 1, end)] == [1, 0]


def test_a_rebuilt_book_judges_whatever_is_settled_from_now_on():
    book = rw.book(resumed_ns=NOON - 5)
    assert book._tally.judged_after_ns == 0


def test_an_unknown_command_is_named_with_its_symbol():
    for verb, symbol, named in (
        ("stop", "", "command 'stop':"),
        ("halt", "BTC", "'halt' for 'BTC'"),
    ):
        with pytest.raises(BadInput, match=named):
            change_asked_for(rw.book(), verb, "why", "ann", NOON, symbol)


def test_a_reason_that_carries_the_one_before_is_cut():
    book = rw.book(state=RiskState.HALTED, state_reason="x" * 2_000)
    change = change_asked_for(book, "flatten", "odd", "ann", NOON, "")
    assert len(change.reason) == 1_000
    assert change.reason.startswith("flatten: odd (halted before: xx")


def test_an_order_to_flatten_all_outlives_milder_orders_and_the_book():
    quiet = replace(LIMITS, flatten_on_halt=False)

    def told(*flattening):
        book = rw.book(quiet)
        for number, is_flattening_all in enumerate(flattening):
            order = StateChange(RiskState.REDUCE_ONLY, "x", "ann", NOON + number, is_flattening_all)
            book.set_state(order)
        return book

    for flattening in ((True,), (True, False), (False, True)):
        assert told(*flattening).status(NOON).flatten_all
    for mine, former in ((told(True), told(False)), (told(False), told(True))):
        mine.inherit(former, ())
        assert mine.status(NOON).flatten_all
    mine = told(False)
    mine.inherit(told(False), ())
    assert not mine.status(NOON).flatten_all


def asked(book, verb, symbol="", actor="ann"):
    return change_asked_for(book, verb, "why", actor, NOON, symbol)


def test_a_command_brings_the_state_that_it_names():
    halted = rw.book(state=RiskState.HALTED, state_reason="odd")
    for verb, state in (
        ("halt", RiskState.HALTED),
        ("reduce", RiskState.REDUCE_ONLY),
        ("resume", RiskState.ACTIVE),
        ("flatten", RiskState.REDUCE_ONLY),
    ):
        change = asked(rw.book(), verb)
        assert (change.state, change.actor, change.at_ns) == (state, "ann", NOON)
        assert change.is_flattening_all is (verb == "flatten")
    assert asked(halted, "flatten").state is RiskState.HALTED


def test_only_a_resume_ends_an_order_to_flatten_all():
    book = rw.book(state=RiskState.REDUCE_ONLY, is_flattening_all=True)
    for verb in ("halt", "reduce", "flatten", "resume"):
        assert asked(book, verb).is_flattening_all is (verb != "resume")


def test_one_trade_is_flattened_where_there_is_one_and_nobody_speaks_for_the_guard():
    book = rw.book()
    grant(book, intent(1, "BTC"))
    change = asked(book, "flatten", "BTC")
    assert (change.flatten_symbol, change.state) == ("BTC", RiskState.ACTIVE)
    with pytest.raises(BadInput, match="no trade is open"):
        asked(book, "flatten", "ETH")
    with pytest.raises(BadInput, match="actor"):
        asked(book, "halt", actor=GUARD)
