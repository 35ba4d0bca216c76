"""What is stopped is drained first, in reverse order, and a stop that was broken off goes on."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from arb_ray.actors.wire import pack
from arb_ray.domain.errors import BadInput, OutcomeUnknown
from arb_ray.engine.topology import Role
from tests.status_examples import host
from tests.unit.test_supervisor import TIMES, World, topology


@pytest.fixture
def world():
    return World()


async def test_draining_finishes_trades_flushes_and_stops_in_reverse(world):
    await world.turn()
    last = await world.supervisor.drain(True)
    assert last.draining
    assert set(last.hosts) == set(world.names(Role.HOST))
    drains = [call for call in world.cluster.calls if call[1] == "drain"]
    assert [call[:3] for call in drains] == [
        (name, "drain", True) for name in world.names(Role.HOST)
    ]
    methods = [method for _, method, *_ in world.cluster.calls]
    assert methods.index("drain") < methods.index("flush")
    roles = [name.split(":")[0] for name in world.cluster.stops]
    assert roles == ["gateway", "feed", "host", "host", "risk", "persistence", "source"]
    assert world.cluster.alive == {}


async def test_a_host_that_cannot_be_drained_is_told_of_and_stopped_all_the_same(world):
    await world.turn()
    name = world.names(Role.HOST)[0]
    world.cluster.silent.add(name)
    last = await world.supervisor.drain(False)
    assert any(name in error for error in last.errors)
    assert world.cluster.alive == {}


async def test_a_host_that_dies_while_it_is_drained_is_drained_again(world):
    world.supervisor._times = replace(TIMES, drain_timeout_s=30.0)
    await world.turn()
    name = world.names(Role.HOST)[0]
    call, drains = world.cluster.call, []

    async def dies_twice(who, method, *arguments, timeout_s):
        if (who, method) == (name, "drain"):
            drains.append((arguments, timeout_s))
            if len(drains) <= 2:
                raise OutcomeUnknown(f"{who}.{method}", 1)
        return await call(who, method, *arguments, timeout_s=timeout_s)

    world.cluster.call = dies_twice
    last = await world.supervisor.drain(True)
    assert len(drains) == 3
    assert last.errors == []
    left = [arguments[1] for arguments, _ in drains]
    assert left[0] > left[1] > left[2] > 0  # one deadline for all tries


async def test_what_a_host_refuses_is_not_asked_again(world):
    await world.turn()
    name = world.names(Role.HOST)[0]
    call, drains = world.cluster.call, []

    async def refuses(who, method, *arguments, timeout_s):
        if (who, method) == (name, "drain"):
            drains.append(who)
            raise BadInput("drain", "no", "Mend it")
        return await call(who, method, *arguments, timeout_s=timeout_s)

    world.cluster.call = refuses
    last = await world.supervisor.drain(True)
    assert drains == [name]
    assert len(last.errors) == 1


async def test_nothing_is_started_once_a_drain_has_begun():
    relic = topology("old").of(Role.HOST)[0]
    world = World()
    world.cluster.alive[relic.name] = relic
    drains, has_begun = [], asyncio.Event()

    async def drain_meanwhile(name):
        if not drains:
            drains.append(asyncio.create_task(world.supervisor.drain(False)))
            has_begun.set()
            await asyncio.sleep(0.01)

    world.cluster.on_stop = drain_meanwhile
    world.supervisor.start()
    await has_begun.wait()
    await drains[0]
    await asyncio.sleep(0.02)
    assert world.cluster.alive == {}
    await world.supervisor.stop()
    assert world.ends.ended == []


async def test_a_stopped_state_is_carried_out_by_the_supervisor_itself(world):
    await world.turn()
    world.states.write(world.topology, is_stopped=True, flatten=True)
    await world.turn()
    drains = [call[:3] for call in world.cluster.calls if call[1] == "drain"]
    assert drains == [(name, "drain", True) for name in world.names(Role.HOST)]
    assert world.cluster.alive == {}
    status = await world.supervisor.status()
    assert (status.draining, status.deployment, status.stopped) == (True, 2, 2)
    assert status.stop_errors == []
    await world.turn(3)
    assert len([call for call in world.cluster.calls if call[1] == "drain"]) == 2


async def test_what_is_wanted_after_a_stop_is_started_and_left_running(world):
    await world.turn()
    world.states.write(world.topology, is_stopped=True)
    await world.turn()
    last = msgspec.structs.replace(host(["BTC"]), draining=True)
    world.supervisor._told.hosts[world.names(Role.HOST)[0]] = last
    world.cluster.starts.clear()
    world.cluster.stops.clear()
    world.states.write(world.topology)
    world.cluster.silent.update(world.names(Role.HOST))  # processes take a while to answer
    await world.turn(2)
    world.cluster.silent.clear()
    await world.turn()
    assert world.cluster.starts == [actor.name for actor in world.topology.actors]
    assert world.cluster.stops == []
    assert (await world.supervisor.status()).missing == []


async def test_a_stop_that_was_broken_off_is_taken_up_by_the_next_supervisor(world):
    await world.turn()
    world.states.write(world.topology, is_stopped=True)
    second = World()
    second.cluster.alive = dict(world.cluster.alive)
    second.states.written = [
        msgspec.structs.replace(state, cluster=second.cluster) for state in world.states.written
    ]
    await second.turn()
    assert second.cluster.alive == {}
    assert (await second.supervisor.status()).stopped == 2


async def test_hosts_that_a_broken_stop_has_drained_are_replaced(world):
    await world.turn()
    name = world.names(Role.HOST)[0]
    drained = msgspec.structs.replace(host(["BTC"]), draining=True)
    world.cluster.told[name] = pack(drained)
    await world.turn()
    assert world.cluster.stops == []
    world.cluster.on_stop = lambda stopped: asyncio.sleep(0, world.cluster.told.pop(stopped, None))
    await world.turn()
    assert world.cluster.stops == [name]
    assert world.cluster.starts.count(name) == 2
    await world.turn(2)
    assert world.cluster.stops == [name]


async def test_a_stop_drains_the_hosts_that_really_run(world):
    await world.turn()
    running = world.names(Role.HOST)
    world.states.write(topology("c2"))  # never carried out
    world.states.write(topology("c2"), is_stopped=True)
    await world.turn()
    drained = {call[0] for call in world.cluster.calls if call[1] == "drain"}
    assert set(running) <= drained
    assert world.cluster.alive == {}


async def test_positions_that_a_flatten_leaves_open_are_an_error_and_kept_ones_are_none():
    for flatten in (True, False):
        world = World()
        await world.turn()
        call = world.cluster.call

        async def keeps_three(who, method, *arguments, timeout_s, call=call):
            said = await call(who, method, *arguments, timeout_s=timeout_s)
            return 3 if method == "drain" else said

        world.cluster.call = keeps_three
        errors = (await world.supervisor.drain(flatten)).errors
        assert ["3 positions" in error for error in errors] == ([True, True] if flatten else [])


async def test_a_stop_tells_of_its_own_errors_and_not_of_last_week_s(world):
    (guard,) = world.names(Role.RISK)
    for epoch in (1, 2):
        world.cluster.told[guard] = {"ready": True, "born_ns": epoch}
        await world.turn()
    world.states.write(world.topology, is_stopped=True)
    await world.turn()
    status = await world.supervisor.status()
    assert len(status.errors) == 1
    assert status.stop_errors == []


async def test_a_drained_host_that_is_born_again_is_drained_again(world):
    await world.turn()
    first, second = world.names(Role.HOST)
    call, drained, may_end = world.cluster.call, [], asyncio.Event()
    born = {first: 1, second: 1}

    async def one_crashes(who, method, *arguments, timeout_s):
        if method == "status" and who in born:
            return pack(msgspec.structs.replace(host(["BTC"]), born_ns=born[who]))
        if method == "drain":
            drained.append(who)
            if who == second:
                born[first] = 2
                await may_end.wait()
            if drained.count(first) == 2:
                may_end.set()
        return await call(who, method, *arguments, timeout_s=timeout_s)

    world.cluster.call = one_crashes
    world.supervisor._times = replace(TIMES, drain_timeout_s=5.0)
    await world.turn()
    await world.supervisor.drain(True)
    assert drained.count(first) == 2


async def test_a_feed_that_is_reborn_while_positions_are_closed_is_told_its_hosts_again(world):
    await world.turn()
    (feed_name,) = world.names(Role.FEED)
    call, is_told = world.cluster.call, asyncio.Event()
    world.cluster.routes.clear()
    world.cluster.calls.clear()

    async def closes_once_there_are_books(who, method, *arguments, timeout_s):
        if method == "drain":
            await asyncio.wait_for(is_told.wait(), 5)
        if method == "set_routes":
            is_told.set()
        return await call(who, method, *arguments, timeout_s=timeout_s)

    world.cluster.call = closes_once_there_are_books
    last = await world.supervisor.drain(True)
    assert world.cluster.methods("set_routes") == [(feed_name, "set_routes")]
    assert last.errors == []
