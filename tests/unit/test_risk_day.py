"""The day's figures, what pauses entries, and what is odd about the last trades."""

from msgspec.structs import replace

from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.risk import StateChange
from arb_ray.engine.risk_limits import DayTally
from tests import risk_world as rw
from tests.risk_world import DAY, LIMITS, NOON, SECOND, D, intent, mark, settlement
from tests.unit.test_risk import grant
from tests.unit.test_risk_bounds import closed


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


def test_the_smallest_trade_is_won_or_lost_and_one_of_nothing_is_not():
    for notional, pauses in (("0.01", True), ("0", False)):
        tally = DayTally(LIMITS, NOON // DAY)
        for _ in range(3):
            tally.add(settlement(intent(), "-0.01", notional=notional), None)
        assert (tally.cool_until_ns > 0) is pauses
