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
from arb_ray.engine.risk import REMEMBERED_MAX
from tests import risk_world as rw
from tests.risk_world import LIMITS, NOON, SECOND, D, intent, mark, settlement
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
