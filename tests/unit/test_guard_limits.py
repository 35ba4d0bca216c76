"""RiskGuard's limits come from the wanted state: at its start, and while it runs."""

import msgspec
import pytest

from arb_ray.actors.risk_guard import LimitsInForce
from arb_ray.actors.wire import pack
from arb_ray.domain.errors import BadInput, LedgerViolation, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.ledger import Account
from arb_ray.domain.risk_intent import Granted, Refused, RiskRefusal
from tests.risk_world import LIMITS, D
from tests.shell_world import OPENING, opening_entry
from tests.unit.test_risk_guard import AWAY, UNHEARD, GuardWorld, ask, end

LOW = msgspec.structs.replace(LIMITS, daily_loss_usdt=D("30"), symbol_daily_loss_usdt=D("30"))


class Wanted:
    """The wanted state as the guard reads it; told once a version."""

    def __init__(self, limits=LIMITS):
        self.version, self.limits, self.told, self.errors = 1, limits, 0, []
        self.is_stopped = False

    def write(self, limits):
        self.version, self.limits = self.version + 1, limits

    async def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        if self.told == self.version:
            return None
        self.told = self.version
        return LimitsInForce(self.version, self.limits, is_stopped=self.is_stopped)


@pytest.fixture
async def world():
    world = GuardWorld()
    world.wanted = Wanted()
    return await world.start(newest_limits=world.wanted)


async def limit_and_version(world):
    status = await world.guard.status()
    return status["daily_limit_usdt"], status["deployment"]


async def test_a_guard_that_starts_again_takes_the_limits_of_today_not_those_of_its_constructor():
    world = GuardWorld()
    await world.start(newest_limits=Wanted(LOW))
    assert await limit_and_version(world) == ("30", 1)
    assert world.memory.limits[1] == LOW


async def test_new_limits_are_in_force_and_written_down_without_a_restart(world):
    assert isinstance(await world.guard.reserve(ask(1)), Granted)
    world.wanted.write(LOW)
    await world.guard._keeper.take_limits()
    assert await limit_and_version(world) == ("30", 2)
    assert world.memory.limits[1] == LOW
    verdict = await world.guard.reserve(ask(2, "BTC"))
    assert isinstance(verdict, Refused)
    assert verdict.reason is RiskRefusal.DAILY_LOSS


async def test_what_was_granted_before_stays_granted_under_new_limits(world):
    asked = ask(1)
    await world.guard.reserve(asked)
    world.wanted.write(LOW)
    await world.guard._keeper.take_limits()
    assert isinstance(await world.guard.reserve(asked), Granted)
    assert await world.guard.settle(end(asked, "-1"))


@pytest.mark.parametrize("method", ["note_limits", "load"])
async def test_between_old_limits_and_new_ones_nothing_is_entered(world, method):
    world.wanted.write(LOW)
    world.store.before[method] = [AWAY]
    await world.guard._keeper.take_limits()
    assert (await world.guard.status())["deployment"] == 0
    verdict = await world.guard.reserve(ask(1))
    assert isinstance(verdict, Refused)
    assert verdict.reason is RiskRefusal.STORE
    await world.guard._keeper.take_limits()
    assert await limit_and_version(world) == ("30", 2)
    assert isinstance(await world.guard.reserve(ask(2, worst="5")), Granted)


async def test_limits_that_cannot_be_read_leave_the_old_ones_in_force(world):
    for error in (AWAY, UNHEARD, BadInput("wanted state 2", "of newer code", "Install it")):
        world.wanted.errors = [error]
        await world.guard._keeper.take_limits()
    assert await limit_and_version(world) == (str(LIMITS.daily_loss_usdt), 1)
    assert isinstance(await world.guard.reserve(ask(1)), Granted)


async def test_a_ledger_that_contradicts_itself_is_not_waited_for(world):
    world.wanted.errors = [LedgerViolation("x", "y")]
    with pytest.raises(LedgerViolation):
        await world.guard._keeper.take_limits()


async def test_a_market_that_comes_later_gets_its_opening_balance_once(world):
    entry = opening_entry("upbit", "XRP", 7)
    for _ in range(2):
        assert await world.guard.open_markets(pack([*OPENING, entry])) == 1
    free = {(b.venue, b.asset): b.amount for b in await world.guard.free()}
    assert free["upbit", "XRP"] == 7
    assert free["upbit", "ETH"] == 10
    opened = [b for b in await world.memory.balances() if b.account is Account.OPENING]
    assert sum(b.amount for b in opened if b.asset == "XRP") == -7


async def test_markets_are_not_opened_before_the_guard_knows_its_books():
    world = GuardWorld()
    await world.start()
    world.guard._keeper.book = None
    with pytest.raises(StoreUnavailable):
        await world.guard.open_markets(pack([]))


async def test_nothing_is_entered_while_the_wanted_state_is_stopped(world):
    asked = ask(1)
    await world.guard.reserve(asked)
    world.wanted.is_stopped = True
    world.wanted.write(LIMITS)
    await world.guard._keeper.take_limits()
    verdict = await world.guard.reserve(ask(2, "BTC"))
    assert isinstance(verdict, Refused)
    assert verdict.reason is RiskRefusal.NOT_ACTIVE
    assert isinstance(await world.guard.reserve(asked), Granted)  # a repeat: the yes is written
    assert await world.guard.settle(end(asked))
    world.wanted.is_stopped = False
    world.wanted.write(LIMITS)
    await world.guard._keeper.take_limits()
    assert isinstance(await world.guard.reserve(ask(3, "BTC")), Granted)


async def test_a_yes_that_may_not_be_written_is_not_written_once_the_run_is_being_stopped(world):
    asked = ask(1)
    world.store.before["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    world.wanted.is_stopped = True
    world.wanted.write(LIMITS)
    await world.guard._keeper.take_limits()
    with pytest.raises(OutcomeUnknown, match="being stopped meanwhile"):
        await world.guard.reserve(asked)
    assert world.store.calls["grant"] == 1


async def test_a_yes_that_may_not_be_written_waits_for_limits_that_are_read_and_not_in_force(world):
    asked = ask(1)
    world.store.before["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    world.wanted.write(LIMITS)
    world.store.before["note_limits"] = [AWAY]
    await world.guard._keeper.take_limits()
    with pytest.raises(OutcomeUnknown, match="not in force meanwhile"):
        await world.guard.reserve(asked)
    await world.guard._keeper.take_limits()
    assert isinstance(await world.guard.reserve(asked), Granted)


async def test_an_opening_whose_commit_was_not_heard_of_is_known_after_a_repeat(world):
    entries = pack([*OPENING, opening_entry("upbit", "XRP", 7)])
    world.store.after["open_balances"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.open_markets(entries)
    await world.guard.open_markets(entries)
    free = {(b.venue, b.asset): b.amount for b in await world.guard.free()}
    assert free["upbit", "XRP"] == 7


async def test_a_no_for_want_of_new_limits_is_remembered_when_they_are_in_force(world):
    world.wanted.write(LOW)
    world.store.before["note_limits"] = [AWAY]
    await world.guard._keeper.take_limits()
    refused = await world.guard.reserve(ask(1))
    assert refused.reason is RiskRefusal.STORE
    await world.guard._keeper.take_limits()
    assert await limit_and_version(world) == ("30", 2)
    assert await world.guard.reserve(ask(1)) == refused
    assert isinstance(await world.guard.reserve(ask(2)), Granted)
