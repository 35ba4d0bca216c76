"""RiskGuard's rules at the very edge of each bound: on it, and a nanosecond or a cent beyond."""

import msgspec
import pytest
from msgspec.structs import replace

from arb_ray.domain.errors import BadInput, LedgerViolation
from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.risk_books import RiskBooks
from arb_ray.domain.risk_intent import (
    Granted,
    Hold,
    Refused,
    RiskRefusal,
    RiskState,
    RiskStatus,
)
from arb_ray.engine.risk import GUARD, REMEMBERED_MAX, StateChange
from arb_ray.engine.risk_commands import change_asked_for
from arb_ray.engine.risk_limits import DayTally
from tests import risk_world as rw
from tests.risk_world import DAY, LIMITS, NOON, SECOND, D, intent, mark, settlement
from tests.unit.test_risk import grant, refusal

MINUTE = 60 * SECOND
CENT = D("0.01")


def granted(book, asked, now=NOON):
    return isinstance(book.decide(asked, now), Granted)


def closed(book, number, symbol, realized, at=NOON, **changes):
    asked = grant(book, intent(number, symbol, worst="50"), at)
    book.apply_settlement(settlement(asked, realized, closed=at, **changes), rw.released(), at)


def test_an_intent_is_in_time_on_its_deadline():
    asked = intent(deadline_ns=NOON)
    assert granted(rw.book(), asked, NOON)
    verdict = rw.book().decide(asked, NOON + 1)
    assert (verdict.reason, verdict.detail) == (RiskRefusal.DEADLINE, "1 ns too late")


def test_an_owner_stays_known_after_its_trade_and_a_newer_one_replaces_it():
    book = rw.book()
    held = grant(book, intent(1, owner_epoch=3))
    book.apply_settlement(settlement(held), rw.released(), NOON)
    assert refusal(book, intent(2, owner_epoch=2)) is RiskRefusal.FENCED_OWNER
    newer = grant(book, intent(3, owner_epoch=4))
    book.apply_settlement(settlement(newer), rw.released(), NOON)
    assert refusal(book, intent(4, owner_epoch=3)) is RiskRefusal.FENCED_OWNER
    grant(book, intent(5, owner_epoch=4))
    grant(book, intent(1, "ETH", owner_epoch=0))
    assert refusal(book, intent(1, "XRP", owner_epoch=-1)) is RiskRefusal.FENCED_OWNER


def test_no_owner_is_older_than_the_first():
    book = rw.book(open_reservations=(rw.stored(intent(1, owner_epoch=-1)),))
    book.apply_settlement(settlement(intent(1)), rw.released(), NOON)
    assert refusal(book, intent(2, owner_epoch=-1)) is RiskRefusal.FENCED_OWNER
    first = grant(book, intent(3, owner_epoch=0))
    book.apply_settlement(settlement(first), rw.released(), NOON)
    grant(book, intent(4, owner_epoch=0))


def test_an_older_reservation_does_not_make_an_owner_forgotten():
    stored = (rw.stored(intent(1, owner_epoch=5)),)
    book = rw.book(open_reservations=stored)
    book.apply_settlement(settlement(intent(1)), rw.released(), NOON)
    assert refusal(book, intent(2, owner_epoch=4)) is RiskRefusal.FENCED_OWNER


def test_a_pause_ends_at_its_instant():
    book = rw.book()
    for number in (1, 2, 3):
        closed(book, number, "BTC", "-1")
    end = NOON + 300 * SECOND
    assert refusal(book, intent(4), end - 1) is RiskRefusal.COOL_DOWN
    grant(book, intent(5), end)


def test_a_pause_begins_with_the_last_of_the_losses_and_never_ends_sooner_than_an_earlier_one():
    tally = DayTally(LIMITS, NOON // DAY)
    for closed_ns in (NOON, NOON + 9, NOON + 5):
        tally.add(settlement(intent(), "-1", closed=closed_ns), None)
    assert tally.cool_until_ns == NOON + 5 + 300 * SECOND
    for closed_ns in (NOON - 9, NOON - 8, NOON - 7):
        tally.add(settlement(intent(), "-1", closed=closed_ns), None)
    assert tally.cool_until_ns == NOON + 5 + 300 * SECOND


def test_losses_in_a_row_begin_anew_after_a_pause_and_after_a_trade_without_loss():
    tally = DayTally(LIMITS, NOON // DAY)
    for realized in ("-1", "-1", "0", "-1", "-1"):
        tally.add(settlement(intent(), realized), None)
    assert tally.cool_until_ns == 0
    tally.add(settlement(intent(), "-1"), None)
    assert tally.cool_until_ns > 0
    tally.cool_until_ns = 0
    for _ in range(2):
        tally.add(settlement(intent(), "-1"), None)
    assert tally.cool_until_ns == 0
    tally.add(settlement(intent(), "-1"), None)
    assert tally.cool_until_ns > 0


def test_the_last_trade_that_is_allowed_opens_and_the_next_one_does_not():
    book = rw.book()
    for symbol in ("A", "B", "C", "D"):
        grant(book, intent(1, symbol, worst="1"))
    verdict = book.decide(intent(1, "E", worst="1"), NOON)
    assert (verdict.reason, verdict.detail) == (RiskRefusal.OPEN_TRADES, "4 open or pending")


def test_an_entry_counts_for_a_minute_to_the_nanosecond():
    for now, expected in ((NOON + MINUTE - 1, 2), (NOON + MINUTE, 1)):
        book = rw.book(msgspec.structs.replace(LIMITS, entries_per_minute_count=expected))
        closed(book, 1, "A", "0", NOON)
        if expected == 2:
            closed(book, 2, "B", "0", NOON + 1)
            assert refusal(book, intent(3, "C"), now) is RiskRefusal.ENTRY_RATE
        else:
            grant(book, intent(3, "C"), now)


def test_entries_of_the_minute_before_a_start_count():
    book = rw.book(replace(LIMITS, entries_per_minute_count=2), entries_ns=(NOON - 9, NOON - 5))
    verdict = book.decide(intent(1), NOON)
    assert (verdict.reason, verdict.detail) == (RiskRefusal.ENTRY_RATE, "2 in the last minute")
    assert granted(book, intent(2), NOON - 9 + MINUTE)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"trade_notional_usdt": D(500)}, RiskRefusal.TRADE_NOTIONAL),
        ({"symbol_notional_usdt": D(500)}, RiskRefusal.SYMBOL_NOTIONAL),
        ({"total_notional_usdt": D(800)}, RiskRefusal.TOTAL_NOTIONAL),
        ({"symbol_daily_loss_usdt": D(20)}, RiskRefusal.SYMBOL_DAILY_LOSS),
        ({"daily_loss_usdt": D(25)}, RiskRefusal.DAILY_LOSS),
    ],
)
def test_a_bound_may_be_reached_and_not_passed(limits, reason):
    first = intent(1, "A", notional="300", worst="5")
    most = {"notional": "500", "worst": "20"}
    book = rw.book(replace(LIMITS, **limits))
    grant(book, first)
    grant(book, intent(1, "B", **most))
    book = rw.book(replace(LIMITS, **limits))
    grant(book, first)
    over = {"notional": "500.01", "worst": "20"} if "notional" in reason else {"worst": "20.01"}
    assert refusal(book, intent(1, "B", **over)) is reason


def test_a_fall_of_exactly_the_bound_stops_entries():
    book = rw.book(replace(LIMITS, drawdown_usdt=D("30")))
    closed(book, 1, "A", "9.99")
    closed(book, 2, "B", "-29.99")
    grant(book, intent(3, "C"))
    closed(book, 4, "D", "-0.01")
    assert refusal(book, intent(5, "E")) is RiskRefusal.DRAWDOWN


def test_what_open_trades_have_lost_is_part_of_the_fall():
    book = rw.book(replace(LIMITS, drawdown_usdt=D("10")))
    held = grant(book, intent(1, "A", worst="50"))
    book.apply_mark(mark(held, "-9.99"), NOON)
    assert book.drawdown_usdt == D("9.99")
    grant(book, intent(2, "B"))
    book.apply_mark(mark(held, "-10", NOON + 1), NOON + 1)
    assert refusal(book, intent(3, "C"), NOON + 1) is RiskRefusal.DRAWDOWN


def test_holds_of_one_asset_add_up_and_may_take_the_last_of_it():
    def hold(*amounts):
        return tuple(Hold(Venue.UPBIT, "KRW", D(amount)) for amount in amounts)

    book = rw.book()
    assert refusal(book, intent(1, holds=hold("600000", "400000.01"))) is RiskRefusal.BALANCE
    grant(book, intent(2, holds=hold("600000", "400000")))
    assert book.free(Venue.UPBIT, "KRW") == 0
    assert refusal(book, intent(1, "B", holds=hold("0.01"))) is RiskRefusal.BALANCE
    assert granted(book, intent(2, "B", holds=hold("0")))


@pytest.mark.parametrize(
    "changes",
    [
        {"worst": "0"},
        {"worst": "-1"},
        {"holds": (Hold(Venue.UPBIT, "KRW", D("-0.01")),)},
    ],
)
def test_an_intent_without_room_or_with_a_negative_hold_is_an_error(changes):
    with pytest.raises(BadInput):
        rw.book().decide(intent(**changes), NOON)
    assert granted(rw.book(), intent(worst="0.00000001"))


def test_an_id_with_other_contents_is_a_violation_and_a_repeat_of_another_session_is_none():
    book = rw.book()
    held = grant(book, intent(1))
    again = replace(held, session_id="later", owner_epoch=9, asked_ns=5, deadline_ns=6)
    assert book.decide(again, NOON + 9) == Granted(held.trade_id, 7, NOON)
    for other in (intent(1, worst="19"), intent(1, notional="499"), intent(1, krw="999")):
        with pytest.raises(LedgerViolation):
            book.decide(other, NOON)


def test_answers_are_remembered_up_to_a_bound():
    book = rw.book()
    for number in range(REMEMBERED_MAX):
        book.note_refused(Refused(f"test:BTC:{number}", RiskRefusal.STORE))
    assert REMEMBERED_MAX == 50_000
    assert refusal(book, intent(0)) is RiskRefusal.STORE
    book.note_refused(Refused("test:ETH:0", RiskRefusal.STORE))
    assert granted(book, intent(0)), "the store answers for it now"
    assert refusal(book, intent(1)) is RiskRefusal.STORE


def test_silence_is_waited_for_until_a_mark_could_be_believed_no_longer():
    stored = tuple(rw.stored(intent(1, symbol, worst="5")) for symbol in ("A", "B"))
    book = rw.book(open_reservations=stored)
    end = NOON + 5 * SECOND
    assert [book.unheard_count(now) for now in (NOON, end - 1, end)] == [2, 2, 0]
    verdict = book.decide(intent(1, "C", worst="5"), end - 1)
    assert verdict.reason is RiskRefusal.NOT_ACTIVE
    assert verdict.detail == "no mark of test:A:1 since RiskGuard's start"
    grant(book, intent(2, "C", worst="5"), end)
    book = rw.book(open_reservations=stored)
    book.apply_mark(mark(stored[0].intent, "-1"), NOON)
    assert book.unheard_count(NOON) == 1
    book.apply_mark(mark(stored[1].intent, "-1"), NOON)
    assert book.unheard_count(NOON) == 0
    grant(book, intent(3, "C", worst="5"))


def test_a_loss_is_a_gap_from_the_first_cent_beyond_the_reservation():
    for realized, halts in (("-20", False), ("-20.01", True), ("19", False)):
        book = rw.book()
        held = grant(book, intent(1, worst="20"))
        assert book.halt_by(settlement(held, realized), NOON) is halts
        assert (book.state is RiskState.HALTED) is halts
        book.apply_settlement(settlement(held, realized), rw.released(), NOON)
        assert book.gap_loss_usdt == (CENT if halts else 0)
    assert not rw.book().halt_by(settlement(intent(9), "-500"), NOON), "nothing was reserved"


def test_a_mark_on_the_reservation_closes_nothing_and_a_cent_below_it_does():
    book = rw.book()
    held = grant(book, intent(1, worst="20"))
    book.apply_mark(mark(held, "-20"), NOON)
    assert book.status(NOON).flatten == ()
    book.apply_mark(mark(held, "-20.01"), NOON)
    assert book.status(NOON).flatten == ("BTC",), "a mark of the same instant is the newer one"


def test_marks_on_the_daily_limit_keep_the_promise_and_a_cent_beyond_it_halts():
    book = rw.book()
    held = grant(book, intent(1, worst="60"))
    book.apply_mark(mark(held, "-100"), NOON)
    assert book.state is RiskState.ACTIVE
    book.apply_mark(mark(held, "-100.01", NOON + 1), NOON + 1)
    assert book.state is RiskState.HALTED


def test_a_mark_is_stale_after_its_age_and_a_missing_one_counts_from_the_grant():
    book = rw.book()
    held = grant(book, intent(1))
    assert book.stale_marks(NOON + 5 * SECOND) == ()
    assert book.stale_marks(NOON + 5 * SECOND + 1) == (held.trade_id,)
    book.apply_mark(mark(held, "0", NOON + SECOND), NOON + SECOND)
    assert book.stale_marks(NOON + 6 * SECOND) == ()
    assert book.stale_marks(NOON + 6 * SECOND + 1) == (held.trade_id,)


def test_the_daily_limit_halts_when_it_is_reached():
    for realized, state in (("-49.99", RiskState.ACTIVE), ("-50", RiskState.HALTED)):
        book = rw.book()
        closed(book, 1, "A", "-50")
        closed(book, 2, "B", realized)
        assert book.state is state


def test_a_settlement_frees_what_was_released_and_nothing_that_is_not_free():
    book = rw.book()
    held = grant(book, intent(1))
    assert book.free(Venue.UPBIT, "KRW") == 999_000
    released = (*rw.released("900"), Balance(Venue.UPBIT, Account.HELD, "KRW", D(77)))
    book.apply_settlement(settlement(held), released, NOON)
    assert book.free(Venue.UPBIT, "KRW") == 999_900
    assert book.free(Venue.BINANCE_SPOT, "USDT") == 0
    assert book.free_balances() == (Balance(Venue.UPBIT, Account.FREE, "KRW", D(999_900)),)


def test_an_undone_yes_gives_back_its_place_in_the_minute_too():
    book = rw.book(replace(LIMITS, entries_per_minute_count=1))
    held = grant(book, intent(1))
    book.undo_grant(held.trade_id)
    assert refusal(book, held) is RiskRefusal.STORE
    assert not book.is_granted(held.trade_id)
    grant(book, intent(2))
    assert refusal(book, intent(3, "B")) is RiskRefusal.ENTRY_RATE


def test_an_undone_yes_that_left_the_minute_already_is_undone_all_the_same():
    book = rw.book()
    held = grant(book, intent(1, "A"))
    grant(book, intent(1, "B"), NOON + MINUTE)
    book.undo_grant(held.trade_id)
    assert not book.is_granted(held.trade_id)


def test_the_day_and_its_figures():
    tally = DayTally(LIMITS, NOON // DAY)
    assert tally.name == "2024-10-04"
    assert DayTally(LIMITS, 86_400).name == "2206-07-23"
    assert (tally.cool_until_ns, tally.judged_after_ns) == (0, 0)
    tally.add(settlement(intent(), "-70"), D(50))
    tally.add(settlement(intent(2), "10"), D(50))
    tally.add(settlement(intent(3), "-51"), None)
    assert (tally.realized_usdt, tally.peak_usdt, tally.gap_loss_usdt) == (-111, 0, 20)
    assert (tally.symbol_loss_usdt("BTC"), tally.symbol_loss_usdt("ETH")) == (111, 0)
    tally.roll(NOON + DAY // 2 - 1)
    assert tally.loss_usdt == 111
    tally.roll(NOON + DAY // 2)
    assert (tally.loss_usdt, tally.gap_loss_usdt, tally.symbol_loss_usdt("BTC")) == (0, 0, 0)
    assert tally.name == "2024-10-05"
    tally.roll(NOON)
    assert tally.name == "2024-10-05", "days never go back"


def test_the_best_of_the_day_is_what_a_fall_is_measured_from():
    tally = DayTally(LIMITS, NOON // DAY)
    for realized in ("5", "7", "-4", "1"):
        tally.add(settlement(intent(), realized), None)
    assert (tally.peak_usdt, tally.realized_usdt) == (12, 9)


def test_a_close_counts_in_its_own_day_from_its_first_nanosecond():
    midnight = NOON + DAY // 2
    tally = DayTally(LIMITS, midnight // DAY)
    tally.add(settlement(intent(), "-5", closed=midnight - 1), None)
    assert tally.loss_usdt == 0
    tally.add(settlement(intent(), "-5", closed=midnight), D(3))
    assert (tally.loss_usdt, tally.gap_loss_usdt) == (5, 2)
    tally.roll(midnight + DAY)
    assert tally.loss_usdt == 0, "it was counted where it belongs"


def test_a_close_of_tomorrow_counts_once_in_each_day():
    midnight = NOON + DAY // 2
    tally = DayTally(LIMITS, NOON // DAY)
    tally.add(settlement(intent(), "-5", closed=midnight), D(3))
    tally.roll(midnight)
    assert (tally.loss_usdt, tally.gap_loss_usdt) == (5, 2)
    tally.roll(midnight + DAY)
    assert tally.loss_usdt == 0


def wins(tally, *realized, fees="1", notional="1000"):
    for number, amount in enumerate(realized):
        done = settlement(intent(number), amount, fees=fees, notional=notional)
        tally.add(done, None)
    return tally.anomaly()


def test_winning_is_odd_beyond_its_ratio_only():
    three_of_four = replace(LIMITS, win_rate_max_ratio=0.75)
    assert wins(DayTally(three_of_four, NOON // DAY), "1", "1", "1", "0") == ""
    assert wins(DayTally(three_of_four, NOON // DAY), "1", "1", "1") == "", "too few to judge"
    text = wins(DayTally(three_of_four, NOON // DAY), "1", "1", "1", "1")
    assert text == "anomaly: 4 of the last 4 trades won"


def test_fees_are_odd_below_their_bound_only():
    for fees, is_odd in (("0.1", False), ("0.0999", True)):
        tally = DayTally(LIMITS, NOON // DAY)
        text = wins(tally, "-1", "1", "-1", "1", fees=fees)
        assert bool(text) is is_odd
    assert text == "anomaly: fees of the last 4 trades are 1.00 bps of turnover"


def test_what_an_operator_has_seen_is_not_judged_again():
    tally = DayTally(LIMITS, NOON // DAY)
    assert wins(tally, "1", "1", "1", "1")
    tally.forget_anomalies()
    assert wins(tally, "1", "1", "1") == ""
    assert wins(tally, "1")
    tally = DayTally(LIMITS, NOON // DAY)
    tally.judged_after_ns = NOON
    assert wins(tally, "1", "1", "1", "1") == "", "closed no later than what was seen"
    tally.judged_after_ns = NOON - 1
    assert wins(tally, "1", "1", "1", "1")
    tally.forget_anomalies()
    assert tally.judged_after_ns == 0


def test_runs_look_back_as_far_as_the_longer_of_them():
    assert LIMITS.recent_count == 4
    assert replace(LIMITS, consecutive_losses_count=9).recent_count == 9


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


def test_yesterdays_loss_stops_nothing_that_happens_today():
    tomorrow = NOON + DAY
    for happens in (
        lambda book, held: book.apply_settlement(
            settlement(held, "-50", closed=tomorrow), (), tomorrow
        ),
        lambda book, held: book.apply_mark(mark(held, "-50", tomorrow), tomorrow),
    ):
        book = rw.book()
        closed(book, 1, "A", "-50")
        held = grant(book, intent(1, "B", worst="50"))
        book.apply_mark(mark(held, "-49"), NOON)
        happens(book, held)
        assert (book.state, book.used_usdt()) == (RiskState.ACTIVE, 50)
    book = rw.book()
    closed(book, 1, "A", "-50")
    held = grant(book, intent(1, "B", worst="10"))
    book.apply_mark(mark(held, "-60", tomorrow), tomorrow)
    assert book.state is RiskState.ACTIVE, "60 of today, and nothing of yesterday"


def test_a_new_day_begins_with_whatever_is_told_first():
    tomorrow = NOON + DAY
    for begins in (
        lambda book: book.roll_day(tomorrow),
        lambda book: book.status(tomorrow),
        lambda book: book.decide(intent(1, "B"), tomorrow),
        lambda book: book.set_state(StateChange(RiskState.ACTIVE, "go on", "ann", tomorrow)),
    ):
        book = rw.book()
        closed(book, 1, "A", "-50")
        begins(book)
        assert book.used_usdt() == 0


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


def test_the_smallest_trade_is_won_or_lost_and_one_of_nothing_is_not():
    for notional, pauses in (("0.01", True), ("0", False)):
        tally = DayTally(LIMITS, NOON // DAY)
        for _ in range(3):
            tally.add(settlement(intent(), "-0.01", notional=notional), None)
        assert (tally.cool_until_ns > 0) is pauses


def test_what_a_ledger_or_a_status_does_not_say_is_nothing():
    def unsaid(struct):
        return {
            field.name: field.default
            for field in msgspec.structs.fields(struct)
            if field.default is not msgspec.NODEFAULT
        }

    books = {"settled_before": (), "flatten": (), "is_flattening_all": False}
    books |= {"resumed_ns": 0, "state_actor": "", "state_since_ns": 0}
    assert unsaid(RiskBooks) | books == unsaid(RiskBooks)
    status = {"actor": "", "since_ns": 0, "unwritten": 0, "gap_loss_usdt": 0}
    assert unsaid(RiskStatus) | status == unsaid(RiskStatus)


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
