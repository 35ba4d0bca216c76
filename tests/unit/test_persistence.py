"""Snapshots reach PostgreSQL once, or the disk first; Redis may come and go."""

import asyncio

import pytest

from arb_ray.actors import persistence
from arb_ray.actors.disk_watch import DiskWatch
from arb_ray.actors.persistence import Batch, Persistence, PersistenceLimits
from arb_ray.actors.row_buffer import encode_rows
from arb_ray.actors.wire import pack
from arb_ray.adapters.storage.spool import Spool
from arb_ray.domain.errors import LedgerViolation, OutcomeUnknown, StoreUnavailable
from arb_ray.ports import Snapshot
from tests.shell_world import Counts, Ends, JumpClock, Log

AWAY = StoreUnavailable("postgres", "away")


def rows(*numbers):
    return encode_rows([Snapshot("metrics_snapshots", n, "s1", "ETH", {"n": n}) for n in numbers])


class Postgres:
    def __init__(self):
        self.batches, self.error, self.error_after = {}, None, None
        self.gate, self.asked = None, 0

    @property
    def numbers(self):
        return [row.at_ns for batch in self.batches.values() for row in batch]

    async def write_batch(self, batch_id, batch):
        self.asked += 1
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error:
            raise self.error
        is_new = batch_id not in self.batches
        self.batches.setdefault(batch_id, tuple(batch))
        if self.error_after:
            error, self.error_after = self.error_after, None
            raise error
        return len(batch) if is_new else 0

    async def quarantined(self, since_ns):
        return ()

    async def newest(self, table, session_id, symbol, damage, before_ns=None):
        return None

    async def close(self):
        self.is_closed = True


class Redis:
    def __init__(self):
        self.states, self.error, self.pings = {}, None, 0

    async def ping_ms(self):
        self.pings += 1
        if self.error:
            raise self.error
        return 0.25

    fallback_cause = ""

    async def put_state(self, session_id, states):
        self.states[session_id] = dict(states)

    async def close(self):
        pass


class World:
    def __init__(self, folder):
        self.folder = folder
        self.postgres, self.redis = Postgres(), Redis()
        self.ends, self.log, self.metrics = Ends(), Log(), Counts()
        self.clock = JumpClock()
        self.restrictions = []

    async def restrict(self, reason):
        self.restrictions.append(reason)

    def start(self, size_max=1_000_000, **limits):
        self.spool = Spool(self.folder, size_max=size_max)
        self.disk = DiskWatch(
            free_bytes=lambda: 10**9,
            free_min_bytes=10**6,
            restrict=self.restrict,
            metrics=self.metrics,
            log=self.log,
        )
        fields = {"batch_rows": 2, "buffer_rows": 4, "batch_age_s": 60.0}
        fields |= {"state_interval_s": 0.001, "ping_interval_s": 0.0}
        self.actor = Persistence(
            session_id="s1",
            store=self.postgres,
            state=self.redis,
            spool=self.spool,
            clock=self.clock,
            metrics=self.metrics,
            log=self.log,
            limits=PersistenceLimits(**(fields | limits)),
            disk=self.disk,
            loops=self.ends.loops,
        )
        return self.actor


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    world.start()
    yield world
    world.spool.close()


async def test_rows_are_written_in_batches_in_order(world):
    await world.actor.put(rows(1, 2, 3))
    assert await world.actor.flush() == 3
    assert world.postgres.numbers == [1, 2, 3]
    assert [len(batch) for batch in world.postgres.batches.values()] == [2, 1]


async def test_without_postgres_rows_wait_on_the_disk_and_come_back_in_order_once(world):
    world.postgres.error = AWAY
    for number in range(1, 4):
        await world.actor.put(rows(number))
        await world.actor.flush()
    status = await world.actor.status()
    assert (status["postgres"], status["spooled"], status["buffered"]) == ("down", 3, 0)
    assert world.metrics.gauges["postgres_up"] == 0.0
    assert world.metrics.counters["snapshot_failures"] == 1, "what goes by the spool did not fail"
    assert world.spool.pending == 3
    world.postgres.error = None
    await world.actor.put(rows(4))
    assert await world.actor.flush() == 4
    assert world.postgres.numbers == [1, 2, 3, 4]
    assert (await world.actor.status())["postgres"] == "up"
    assert world.metrics.gauges["postgres_up"] == 1.0
    assert await world.actor.flush() == 4


async def test_postgres_is_found_back_without_new_rows(world):
    world.postgres.error = AWAY
    await world.actor.put(rows(1))
    await world.actor.flush()
    world.postgres.error = None
    await world.actor.flush()
    assert world.postgres.numbers == [1]
    assert (await world.actor.status())["postgres"] == "up"


async def test_an_unheard_commit_is_repeated_and_written_once(world):
    world.postgres.error_after = OutcomeUnknown("copy", 1)
    await world.actor.put(rows(1, 2))
    await world.actor.flush()
    await world.actor.flush()
    assert world.postgres.numbers == [1, 2]
    assert world.actor.dropped == 0


async def test_the_buffer_is_bounded_and_the_oldest_rows_go_to_the_disk(world):
    await world.actor.put(rows(*range(1, 8)))
    status = await world.actor.status()
    assert (status["buffered"], status["spooled"]) == (3, 4)
    await world.actor.flush()
    assert world.postgres.numbers == list(range(1, 8))


async def test_a_batch_is_bounded_by_its_bytes(tmp_path):
    world = World(tmp_path)
    actor = world.start(batch_rows=100, buffer_rows=100, batch_bytes=400)
    await actor.put(rows(*range(5)))  # each weighs 157
    await actor.flush()
    assert [len(batch) for batch in world.postgres.batches.values()] == [2, 2, 1]
    assert world.postgres.numbers == list(range(5))
    world.spool.close()


async def test_the_buffer_is_bounded_by_bytes_too(tmp_path):
    world = World(tmp_path)
    actor = world.start(buffer_rows=100, buffer_bytes=700)
    await actor.put(rows(*range(7)))
    status = await actor.status()
    assert (status["buffered"], status["spooled"]) == (3, 4)
    world.spool.close()


async def test_a_row_beyond_all_reason_is_dropped_and_the_others_are_written(world):
    huge = Snapshot("metrics_snapshots", 1, "s1", "ETH", {"x": "y" * 300_000})
    fine = Snapshot("metrics_snapshots", 2, "s1", "ETH", {})
    await world.actor.put(encode_rows([huge, fine]))
    await world.actor.flush()
    assert world.postgres.numbers == [2]
    assert world.actor.dropped == 1
    assert world.log.said[-1][0] == "snapshots_dropped"


async def test_producers_hear_when_they_should_send_less(world):
    assert await world.actor.put(rows(1, 2)) is False
    assert await world.actor.put(rows(3)) is True, "the buffer is more than half full"
    await world.actor.flush()
    assert await world.actor.put(rows(4)) is False
    world.postgres.error = AWAY
    await world.actor.flush()
    assert await world.actor.put(rows(5)) is True, "the spool must last"
    world.postgres.error = None
    await world.actor.flush()
    assert await world.actor.put(rows(6)) is False


async def test_a_producer_of_before_sends_objects_and_is_understood(world):
    await world.actor.put(pack([Snapshot("metrics_snapshots", 1, "s1", "ETH", {"n": 1})]))
    await world.actor.flush()
    ((row,),) = world.postgres.batches.values()
    assert row.payload == '{"n":1}'


async def test_once_a_batch_has_failed_the_rest_of_the_flush_goes_by_the_disk(tmp_path):
    world = World(tmp_path)
    world.start(batch_rows=1)
    world.postgres.error_after = OutcomeUnknown("copy", 1)
    await world.actor.put(rows(1, 2, 3, 4))
    await world.actor.flush()
    assert world.spool.pending == 3, "but for the one that was on its way already"
    await world.actor.flush()
    assert sorted(world.postgres.numbers) == [1, 2, 3, 4]
    world.spool.close()


async def test_bytes_too_make_a_batch_due_and_a_buffer_pressed(tmp_path):
    world = World(tmp_path)
    actor = world.start(batch_rows=100, buffer_rows=100, batch_bytes=300, buffer_bytes=700)
    assert await actor.put(rows(1, 2)) is False  # each weighs 157
    assert await actor.put(rows(3)) is True
    actor.start()
    await until(lambda: world.postgres.numbers == [1, 2, 3])
    await actor.stop()


async def test_a_disk_that_takes_a_smaller_batch_again_is_not_full(tmp_path):
    world = World(tmp_path)
    actor = world.start(size_max=400)
    world.postgres.error = AWAY
    await actor.put(rows(*range(100)))
    await world.disk.check()
    assert (await actor.status())["disk"] != ""
    await actor.flush()
    await actor.put(encode_rows([Snapshot("metrics_snapshots", 1, "s1", "", {})]))
    await actor.flush()
    await world.disk.check()
    assert (await actor.status())["disk"] == ""
    world.spool.close()


async def test_a_full_batch_is_written_before_it_is_old(world):
    world.actor.start()
    await world.actor.put(rows(1, 2))
    await until(lambda: world.postgres.numbers == [1, 2])
    await world.actor.flush()  # that of the loop has ended
    await world.actor.put(rows(3))
    await asyncio.sleep(0.01)
    assert world.postgres.numbers == [1, 2], "one that is not full waits for its age"
    await world.actor.stop()


async def test_a_batch_that_postgres_refuses_for_good_stops_nobody(world):
    world.postgres.error = LedgerViolation("b", "another batch has this id")
    await world.actor.put(rows(1, 2))
    await world.actor.flush()
    assert world.actor.dropped == 2
    await world.spool.append(pack(Batch("old", (Snapshot("metrics_snapshots", 3, "s1", "", {}),))))
    await world.actor.flush()
    world.postgres.error = None
    await world.actor.put(rows(4))
    await world.actor.flush()
    assert (world.postgres.numbers, world.spool.pending, world.actor.dropped) == ([4], 0, 3)


async def test_what_is_under_way_when_the_process_is_stopped_goes_to_the_disk_in_order(world):
    world.postgres.gate = asyncio.Event()
    await world.actor.put(rows(1, 2, 3))
    flush = asyncio.create_task(world.actor.flush())
    await until(lambda: world.postgres.asked == 2)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    assert world.spool.pending == 2
    world.postgres.gate.set()
    await world.actor.flush()
    assert world.postgres.numbers == [1, 2, 3]


async def test_when_the_disk_is_full_too_rows_are_dropped_and_counted(tmp_path):
    world = World(tmp_path)
    actor = world.start(size_max=10)
    world.postgres.error = AWAY
    await actor.put(rows(1, 2))
    await actor.flush()
    assert (await actor.status())["snapshots_dropped"] == 2
    assert world.metrics.counters["snapshots_dropped"] == 2
    await world.disk.check()
    assert "the spool takes no records" in world.restrictions[0]
    assert "the bound is 10" in (await actor.status())["disk"]
    world.postgres.error = None
    await actor.flush()
    await world.disk.check()
    assert (await actor.status())["disk"] == "", "with PostgreSQL back the spool is empty"
    world.spool.close()


@pytest.mark.parametrize("call", ["_payload", "_acknowledge"])
async def test_a_disk_that_gives_nothing_back_is_told_as_the_disk_and_rows_go_past_it(
    world, monkeypatch, call
):
    world.postgres.error = AWAY
    await world.actor.put(rows(1))
    await world.actor.flush()
    world.postgres.error = None

    def broken(*_):
        raise StoreUnavailable("spool", "Input/output error")

    monkeypatch.setattr(world.spool, call, broken)
    for number in (2, 3):
        await world.actor.put(rows(number))
        await world.actor.flush()
    assert (await world.actor.status())["postgres"] == "up"
    assert world.metrics.gauges["postgres_up"] == 1.0
    await world.disk.check()
    assert "the spool takes no records: spool is unavailable" in world.restrictions[0]
    monkeypatch.undo()
    await world.actor.flush()
    assert sorted(world.postgres.numbers) == [1, 2, 3], "each once"
    await world.disk.check()
    assert (await world.actor.status())["disk"] == ""


async def test_a_restart_replays_what_the_former_process_left(tmp_path):
    world = World(tmp_path)
    world.postgres.error = AWAY
    await world.start().put(rows(1, 2, 3))
    await world.actor.stop()
    assert world.postgres.is_closed
    world.postgres.error = None
    world.clock.now += 1
    actor = world.start()
    await actor.put(rows(4))
    await actor.flush()
    assert world.postgres.numbers == [1, 2, 3, 4]
    world.spool.close()


async def test_a_record_that_nobody_can_read_does_not_stop_the_others(world):
    await world.spool.append(b"\x01 an older layout")
    await world.spool.append(pack(Batch("old", ())))
    await world.actor.put(rows(1))
    await world.actor.flush()
    assert world.postgres.numbers == [1]
    assert world.spool.pending == 0
    assert world.metrics.counters["snapshots_dropped"] == 1
    assert world.metrics.counters["snapshots_corrupt"] == 1


async def until(condition):
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never happened")


async def test_a_postgres_that_is_back_is_found_before_the_next_batch_is_due(world, monkeypatch):
    monkeypatch.setattr(persistence, "POSTGRES_LOOK_S", 0.01)
    world.actor.start()  # its batches are a minute apart
    world.postgres.error = AWAY
    await world.actor.put(rows(1))
    await world.actor.flush()
    assert (await world.actor.status())["postgres"] == "down"
    world.postgres.error = None
    await asyncio.sleep(0.2)
    assert (await world.actor.status())["postgres"] == "up"
    assert world.postgres.numbers == [1]
    await world.actor.stop()
