"""The current state goes to Redis at its pace, and whoever watches hears when memory stands in."""

import asyncio

import pytest

from arb_ray.actors.state_writer import StateWriter
from arb_ray.domain.errors import StoreUnavailable
from tests.shell_world import Counts, Log


class Redis:
    """Takes what it is given, or says why it does not."""

    def __init__(self):
        self.written, self.pings, self.fallback_cause = [], 0, ""

    async def ping_ms(self):
        self.pings += 1
        if self.fallback_cause:
            raise StoreUnavailable("redis", self.fallback_cause)
        return 0.25

    async def put_state(self, session_id, states):
        if self.fallback_cause:
            raise StoreUnavailable("redis", self.fallback_cause)
        self.written.append((session_id, states))

    async def close(self):
        """Nothing is open."""


class World:
    def __init__(self):
        self.redis, self.metrics, self.log = Redis(), Counts(), Log()

    async def run(self, ping_interval_s=0.0):
        self.writer = StateWriter(
            self.redis,
            "s1",
            self.metrics,
            self.log,
            state_interval_s=0.001,
            ping_interval_s=ping_interval_s,
        )
        self.loop = asyncio.create_task(self.writer.run())
        return self.writer

    async def until(self, condition):
        for _ in range(2_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("it never happened")


@pytest.fixture
async def world():
    world = World()
    yield world
    world.loop.cancel()
    await asyncio.gather(world.loop, return_exceptions=True)


async def test_the_newest_of_each_category_is_written_and_nothing_where_there_is_none(world):
    writer = await world.run()
    await world.until(lambda: world.redis.pings > 2)
    assert world.redis.written == []
    writer.put({"risk": b"1", "session": b"1"})
    writer.put({"risk": b"2"})
    await world.until(lambda: world.redis.written)
    assert world.redis.written[0] == ("s1", {"risk": b"2", "session": b"1"})


async def test_it_is_asked_for_its_round_trip_at_a_pace_of_its_own(world):
    writer = await world.run(ping_interval_s=60.0)
    writer.put({"risk": b"1"})
    await world.until(lambda: len(world.redis.written) > 3)
    assert world.redis.pings == 1
    assert world.metrics.gauges["redis_round_trip_ms"] == writer.round_trip_ms == 0.25


async def test_a_fallback_is_told_of_once_and_its_end_with_how_long_it_was(world):
    writer = await world.run()
    await world.until(lambda: world.redis.pings > 1)
    assert (writer.is_up, world.metrics.gauges["redis_fallback"]) == (True, 0.0)
    world.redis.fallback_cause = "connection refused"
    await world.until(lambda: not writer.is_up)
    assert world.metrics.gauges["redis_fallback"] == 1.0
    await asyncio.sleep(0.02)
    world.redis.fallback_cause = ""
    await world.until(lambda: writer.is_up)
    assert world.metrics.gauges["redis_fallback"] == 0.0
    (away, back) = [fields for event, fields in world.log.said if event == "redis_state"]
    assert (away["is_up"], away["cause"], away["away_s"]) == (False, "connection refused", 0.0)
    assert back["is_up"]
    assert 0.02 <= back["away_s"] < 5
