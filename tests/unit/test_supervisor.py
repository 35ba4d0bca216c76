"""What runs becomes what is wanted: starts, stops, replaces, routes, drains."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from arb_ray.actors.supervisor import Supervisor, SupervisorTimes
from arb_ray.actors.wanted import WantedState
from arb_ray.actors.wire import pack
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.engine.pace import Pace
from arb_ray.engine.topology import Digests, Role, plan
from tests.shell_world import Counts, Ends, JumpClock, Log
from tests.status_examples import feed, host

TIMES = SupervisorTimes(
    reconcile_s=0.001,
    health_timeout_s=3.5,
    birth_timeout_s=8.0,
    drain_timeout_s=0.05,
    feed_overlap_s=0.02,
)
GROUPS = {"000": ("BTC",), "001": ("ETH",)}


def topology(config="c1", groups=GROUPS):
    """Hosts, the guard and the feed differ with ``config``."""
    digests = Digests(host=config, feeds={"upbit": config})
    return plan("s1", digests, groups=groups, venues=["upbit"], served=("BTC", "ETH"))


class Cluster:
    """A stand-in for Ray: actors are names, and each says what it was told to say."""

    def __init__(self):
        self.alive, self.silent = {}, set()
        self.calls, self.starts, self.stops = [], [], []
        self.routes = {}
        self.told = {}  # what an actor says instead of the usual
        self.links = self
        self.on_stop = None

    def start(self, wanted):
        if wanted.name not in self.alive:
            self.alive[wanted.name] = wanted
            self.starts.append(wanted.name)
            self.routes.pop(wanted.name, None)

    def present(self):
        return ("supervisor", *self.alive)

    async def stop(self, name):
        await asyncio.sleep(0)
        self.alive.pop(name, None)
        self.silent.discard(name)
        self.stops.append(name)
        if self.on_stop:
            await self.on_stop(name)

    def end(self, name):
        self.alive.pop(name, None)
        self.silent.discard(name)
        self.stops.append(name)

    async def call(self, name, method, *arguments, timeout_s):
        await asyncio.sleep(0)
        self.calls.append((name, method, *arguments))
        if name not in self.alive or name in self.silent:
            raise OutcomeUnknown(f"{name}.{method}", 1)
        wanted = self.alive[name]
        if method == "set_routes":
            self.routes[name] = arguments
        if method != "status":
            return 0
        if name in self.told:
            return self.told[name]
        if wanted.role is Role.HOST:
            return pack(host(list(wanted.symbols)))
        if wanted.role is Role.FEED:
            version = self.routes.get(name, ("",))[0]
            return pack(feed(wanted.key, routes=version))
        return {"ready": True}

    def methods(self, *wanted):
        return [call[:2] for call in self.calls if call[1] in wanted]


class Reference:
    def instruments(self, venue, symbols):
        return [f"{venue}:{symbol}" for symbol in symbols]

    async def pairs(self, symbols):
        return []

    async def opening(self):
        return []


class States:
    """The wanted state: the newest of those that a test has written."""

    def __init__(self, cluster):
        self.cluster, self.written, self.errors = cluster, [], []

    def write(self, wanted, *, is_stopped=False, flatten=False, reference=None):
        version = len(self.written) + 1
        self.written.append(
            WantedState(
                version, wanted, is_stopped, flatten, self.cluster, reference or Reference()
            )
        )

    async def newer(self, version):
        if self.errors:
            raise self.errors.pop(0)
        return self.written[-1] if self.written and len(self.written) > version else None

    async def close(self):
        pass


class World:
    def __init__(self, wanted=None):
        self.cluster = Cluster()
        self.topology = wanted or topology()
        self.states = States(self.cluster)
        self.states.write(self.topology)
        self.ends, self.log, self.metrics = Ends(), Log(), Counts()
        self.clock = JumpClock()
        self.supervisor = Supervisor(
            name="supervisor",
            wanted=self.states,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
            times=TIMES,
            loops=self.ends.loops,
        )

    async def turn(self, count=1):
        for _ in range(count):
            self.clock.now += 10**9
            await self.supervisor._adopt()
            if self.supervisor._must_stop():
                await self.supervisor._stop_all()
            elif not self.supervisor._is_draining:
                await self.supervisor._turn()
                await asyncio.sleep(0.005)

    def names(self, role):
        return [actor.name for actor in self.topology.of(role)]


@pytest.fixture
def world():
    return World()


async def test_what_is_missing_is_started_in_order_and_once(world):
    await world.turn(3)
    assert world.cluster.starts == [actor.name for actor in world.topology.actors]
    assert world.cluster.stops == []
    status = await world.supervisor.status()
    assert status.missing == []
    assert set(status.hosts) == set(world.names(Role.HOST))


async def test_survivors_are_adopted(world):
    await world.turn()
    second = World()
    second.cluster.alive = dict(world.cluster.alive)
    await second.turn()
    assert second.cluster.starts == []


async def test_what_is_not_wanted_stops_consumers_first():
    old = topology("old")
    world = World(topology("new"))
    for actor in old.actors:
        world.cluster.alive[actor.name] = actor
    await world.turn()
    await world.turn()
    roles = [name.split(":")[0] for name in world.cluster.stops]
    assert roles == ["host", "host", "feed"]
    assert set(world.cluster.alive) == {actor.name for actor in world.topology.actors}


async def test_an_actor_that_died_is_started_again(world):
    await world.turn()
    (risk,) = world.names(Role.RISK)
    del world.cluster.alive[risk]
    await world.turn()
    assert world.cluster.starts.count(risk) == 2


async def test_one_that_stays_silent_is_ended_and_started_again(world):
    await world.turn()
    (risk,) = world.names(Role.RISK)
    world.cluster.silent.add(risk)
    await world.turn(3)
    assert world.cluster.stops == []
    assert (await world.supervisor.status()).missing == [risk]
    assert world.metrics.gauges["actors_alive"] == len(world.topology.actors) - 1
    await world.turn()
    assert world.cluster.stops == [risk]
    assert world.cluster.starts.count(risk) == 2
    status = await world.supervisor.status()
    assert status.missing == []
    assert any(risk in error for error in status.errors)
    assert world.metrics.counters["actor_restarts"] == 1
    wanted = world.metrics.gauges["actors_wanted"]
    assert world.metrics.gauges["actors_alive"] == wanted == len(world.topology.actors)


async def test_a_replacement_has_all_the_time_of_a_birth(world):
    await world.turn()
    (risk,) = world.names(Role.RISK)
    start = world.cluster.start

    def starts_slowly(wanted):
        start(wanted)
        if wanted.name == risk:
            world.cluster.silent.add(risk)

    world.cluster.start = starts_slowly
    world.cluster.silent.add(risk)
    await world.turn(4)
    assert world.cluster.stops == [risk]
    await world.turn(7)
    assert world.cluster.stops == [risk]
    await world.turn(1)
    assert world.cluster.stops == [risk, risk]


async def test_one_that_answers_again_in_time_is_left_alone(world):
    await world.turn()
    (risk,) = world.names(Role.RISK)
    for _ in range(3):
        world.cluster.silent.add(risk)
        await world.turn(2)
        world.cluster.silent.discard(risk)
        await world.turn()
    assert world.cluster.stops == []


async def test_a_slow_birth_has_more_patience(world):
    (risk,) = world.names(Role.RISK)
    world.cluster.silent.add(risk)
    await world.turn(8)
    assert world.cluster.stops == []
    await world.turn()
    assert world.cluster.stops == [risk]


async def test_a_feed_is_told_its_hosts_until_it_says_that_it_knows(world):
    (name,) = world.names(Role.FEED)
    await world.turn()
    hosts = world.names(Role.HOST)
    assert world.cluster.routes[name] == (
        world.topology.version,
        {hosts[0]: ["upbit:BTC"], hosts[1]: ["upbit:ETH"]},
    )
    await world.turn(3)
    assert len(world.cluster.methods("set_routes")) == 1
    world.cluster.routes.clear()  # it was started again by Ray and knows nothing
    await world.turn(2)
    assert len(world.cluster.methods("set_routes")) == 2


async def test_the_status_tells_how_old_it_is(world):
    assert (await world.supervisor.status()).age_s is None
    await world.turn()
    assert (await world.supervisor.status()).age_s == 0
    world.supervisor._clock.now += 7 * 10**9
    assert (await world.supervisor.status()).age_s == 7


async def test_an_operator_s_command_goes_to_the_guard(world):
    await world.turn()
    await world.supervisor.command("halt", "lunch", "me")
    (risk,) = world.names(Role.RISK)
    assert (risk, "command", "halt", "lunch", "me") in world.cluster.calls


async def test_a_restarted_actor_is_told_of_and_its_counts_are_carried_on(world):
    (feed_name,) = world.names(Role.FEED)
    host_name = world.names(Role.HOST)[0]

    def say(born_ns, frames, decisions):
        told = msgspec.structs.replace(feed("upbit"), frames=frames, born_ns=born_ns)
        world.cluster.told[feed_name] = pack(told)
        told = msgspec.structs.replace(host(["BTC"]), decisions=decisions, born_ns=born_ns)
        world.cluster.told[host_name] = pack(told)

    for born_ns, frames, decisions in ((1, 100, 50), (1, 120, 60), (2, 5, 1), (2, 8, 3)):
        say(born_ns, frames, decisions)
        await world.turn()
    status = await world.supervisor.status()

    assert status.feeds[feed_name].frames == 128
    assert status.hosts[host_name].decisions == 63
    assert sorted(status.errors) == sorted(
        f"{name} ended unexpectedly and was started again" for name in (feed_name, host_name)
    )


async def test_a_guard_of_a_new_epoch_is_a_restart(world):
    (guard,) = world.names(Role.RISK)
    for epoch in (1, 1, 2):
        world.cluster.told[guard] = {"ready": True, "born_ns": epoch}
        await world.turn()

    assert (await world.supervisor.status()).errors == [
        f"{guard} ended unexpectedly and was started again"
    ]
    assert world.metrics.counters["actor_restarts"] == 1


async def test_nothing_is_started_before_the_wanted_state_was_read():
    world = World()
    world.states.errors = [StoreUnavailable("postgres", "away")]
    await world.supervisor._adopt()
    status = await world.supervisor.status()
    assert (status.deployment, status.wanted, world.cluster.starts) == (0, [], [])
    await world.turn()
    assert (await world.supervisor.status()).deployment == 1


async def test_what_was_wanted_last_is_kept_up_while_postgres_is_away(world):
    await world.turn()
    world.states.errors = [StoreUnavailable("postgres", "away")] * 2
    (risk,) = world.names(Role.RISK)
    del world.cluster.alive[risk]
    await world.turn(2)
    assert risk in world.cluster.alive


async def test_actors_are_watched_while_postgres_hangs(world):
    await world.turn()
    hangs = asyncio.Event()

    async def newer(version):
        await hangs.wait()

    world.states.newer = newer
    world.supervisor._times = replace(TIMES, patience_s=0.01)
    (risk,) = world.names(Role.RISK)
    world.cluster.silent.add(risk)
    await world.turn(5)
    assert world.cluster.starts.count(risk) == 2
    await world.supervisor.stop()


async def test_passes_go_on_while_persistence_hangs(world):
    call = world.cluster.call

    async def hangs(name, method, *arguments, timeout_s):
        if method == "put":
            await asyncio.Event().wait()
        return await call(name, method, *arguments, timeout_s=timeout_s)

    world.cluster.call = hangs
    world.supervisor.start()
    await asyncio.sleep(0.1)
    (risk,) = world.names(Role.RISK)
    del world.cluster.alive[risk]
    await asyncio.sleep(0.1)
    assert risk in world.cluster.alive
    await world.supervisor.stop()
    assert world.ends.ended == []


async def test_a_pass_is_due_when_a_silence_has_lasted_too_long(world):
    await world.turn()
    assert world.supervisor._overdue_in_s() > 1
    (risk,) = world.names(Role.RISK)
    world.cluster.silent.add(risk)
    await world.turn(3)
    assert world.supervisor._overdue_in_s() == 0.5


async def test_news_bring_the_next_pass_forward(world):
    world.supervisor._times = replace(TIMES, reconcile_s=60.0, pause_s=0.001)
    world.supervisor._pace = Pace(60.0, 60.0, 1.0)
    pause = asyncio.create_task(world.supervisor._pause())
    await asyncio.sleep(0.02)
    assert not pause.done()
    world.supervisor._asking.news.set()
    await asyncio.wait_for(pause, 5.0)
    assert not world.supervisor._asking.news.is_set()


async def test_a_supervisor_that_was_frozen_itself_replaces_nobody(world):
    await world.turn()
    (risk,) = world.names(Role.RISK)
    world.cluster.silent.add(risk)
    await world.turn()
    world.clock.now += 60 * 10**9
    world.cluster.silent.discard(risk)
    await world.turn(2)
    assert world.cluster.stops == []


async def test_a_new_state_leaves_alone_what_stays_the_same(world):
    await world.turn()
    before = set(world.cluster.alive)
    world.cluster.starts.clear()
    world.states.write(topology(groups={"000": ("BTC",), "001": ("ETH", "XRP")}))
    await world.turn(2)
    roles = {name.split("@")[0] for name in world.cluster.starts}
    assert roles == {"host:001", "feed:upbit"}
    assert {name.split("@")[0] for name in before - set(world.cluster.alive)} == roles
    status = await world.supervisor.status()
    assert status.deployment == 2
    assert set(status.hosts) == {name for name in world.cluster.alive if name.startswith("host")}


async def test_a_host_that_is_replaced_is_drained_and_not_flattened(world):
    await world.turn()
    old = world.names(Role.HOST)
    world.states.write(topology("c2"))
    await world.turn()
    drains = [call[:3] for call in world.cluster.calls if call[1] == "drain"]
    assert sorted(drains) == [(name, "drain", False) for name in sorted(old)]
    assert set(old) <= set(world.cluster.stops)


async def test_a_feed_goes_on_until_its_successor_is_ready(world):
    await world.turn()
    (old,) = world.names(Role.FEED)
    world.supervisor._times = replace(TIMES, feed_overlap_s=60.0)
    wanted = topology("c2")
    (new,) = [actor.name for actor in wanted.of(Role.FEED)]
    world.cluster.told[new] = pack(msgspec.structs.replace(feed("upbit"), ready=False))
    world.states.write(wanted)
    await world.turn(3)
    assert {old, new} <= set(world.cluster.alive)
    world.cluster.told[new] = pack(msgspec.structs.replace(feed("upbit"), ready=True))
    await world.turn(2)
    assert old not in world.cluster.alive
    assert world.cluster.stops[-1] == old


async def test_a_feed_whose_successor_never_comes_is_ended_after_a_while(world):
    await world.turn()
    (old,) = world.names(Role.FEED)
    wanted = topology("c2")
    (new,) = [actor.name for actor in wanted.of(Role.FEED)]
    world.cluster.told[new] = pack(msgspec.structs.replace(feed("upbit"), ready=False))
    world.states.write(wanted)
    await world.turn()
    assert old in world.cluster.alive
    await asyncio.sleep(TIMES.feed_overlap_s * 2)
    await world.turn()
    assert old not in world.cluster.alive


async def test_a_venue_that_is_not_wanted_any_more_has_no_overlap(world):
    await world.turn()
    (old,) = world.names(Role.FEED)
    wanted = plan("s1", Digests(host="c1"), groups=GROUPS, venues=(), served=("BTC", "ETH"))
    world.states.write(wanted)
    await world.turn()
    assert old not in world.cluster.alive


async def test_supervision_and_a_stop_go_on_while_a_venue_tells_no_prices():
    world = World()
    is_asked = asyncio.Event()

    class Silent(Reference):
        async def opening(self):
            is_asked.set()
            await asyncio.Event().wait()

    world.states.written.clear()
    world.states.write(world.topology, reference=Silent())
    world.supervisor.start()
    await is_asked.wait()
    asked = len(world.cluster.calls)
    await asyncio.sleep(0.05)
    assert len(world.cluster.calls) > asked
    last = await world.supervisor.drain(False)
    assert last.errors == []
    await world.supervisor.stop()
    assert world.ends.ended == []


async def test_new_markets_get_their_opening_balances_once_a_version(world):
    await world.turn(3)
    opened = world.cluster.methods("open_markets")
    assert opened == [(world.names(Role.RISK)[0], "open_markets")]
    world.states.write(topology("c2"))
    await world.turn(3)
    assert len(world.cluster.methods("open_markets")) == 2


async def test_opening_balances_are_tried_again_until_they_are_there(world):
    call, tries = world.cluster.call, []

    async def refuses(who, method, *arguments, timeout_s):
        if method == "open_markets":
            tries.append(who)
            if len(tries) < 3:
                raise OutcomeUnknown("open_markets", 1)
        return await call(who, method, *arguments, timeout_s=timeout_s)

    world.cluster.call = refuses
    await world.turn(5)
    assert len(tries) == 3


async def test_who_does_not_do_all_its_work_yet_is_asked_again_soon(world):
    """The calm pace here is a minute: without haste the second answer would not be asked for."""
    world.supervisor = Supervisor(
        name="supervisor",
        wanted=world.states,
        clock=world.clock,
        metrics=world.metrics,
        log=world.log,
        times=replace(TIMES, reconcile_s=60.0, hurried_s=0.005, pause_s=0.001),
        loops=world.ends.loops,
    )
    (name, *_) = world.names(Role.HOST)
    usual = host(["BTC"], live=["BTC"])
    world.cluster.told[name] = pack(replace(usual, live=[]))
    world.supervisor.start()
    await asyncio.sleep(0.5)
    assert len(world.cluster.methods("status")) > 10 * len(world.topology.actors)
    world.cluster.told[name] = pack(usual)
    await asyncio.sleep(0.2)
    assert (await world.supervisor.status()).hosts[name].live == ["BTC"]
    asked = len(world.cluster.calls)
    await asyncio.sleep(0.1)
    assert len(world.cluster.calls) == asked  # all is well: nobody is asked before a minute is over
    await world.supervisor.stop()


async def test_who_is_silent_does_not_do_its_work_whatever_it_said_before(world):
    (risk,) = world.names(Role.RISK)
    await world.turn(3)
    assert risk not in dict(world.supervisor._lacking())
    world.cluster.silent.add(risk)
    await world.turn()
    assert dict(world.supervisor._lacking())[risk] == "silent"
