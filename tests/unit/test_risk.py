"""RiskGuard's rules, one at a time."""

import msgspec
import pytest

from arb_ray.domain.errors import BadInput
from arb_ray.domain.ledger import Account
from arb_ray.domain.risk_intent import Granted, Refused, RiskRefusal, RiskState
from arb_ray.engine.risk import GUARD, StateChange
from tests import risk_world as rw
from tests.risk_world import DAY, NOON, SECOND, D, intent, mark, settlement


def grant(book, asked, now=NOON):
    verdict = book.decide(asked, now)
    assert isinstance(verdict, Granted), verdict
    book.apply_grant(asked, now)
    return asked


def refusal(book, asked, now=NOON):
    verdict = book.decide(asked, now)
    assert isinstance(verdict, Refused), verdict
    return verdict.reason


def lose(book, number, amount, symbol="BTC", now=NOON, **changes):
    asked = grant(book, intent(number, symbol, worst="50"), now)
    book.apply_settlement(
        settlement(asked, f"-{amount}", closed=now, **changes), rw.released(), now
    )


def test_worst_cases_add_up_to_the_daily_limit_and_no_further():
    book = rw.book()
    for symbol in ("A", "B", "C"):
        grant(book, intent(symbol=symbol, worst="30"))
    assert refusal(book, intent(symbol="D", worst="10.00000001")) is RiskRefusal.DAILY_LOSS
    grant(book, intent(2, symbol="D", worst="10"))
    assert book.used_usdt() == 100


def test_todays_loss_counts_and_todays_profit_does_not():
    book = rw.book()
    won = grant(book, intent(1, "A", worst="60"))
    book.apply_settlement(settlement(won, "500"), (), NOON)
    lost = grant(book, intent(2, "B", worst="60"))
    book.apply_settlement(settlement(lost, "-50"), (), NOON)
    assert book.status(NOON).daily_loss_usdt == 0, "net of the day"
    grant(book, intent(3, "C", worst="60"))
    assert refusal(book, intent(4, "D", worst="41")) is RiskRefusal.DAILY_LOSS


def test_a_mark_below_the_reservation_counts_for_more():
    book = rw.book()
    held = grant(book, intent(1, "A", worst="30"))
    book.apply_mark(mark(held, "-45"), NOON)
    assert book.used_usdt() == 45
    assert book.status(NOON).flatten == ("A",)
    book.apply_mark(mark(held, "90", at=NOON + 1), NOON + 1)
    assert book.used_usdt() == 30, "a gain frees nothing"


def test_a_late_mark_does_not_replace_a_newer_one():
    book = rw.book()
    held = grant(book, intent(1, "A", worst="30"))
    book.apply_mark(mark(held, "-45", at=NOON + 5), NOON + 5)
    book.apply_mark(mark(held, "0", at=NOON + 4), NOON + 6)
    assert book.used_usdt() == 45


def test_a_stale_mark_keeps_its_loss():
    book = rw.book()
    held = grant(book, intent(1, "A", worst="30"))
    book.apply_mark(mark(held, "-45"), NOON)
    later = NOON + 6 * SECOND
    assert book.stale_marks(NOON + 5 * SECOND) == ()
    assert book.stale_marks(later) == (held.trade_id,)
    assert book.status(later).reserved_usdt == 45


def test_a_loss_beyond_its_reservation_halts_and_flattens():
    book = rw.book()
    held = grant(book, intent(1, "A", worst="30"))
    book.apply_settlement(settlement(held, "-30.00000001"), (), NOON)
    status = book.status(NOON)
    assert (status.state, status.flatten_all) == (RiskState.HALTED, True)
    (change,) = book.take_state_changes()
    assert change.reason.startswith("gap_loss")
    assert book.gap_loss_usdt == D("0.00000001")
    assert book.take_state_changes() == ()
    assert refusal(book, intent(2, "B")) is RiskRefusal.NOT_ACTIVE


def test_a_loss_of_exactly_the_reservation_is_within_the_promise():
    book = rw.book()
    held = grant(book, intent(1, "A", worst="30"))
    book.apply_settlement(settlement(held, "-30"), (), NOON)
    assert book.status(NOON).state is RiskState.ACTIVE


def test_marks_that_break_the_promise_halt_before_anything_is_realized():
    book = rw.book()
    grant(book, intent(1, "A", worst="50"))
    held = grant(book, intent(1, "B", worst="40"))
    book.apply_mark(mark(held, "-50"), NOON)
    assert book.status(NOON).state is RiskState.ACTIVE
    book.apply_mark(mark(held, "-50.01", at=NOON + 1), NOON)
    assert book.status(NOON).state is RiskState.HALTED
    assert book.status(NOON).flatten_all


@pytest.mark.parametrize("flatten", [True, False])
def test_the_reached_daily_limit_halts_and_flattens_if_so_configured(flatten):
    book = rw.book(msgspec.structs.replace(rw.LIMITS, flatten_on_halt=flatten))
    lose(book, 1, "50", "A")
    lose(book, 2, "50", "B")
    status = book.status(NOON)
    assert (status.state, status.flatten_all) == (RiskState.HALTED, flatten)


def test_a_restarted_guard_goes_on_flattening():
    keeps = msgspec.structs.replace(rw.LIMITS, flatten_on_halt=False)
    said = {"state": RiskState.HALTED, "state_reason": "gap_loss: test:A:1 lost 3 USDT more"}
    assert rw.book(keeps, **said, state_actor=GUARD).status(NOON).flatten_all
    assert not rw.book(keeps, **said, state_actor="ann").status(NOON).flatten_all, "anyone's words"
    assert rw.book(keeps, is_flattening_all=True).status(NOON).flatten_all
    assert rw.book(flatten=("A",)).status(NOON).flatten == ("A",)


@pytest.mark.parametrize("flatten", [True, False])
def test_an_operators_halt_closes_what_is_open_if_the_settings_say_so(flatten):
    book = rw.book(msgspec.structs.replace(rw.LIMITS, flatten_on_halt=flatten))
    book.set_state(StateChange(RiskState.HALTED, "looks odd", "ann", NOON))
    assert book.status(NOON).flatten_all is flatten


def test_a_new_book_takes_over_who_stopped_the_former_one():
    former, book = rw.book(), rw.book()
    former.set_state(StateChange(RiskState.HALTED, "odd", "ann", NOON + 5))
    book.inherit(former, ())
    status = book.status(NOON)
    assert (status.reason, status.actor, status.since_ns) == ("odd", "ann", NOON + 5)


def test_the_state_says_who_brought_it_and_when():
    book = rw.book(state_actor="bob", state_since_ns=5)
    assert (book.status(NOON).actor, book.status(NOON).since_ns) == ("bob", 5)
    book.set_state(StateChange(RiskState.REDUCE_ONLY, "x", "ann", NOON))
    assert (book.status(NOON).actor, book.status(NOON).since_ns) == ("ann", NOON)
    held = grant(rw.book(), intent(1))
    book.apply_grant(held, NOON)
    book.halt_by(settlement(held, "-25"), NOON + 1)
    assert (book.status(NOON).actor, book.status(NOON).since_ns) == (GUARD, NOON + 1)


def test_only_an_operator_lowers_the_state():
    book = rw.book(state=RiskState.HALTED, state_reason="gap_loss: x")
    book.roll_day(NOON + DAY)
    assert book.status(NOON + DAY).state is RiskState.HALTED
    book._flatten.add("A")
    book.set_state(StateChange(RiskState.ACTIVE, "seen", "ann", NOON + DAY))
    status = book.status(NOON + DAY)
    assert (status.state, status.flatten, status.flatten_all) == (RiskState.ACTIVE, (), False)


def test_an_operators_flatten_is_for_one_or_for_all():
    book = rw.book()
    held = grant(book, intent(1, "A"))
    for symbol in ("A", "B"):  # B has no trade, and the next one must not be closed at once
        book.enforce(StateChange(RiskState.ACTIVE, "out", "ann", NOON, flatten_symbol=symbol))
    status = book.status(NOON)
    assert (status.flatten, status.flatten_all, status.state) == (("A",), False, RiskState.ACTIVE)
    book.apply_settlement(settlement(held), rw.released(), NOON)
    assert book.status(NOON).flatten == ()
    change = StateChange(RiskState.REDUCE_ONLY, "out", "ann", NOON, is_flattening_all=True)
    book.enforce(change)
    assert book.status(NOON).flatten_all
    assert book.status(NOON).state is RiskState.REDUCE_ONLY


def test_a_symbol_has_a_limit_of_its_own():
    book = rw.book()
    lose(book, 1, "45", "A")
    assert refusal(book, intent(2, "A", worst="16")) is RiskRefusal.SYMBOL_DAILY_LOSS
    grant(book, intent(3, "B", worst="16"))


def test_a_guard_that_starts_grants_nothing_before_it_has_heard_of_every_open_trade():
    held, wait_ns = intent(1, "A", worst="30"), rw.LIMITS.mark_age_max_ms * 10**6

    def restarted():
        return rw.book(open_reservations=(rw.stored(held),))

    book = restarted()
    assert isinstance(book.decide(held, NOON), Granted), "a repeat of what is held"
    assert refusal(book, intent(2, "B", worst="30")) is RiskRefusal.NOT_ACTIVE
    book.apply_mark(mark(held, "-75"), NOON)
    assert refusal(book, intent(3, "B", worst="30")) is RiskRefusal.DAILY_LOSS
    book = restarted()
    book.apply_mark(mark(held, "1"), NOON)
    grant(book, intent(2, "B", worst="30"))
    book = restarted()
    book.apply_settlement(settlement(held, "-30"), (), NOON)
    grant(book, intent(2, "B", worst="30"))
    book = restarted()  # its host is dead
    assert refusal(book, intent(2, "B", worst="30"), NOON + wait_ns - 1) is RiskRefusal.NOT_ACTIVE
    grant(book, intent(3, "B", worst="30"), NOON + wait_ns)


def test_a_book_that_is_rebuilt_waits_for_nobody_whom_the_former_one_heard():
    held, late = intent(1, "A", worst="20"), intent(2, "B", worst="20")
    former = rw.book(open_reservations=(rw.stored(held),))
    former.apply_mark(mark(held, "0"), NOON)
    grant(former, late)
    book = rw.book(open_reservations=(rw.stored(held), rw.stored(late)))
    book.inherit(former, ())
    grant(book, intent(3, "C", worst="20"))


def test_the_fall_from_the_days_best_stops_entries():
    book = rw.book()
    won = grant(book, intent(1, "A", worst="10"))
    book.apply_settlement(settlement(won, "70"), (), NOON)
    lose(book, 2, "50", "B")
    grant(book, intent(3, "C", worst="10"))
    book.apply_mark(mark(intent(3, "C"), "-9"), NOON)
    lose(book, 4, "21", "D")
    assert refusal(book, intent(5, "E", worst="1")) is RiskRefusal.DRAWDOWN


def test_notionals_are_bounded_per_trade_and_in_all():
    book = rw.book()
    assert refusal(book, intent(1, "A", notional="1000.01")) is RiskRefusal.TRADE_NOTIONAL
    for symbol in "BCD":
        grant(book, intent(1, symbol, worst="1", notional="900"))
    assert refusal(book, intent(1, "E", notional="301")) is RiskRefusal.TOTAL_NOTIONAL


def test_a_symbols_notional_has_its_own_bound():
    limits = msgspec.structs.replace(rw.LIMITS, symbol_notional_usdt=D(400))
    assert refusal(rw.book(limits), intent(notional="500")) is RiskRefusal.SYMBOL_NOTIONAL


def test_open_trades_are_counted_while_they_are_open():
    book = rw.book()
    asked = [grant(book, intent(1, symbol, worst="1")) for symbol in "ABCD"]
    assert refusal(book, intent(1, "E", worst="1")) is RiskRefusal.OPEN_TRADES
    book.apply_settlement(settlement(asked[0], void=True), rw.released(), NOON)
    grant(book, intent(2, "E", worst="1"))


def test_entries_are_rated_over_a_sliding_minute():
    book = rw.book(entries_ns=tuple(NOON - SECOND for _ in range(10)))
    assert refusal(book, intent(1)) is RiskRefusal.ENTRY_RATE
    grant(book, intent(2), NOON + 59 * SECOND)


def test_losses_in_a_row_pause_entries_and_a_gain_in_between_does_not_count():
    book = rw.book()
    lose(book, 1, "1")
    lose(book, 2, "1")
    won = grant(book, intent(3))
    book.apply_settlement(settlement(won, "1"), rw.released(), NOON)
    lose(book, 4, "1")
    lose(book, 5, "1")
    lose(book, 6, "1")
    assert refusal(book, intent(7), NOON + 299 * SECOND) is RiskRefusal.COOL_DOWN
    grant(book, intent(8), NOON + 300 * SECOND)


def test_one_trade_a_symbol():
    book = rw.book()
    grant(book, intent(1, "A"))
    assert refusal(book, intent(2, "A")) is RiskRefusal.SYMBOL_BUSY


def test_a_hold_must_be_free_and_is_taken_and_given_back():
    book = rw.book()
    held = grant(book, intent(1, "A", krw="600000"))
    assert refusal(book, intent(1, "B", krw="400000.01")) is RiskRefusal.BALANCE
    book.apply_settlement(settlement(held, void=True), rw.released("600000"), NOON)
    grant(book, intent(2, "B", krw="1000000"))
    assert book.free("upbit", "KRW") == 0


def test_only_free_balances_are_free():
    balances = [msgspec.structs.replace(b, account=Account.HELD) for b in rw.books().balances]
    assert refusal(rw.book(balances=tuple(balances)), intent()) is RiskRefusal.BALANCE


def test_a_yes_that_was_not_written_gives_everything_back():
    book = rw.book()
    grant(book, intent(1))
    book.undo_grant("test:BTC:1")
    assert (book.used_usdt(), book.free("upbit", "KRW")) == (0, 1_000_000)
    assert refusal(book, intent(1)) is RiskRefusal.STORE
    grant(book, intent(2))


def test_answers_repeat():
    book = rw.book()
    first = book.decide(intent(1, worst="61"), NOON)
    book.set_state(StateChange(RiskState.HALTED, "x", "ann", NOON))
    assert book.decide(intent(1, worst="61"), NOON + 1) == first
    book.set_state(StateChange(RiskState.ACTIVE, "y", "ann", NOON))
    grant(book, intent(2))
    again = book.decide(intent(2), NOON + 99)
    assert again == Granted("test:BTC:2", 7, NOON)


def test_the_void_of_an_unknown_id_refuses_a_later_reserve():
    book = rw.book()
    book.apply_settlement(settlement(intent(1), void=True), (), NOON)
    assert refusal(book, intent(1)) is RiskRefusal.TOMBSTONE


def test_a_settlement_counts_once():
    book = rw.book()
    held = grant(book, intent(1))
    for _ in range(2):
        book.apply_settlement(settlement(held, "-5"), rw.released(), NOON)
    assert book.status(NOON).realized_usdt == -5
    assert book.free("upbit", "KRW") == 1_000_000
    assert refusal(book, intent(1)) is RiskRefusal.TOMBSTONE


def test_a_late_intent_and_a_fenced_owner_are_refused():
    book = rw.book()
    assert refusal(book, intent(1, deadline_ns=NOON - 1)) is RiskRefusal.DEADLINE
    held = grant(book, intent(2, owner_epoch=3, deadline_ns=NOON))
    book.apply_settlement(settlement(held, void=True), (), NOON)
    assert refusal(book, intent(3, owner_epoch=2)) is RiskRefusal.FENCED_OWNER


def test_an_intent_that_asks_for_no_room_is_an_error():
    with pytest.raises(BadInput, match="positive worst case"):
        rw.book().decide(intent(worst="0"), NOON)
    with pytest.raises(BadInput):
        rw.book().decide(intent(krw="-1"), NOON)


def test_midnight_forgets_the_loss_and_keeps_the_reservations():
    book = rw.book()
    lose(book, 1, "50", "A")
    grant(book, intent(2, "B", worst="30"))
    tomorrow = NOON + DAY // 2
    status = book.status(tomorrow)
    assert (status.daily_loss_usdt, status.reserved_usdt) == (0, 30)
    assert status.day != rw.book().status(NOON).day
    assert refusal(book, intent(3, "C", worst="71"), tomorrow) is RiskRefusal.DAILY_LOSS
    grant(book, intent(4, "C", worst="60"), tomorrow)


def test_midnight_forgets_a_symbols_loss_too():
    book = rw.book()
    lose(book, 1, "45", "A")
    grant(book, intent(2, "A", worst="60"), NOON + DAY // 2)


def test_a_milder_finding_never_lowers_the_state():
    book = rw.book()
    asked = [grant(book, intent(number, f"S{number}", worst="10")) for number in range(4)]
    for won in asked[:3]:
        book.apply_settlement(settlement(won, "1"), rw.released(), NOON)
    book.set_state(StateChange(RiskState.HALTED, "looks odd", "ann", NOON))
    book.apply_settlement(settlement(asked[3], "1"), rw.released(), NOON)
    assert (book.status(NOON).state, book.status(NOON).reason) == (RiskState.HALTED, "looks odd")
    assert book.take_state_changes() == ()


def test_a_loss_belongs_to_the_day_of_its_close():
    book = rw.book()
    held = grant(book, intent(1, worst="50"))
    tomorrow = NOON + DAY // 2 + SECOND
    book.apply_settlement(settlement(held, "-40", closed=tomorrow - 2 * SECOND), (), tomorrow)
    assert book.status(tomorrow).daily_loss_usdt == 0


def test_a_close_that_seems_to_lie_in_tomorrow_counts_today_and_tomorrow():
    book = rw.book()
    held = grant(book, intent(1, worst="50"))
    book.apply_settlement(settlement(held, "-40", closed=NOON + DAY), (), NOON)
    assert book.status(NOON).daily_loss_usdt == 40
    assert book.status(NOON + DAY).daily_loss_usdt == 40
    assert refusal(book, intent(2, worst="61"), NOON + DAY) is RiskRefusal.DAILY_LOSS
    assert book.status(NOON + 2 * DAY).daily_loss_usdt == 0


def test_winning_always_betrays_a_broken_simulation():
    book = rw.book()
    for number in range(4):
        won = grant(book, intent(number))
        book.apply_settlement(settlement(won, "1"), rw.released(), NOON)
    status = book.status(NOON)
    assert (status.state, status.flatten_all) == (RiskState.REDUCE_ONLY, False)
    assert "4 of the last 4" in status.reason
    book.set_state(StateChange(RiskState.ACTIVE, "seen", "ann", NOON))
    won = grant(book, intent(9))
    book.apply_settlement(settlement(won, "1"), rw.released(), NOON)
    assert book.status(NOON).state is RiskState.ACTIVE, "judged anew"


def test_trading_almost_for_free_betrays_one_too():
    book = rw.book()
    for number in range(4):
        held = grant(book, intent(number))
        sign = "-" if number % 2 else ""
        end = settlement(held, f"{sign}1", fees="0.09")
        book.apply_settlement(end, rw.released(), NOON)
    assert "fees of the last 4 trades are 0.90 bps" in book.status(NOON).reason


def test_trades_that_filled_nothing_are_neither_won_nor_lost():
    book = rw.book()
    for number in range(9):
        held = grant(book, intent(number))
        book.apply_settlement(settlement(held, "0", notional="0", fees="0"), rw.released(), NOON)
    assert book.status(NOON).state is RiskState.ACTIVE


def test_a_rebuilt_book_knows_what_the_old_one_knew():
    held, gone = intent(1, "A", worst="30"), intent(1, "B")
    book = rw.book(
        open_reservations=(rw.stored(held),),
        settled_today=(settlement(gone, "-25"),),
        entries_ns=(NOON, NOON),
    )
    assert book.used_usdt() == 55
    assert book.is_granted(held.trade_id)
    assert refusal(book, intent(2, "A")) is RiskRefusal.SYMBOL_BUSY
    assert refusal(book, gone) is RiskRefusal.TOMBSTONE
    assert refusal(book, intent(3, "C", worst="46")) is RiskRefusal.DAILY_LOSS


def test_a_rebuilt_book_halts_on_a_limit_that_was_reached():
    lost = [settlement(intent(1, symbol), "-50") for symbol in "AB"]
    book = rw.book(settled_today=tuple(lost))
    assert book.status(NOON).state is RiskState.HALTED
    assert len(book.take_state_changes()) == 1
