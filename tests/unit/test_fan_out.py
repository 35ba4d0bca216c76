"""One feed, many hosts: one call in flight each, the newest wins, and none waits for another."""

import asyncio

import pytest

from arb_ray.actors import fan_out as module
from arb_ray.actors.fan_out import FanOut
from arb_ray.domain.book import ConnectionAlive
from arb_ray.domain.errors import OutcomeUnknown, PlaneUnavailable
from arb_ray.engine.clock_offset import ClockEstimate
from tests.shell_world import Ends
from tests.signal_market import F_ID, N_ID, U_FAIR, U_ID, make_update

HEARTBEAT_MS = 40


class LoopClock:
    def now_ns(self):
        return self.mono_ns()

    def mono_ns(self):
        return int(asyncio.get_running_loop().time() * 1e9)


class Host:
    """A sink: takes batches when its gate is open, under one birth stamp."""

    def __init__(self):
        self.batches, self.born_ns, self.error = [], 1, None
        self.under_way = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def deliver(self, batch):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            if self.error:
                raise self.error
            self.batches.append(batch)
            return self.born_ns
        finally:
            self.under_way -= 1

    @property
    def updates(self):
        return [(u.instrument, u.seq) for batch in self.batches for u in batch.updates]

    @property
    def newest(self):
        return dict(self.updates)


class World:
    def __init__(self):
        self.hosts = {}
        self.ends = Ends()
        self.seq = 0
        self.books = {}
        self.is_up = True
        self.fan_out = FanOut(
            feed="upbit",
            node="n",
            clock=LoopClock(),
            sink_for=lambda name: self.hosts.setdefault(name, Host()),
            min_interval_ms=0,
            heartbeat_ms=HEARTBEAT_MS,
            alive=lambda _: (ConnectionAlive(0, 0, self.is_up),),
            clock_estimate=lambda: ClockEstimate(1.5, 0.0, float("inf"), 0),
            loops=self.ends.loops,
        )
        self.fan_out.begin(1, self.again)

    def _update(self, instrument):
        self.seq += 1
        return make_update(instrument, self.seq, U_FAIR)

    def again(self, instruments):
        return [self._update(one) for one in instruments if one in self.books]

    def offer(self, instrument):
        self.books[instrument] = True
        update = self._update(instrument)
        self.fan_out.offer(update, LoopClock().mono_ns())
        return update.seq

    async def until(self, condition):
        for _ in range(3_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("it never happened")


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr("arb_ray.actors.route.RETRY_S", 0.005)
    world = World()
    yield world
    await world.fan_out.stop()
    assert world.ends.ended == []


async def test_each_host_is_given_what_it_wants_and_nothing_else(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID], "b": [U_ID, F_ID]})
    assert world.fan_out.instruments() == {U_ID, F_ID}
    world.offer(U_ID)
    world.offer(F_ID)
    world.offer(N_ID)
    await world.until(lambda: set(world.hosts["b"].newest) == {U_ID, F_ID})
    assert set(world.hosts["a"].newest) == {U_ID}
    assert world.fan_out.version == "v1"


async def test_while_a_call_is_in_flight_the_newest_wins_and_the_rest_is_counted(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID]})
    host = world.hosts["a"]
    await world.until(lambda: host.batches)
    host.gate.clear()
    first = world.offer(U_ID)
    await world.until(lambda: host.under_way)
    for _ in range(50):
        last = world.offer(U_ID)
    assert world.fan_out.pending == 1
    host.gate.set()
    await world.until(lambda: host.newest.get(U_ID, 0) >= last)
    assert host.most == 1
    sequence = [seq for _, seq in host.updates]
    assert sequence == sorted(set(sequence))
    assert first in sequence or world.fan_out.conflated >= 50
    assert world.fan_out.conflated >= 49


async def test_a_quiet_feed_sends_heartbeats(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID]})
    host = world.hosts["a"]
    await world.until(lambda: len(host.batches) >= 4)
    assert host.updates == []
    assert all(batch.alive[0].is_up for batch in host.batches)
    assert (host.batches[0].clock_offset_ms, host.batches[0].clock_skew_ms) == (1.5, 0.0)


async def test_a_host_that_starts_again_is_given_every_book(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID, F_ID]})
    host = world.hosts["a"]
    world.offer(U_ID)
    world.offer(F_ID)
    await world.until(lambda: set(host.newest) == {U_ID, F_ID})
    await world.until(lambda: not world.fan_out.pending)
    host.batches.clear()
    await world.until(lambda: len(host.batches) >= 2)
    assert host.updates == []
    host.born_ns = 2
    await world.until(lambda: set(host.newest) == {U_ID, F_ID})


async def test_a_failing_host_gets_what_it_missed_and_slows_nobody(world):
    await world.fan_out.set_routes("v1", {"dead": [U_ID], "well": [U_ID], "stuck": [U_ID]})
    dead, well, stuck = (world.hosts[name] for name in ("dead", "well", "stuck"))
    dead.error = OutcomeUnknown("deliver", 1)
    stuck.gate.clear()
    for _ in range(20):
        seq = world.offer(U_ID)
        await world.until(lambda seq=seq: well.newest.get(U_ID, 0) >= seq)
    assert dead.batches == stuck.batches == []
    dead.error = None
    stuck.gate.set()
    await world.until(lambda: dead.newest and dead.newest[U_ID] >= seq)
    await world.until(lambda: stuck.newest and stuck.newest[U_ID] >= seq)


async def test_what_a_failed_call_carried_is_sent_again(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID]})
    host = world.hosts["a"]
    world.offer(U_ID)
    await world.until(lambda: host.newest and not world.fan_out.pending)
    host.error = OutcomeUnknown("deliver", 1)
    seq = world.offer(U_ID)
    await world.until(lambda: world.fan_out._routes["a"].mailbox.counts.failed)
    host.error = None
    await world.until(lambda: host.newest[U_ID] >= seq)


async def test_a_cut_is_told_at_once_also_when_a_call_was_in_flight(world):
    world.fan_out._heartbeat_ms = 60_000  # far beyond the test's patience
    await world.fan_out.set_routes("v1", {"a": [U_ID]})
    host = world.hosts["a"]
    world.offer(U_ID)
    await world.until(lambda: host.newest and not world.fan_out.pending)
    await asyncio.sleep(0.01)
    host.gate.clear()
    world.offer(U_ID)
    await world.until(lambda: host.under_way)
    world.is_up = False
    world.fan_out.hurry()
    host.gate.set()
    await world.until(lambda: any(not one.is_up for b in host.batches for one in b.alive))


async def test_new_routes_end_old_ones_and_fill_the_new(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID], "b": [U_ID]})
    world.offer(U_ID)
    world.offer(F_ID)
    await world.until(lambda: world.hosts["b"].newest)
    await world.fan_out.set_routes("v2", {"b": [U_ID, F_ID]})
    assert set(world.ends.loops.names) == {"route:b"}
    await world.until(lambda: set(world.hosts["b"].newest) == {U_ID, F_ID})
    before = len(world.hosts["a"].batches)
    world.offer(U_ID)
    await asyncio.sleep(0.01)
    assert len(world.hosts["a"].batches) == before


async def test_a_stop_that_meets_a_ring_ends_all_the_same(world):
    await world.fan_out.set_routes("v1", {"a": [U_ID]})
    await world.until(lambda: world.hosts["a"].batches)
    for _ in range(20):
        await asyncio.sleep(0)
    world.offer(U_ID)
    await asyncio.sleep(0)  # the wait is over, its loop has not heard of it yet
    async with asyncio.timeout(0.4):
        await world.fan_out.stop()


class Board:
    """What of a node's shared memory a feed knows."""

    def __init__(self):
        self.reached, self.puts, self.pulses, self.rung = set(), [], [], []
        self.is_closed = False

    def reach(self, host):
        return "" if host in self.reached else f"{host} has no bell here"

    def leave(self, host):
        pass

    def put_pulse(self, pulse):
        self.pulses.append(pulse)

    def put_book(self, instrument, book):
        self.puts.append((instrument, book.seq, book.line))

    def put_funding(self, funding):
        self.puts.append(funding)

    def ring(self, hosts, now_mono_ns):
        self.rung.append(set(hosts))
        return False

    def ring_missed(self, now_mono_ns):
        return False

    def close(self):
        self.is_closed = True


@pytest.fixture
async def shared(monkeypatch):
    monkeypatch.setattr("arb_ray.actors.route.RETRY_S", 0.005)
    monkeypatch.setattr(module, "REACH_S", 0.01)
    world = World()
    world.board = Board()
    world.fan_out._make_board = lambda epoch: world.board
    world.fan_out.start()
    yield world
    await world.fan_out.stop()
    assert world.ends.ended == []
    assert world.board.is_closed


async def test_a_host_on_this_node_is_served_by_the_board_and_gets_no_call(shared):
    shared.board.reached = {"a"}
    shared.offer(U_ID)
    await shared.fan_out.set_routes("v1", {"a": [U_ID], "b": [U_ID]})
    assert (shared.fan_out.on_board, shared.fan_out.by_calls) == (1, 1)
    assert shared.fan_out.plane == "shm+ray"
    assert [put[0] for put in shared.board.puts] == [U_ID]  # the book that was there before
    seq = shared.offer(U_ID)
    shared.offer(F_ID)  # nobody wants it
    await shared.until(lambda: shared.hosts["b"].newest.get(U_ID, 0) >= seq)
    assert "a" not in shared.hosts
    assert shared.board.puts[-1] == (U_ID, seq, 0)
    await shared.until(lambda: {"a"} in shared.board.rung)
    assert shared.fan_out.sent >= 2


async def test_one_turn_s_books_are_rung_for_once(shared):
    shared.board.reached = {"a", "b"}
    await shared.fan_out.set_routes("v1", {"a": [U_ID], "b": [F_ID]})
    await asyncio.sleep(0.005)
    shared.board.rung.clear()
    for _ in range(10):
        shared.offer(U_ID)
        shared.offer(F_ID)
    await shared.until(lambda: shared.board.rung)
    assert shared.board.rung == [{"a", "b"}]


async def test_a_host_moves_to_the_board_when_it_comes_and_back_when_it_dies(shared):
    await shared.fan_out.set_routes("v1", {"a": [U_ID]})
    seq = shared.offer(U_ID)
    await shared.until(lambda: shared.hosts["a"].newest.get(U_ID, 0) >= seq)
    shared.board.reached = {"a"}
    await shared.until(lambda: shared.fan_out.plane == "shm")
    assert shared.board.puts[-1][0] == U_ID  # the newest book lies there at once
    sent = shared.fan_out.sent
    shared.board.reached = set()
    await shared.until(lambda: shared.fan_out.plane == "ray")
    seq = shared.offer(U_ID)
    await shared.until(lambda: shared.hosts["a"].newest.get(U_ID, 0) >= seq)
    assert shared.fan_out.sent >= sent


async def test_a_cut_lies_on_the_board_at_once_and_gives_the_connection_a_new_line(shared):
    shared.board.reached = {"a"}
    await shared.fan_out.set_routes("v1", {"a": [U_ID]})
    shared.offer(U_ID)
    shared.is_up = False
    shared.fan_out.hurry()
    (line,) = shared.board.pulses[-1].lines
    assert (line.life, line.is_up) == (1, False)
    shared.is_up = True
    seq = shared.offer(U_ID)
    assert shared.board.puts[-1] == (U_ID, seq, 65_536)


async def test_a_host_that_leaves_is_not_rung_and_its_instruments_are_written_no_more(shared):
    shared.board.reached = {"a", "b"}
    await shared.fan_out.set_routes("v1", {"a": [U_ID], "b": [F_ID]})
    await shared.fan_out.set_routes("v2", {"b": [F_ID]})
    before = len(shared.board.puts)
    shared.offer(U_ID)
    assert len(shared.board.puts) == before
    assert shared.fan_out.instruments() == {F_ID}


async def test_without_shared_memory_everything_goes_by_calls_and_says_why(world):
    def none(_):
        raise PlaneUnavailable("/dev/shm has no room for 2.0 MB")

    world.fan_out._make_board = none
    world.fan_out.start()
    await world.fan_out.set_routes("v1", {"a": [U_ID]})
    seq = world.offer(U_ID)
    await world.until(lambda: world.hosts["a"].newest.get(U_ID, 0) >= seq)
    assert world.fan_out.plane == "ray"
    assert "no room" in world.fan_out.plane_why
