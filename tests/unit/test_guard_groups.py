"""Group commit: who shares a commit, in which order, and what its failure means for each."""

import asyncio

import pytest

from arb_ray.actors.guard_groups import GROUP_MAX, Groups
from arb_ray.domain.errors import (
    BadInput,
    Fenced,
    LedgerViolation,
    OutcomeUnknown,
    StoreUnavailable,
)
from arb_ray.domain.risk_intent import Granted, Refused, RiskRefusal
from tests.risk_world import D
from tests.shell_world import Counts, Log
from tests.unit.test_risk_guard import AWAY, UNHEARD, GuardWorld, ask, end, hang, let_run

COINS = ("ETH", "BTC", "XRP")


@pytest.fixture
async def world():
    return await GuardWorld().start()


async def gather_behind(world, *calls):
    """Make calls while a commit is under way, so that they share the next; return what came."""
    gate = hang(world, "settle")
    first = asyncio.create_task(world.guard.settle(end(ask(99, "SOL"), void=True)))
    await let_run()
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call))
        await let_run()
    gate.set()
    _, *answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    return answers


def groups_of(world):
    """Note the ids of each group that is written from here on."""
    noted, write = [], world.memory.write

    async def note(epoch, group):
        noted.append([getattr(one, "intent", one).trade_id for one in group])
        return await write(epoch, group)

    world.memory.write = note
    return noted


async def test_what_comes_while_a_commit_is_under_way_shares_the_next(world):
    groups = groups_of(world)
    answers = await gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in COINS))
    assert all(isinstance(answer, Granted) for answer in answers)
    assert groups == [[f"test:{coin}:1" for coin in COINS]]
    assert all(world.is_stored(ask(1, coin)) for coin in COINS)


async def test_a_lone_call_waits_for_nobody(world):
    groups = groups_of(world)
    assert isinstance(await world.guard.reserve(ask()), Granted)
    assert groups == []
    assert world.store.calls["grant"] == 1


async def test_nobody_of_a_group_is_answered_before_its_commit(world):
    write, gate = world.memory.write, asyncio.Event()

    async def slow(*arguments):
        await gate.wait()
        return await write(*arguments)

    world.memory.write = slow
    asking = asyncio.create_task(
        gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in COINS))
    )
    await let_run()
    await let_run()
    await let_run()
    calls = list(world.guard._groups.under_way.values())
    assert len(calls) == 3
    assert not any(call.answered.done() for call in calls)
    gate.set()
    assert all(isinstance(answer, Granted) for answer in await asking)


async def test_two_of_a_group_cannot_share_the_room_of_one(world):
    answers = await gather_behind(
        world,
        world.guard.reserve(ask(1, "ETH", worst="55")),
        world.guard.reserve(ask(1, "BTC", worst="55")),
    )
    assert isinstance(answers[0], Granted)
    assert answers[1].reason is RiskRefusal.DAILY_LOSS


async def test_an_end_and_the_next_trade_on_its_symbol_go_in_their_order(world):
    first = ask(1)
    await world.guard.reserve(first)
    # The book knows of the end only after its commit, so the next trade is too early.
    answers = await gather_behind(
        world, world.guard.settle(end(first, "-1")), world.guard.reserve(ask(2))
    )
    assert answers[0] is True
    assert answers[1].reason is RiskRefusal.SYMBOL_BUSY
    assert isinstance(await world.guard.reserve(ask(3)), Granted)


async def test_an_id_occurs_once_in_a_group(world):
    asked = ask()
    groups = groups_of(world)
    answers = await gather_behind(
        world,
        world.guard.reserve(asked),
        world.guard.reserve(ask(1, "BTC")),
        world.guard.settle(end(asked, void=True)),
        world.guard.reserve(ask(1, "XRP")),
    )
    assert isinstance(answers[0], Granted)
    assert answers[2] is True
    assert groups == [["test:ETH:1", "test:BTC:1"], ["test:ETH:1", "test:XRP:1"]]
    assert (await world.status()).open_trades == 2
    assert await world.free_krw() == D(10_000_000) - 2 * D(1000)


async def test_a_void_that_came_first_is_carried_out_first(world):
    asked = ask()
    answers = await gather_behind(
        world, world.guard.settle(end(asked, void=True)), world.guard.reserve(asked)
    )
    assert answers[0] is True
    assert answers[1].reason is RiskRefusal.TOMBSTONE


async def test_a_group_that_was_not_written_is_refused_and_its_room_given_back(world):
    world.store.before["write"] = [AWAY]
    answers = await gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in COINS))
    assert [answer.reason for answer in answers] == [RiskRefusal.STORE] * 3
    assert (await world.status()).open_trades == 0
    assert await world.free_krw() == D(10_000_000)
    for coin in COINS:
        repeat = await world.guard.reserve(ask(1, coin))
        assert isinstance(repeat, Refused), "whoever was refused gave the id up"


@pytest.mark.parametrize("is_written", [True, False])
async def test_a_group_of_unknown_outcome_is_granted_to_nobody_and_forgotten_for_nobody(
    world, is_written
):
    faults = world.store.after if is_written else world.store.before
    faults["write"] = [UNHEARD]
    answers = await gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in COINS))
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 3
    assert [world.is_stored(ask(1, coin)) for coin in COINS] == [is_written] * 3
    assert (await world.status()).open_trades == 3, "their room stays taken"
    # One asks again, one voids, one hears nothing for now.
    assert isinstance(await world.guard.reserve(ask(1, "ETH")), Granted)
    assert await world.guard.settle(end(ask(1, "BTC"), void=True))
    assert (await world.status()).open_trades == 2
    assert await world.free_krw() == D(10_000_000) - 2 * D(1000)
    assert world.is_stored(ask(1, "ETH"))


async def test_a_commit_and_each_of_the_decisions_that_share_it_are_counted():
    metrics = Counts()
    world = await GuardWorld().start(metrics=metrics)
    await gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in COINS))
    assert (metrics.counters["risk_commits"], metrics.counters["risk_decisions"]) == (2, 4)


async def test_settlements_of_unknown_outcome_count_once_when_they_are_repeated(world):
    asked = [ask(1, coin) for coin in COINS]
    for one in asked:
        await world.guard.reserve(one)
    world.store.after["write"] = [UNHEARD]
    answers = await gather_behind(world, *(world.guard.settle(end(one, "-1")) for one in asked))
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 3
    assert [await world.guard.settle(end(one, "-1")) for one in asked] == [False] * 3
    status = await world.status()
    assert (status.open_trades, status.daily_loss_usdt) == (0, D(3))
    assert await world.free_krw() == D(10_000_000)


async def test_what_the_ledger_contradicts_concerns_only_whoever_asked(world):
    settle = world.memory.settle

    async def contradicted(epoch, settlement):
        if settlement.symbol == "BTC":
            raise LedgerViolation(settlement.trade_id, "it was never granted")
        return await settle(epoch, settlement)

    world.memory.settle = contradicted
    answers = await gather_behind(
        world,
        world.guard.reserve(ask(1, "ETH")),
        world.guard.settle(end(ask(1, "BTC"), "1")),
        world.guard.reserve(ask(1, "XRP")),
    )
    assert isinstance(answers[0], Granted)
    assert isinstance(answers[1], LedgerViolation)
    assert isinstance(answers[2], Granted)


async def test_an_intent_that_asks_for_nothing_concerns_only_whoever_asked(world):
    answers = await gather_behind(
        world,
        world.guard.reserve(ask(1, "ETH")),
        world.guard.reserve(ask(1, "BTC", worst="0")),
        world.guard.reserve(ask(1, "XRP")),
    )
    assert [type(answer) for answer in answers] == [Granted, BadInput, Granted]
    assert (await world.status()).open_trades == 2


@pytest.mark.parametrize("coins", [COINS[:1], COINS])
async def test_what_the_store_refuses_takes_no_room(world, coins):
    await world.memory.claim_symbol("ETH", "another host")
    answers = await gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in coins))
    assert answers[0].reason is RiskRefusal.FENCED_OWNER
    assert all(isinstance(answer, Granted) for answer in answers[1:])
    assert await world.guard.reserve(ask(1, coins[0])) == answers[0], "the same answer again"
    others = len(coins) - 1
    assert (await world.status()).open_trades == others
    assert await world.free_krw() == D(10_000_000) - others * D(1000)
    assert (await world.guard.status())["refusals"] == {RiskRefusal.FENCED_OWNER: 2}


async def test_a_fenced_group_is_granted_to_nobody_and_the_guard_leaves(world):
    world.memory._epoch += 1
    answers = await gather_behind(world, *(world.guard.reserve(ask(1, coin)) for coin in COINS))
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert not any(world.is_stored(ask(1, coin)) for coin in COINS)
    assert world.ends.ended
    assert all(isinstance(error, Fenced) for _, error in world.ends.ended)


async def test_a_halt_between_two_groups_is_a_no_for_those_that_wait(world):
    gate = hang(world, "grant")
    first = asyncio.create_task(world.guard.reserve(ask(1, "ETH")))
    await let_run()
    waiting = asyncio.create_task(world.guard.reserve(ask(1, "BTC")))
    await let_run()
    command = asyncio.create_task(world.guard.command("halt", "now", "me"))
    await let_run()
    gate.set()
    assert isinstance(await first, Granted)
    assert (await command).open_trades == 1
    assert (await waiting).reason is RiskRefusal.NOT_ACTIVE


async def test_a_repeat_of_what_was_not_heard_of_is_no_yes_after_a_halt(world):
    world.store.before["grant"] = [UNHEARD]
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(ask())
    await world.guard.command("halt", "now", "me")
    with pytest.raises(OutcomeUnknown):
        await world.guard.reserve(ask())
    assert not world.is_stored(ask())
    assert await world.guard.settle(end(ask(), void=True))
    assert (await world.status()).open_trades == 0


async def test_a_loss_beyond_its_reservation_is_a_no_for_those_that_wait_already(world):
    asked = ask(1, "ETH", worst="10")
    await world.guard.reserve(asked)
    gate = hang(world, "grant")
    first = asyncio.create_task(world.guard.reserve(ask(1, "BTC", worst="10")))
    await let_run()
    waiting = asyncio.create_task(world.guard.reserve(ask(1, "XRP", worst="10")))
    await let_run()
    lost = asyncio.create_task(world.guard.settle(end(asked, "-15")))
    await let_run()
    gate.set()
    assert isinstance(await first, Granted)
    assert (await waiting).reason is RiskRefusal.NOT_ACTIVE
    assert await lost


class Carrier:
    """Carries groups out as told, one gate a group."""

    def __init__(self):
        self.groups = []
        self.turn = asyncio.Lock()
        self.gate = asyncio.Event()
        self.is_deaf = False

    async def carry_out(self, calls):
        self.groups.append([call.asked.trade_id for call in calls])
        await self.gate.wait()
        for call in calls:
            if not self.is_deaf:
                call.answer(call.asked.trade_id)

    def start(self):
        return Groups(self.carry_out, self.turn, Log())


async def join_all(groups, numbers):
    tasks = [asyncio.create_task(groups.join(ask(number))) for number in numbers]
    await let_run()
    return tasks


async def test_a_group_is_bounded_and_the_order_is_that_of_arrival():
    carrier = Carrier()
    groups = carrier.start()
    ids = [ask(number).trade_id for number in range(1, GROUP_MAX + 4)]
    tasks = await join_all(groups, [1])
    tasks += await join_all(groups, range(2, GROUP_MAX + 4))
    carrier.gate.set()
    assert await asyncio.gather(*tasks) == ids
    assert carrier.groups == [ids[:1], ids[1 : GROUP_MAX + 1], ids[GROUP_MAX + 1 :]]


async def test_a_group_waits_for_whoever_has_the_turn():
    carrier = Carrier()
    carrier.gate.set()
    groups = carrier.start()
    async with carrier.turn:
        (task,) = await join_all(groups, [1])
        assert carrier.groups == []
    assert await task == ask(1).trade_id


async def test_a_call_without_an_answer_is_a_failure_and_not_waited_for_for_ever():
    carrier = Carrier()
    carrier.is_deaf = True
    carrier.gate.set()
    groups = carrier.start()
    (task,) = await join_all(groups, [1])
    with pytest.raises(AssertionError, match="no answer"):
        await task
    carrier.is_deaf = False
    assert await groups.join(ask(1)) == ask(1).trade_id


async def test_a_bug_in_one_group_is_told_to_its_callers_and_the_next_goes_on():
    carrier = Carrier()
    carrier.gate.set()
    right, groups = carrier.carry_out, carrier.start()

    async def wrong(calls):
        groups._carry_out = right
        raise ZeroDivisionError

    groups._carry_out = wrong
    (task,) = await join_all(groups, [1])
    with pytest.raises(ZeroDivisionError):
        await task
    assert await groups.join(ask(2)) == ask(2).trade_id


async def test_whoever_stops_lets_go_of_those_that_wait():
    carrier = Carrier()
    groups = carrier.start()
    tasks = await join_all(groups, [1])
    tasks += await join_all(groups, [2, 3])
    await groups.stop()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 3
    assert groups.under_way == {}
    carrier.gate.set()
    await groups.join(ask(4))
    assert carrier.groups == [[ask(1).trade_id], [ask(4).trade_id]], (
        "nor are they carried out later"
    )
