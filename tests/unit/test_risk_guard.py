"""RiskGuard's shell: a yes is durable before it is given, and nothing is lost on the way."""

import asyncio

import msgspec
import pytest

from arb_ray.actors.risk_guard import GuardTimes
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.domain.errors import (
    BadConfig,
    Fenced,
    LedgerViolation,
    OutcomeUnknown,
    StoreUnavailable,
    VenueUnreachable,
)
from arb_ray.domain.ledger import Account
from arb_ray.domain.risk_intent import Granted, RiskRefusal, RiskState
from arb_ray.engine import risk
from tests.risk_world import DAY, LIMITS, SECOND, D, intent, mark, settlement
from tests.shell_world import OPENING, Ends, Faulty, JumpClock, Log, make_guard
from tests.signal_market import T0

AWAY = StoreUnavailable("postgres", "away")
UNHEARD = OutcomeUnknown("commit", 100)


def ask(number=1, symbol="ETH", **changes):
    return intent(number, symbol, asked_ns=T0, deadline_ns=T0 + 10**12, **changes)


def end(asked, realized="0", **changes):
    return settlement(asked, realized, closed=T0, **changes)


class GuardWorld:
    def __init__(self):
        self.memory = MemoryStore()
        self.store = Faulty(self.memory)
        self.clock, self.log = JumpClock(), Log()

    async def start(self, **changes):
        self.ends = Ends()
        self.guard = make_guard(self.store, self.clock, self.ends, self.log, **changes)
        await self.guard.recover()
        for symbol in ("ETH", "BTC", "XRP"):
            if not self.memory._owners.get(symbol):
                await self.memory.claim_symbol(symbol, "host")
        return self

    async def status(self):
        return await self.guard.mark("host", [])

    async def free_krw(self):
        return next(b.amount for b in await self.guard.free() if b.asset == "KRW")

    def is_stored(self, asked):
        return asked.trade_id in self.memory._intents


@pytest.fixture
async def world():
    return await GuardWorld().start()


async def test_a_yes_is_given_only_after_the_store_took_it(world):
    asked, seen = ask(), []
    grant = world.memory.grant

    async def slow(*arguments):
        await asyncio.sleep(0)
        seen.append(world.is_stored(asked))
        return await grant(*arguments)

    world.memory.grant = slow
    verdict = await world.guard.reserve(asked)
    assert isinstance(verdict, Granted)
    assert seen == [False]
    assert world.is_stored(asked)
    assert await world.free_krw() == D(10_000_000) - D(1000)


async def test_a_guard_writes_the_limits_it_decides_by_before_it_says_yes(world):
    assert world.memory.limits == {1: LIMITS}
    await world.start()
    assert set(world.memory.limits) == {1, 2}


async def test_without_the_store_the_answer_is_no_and_the_room_is_given_back(world):
    world.store.before["grant"] = [AWAY]
    asked = ask()
    refused = await world.guard.reserve(asked)
    assert refused.reason is RiskRefusal.STORE
    assert (await world.status()).reserved_usdt == 0
    assert await world.free_krw() == D(10_000_000)
    assert (await world.guard.reserve(asked)).reason is RiskRefusal.STORE  # the same answer
    assert isinstance(await world.guard.reserve(ask(2)), Granted)


async def test_a_commit_that_was_not_heard_of_keeps_its_room_until_it_is_voided(world):
    world.store.after["grant"] = [UNHEARD]
    asked = ask()
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    assert (await world.status()).reserved_usdt == asked.worst_loss_usdt
    assert (await world.guard.reserve(ask(2))).reason is RiskRefusal.SYMBOL_BUSY
    assert await world.guard.settle(end(asked, void=True))
    assert (await world.status()).reserved_usdt == 0
    assert await world.free_krw() == D(10_000_000)


async def test_a_repeat_is_not_answered_with_a_yes_that_was_never_written(world):
    world.store.before["grant"] = [UNHEARD]
    asked = ask()
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    assert not world.is_stored(asked)
    assert isinstance(await world.guard.reserve(asked), Granted)
    assert world.is_stored(asked)


async def test_an_unheard_commit_keeps_its_room_when_the_store_is_away_at_the_repeat(world):
    world.store.after["grant"] = [UNHEARD]
    asked = ask()
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    world.store.before["grant"] = [AWAY]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    assert world.is_stored(asked)
    assert (await world.status()).reserved_usdt == asked.worst_loss_usdt


async def test_repeats_get_the_same_answer_and_are_written_once(world):
    asked = ask()
    first, second = await asyncio.gather(world.guard.reserve(asked), world.guard.reserve(asked))
    assert first == second
    assert world.store.calls["grant"] == 1
    # A guard that starts anew answers from the ledger.
    granted_ns = first.granted_ns
    await world.start()
    again = await world.guard.reserve(asked)
    assert (again.trade_id, again.granted_ns) == (asked.trade_id, granted_ns)
    assert world.store.calls["grant"] == 1


async def test_two_intents_at_once_cannot_share_the_room_of_one(world):
    asked = [
        ask(number, symbol, worst="55")
        for number, symbol in enumerate(("ETH", "BTC", "XRP"), start=1)
    ]
    verdicts = await asyncio.gather(*(world.guard.reserve(one) for one in asked))
    assert [isinstance(verdict, Granted) for verdict in verdicts] == [True, False, False]


async def test_a_fenced_guard_leaves_and_tells_the_caller_to_ask_the_other():
    for method in ("reserve", "settle", "command"):
        world = await GuardWorld().start()
        await world.memory.take_lease("another")
        call = {
            "reserve": lambda w: w.guard.reserve(ask()),
            "settle": lambda w: w.guard.settle(end(ask(), void=True)),
            "command": lambda w: w.guard.command("halt", "test", "me"),
        }[method]
        with pytest.raises(StoreUnavailable):
            await call(world)
        ((name, error),) = world.ends.ended
        assert (name, type(error)) == ("guard", Fenced), method


async def halt_by_mark(world):
    asked = ask(worst="55")
    world.guard._keeper.book.apply_grant(asked, T0)
    return await world.guard.mark("host", [mark(asked, "-101", at=T0)])


async def test_the_loop_of_a_fenced_guard_ends_with_the_error():
    world = GuardWorld()
    await world.start(times=GuardTimes(0.001, 0.001))
    world.guard.start()
    await world.memory.take_lease("another")
    await until(lambda: world.ends.ended)
    ((name, error),) = world.ends.ended
    assert (name, type(error)) == ("guard", Fenced)


async def test_a_fenced_guard_leaves_when_it_wants_to_write_a_halt():
    world = await GuardWorld().start(times=GuardTimes(60.0, 0.001))
    world.guard.start()
    await asyncio.sleep(0)
    await world.memory.take_lease("another")
    assert (await halt_by_mark(world)).state is RiskState.HALTED
    await until(lambda: world.ends.ended)
    ((name, error),) = world.ends.ended
    assert (name, type(error)) == ("guard", Fenced)


async def until(is_so):
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never came to that")


async def test_the_loop_waits_for_a_store_at_its_start_and_lives_on_without_it():
    world = GuardWorld()
    world.ends = Ends()
    world.store.before["take_lease"] = [AWAY, UNHEARD]
    world.store.before["renew_lease"] = [AWAY, UNHEARD]
    guard = make_guard(
        world.store, world.clock, world.ends, world.log, times=GuardTimes(0.001, 0.001)
    )
    assert (await guard.status())["ready"] is False
    assert (await guard.reserve(ask())).reason is RiskRefusal.STORE
    guard.start()
    for _ in range(500):
        if world.store.calls["renew_lease"] >= 4:
            break
        await asyncio.sleep(0.002)
    assert (await guard.status())["ready"] is True
    await guard.stop()
    assert world.ends.ended == []


async def test_opening_balances_are_posted_once():
    world = await GuardWorld().start()
    for _ in range(2):
        await world.start()
    opened = [b for b in await world.memory.balances() if b.account is Account.OPENING]
    assert len(opened) == len(OPENING)
    assert await world.free_krw() == D(10_000_000)


async def test_a_silent_venue_delays_only_the_very_first_start():
    async def unreachable():
        raise VenueUnreachable("upbit", "no route")

    world = GuardWorld()
    with pytest.raises(VenueUnreachable):
        await world.start(opening=unreachable)
    await world.start()
    await world.guard.reserve(ask())
    await world.start(opening=unreachable)
    assert (await world.status()).open_trades == 1


async def test_a_wrong_configuration_ends_the_start():
    async def wrong():
        raise BadConfig("balances", "no", "yes")

    world = GuardWorld()
    ends = Ends()
    guard = make_guard(world.store, world.clock, ends, world.log, opening=wrong)
    guard.start()
    for _ in range(100):
        if ends.ended:
            break
        await asyncio.sleep(0.001)
    assert [type(error) for _, error in ends.ended] == [BadConfig]
    await world.start()
    with pytest.raises(BadConfig):  # a restart does not hide it either
        await world.start(opening=wrong)


async def test_whoever_stops_lets_go_of_what_waits_for_the_store(world):
    hang(world, "grant")
    asking = asyncio.create_task(world.guard.reserve(ask()))
    await let_run()
    await world.guard.stop()
    (answer,) = await asyncio.wait_for(asyncio.gather(asking, return_exceptions=True), 5)
    assert isinstance(answer, asyncio.CancelledError)


async def test_settling_is_done_once_and_repeats_change_nothing(world):
    asked = ask()
    await world.guard.reserve(asked)
    assert await world.guard.settle(end(asked, "-7"))
    assert not await world.guard.settle(end(asked, "-7"))
    status = await world.status()
    assert (status.realized_usdt, status.open_trades) == (D(-7), 0)
    assert await world.free_krw() == D(10_000_000)


async def test_a_settlement_whose_commit_was_not_heard_of_counts_all_the_same(world):
    asked, other = ask(), ask(1, "BTC")
    await world.guard.reserve(asked)
    await world.guard.reserve(other)
    world.store.after["settle"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.settle(end(asked, "-7"))
    assert not await world.guard.settle(end(asked, "-7"))
    status = await world.status()
    assert (status.realized_usdt, status.open_trades) == (D(-7), 1)
    assert await world.free_krw() == D(10_000_000) - D(1000)


async def test_a_void_of_an_unknown_id_refuses_a_later_reserve(world):
    asked = ask()
    assert await world.guard.settle(end(asked, void=True))
    assert (await world.guard.reserve(asked)).reason is RiskRefusal.TOMBSTONE
    await world.start()
    assert not isinstance(await world.guard.reserve(asked), Granted)


async def test_an_end_that_the_former_guard_wrote_is_known_from_its_repeat(world):
    asked = ask()
    await world.guard.settle(end(asked, void=True))
    await world.start()
    assert not await world.guard.settle(end(asked, void=True))
    assert (await world.guard.reserve(asked)).reason is RiskRefusal.TOMBSTONE
    assert world.store.calls["grant"] == 0, "no room is taken for it, not even until the commit"


async def test_a_void_whose_room_the_ledger_could_not_tell_is_an_error_until_it_can(world):
    asked = ask()
    world.store.after["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    world.store.before["load"] = [AWAY]
    with pytest.raises(StoreUnavailable):
        await world.guard.settle(end(asked, void=True))
    assert (await world.status()).open_trades == 1, "whoever asked must ask again"
    assert not await world.guard.settle(end(asked, void=True))
    assert (await world.status()).open_trades == 0
    assert await world.free_krw() == D(10_000_000)


async def test_a_gap_loss_halts_for_good_and_its_number_outlives_the_guard(world):
    asked = ask()
    await world.guard.reserve(asked)
    await world.guard.settle(end(asked, "-25"))
    for _ in range(2):
        status = await world.status()
        assert status.gap_loss_usdt == 25 - asked.worst_loss_usdt == 5
        assert status.state is RiskState.HALTED
        assert status.flatten_all
        await world.start()
    assert (await world.guard.reserve(ask(2))).reason is RiskRefusal.NOT_ACTIVE


async def test_a_halt_that_cannot_be_written_is_in_force_and_written_later(world):
    asked = ask(worst="55")
    await world.guard.reserve(asked)
    world.store.before["set_state"] = [AWAY]
    status = await world.guard.mark("host", [mark(asked, "-101", at=T0)])
    assert status.state is RiskState.HALTED
    assert status.flatten == ("ETH",)
    assert world.memory._state.state is RiskState.ACTIVE
    assert (await world.status()).state is RiskState.HALTED
    world.guard._times = GuardTimes(0.001, 0.001)
    world.guard.start()
    await until(lambda: world.memory._state.state is RiskState.HALTED)
    assert world.ends.ended == []
    await world.guard.stop()


async def test_marks_do_not_wait_for_a_store_that_hangs_and_the_loop_writes_what_they_found(world):
    asked = ask(worst="55")
    await world.guard.reserve(asked)
    gate = hang(world, "set_state")
    world.guard.start()
    await asyncio.sleep(0)
    for _ in range(3):
        called = world.guard.mark("host", [mark(asked, "-101", at=T0)])
        assert (await asyncio.wait_for(called, 1)).state is RiskState.HALTED
        await asyncio.sleep(0)
    assert world.memory._state.state is RiskState.ACTIVE
    gate.set()
    # Long before the lease is due again.
    await until(lambda: world.memory._state.state is RiskState.HALTED)
    await world.guard.stop()


def hang(world, method):
    """Let a method of the store wait for what is returned, before it does anything."""
    call, gate = getattr(world.memory, method), asyncio.Event()

    async def slow(*arguments):
        await gate.wait()
        return await call(*arguments)

    setattr(world.memory, method, slow)
    return gate


async def hang_at_rebuild(world, asked):
    """Settle unheard, settle again, and stand still where the ledger has been read."""
    world.store.after["settle"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.settle(end(asked, "-1"))
    load, gate, reached = world.memory.load, asyncio.Event(), asyncio.Event()

    async def slow(*arguments):
        books = await load(*arguments)
        reached.set()
        await gate.wait()
        return books

    world.memory.load = slow
    settling = asyncio.create_task(world.guard.settle(end(asked, "-1")))
    await reached.wait()
    return settling, gate


async def let_run():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_command_during_a_rebuild_is_in_force_after_it(world):
    asked = ask()
    await world.guard.reserve(asked)
    settling, gate = await hang_at_rebuild(world, asked)
    command = asyncio.create_task(world.guard.command("halt", "stop it", "me"))
    await let_run()
    gate.set()
    await asyncio.gather(settling, command)
    assert world.memory._state.state is RiskState.HALTED
    assert (await world.status()).state is RiskState.HALTED
    assert (await world.guard.reserve(ask(2, "BTC"))).reason is RiskRefusal.NOT_ACTIVE


async def test_a_resume_during_a_rebuild_is_in_force_after_it(world):
    asked = ask()
    await world.guard.reserve(asked)
    await world.guard.command("reduce", "doubt", "me")
    settling, gate = await hang_at_rebuild(world, asked)
    command = asyncio.create_task(world.guard.command("resume", "seen", "me"))
    await let_run()
    gate.set()
    await asyncio.gather(settling, command)
    assert world.memory._state.state is RiskState.ACTIVE
    assert (await world.status()).state is RiskState.ACTIVE


async def test_a_mark_during_a_rebuild_halts_and_counts_after_it(world):
    asked, other = ask(), ask(1, "BTC", worst="55")
    await world.guard.reserve(asked)
    await world.guard.reserve(other)
    settling, gate = await hang_at_rebuild(world, asked)
    await world.guard.mark("host", [mark(other, "-101", at=T0)])
    gate.set()
    await settling
    status = await world.status()
    assert (status.state, status.flatten) == (RiskState.HALTED, ("BTC",))
    assert status.reserved_usdt == D(101)
    assert world.memory._state.state is RiskState.HALTED


async def test_a_halt_found_while_a_resume_is_written_stays_in_force(world):
    asked = ask(worst="55")
    await world.guard.reserve(asked)
    await world.guard.command("reduce", "doubt", "me")
    gate = hang(world, "set_state")
    command = asyncio.create_task(world.guard.command("resume", "seen", "me"))
    await let_run()
    await world.guard.mark("host", [mark(asked, "-101", at=T0)])
    gate.set()
    await command
    assert (await world.status()).state is RiskState.HALTED
    await world.guard.settle(end(asked, "-1"))
    assert world.memory._state.state is RiskState.HALTED


async def test_a_halt_whose_write_was_not_heard_of_is_in_force(world):
    world.store.after["set_state"] = [UNHEARD]
    status = await world.guard.command("halt", "lunch", "me")
    assert world.memory._state.state is RiskState.HALTED
    assert (status.state, status.unwritten) == (RiskState.HALTED, 1)


async def test_the_rebuild_keeps_the_room_of_another_grant_that_was_not_heard_of(world):
    asked, other = ask(), ask(1, "BTC", worst="30")
    await world.guard.reserve(asked)
    world.store.before["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(other)
    settling, gate = await hang_at_rebuild(world, asked)
    gate.set()
    await settling
    assert (await world.status()).reserved_usdt == D(30)
    assert await world.free_krw() == D(10_000_000) - D(1000)
    assert await world.guard.settle(end(other, void=True))
    assert (await world.status()).reserved_usdt == 0


async def test_the_void_of_a_grant_that_was_never_committed_gives_its_hold_back(world):
    asked = ask()
    world.store.before["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    assert await world.guard.settle(end(asked, void=True))
    assert await world.free_krw() == D(10_000_000)
    assert (await world.status()).open_trades == 0
    assert (await world.guard.reserve(asked)).reason is RiskRefusal.TOMBSTONE


async def test_a_grant_that_was_not_heard_of_is_answered_to_the_next_owner(world):
    asked = ask()
    world.store.after["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(asked)
    await world.memory.claim_symbol("ETH", "new host")
    assert isinstance(await world.guard.reserve(asked), Granted)
    with pytest.raises(LedgerViolation):
        await world.guard.reserve(ask(worst="1"))
    assert await world.guard.settle(end(asked, void=True))
    assert await world.free_krw() == D(10_000_000)


async def test_a_halt_is_in_force_as_soon_as_the_loss_is_known(world):
    asked = ask()
    await world.guard.reserve(asked)
    world.store.before["settle"] = [AWAY]
    with pytest.raises(StoreUnavailable):
        await world.guard.settle(end(asked, "-25"))
    assert world.memory._state.state is RiskState.HALTED
    assert (await world.status()).state is RiskState.HALTED
    assert (await world.guard.reserve(ask(1, "BTC"))).reason is RiskRefusal.NOT_ACTIVE


async def test_no_loss_is_posted_before_the_halt_that_it_brings_is_written(world):
    asked = ask()
    await world.guard.reserve(asked)
    world.store.before["set_state"] = [AWAY, UNHEARD]
    for error in (StoreUnavailable, OutcomeUnknown):
        with pytest.raises(error):
            await world.guard.settle(end(asked, "-25"))
        assert world.memory.settlements == {}
    assert await world.guard.settle(end(asked, "-25"))
    assert world.memory._state.state is RiskState.HALTED


async def test_an_anomaly_that_an_operator_has_seen_is_not_raised_by_a_restart(world):
    for number, symbol in enumerate(("ETH", "BTC", "XRP", "ETH"), start=1):
        asked = ask(number, symbol)
        await world.guard.reserve(asked)
        await world.guard.settle(end(asked, "1"))
    assert (await world.status()).state is RiskState.REDUCE_ONLY
    await world.guard.command("resume", "looked", "me")
    await world.start()
    assert (await world.status()).state is RiskState.ACTIVE


async def test_losses_in_a_row_and_the_rate_of_entries_go_on_over_a_midnight_restart():
    world = GuardWorld()
    midnight = (T0 // DAY + 1) * DAY
    world.clock.now = midnight - 20 * SECOND
    await world.start()
    for number in range(1, 4):
        asked = intent(number, "ETH", asked_ns=midnight, deadline_ns=midnight + DAY)
        assert isinstance(await world.guard.reserve(asked), Granted)
        await world.guard.settle(settlement(asked, "-1", closed=world.clock.now))
    world.clock.now = midnight + 10 * SECOND
    await world.start(limits=msgspec.structs.replace(LIMITS, entries_per_minute_count=3))
    late = intent(4, "ETH", asked_ns=midnight, deadline_ns=midnight + DAY)
    assert (await world.guard.reserve(late)).reason is RiskRefusal.COOL_DOWN
    await world.start(
        limits=msgspec.structs.replace(LIMITS, entries_per_minute_count=3, loss_cool_down_s=0.0)
    )
    assert (await world.guard.reserve(late)).reason is RiskRefusal.ENTRY_RATE


@pytest.mark.parametrize("method", ["grant", "settle"])
async def test_repeats_while_the_store_hangs_wait_for_one_call(world, method):
    asked = ask()
    if method == "settle":
        await world.guard.reserve(asked)
    gate = hang(world, method)

    def call():
        again = msgspec.json.decode(msgspec.json.encode(asked), type=type(asked))
        return world.guard.settle(end(again)) if method == "settle" else world.guard.reserve(again)

    calls = [asyncio.create_task(call()) for _ in range(20)]
    await let_run()
    assert len(world.guard._groups.under_way) == 1
    calls.pop(0).cancel()  # the caller of the first one has gone
    gate.set()
    answers = await asyncio.gather(*calls)
    assert all(answer == answers[0] for answer in answers)
    assert world.store.calls[method] == 1
    assert world.guard._groups.under_way == {}


async def test_repeats_share_a_failure_and_a_later_one_asks_again(world):
    asked = ask()
    await world.guard.reserve(asked)
    world.store.before["settle"] = [AWAY]
    calls = [asyncio.create_task(world.guard.settle(end(asked))) for _ in range(3)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [StoreUnavailable] * 3
    assert await world.guard.settle(end(asked))


async def test_a_rebuild_does_not_forget_a_halt_that_was_not_written(world):
    asked, other = ask(worst="55"), ask(1, "BTC", worst="10")
    await world.guard.reserve(asked)
    await world.guard.reserve(other)
    world.store.after["settle"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.settle(end(other))
    world.store.before["set_state"] = [AWAY]
    await world.guard.mark("host", [mark(asked, "-101", at=T0)])
    await world.guard.settle(end(other))
    assert (await world.status()).state is RiskState.HALTED


async def test_a_no_while_recovering_is_remembered_afterwards():
    world = GuardWorld()
    guard = make_guard(world.store, world.clock)
    refused = await guard.reserve(ask())
    assert refused.reason is RiskRefusal.STORE
    await world.memory.claim_symbol("ETH", "host")
    await guard.recover()
    assert await guard.reserve(ask()) == refused, "whoever asked has given it up"
    assert isinstance(await guard.reserve(ask(2)), Granted)


async def test_of_the_noes_while_recovering_the_oldest_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(risk, "REMEMBERED_MAX", 2)
    world = GuardWorld()
    guard = make_guard(world.store, world.clock)
    for number in (1, 2):
        await guard.reserve(ask(number))
    await world.memory.claim_symbol("ETH", "host")
    await guard.recover()
    assert (await guard.reserve(ask(3, owner_epoch=-1))).reason is RiskRefusal.FENCED_OWNER
    assert (await guard.reserve(ask(2))).reason is RiskRefusal.STORE
    assert isinstance(await guard.reserve(ask(1)), Granted), "the store answers for it now"


async def test_a_guard_that_started_tells_of_how_many_trades_it_must_hear(world):
    asked, other = ask(), ask(1, "BTC")
    for one in (asked, other):
        await world.guard.reserve(one)
    assert (await world.guard.status())["unheard"] == 0
    await world.start()
    assert (await world.guard.status())["unheard"] == 2
    await world.guard.mark("host", [mark(asked, "0", at=T0)])
    assert (await world.guard.status())["unheard"] == 1
    world.clock.now += LIMITS.mark_age_max_ms * 10**6
    assert (await world.guard.status())["unheard"] == 0
