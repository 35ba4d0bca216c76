"""What an operator orders is in force at once where it is stricter, and written in its order."""

import asyncio

import msgspec
import pytest

from arb_ray.actors.risk_guard import GuardTimes
from arb_ray.domain.errors import BadInput
from arb_ray.domain.risk_intent import Granted, RiskRefusal, RiskState
from arb_ray.engine.risk_commands import REASON_MAX
from tests.risk_world import LIMITS, mark
from tests.signal_market import T0
from tests.unit.test_risk_guard import AWAY, UNHEARD, GuardWorld, ask, end, hang, let_run, until


@pytest.fixture
async def world():
    return await GuardWorld().start()


async def test_an_operator_halts_and_resumes(world):
    status = await world.guard.command("halt", "lunch", "me")
    assert (status.state, status.reason) == (RiskState.HALTED, "lunch")
    await world.start()
    assert (await world.guard.reserve(ask())).reason is RiskRefusal.NOT_ACTIVE
    assert (await world.guard.command("resume", "back", "me")).state is RiskState.ACTIVE
    await world.start()
    assert isinstance(await world.guard.reserve(ask(2)), Granted)
    assert (await world.guard.command("reduce", "doubt", "me")).state is RiskState.REDUCE_ONLY


async def test_a_restriction_is_never_milder_than_what_is_in_force(world):
    told = await world.guard.command("restrict", "the disk is full", "persistence")
    assert (told.state, told.flatten_all) == (RiskState.REDUCE_ONLY, False)
    assert not isinstance(await world.guard.reserve(ask()), Granted)
    await world.guard.command("halt", "wrong prices", "me")
    told = await world.guard.command("restrict", "the disk is full", "persistence")
    assert told.state is RiskState.HALTED
    assert told.reason == "the disk is full (halted before: wrong prices)"
    await world.start()
    assert (await world.status()).state is RiskState.HALTED


async def test_a_restriction_that_is_in_force_is_not_written_again_and_after_a_resume_it_is(world):
    said = ("restrict", "the disk is full", "persistence")
    for _ in range(3):
        assert (await world.guard.command(*said)).state is RiskState.REDUCE_ONLY
    assert written(world) == 1
    await world.guard.command("resume", "the disk is full no more", "me")
    assert (await world.guard.command(*said)).state is RiskState.REDUCE_ONLY
    assert written(world) == 3
    # Another reason is news, and so is a halt that does not tell of this one.
    await world.guard.command("restrict", "the disk does not answer", "persistence")
    await world.guard.command("halt", "wrong prices", "me")
    assert "the disk is full" in (await world.guard.command(*said)).reason
    assert written(world) == 6


def written(world):
    """How many changes of state were written down."""
    return world.store.calls["set_state"]


async def test_flatten_goes_on_after_a_restart_until_someone_resumes(world):
    await world.guard.reserve(ask())
    assert (await world.guard.command("flatten", "out", "me")).flatten_all
    await world.start()
    assert (await world.status()).flatten_all
    await world.guard.command("resume", "in", "me")
    await world.start()
    assert not (await world.status()).flatten_all


@pytest.mark.parametrize("error", [AWAY, UNHEARD])
async def test_a_halt_that_cannot_be_written_is_in_force_says_so_and_is_written_later(world, error):
    world.store.before["set_state"] = [error]
    status = await world.guard.command("halt", "lunch", "me")
    assert (status.state, status.actor, status.unwritten) == (RiskState.HALTED, "me", 1)
    assert (await world.guard.reserve(ask())).reason is RiskRefusal.NOT_ACTIVE
    assert (await world.guard.status())["unwritten"] == 1
    assert world.memory._state.state is RiskState.ACTIVE
    world.guard._times = GuardTimes(0.001, 0.001)
    world.guard.start()
    await until(lambda: world.memory._state.state is RiskState.HALTED)
    assert (await world.status()).unwritten == 0
    await world.guard.stop()


@pytest.mark.parametrize("error", [AWAY, UNHEARD])
async def test_a_resume_that_cannot_be_written_is_not_in_force(world, error):
    await world.guard.command("halt", "lunch", "me")
    world.store.before["set_state"] = [error]
    with pytest.raises(type(error)):
        await world.guard.command("resume", "back", "me")
    status = await world.status()
    assert (status.state, status.unwritten) == (RiskState.HALTED, 0)


async def test_a_halt_is_in_force_before_postgres_answers(world):
    gate = hang(world, "set_state")
    command = asyncio.create_task(world.guard.command("halt", "now", "me"))
    await let_run()
    assert not command.done()
    assert (await world.guard.reserve(ask())).reason is RiskRefusal.NOT_ACTIVE
    gate.set()
    assert (await command).unwritten == 0


async def test_a_halt_is_in_force_while_another_change_is_still_being_written(world):
    asked = ask(worst="10")
    await world.guard.reserve(asked)
    gate = hang(world, "set_state")
    flattening = asyncio.create_task(world.guard.command("flatten", "odd", "me", "ETH"))
    await let_run()
    halting = asyncio.create_task(world.guard.command("halt", "now", "me"))
    await let_run()
    assert (await world.guard.reserve(ask(1, "BTC"))).reason is RiskRefusal.NOT_ACTIVE
    gate.set()
    await asyncio.gather(flattening, halting)


async def test_a_halt_that_a_resume_overtook_is_in_force_before_it_is_written(world):
    await world.guard.command("halt", "lunch", "me")
    write, gates = world.memory.set_state, [asyncio.Event(), asyncio.Event()]
    waiting = iter(gates)

    async def slow(*arguments):
        await next(waiting).wait()
        await write(*arguments)

    world.memory.set_state = slow
    commands = [
        asyncio.create_task(world.guard.command(verb, "x", "me")) for verb in ("resume", "halt")
    ]
    await let_run()
    gates[0].set()
    await let_run()
    assert commands[0].done()
    assert not commands[1].done()
    assert (await world.status()).state is RiskState.HALTED
    gates[1].set()
    await asyncio.gather(*commands)


async def test_no_yes_is_under_way_any_more_when_a_halt_is_answered(world):
    gate = hang(world, "grant")
    reserving = asyncio.create_task(world.guard.reserve(ask()))
    await let_run()
    command = asyncio.create_task(world.guard.command("halt", "now", "me"))
    await let_run()
    assert not command.done()
    gate.set()
    status = await command
    assert world.is_stored(ask())
    assert status.open_trades == 1
    assert isinstance(await reserving, Granted)


async def test_a_halt_during_a_resume_wins(world):
    await world.guard.command("halt", "lunch", "me")
    gate = hang(world, "set_state")
    commands = [
        asyncio.create_task(world.guard.command(verb, "x", "me")) for verb in ("resume", "halt")
    ]
    await let_run()
    gate.set()
    await asyncio.gather(*commands)
    assert (await world.status()).state is RiskState.HALTED
    assert world.memory._state.state is RiskState.HALTED


@pytest.mark.parametrize(
    "said", [("explode", "x", "me"), ("halt", "x", "me", "ETH"), ("halt", "x", "guard")]
)
async def test_what_is_no_command_is_refused(world, said):
    await world.guard.reserve(ask())
    with pytest.raises(BadInput):
        await world.guard.command(*said)
    assert (await world.status()).state is RiskState.ACTIVE


async def test_flattening_a_symbol_closes_its_trade_and_lets_the_others_be(world):
    await world.guard.reserve(ask())
    await world.guard.reserve(ask(1, "BTC"))
    status = await world.guard.command("flatten", "odd", "me", "ETH")
    assert (status.flatten, status.flatten_all, status.state) == (("ETH",), False, RiskState.ACTIVE)
    for _ in range(2):
        await world.start()  # a guard that starts anew goes on
        status = await world.status()
        assert (status.flatten, status.state, status.reason) == (("ETH",), "active", "start")
    await world.guard.mark("host", [mark(ask(1, "BTC"), "0", at=T0)])
    await world.guard.settle(end(ask()))
    assert isinstance(await world.guard.reserve(ask(2)), Granted)
    assert (await world.status()).flatten == ()
    await world.start()
    assert (await world.status()).flatten == (), "the order was for the trade of that moment"


async def test_a_symbol_without_a_trade_cannot_be_flattened(world):
    with pytest.raises(BadInput, match="no trade is open"):
        await world.guard.command("flatten", "odd", "me", "ETH")
    await world.guard.reserve(ask())
    assert (await world.status()).flatten == ()


async def test_a_resume_ends_the_order_to_flatten_a_symbol(world):
    await world.guard.reserve(ask())
    await world.guard.command("flatten", "odd", "me", "ETH")
    await world.guard.command("resume", "seen", "me")
    assert (await world.status()).flatten == ()
    await world.start()
    assert (await world.status()).flatten == ()


async def test_an_order_to_flatten_a_symbol_outlives_a_store_that_is_away(world):
    await world.guard.reserve(ask())
    world.store.before["set_state"] = [AWAY]
    status = await world.guard.command("flatten", "odd", "me", "ETH")
    assert (status.flatten, status.unwritten) == (("ETH",), 1)
    await world.guard._changes.try_writing()
    await world.start()
    assert (await world.status()).flatten == ("ETH",)


async def test_flattening_all_does_not_lower_a_halt_and_keeps_its_reason(world):
    asked, other = ask(), ask(1, "BTC")
    await world.guard.reserve(asked)
    await world.guard.reserve(other)
    await world.guard.settle(end(asked, "-25"))
    status = await world.guard.command("flatten", "out", "me")
    assert status.state is RiskState.HALTED
    assert status.reason.startswith("flatten: out (halted before: gap_loss")
    for _ in range(50):
        status = await world.guard.command("flatten", "out", "me")
    assert len(status.reason) == REASON_MAX
    await world.start()
    assert ((await world.status()).state, (await world.status()).flatten_all) == ("halted", True)


async def test_a_halt_is_no_order_to_flatten_that_would_outlive_the_setting(world):
    await world.guard.reserve(ask())
    assert (await world.guard.command("halt", "odd", "me")).flatten_all
    keeps = msgspec.structs.replace(LIMITS, flatten_on_halt=False)
    await world.start(limits=keeps)
    assert not (await world.status()).flatten_all


async def test_a_halt_by_hand_does_not_end_what_a_gap_began():
    keeps = msgspec.structs.replace(LIMITS, flatten_on_halt=False)
    world = await GuardWorld().start(limits=keeps)
    asked = ask()
    await world.guard.reserve(asked)
    await world.guard.reserve(ask(1, "BTC"))
    await world.guard.settle(end(asked, "-25"))
    for _ in range(2):
        assert (await world.guard.command("halt", "and stay", "me")).flatten_all
        await world.start(limits=keeps)


async def test_a_halt_after_an_order_to_flatten_all_does_not_end_it():
    keeps = msgspec.structs.replace(LIMITS, flatten_on_halt=False)
    world = await GuardWorld().start(limits=keeps)
    await world.guard.reserve(ask())
    await world.guard.command("flatten", "out", "me")
    for _ in range(2):
        assert (await world.guard.command("halt", "and stay", "me")).flatten_all
        await world.start(limits=keeps)
        assert (await world.status()).flatten_all


async def test_a_resume_is_the_newest_word_also_when_a_halt_was_still_to_be_written(world):
    asked = ask(worst="55")
    await world.guard.reserve(asked)
    world.store.before["set_state"] = [AWAY]
    await world.guard.mark("host", [mark(asked, "-101", at=T0)])
    await world.guard.settle(end(asked, "-1"))
    told = await world.guard.command("resume", "seen", "me")
    assert (told.state, told.unwritten) == (RiskState.ACTIVE, 0), "the halt was written before it"
    await world.start()
    assert (await world.status()).state is RiskState.ACTIVE
