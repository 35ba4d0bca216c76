"""The feed's shell: obeys its protocol object, keeps the newest books, tells cuts at once."""

import asyncio

import pytest

from arb_ray.actors import feed as module
from arb_ray.actors.fan_out import FanOut
from arb_ray.actors.feed import Feed, PlanHandler
from arb_ray.actors.feed_metrics import FeedMetrics
from arb_ray.actors.wire import unpack
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.adapters.transport.connection_policy import Counters
from arb_ray.domain.book import ConnectionAlive
from arb_ray.domain.errors import VenueUnreachable
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.feed import (
    NOTHING,
    BookChange,
    ConnectionPlan,
    FeedCounters,
    FeedOutput,
    FetchSnapshot,
    Resubscribe,
    Rotate,
)
from arb_ray.engine.status import FeedStatus
from arb_ray.engine.topology import Role
from tests.shell_world import Counts, Ends, JumpClock, Log
from tests.signal_market import F_ID, T0, U_FAIR, U_ID
from tests.unit.test_fan_out import Host

PLANS = (
    ConnectionPlan(0, "public-0", "ws://x", ("KRW-ETH",), 30.0, None, 5),
    ConnectionPlan(1, "public-1", "ws://x", ("KRW-USDT",), 30.0, None, 5),
)


def change(instrument=U_ID, plan=0, sides=U_FAIR, recv_ns=T0):
    return BookChange(instrument, plan, 0, recv_ns, recv_ns, *sides)


class Protocol:
    """A venue's protocol object that answers with what a test left."""

    def __init__(self):
        self.counters = FeedCounters()
        self.answers, self.told = [], []
        self.is_up = {}

    def _answer(self, *told):
        self.told.append(told)
        answer = self.answers.pop(0) if self.answers else NOTHING
        if isinstance(answer, Exception):
            raise answer
        return answer

    def plans(self):
        return PLANS

    def subscribe_messages(self, plan):
        return (f"ticket-{plan}", f"codes-{plan}")

    def on_connected(self, plan, connection, now_ns):
        self.is_up[plan] = True
        return self._answer("connected", plan, connection)

    def on_frame(self, plan, connection, raw, recv_wall_ns, recv_mono_ns):
        self.counters.frames += 1
        return self._answer("frame", plan, raw)

    def whole_book_of(self, raw):
        return raw.partition(b"#")[0] if b"#" in raw else None

    def on_alive(self, plan, connection, now_ns):
        self.told.append(("alive", plan))

    def on_disconnected(self, plan, connection, now_ns):
        self.is_up[plan] = False
        return self._answer("disconnected", plan, connection)

    def on_snapshot(self, venue_symbol, raw, recv_wall_ns, recv_mono_ns):
        return self._answer("snapshot", venue_symbol, raw)

    def on_snapshot_failed(self, venue_symbol, now_ns):
        self.told.append(("snapshot_failed", venue_symbol))

    def on_tick(self, now_ns):
        return NOTHING

    def alive(self, now_ns):
        return tuple(ConnectionAlive(p.plan, 0, self.is_up.get(p.plan, False)) for p in PLANS)

    def silent(self, now_ns):
        return ()

    def clock(self):
        return ClockEstimate(0.0, 0.0, float("inf"), 0)


class Connection:
    def __init__(self, number):
        self.id, self.sent = number, []

    def send(self, text):
        self.sent.append(text)


class Socket:
    def __init__(self):
        self.counters = Counters(reconnects=2)
        self.connections, self.rotated, self.is_stopped = (), [], False

    async def run(self):
        await asyncio.Event().wait()

    def stop(self):
        self.is_stopped = True

    def request_rotation(self, connection):
        self.rotated.append(connection)


class Recorder:
    def __init__(self):
        self.lines, self.is_closed = [], False

    def frame(self, recv_ns, raw):
        self.lines.append(("frame", raw))

    def sent(self, at_ns, raw):
        self.lines.append(("sent", raw))

    def flush(self):
        pass

    def close(self):
        self.is_closed = True


class Loss:
    reason, detail = "closed", "by the venue"


class World:
    def __init__(self):
        self.protocol, self.clock, self.recorder = Protocol(), JumpClock(), Recorder()
        self.ends, self.log, self.metrics = Ends(), Log(), Counts()
        self.sockets, self.handlers, self.hosts = {}, {}, {}
        self.snapshots = []
        self.is_rest_closed = False
        fan_out = FanOut(
            feed="upbit",
            node="n",
            clock=self.clock,
            sink_for=lambda name: self.hosts.setdefault(name, Host()),
            min_interval_ms=0,
            heartbeat_ms=60_000,  # nothing is told by a heartbeat here
            alive=self.protocol.alive,
            clock_estimate=self.protocol.clock,
            loops=self.ends.loops,
        )

        def make_socket(plan, handler):
            assert isinstance(handler, PlanHandler)
            self.handlers[plan.plan] = handler
            return self.sockets.setdefault(plan.plan, Socket())

        class Fetch:
            used_ratio = 0.25

            async def __call__(fetch, venue_symbol):  # noqa: N805  (self is the world)
                await asyncio.sleep(0)
                answer = self.snapshots.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return answer

        async def close_rest():
            self.is_rest_closed = True

        self.feed = Feed(
            venue="upbit",
            venue_feed=self.protocol,
            make_socket=make_socket,
            fetch_snapshot=Fetch(),
            fan_out=fan_out,
            recorder=self.recorder,
            close_rest=close_rest,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
            rss_mb=lambda: 1.0,
            loops=self.ends.loops,
        )

    def connect(self, plan=0, number=1):
        connection = Connection(number)
        self.sockets[plan].connections += (connection,)
        self.handlers[plan].on_connected(connection)
        return connection

    async def frame(self, *books, effects=(), plan=0, connection=None):
        self.protocol.answers.append(FeedOutput(books, (), tuple(effects)))
        self.read(b"raw", plan, connection)
        await asyncio.sleep(0)  # the turn of the loop that read it ends

    def read(self, raw, plan=0, connection=None):
        self.handlers[plan].on_frame(connection or Connection(1), raw, T0, T0)

    async def status(self):
        return unpack(await self.feed.status(), FeedStatus)

    async def until(self, condition):
        for _ in range(3_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("it never happened")


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr(module, "TICK_INTERVAL_S", 0.001)
    monkeypatch.setattr(module, "METRICS_INTERVAL_S", 0.001)
    world = World()
    world.feed.start()
    yield world
    await world.feed.stop()


async def test_every_connection_subscribes_in_full_each_time(world):
    for number in (1, 2):
        assert world.connect(0, number).sent == ["ticket-0", "codes-0"]
    assert world.connect(1).sent == ["ticket-1", "codes-1"]
    numbers = [told[2] for told in world.protocol.told if told[0] == "connected"]
    assert len(set(numbers)) == 3  # also where two transports count alike


async def test_a_feed_says_what_it_waits_for(world):
    assert (await world.status()).why == "no connection"
    world.connect(0)
    world.connect(1)
    assert (await world.status()).why == "no routes yet"
    await world.feed.set_routes("v1", {"a": [U_ID, F_ID]})
    await world.frame(change())
    status = await world.status()
    assert not status.ready
    assert F_ID in status.why
    await world.frame(change(F_ID, 1), plan=1)
    status = await world.status()
    assert (status.ready, status.why, status.routes, status.book_updates) == (True, "", "v1", 2)
    assert status.reconnects == 4


async def test_books_reach_the_hosts_with_their_age(world):
    world.connect(0)
    await world.feed.set_routes("v1", {"a": [U_ID]})
    world.clock.now += 7
    await world.frame(change())
    await world.until(lambda: world.hosts["a"].newest)
    update = next(u for batch in world.hosts["a"].batches for u in batch.updates)
    assert (update.instrument, update.recv_ns, update.age_ns) == (U_ID, T0, 7)
    assert world.recorder.lines == [("frame", b"raw")]


async def test_a_host_that_comes_later_is_given_the_whole_picture(world):
    world.connect(0)
    await world.frame(change(), change(F_ID))
    await world.feed.set_routes("v1", {"late": [U_ID, F_ID]})
    await world.until(lambda: set(world.hosts["late"].newest) == {U_ID, F_ID})


async def test_a_cut_is_told_at_once_and_its_recovery_is_timed(world):
    connection = world.connect(0)
    await world.feed.set_routes("v1", {"a": [U_ID]})
    await world.frame(change())
    await world.until(lambda: world.hosts["a"].newest)
    world.handlers[0].on_disconnected(connection, Loss)
    assert "no connection" in (await world.status()).why
    await world.until(
        lambda: any(not one.is_up for b in world.hosts["a"].batches[1:] for one in b.alive)
    )
    world.clock.now += 250_000_000
    world.connect(0, 2)
    await world.frame(change(recv_ns=world.clock.now))
    assert (await world.status()).reconnect_ms_max == 250.0


async def test_snapshots_are_fetched_and_failures_told(world):
    world.connect(0)
    world.snapshots = [b"book", VenueUnreachable("upbit", "no route")]
    await world.frame(effects=[FetchSnapshot("A")])
    await world.until(lambda: ("snapshot", "A", b"book") in world.protocol.told)
    await world.frame(effects=[FetchSnapshot("B")])
    await world.until(lambda: ("snapshot_failed", "B") in world.protocol.told)
    assert world.ends.ended == []


async def test_orders_to_rotate_and_resubscribe_reach_the_right_connection(world):
    first, second = world.connect(0, 1), world.connect(0, 2)
    number = world.protocol.told[-1][2]
    await world.frame(effects=[Rotate(0, number, "old"), Resubscribe(0, number, ("again",), "dry")])
    assert world.sockets[0].rotated == [second]
    assert (first.sent[-1], second.sent[-1]) == ("codes-0", "again")


async def test_a_bug_in_a_snapshot_ends_the_process(world):
    world.connect(0)
    world.snapshots = [b"book"]
    await world.frame(effects=[FetchSnapshot("A")])
    world.protocol.answers.append(ValueError("bug"))
    await world.until(lambda: world.ends.ended)
    ((name, error),) = world.ends.ended
    assert (name, type(error)) == ("tick", ValueError)


async def test_metrics_tell_of_now_and_of_what_was_added(world):
    counters, gauges = world.metrics.counters, world.metrics.gauges
    world.connect(0)
    await world.feed.set_routes("v1", {"a": [U_ID, F_ID], "b": [U_ID]})
    await world.frame(change())
    world.protocol.counters.gaps = 3
    world.protocol.counters.unknown["odd"] = 2
    world.sockets[0].counters.bytes = 70
    await world.until(lambda: counters["frame_bytes"] == 70 and counters["batches_sent"] >= 2)
    await world.until(lambda: gauges["queue_depth_count"] == 0)  # the hosts' first calls are slow
    assert (counters["frames"], counters["book_updates"], counters["ws_reconnects"]) == (1, 1, 4)
    assert (counters["book_gaps"], counters["frames_unknown"]) == (3, 2)
    assert (gauges["ws_connected"], gauges["symbols_stale"]) == (1, 1)
    assert gauges["rest_weight_used_ratio"] == 0.25
    assert "clock_offset_ms" not in gauges  # nothing dated has come
    await world.until(lambda: all(world.hosts[name].newest for name in "ab"))
    sent = (await world.status()).sent
    await world.feed.set_routes("v2", {"a": [U_ID]})  # the counts of a host that left stay
    await world.frame(change())
    await world.until(lambda: counters["book_updates"] == 2)
    assert (await world.status()).sent >= sent >= 2
    assert world.ends.ended == []


async def test_every_metric_of_a_feed_is_declared(world):
    metrics = PrometheusMetrics(Role.FEED, "upbit")
    figures = FeedMetrics(metrics, "upbit")
    figures.connections(world.protocol.alive(0))
    figures.sockets([Counters(reconnects=1), Counters(reconnects=2)])
    figures.protocol(FeedCounters(), 5)
    figures.books(stale=1, silent=2, rest_used_ratio=0.5)
    figures.clock(ClockEstimate(7.0, 1.0, 1.0, 9))
    text = metrics.exposition().decode()
    assert 'arb_ws_reconnects_total{actor="feed:upbit",venue="upbit"} 3.0' in text
    assert 'arb_ws_alarms_total{actor="feed:upbit",venue="upbit"} 0.0' in text, "before its first"
    assert 'arb_clock_offset_ms{actor="feed:upbit",venue="upbit"} 7.0' in text


async def test_stopping_closes_everything(world):
    await world.feed.stop()
    assert all(socket.is_stopped for socket in world.sockets.values())
    assert world.is_rest_closed
    assert world.recorder.is_closed
    assert world.ends.loops.names == ()
    assert world.ends.ended == []


async def test_of_what_one_turn_reads_only_the_newest_of_a_book_is_worked_off(world):
    world.connect(0)
    await world.feed.set_routes("v1", {"a": [U_ID]})
    await world.frame(change())
    await world.until(lambda: world.hosts["a"].newest)
    before = world.feed._seq[U_ID]
    world.protocol.answers = [NOTHING, FeedOutput((change(),))]
    for raw in (b"eth#1", b"diff", b"eth#2", b"eth#3"):
        world.read(raw)
    told = [one[2] for one in world.protocol.told if one[0] == "frame"]
    assert told == [b"raw"], "nothing is parsed before the turn ends"
    await asyncio.sleep(0)
    told = [one[2] for one in world.protocol.told if one[0] == "frame"]
    assert told == [b"raw", b"diff", b"eth#3"]
    status = await world.status()
    assert (status.frames, status.frames_conflated) == (5, 2)
    assert world.feed._seq[U_ID] == before + 3, "what was overwritten has used its numbers"
    await world.until(lambda: world.hosts["a"].newest.get(U_ID) >= before + 3)


async def test_what_came_before_a_cut_is_worked_off_before_it(world):
    connection = world.connect(0)
    world.read(b"eth#1")
    world.handlers[0].on_disconnected(connection, Loss)
    assert [one[0] for one in world.protocol.told[-2:]] == ["frame", "disconnected"]


async def test_a_bug_in_working_off_ends_the_process(world):
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    world.connect(0)
    world.protocol.answers = [AssertionError("a bug")]
    world.read(b"eth#1")
    await asyncio.sleep(0)
    assert [name for name, _ in world.ends.ended] == ["frames"]
    world.ends.ended.clear()


async def test_more_than_can_be_worked_off_is_told_once_and_when_it_is_over(world):
    world.connect(0)

    async def second(frames):
        for _ in range(frames):
            world.read(b"eth#1")
        await asyncio.sleep(0.003)
        world.clock.now += 1_000_000_000

    for _ in range(20):
        await second(200)
    status = await world.status()
    assert "looked at in time" in status.overloaded
    for _ in range(40):
        await second(0)
    assert (await world.status()).overloaded == ""
    told = [event for event in world.log.events if event.startswith("overload")]
    assert told == ["overloaded", "overload_over"]
