"""Two nodes, each with a shared memory of its own: one call carries all hosts of the other node."""

import asyncio
import time

import pytest

from arb_ray.actors.board_watch import BoardWatch
from arb_ray.actors.fan_out import FanOut
from arb_ray.actors.node_relay import NodeRelay
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.domain.book import ConnectionAlive, FundingUpdate
from arb_ray.domain.errors import OutcomeUnknown, PlaneUnavailable
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.market_view import MarketView
from tests.shell_world import Ends, Log
from tests.signal_market import F_ID, U_FAIR, U_ID, make_update, spot_pair

FEED = "feed:upbit@1"
ALLOWANCE_NS = 5_000_000


class Host:
    """A host process of the other node, as far as ticks go."""

    def __init__(self, world, name):
        self.name, self.born_ns = name, world.next_birth()
        self.ends = Ends()
        self.view = MarketView((spot_pair(),), transit_allowance_ns=ALLOWANCE_NS)
        self.boards = HostBoards(world.folder, name, "there", SystemClock(), Log())
        self.boards.watch(self.view.watched)
        self.relay = NodeRelay(
            node="there",
            clock=SystemClock(),
            make_board=lambda feed, epoch: FeedBoard(
                world.folder, f"{feed}.by.{name}", epoch, board_layout(4, 15)
            ),
            neighbours=self.boards.neighbours,
            transit_allowance_ns=ALLOWANCE_NS,
        )
        self.watch = BoardWatch(
            self.boards,
            SystemClock(),
            take=self.take,
            missed=self.view.note_missed,
            fail=self.ends.loops.fail,
            log=Log(),
        )
        self.alone = self.relayed = 0
        self.task = asyncio.get_running_loop().create_task(self.watch.run(self.born_ns))

    def take(self, batch):
        self.view.apply(batch, time.monotonic_ns(), "there")

    async def kill(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.relay.stop()
        assert self.ends.ended == []

    def seq(self, instrument):
        book = self.view.books.get(instrument)
        return book.seq if book else 0


class Sink:
    def __init__(self, world, name, *, is_relay):
        self.world, self.name, self.is_relay = world, name, is_relay

    async def deliver(self, batch):
        host = self.world.hosts.get(self.name)
        await asyncio.sleep(0.001)
        if host is None:
            raise OutcomeUnknown(self.name, 1)
        if not self.is_relay:
            host.alone += 1
            host.take(batch)
        else:
            host.relayed += 1
            if not host.relay.take(batch):
                raise PlaneUnavailable("no board")
        return host.born_ns


class World:
    def __init__(self, tmp_path):
        self.folder = segments.run_folder(tmp_path / "there", "run")
        self.folder.parent.parent.mkdir()
        self.births, self.seq, self.is_up = 0, 0, True
        self.hosts, self.books = {}, set()
        self.ends = Ends()
        self.fan_out = FanOut(
            feed=FEED,
            node="here",
            clock=SystemClock(),
            sink_for=lambda name: Sink(self, name, is_relay=False),
            relay_for=lambda name: Sink(self, name, is_relay=True),
            ask_neighbours=self.ask,
            min_interval_ms=1,
            heartbeat_ms=20,
            alive=lambda _: (ConnectionAlive(0, 0, self.is_up),),
            clock_estimate=lambda: ClockEstimate(1.5, 0.25, 0.25, 3),
            loops=self.ends.loops,
        )
        self.fan_out.begin(7, self.again)

    def next_birth(self):
        self.births += 1
        return self.births

    async def ask(self, name):
        if name not in self.hosts:
            raise OutcomeUnknown(name, 1)
        return list(self.hosts[name].boards.neighbours())

    def add(self, *names):
        for name in names:
            self.hosts[name] = Host(self, name)

    async def kill(self, name):
        await self.hosts.pop(name).kill()

    def again(self, instruments):
        return [self.update(one) for one in instruments if one in self.books]

    def update(self, instrument):
        self.seq += 1
        return make_update(instrument, self.seq, U_FAIR, epoch=7)

    def offer(self, instrument):
        self.books.add(instrument)
        update = self.update(instrument)
        self.fan_out.offer(update, time.monotonic_ns())
        return update.seq


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.fixture
async def world(tmp_path, monkeypatch):
    monkeypatch.setattr("arb_ray.actors.fan_out.ASK_S", 0.02)
    monkeypatch.setattr("arb_ray.actors.route.RETRY_S", 0.01)
    world = World(tmp_path)
    world.fan_out.start()
    yield world
    await world.fan_out.stop()
    for name in list(world.hosts):
        await world.kill(name)
    assert world.ends.ended == []
    assert not world.folder.exists(), "nothing is left in shared memory"


async def test_one_of_a_node_s_hosts_is_called_for_all_of_them(world):
    world.add("a", "b", "c")
    await world.fan_out.set_routes("v", {"a": [U_ID], "b": [U_ID, F_ID], "c": [F_ID]})
    await until(lambda: world.fan_out.plane == "relay")
    assert (world.fan_out.by_relay, world.fan_out.by_calls) == (3, 0)
    before = {name: host.alone for name, host in world.hosts.items()}
    for _ in range(50):
        seqs = world.offer(U_ID), world.offer(F_ID)
        await asyncio.sleep(0.001)
    for host in world.hosts.values():
        await until(lambda host=host: (host.seq(U_ID), host.seq(F_ID)) == seqs)
    assert before == {name: host.alone for name, host in world.hosts.items()}
    assert sum(host.relayed > 0 for host in world.hosts.values()) == 1


async def test_ages_include_the_way_here_and_cuts_arrive_at_once(world):
    world.add("a", "b")
    await world.fan_out.set_routes("v", {"a": [U_ID], "b": [U_ID]})
    await until(lambda: world.fan_out.plane == "relay")
    seq = world.offer(U_ID)
    hosts = list(world.hosts.values())
    for host in hosts:
        await until(lambda host=host: host.seq(U_ID) >= seq)
        book = host.view.books[U_ID]
        assert time.monotonic_ns() - book.recv_mono_ns >= ALLOWANCE_NS
        assert host.view.feeds[FEED].clock_offset_ms == 1.5
        assert book.connection.is_up
    world.is_up = False
    world.fan_out.hurry()
    for host in hosts:
        await until(lambda host=host: not host.view.books[U_ID].connection.is_up)
    world.is_up = True
    seq = world.offer(U_ID)
    for host in hosts:
        await until(lambda host=host: host.seq(U_ID) >= seq)
        assert host.view.books[U_ID].connection.is_up


async def test_when_the_relay_dies_another_host_takes_over_and_no_host_is_left_without(world):
    world.add("a", "b", "c")
    routes = {name: [U_ID] for name in "abc"}
    await world.fan_out.set_routes("v", routes)
    await until(lambda: world.fan_out.plane == "relay")
    await until(lambda: any(host.relayed for host in world.hosts.values()))
    (relay,) = (name for name, host in world.hosts.items() if host.relayed)
    await world.kill(relay)
    await until(lambda: world.fan_out.by_relay == 2)
    seq = world.offer(U_ID)
    for host in world.hosts.values():
        await until(lambda host=host: host.seq(U_ID) >= seq)
    world.add(relay)  # it starts again, and knows nothing
    await until(lambda: world.fan_out.by_relay == 3)
    await until(lambda: world.hosts[relay].seq(U_ID) >= seq)


async def test_a_host_that_is_alone_on_its_node_is_called_itself(world):
    world.add("a")
    await world.fan_out.set_routes("v", {"a": [U_ID]})
    seq = world.offer(U_ID)
    await until(lambda: world.hosts["a"].seq(U_ID) >= seq)
    await asyncio.sleep(0.1)
    assert world.fan_out.plane == "ray"


async def test_funding_is_relayed_and_another_epoch_begins_a_new_board(world):
    world.add("a", "b")
    relay = world.hosts["a"].relay
    batch = _batch(epoch=7, seq=1)
    assert relay.take(batch)
    await until(lambda: world.hosts["b"].seq(U_ID) == 1)
    assert world.hosts["b"].view.funding[U_ID].mark_price == 5.0
    assert relay.take(_batch(epoch=8, seq=1))
    await until(lambda: world.hosts["b"].view.books[U_ID].feed_epoch == 8)
    assert relay.take(batch)  # late, of the process before: nothing changes
    await asyncio.sleep(0.1)
    assert world.hosts["b"].view.books[U_ID].feed_epoch == 8
    assert relay.feeds == 1


async def test_a_batch_of_another_schema_is_refused(world):
    world.add("a", "b")
    assert not world.hosts["a"].relay.take(_batch(epoch=7, seq=1, schema=99))
    assert world.hosts["a"].relay.feeds == 0


def _batch(epoch, seq, schema=1):
    from arb_ray.domain.book import TickBatch

    return TickBatch(
        schema,
        FEED,
        epoch,
        "here",
        5,
        0.0,
        0.0,
        (ConnectionAlive(0, 0, True),),
        (make_update(U_ID, seq, U_FAIR, epoch=epoch),),
        (FundingUpdate(U_ID, 5.0, 0.0, 0, seq),),
    )
