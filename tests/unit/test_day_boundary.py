"""A trade that is open at midnight UTC: its room goes on, its loss belongs to the day of its close."""

import msgspec

from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.trade_events import ExitReason
from tests import risk_world as rw
from tests.risk_world import DAY, LIMITS, NOON, SECOND, D, intent, settlement
from tests.shell_world import RunnerWorld
from tests.signal_market import F_BOOK, N_BOOK, U_CHEAP

MIDNIGHT = (NOON // DAY + 1) * DAY


def granted(book, asked, now_ns):
    verdict = book.decide(asked, now_ns)
    assert hasattr(verdict, "granted_ns"), verdict
    book.apply_grant(asked, now_ns)
    return asked


async def test_a_real_trade_over_midnight_is_the_loss_of_the_day_in_which_it_closed():
    world = await RunnerWorld().start()
    await world.enter()
    (before,) = [await world.guard.mark("host", [])]
    reserved = before.reserved_usdt
    assert reserved > 0
    midnight_ns = (world.clock.now_ns() // DAY + 1) * DAY
    world.clock.set(midnight_ns + SECOND)
    carried = await world.guard.mark("host", [])
    assert carried.day > before.day
    assert (carried.reserved_usdt, carried.open_trades) == (reserved, 1), "in full"
    assert carried.daily_loss_usdt == 0
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()
    (done,) = world.listener.settlements
    assert done.closed_ns > midnight_ns
    after = await world.guard.mark("host", [])
    assert after.daily_loss_usdt == -done.realized_usdt > 0
    assert (after.reserved_usdt, after.day) == (0, carried.day)
    await world.start()  # a guard that starts afterwards counts the same
    assert (await world.guard.mark("host", [])).daily_loss_usdt == after.daily_loss_usdt


def test_the_new_day_has_its_whole_limit_less_what_is_still_reserved():
    book = rw.book()
    lost = granted(book, intent(1, "A", worst="50"), NOON)
    granted(book, intent(1, "B", worst="45"), NOON)
    book.apply_settlement(settlement(lost, "-50"), (), NOON)
    assert book.used_usdt() == 95
    book.roll_day(MIDNIGHT)
    assert book.used_usdt() == 45
    refused = book.decide(intent(2, "C", worst="55.01"), MIDNIGHT)
    assert str(refused.reason) == "daily_loss"
    granted(book, intent(3, "C", worst="55"), MIDNIGHT)


def test_the_peak_that_drawdown_is_measured_from_begins_anew():
    limits = msgspec.structs.replace(LIMITS, drawdown_usdt=D(30))
    book = rw.book(limits)
    for number, result in enumerate(("40", "-31"), start=1):
        asked = granted(book, intent(number, "A", worst="40"), NOON)
        book.apply_settlement(settlement(asked, result), (), NOON)
    assert book.drawdown_usdt == 31
    assert str(book.decide(intent(3, "A"), NOON).reason) == "drawdown"
    book.roll_day(MIDNIGHT)
    assert book.drawdown_usdt == 0
    granted(book, intent(4, "A"), MIDNIGHT)


def test_midnight_resumes_nobody():
    book = rw.book()
    asked = granted(book, intent(1, "A", worst="30"), NOON)
    book.apply_settlement(settlement(asked, "-31"), (), NOON)
    book.roll_day(MIDNIGHT)
    status = book.status(MIDNIGHT)
    assert (status.state, status.daily_loss_usdt) == (RiskState.HALTED, 0)
    assert status.gap_loss_usdt == 0, "it was yesterday's"
    assert str(book.decide(intent(2, "A"), MIDNIGHT).reason) == "not_active"
