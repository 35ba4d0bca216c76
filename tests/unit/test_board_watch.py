"""A host's watch: it looks until nothing is new, sleeps only then, and goes on without a board."""

import asyncio
import os

import pytest

from arb_ray.actors import board_watch as module
from arb_ray.actors.board_watch import BoardWatch
from arb_ray.adapters.clock import SystemClock
from arb_ray.domain.errors import PlaneUnavailable
from tests.shell_world import Ends, Log
from tests.signal_market import U_FAIR, U_ID, make_batch, make_update


class Source:
    """Boards whose batches are scripted, and a bell that is a pipe."""

    def __init__(self, problem=""):
        self.problem, self.new, self.told = problem, [], []
        self.missed = self.unknown = self.torn = self.boards = 0
        self.is_asleep = self.is_closed = False
        self.before_sleep_is_seen = lambda: None
        self.error = None
        self.ears, self.rope = os.pipe()
        os.set_blocking(self.ears, False)

    def open(self, born_ns):
        if self.problem:
            raise PlaneUnavailable(self.problem)
        self.born_ns = born_ns
        return self.ears

    def look(self, *, is_all=False):
        self.told.append("all" if is_all else "look")
        if self.error:
            raise self.error
        batches, self.new = self.new, []
        return batches

    def sleep(self, looked_mono_ns):
        self.told.append("sleep")
        self.is_asleep = True
        self.before_sleep_is_seen()

    def wake(self):
        self.is_asleep = False

    def hear(self):
        self.is_asleep = False
        os.read(self.ears, 100)

    def ring(self):
        os.write(self.rope, b"\0")

    def close(self):
        self.is_closed = True


class World:
    def __init__(self, problem=""):
        self.source, self.log, self.ends = Source(problem), Log(), Ends()
        self.taken, self.missed = [], []
        self.watch = BoardWatch(
            self.source,
            SystemClock(),
            take=self.taken.append,
            missed=self.missed.append,
            fail=self.ends.loops.fail,
            log=self.log,
        )
        self.task = asyncio.get_running_loop().create_task(self.watch.run(5))

    async def turns(self, count=5):
        for _ in range(count):
            await asyncio.sleep(0.002)

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        os.close(self.source.ears)
        os.close(self.source.rope)


def batch(seq):
    return make_batch("upbit", [make_update(U_ID, seq, U_FAIR)])


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr(module, "SWEEP_S", 60)  # only the bell wakes it
    world = World()
    await world.turns()
    yield world
    await world.stop()


async def test_it_looks_everywhere_at_first_and_sleeps_when_nothing_is_there(world):
    assert world.watch.is_open
    assert world.source.told == ["all", "sleep", "look"]
    assert world.source.is_asleep


async def test_a_ring_makes_it_look_until_nothing_is_new(world):
    world.source.told.clear()
    world.source.new = [batch(1)]
    world.source.ring()
    await world.turns()
    assert world.taken == [batch(1)]
    assert world.source.told == ["look", "look", "sleep", "look"]
    assert world.source.is_asleep


async def test_it_is_asleep_again_in_the_very_turn_that_took_all_there_was(world):
    world.source.new = [batch(1)]
    world.source.ring()
    while not world.taken:  # noqa: ASYNC110 (turn by turn is what is asked)
        await asyncio.sleep(0)
    assert world.source.is_asleep


async def test_what_comes_while_it_falls_asleep_is_seen_and_it_stays_awake(world):
    def slip_in():
        world.source.before_sleep_is_seen = lambda: None
        world.source.new = [batch(2)]

    world.source.before_sleep_is_seen = slip_in
    world.source.ring()
    await world.turns()
    assert world.taken == [batch(2)]
    assert world.source.is_asleep
    assert world.source.told.count("sleep") == 3  # at the start, over the publication, at last


async def test_what_was_missed_is_told_once(world):
    world.source.missed, world.source.new = 3, [batch(1)]
    world.source.ring()
    await world.turns()
    world.source.missed, world.source.new = 5, [batch(2)]
    world.source.ring()
    await world.turns()
    assert world.missed == [3, 2]


async def test_it_looks_by_itself_when_nobody_rings(monkeypatch):
    monkeypatch.setattr(module, "SWEEP_S", 0.002)
    world = World()
    await world.turns()
    world.source.new = [batch(1)]
    await world.turns()
    assert world.taken == [batch(1)]
    await world.stop()


async def test_without_shared_memory_it_says_why_and_waits():
    world = World("/dev/shm has no room for 2.0 MB")
    await world.turns()
    assert world.watch.why == "/dev/shm has no room for 2.0 MB"
    assert not world.watch.is_open
    assert not world.task.done()
    await world.stop()
    assert world.ends.ended == []


@pytest.mark.filterwarnings("ignore")
async def test_a_bug_in_a_look_ends_the_process(world):
    world.source.error = ZeroDivisionError()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    world.source.ring()
    await world.turns()
    assert [name for name, _ in world.ends.ended] == ["plane"]


async def test_the_end_takes_the_bell_down(world):
    world.task.cancel()
    await asyncio.gather(world.task, return_exceptions=True)
    assert world.source.is_closed
    assert not world.watch.is_open
