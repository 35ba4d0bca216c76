"""A session's state and a real Valkey whose wire breaks: how soon it falls back and comes back."""

import asyncio
import contextlib
import itertools
import time

import pytest
import redis.asyncio

from arb_ray.actors.hosting import Loops
from arb_ray.actors.state_writer import StateWriter
from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey
from arb_ray.adapters.storage.redis_keys import CacheKey, KeyLives, StateKey
from arb_ray.adapters.storage.redis_state import RedisStateStore
from arb_ray.domain.errors import StoreUnavailable
from tests.shell_world import Counts, Log
from tests.tcp_proxy import TcpProxy

TIMEOUT_S, STATE_S, PING_S, PROBE_FIRST_S, PROBE_MAX_S = 0.3, 0.1, 0.1, 0.2, 1.0
SLACK_S = 1.0
"""What a machine that many share may add; the bounds that are tested lie well apart from it."""

KEY = StateKey("dev", "s1", "session")


class World:
    """The writer behind a proxy, and a client that goes around it."""

    def __init__(self, proxy, plain, store):
        self.proxy, self.plain, self.store = proxy, plain, store
        self.log, self.metrics = Log(), Counts()
        self.writer = StateWriter(
            store, "s1", self.metrics, self.log, state_interval_s=STATE_S, ping_interval_s=PING_S
        )
        self.written = itertools.count(1)

    def write(self):
        number = next(self.written)
        self.writer.put({"session": str(number).encode()})
        return number

    async def in_redis(self):
        return int(await self.plain.get(str(KEY)) or 0)

    async def until(self, condition, bound_s):
        """Wait for what must happen within a bound; return how long it took."""
        began = time.monotonic()
        while not await condition():
            assert time.monotonic() - began < bound_s, f"not within {bound_s} s"
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def is_down(self):
        return self.metrics.gauges.get("redis_fallback") == 1.0

    async def is_up(self):
        return self.metrics.gauges.get("redis_fallback") == 0.0


@pytest.fixture
async def world(embedded_valkey, redis_url):
    plain = redis.asyncio.Redis.from_url(redis_url)
    async with TcpProxy("127.0.0.1", embedded_valkey.port) as proxy:
        store = RedisStateStore(
            f"redis://127.0.0.1:{proxy.port}/0",
            "dev",
            timeout_s=TIMEOUT_S,
            probe_first_s=PROBE_FIRST_S,
            probe_max_s=PROBE_MAX_S,
        )
        world = World(proxy, plain, store)
        loops = Loops(lambda name, error: None)
        loops.start("state", world.writer.run())
        first = world.write()
        await world.until(lambda: has(world, first), 5)
        yield world
        await loops.stop()  # it repeats a cancellation that a library swallows
        await store.close()
        await plain.aclose()


async def has(world, number):
    return await world.in_redis() >= number


def breaks(proxy, how):
    if how == "refused":
        proxy.refuse(True)
        proxy.cut()
    else:
        proxy.stall()


def heals(proxy):
    proxy.refuse(False)
    proxy.resume()


@pytest.mark.parametrize(("how", "failure_s"), [("refused", 0.0), ("silent", TIMEOUT_S)])
async def test_the_third_failure_in_a_row_is_the_fallback_with_gauge_log_and_cause(
    world, how, failure_s
):
    """Three writes at their pace, each with its time to fail."""
    breaks(world.proxy, how)
    took_s = await world.until(world.is_down, 3 * (STATE_S + failure_s) + SLACK_S)
    assert took_s >= 2 * failure_s, "three failures take that long, so it was fewer"
    assert world.store.fallbacks == 1
    (told,) = [entry for entry in world.log.said if entry[0] == "redis_state"]
    assert told[1]["is_up"] is False
    assert told[1]["cause"] == world.store.fallback_cause != ""
    heals(world.proxy)


async def test_what_is_newest_is_served_meanwhile_and_published_before_the_fallback_ends(world):
    breaks(world.proxy, "refused")
    await world.until(world.is_down, 5)
    for number in range(1_000):  # so many that publishing takes several turns
        await world.store.put_cache(f"k{number}", b"x")
    newest = world.write()
    await world.until(lambda: serves(world, newest), 5)
    assert await world.in_redis() < newest
    world.proxy.latency_s = 0.03

    stale, over = [], asyncio.Event()
    watching = asyncio.create_task(watch_for_stale(world, stale, over))
    heals(world.proxy)
    took_s = await world.until(world.is_up, PROBE_MAX_S + PING_S + STATE_S + SLACK_S)
    assert await world.in_redis() >= newest
    over.set()
    await watching
    assert stale == []
    assert await world.plain.exists("arb:v1:dev:cache:k999")
    (_, back) = [entry for entry in world.log.said if entry[0] == "redis_state"]
    assert back[1]["is_up"] is True
    assert 0 < back[1]["away_s"] <= took_s + 10


async def serves(world, number):
    return int(await world.store.get(KEY) or 0) >= number


async def watch_for_stale(world, stale, over):
    """What the store serves never goes back, while the writer writes on."""
    seen = 0
    while not over.is_set():
        world.write()
        with contextlib.suppress(StoreUnavailable):
            found = int(await world.store.get(KEY) or 0)
            if found < seen:
                stale.append((seen, found))
            seen = max(seen, found)
        await asyncio.sleep(0.005)


async def test_probes_go_out_ever_more_rarely_up_to_a_bound(world):
    breaks(world.proxy, "refused")
    await world.until(world.is_down, 5)
    before, began = world.store.failures, time.monotonic()
    await asyncio.sleep(3)
    passed_s = time.monotonic() - began
    probes = world.store.failures - before
    # After 0.2, 0.4 and 0.8 s, then one a second; at every ping it would be dozens.
    assert 2 <= probes <= 4 + passed_s / PROBE_MAX_S
    assert 4 + passed_s / PROBE_MAX_S < passed_s / (STATE_S + PING_S)
    heals(world.proxy)
    await world.until(world.is_up, PROBE_MAX_S + TIMEOUT_S + PING_S + STATE_S + SLACK_S)


async def test_in_fallback_nothing_is_served_beyond_its_life(embedded_valkey, redis_url):
    lives = KeyLives(state_s=100, metrics_s=100, cache_s=0.2)
    store = RedisStateStore("redis://127.0.0.1:1/0", "dev", failures_to_fallback=1, lives=lives)
    await store.put_cache("rules", b"1")
    await store.put_state("s1", {"session": b"1"})
    assert store.is_fallback
    assert await store.get(CacheKey("dev", "rules")) == b"1"
    await asyncio.sleep(0.25)
    assert await store.get(CacheKey("dev", "rules")) is None
    assert await store.get(KEY) == b"1"
    await store.close()


async def test_a_redis_that_comes_back_empty_gets_everything_again(tmp_path):
    """Killed and started anew, as a container is: it keeps nothing on disk."""
    async with EmbeddedValkey(tmp_path / "first") as valkey:
        port = valkey.port
        store = RedisStateStore(valkey.url, "dev", timeout_s=TIMEOUT_S, probe_first_s=0)
        await store.put_state("s1", {"session": b"1", "positions": b"1"})
    for _ in range(3):
        with contextlib.suppress(StoreUnavailable):
            await store.put_state("s1", {"session": b"2"})
    assert store.is_fallback
    async with EmbeddedValkey(tmp_path / "second", port=port) as valkey:
        plain = redis.asyncio.Redis.from_url(valkey.url)
        assert await plain.keys("*") == []
        await store.ping_ms()
        assert await plain.get(str(KEY)) == b"2"
        assert await plain.get("arb:v1:dev:state:s1:positions") == b"1"
        await plain.aclose()
        await store.close()


async def test_a_recovery_that_breaks_half_way_stays_in_fallback(world):
    """It answers, and takes nothing: what it has is old, and must not be served."""
    breaks(world.proxy, "refused")
    await world.until(world.is_down, 5)
    newest = world.write()
    await world.until(lambda: serves(world, newest), 5)
    was_set = await world.plain.config_get("maxmemory*")
    await world.plain.config_set("maxmemory-policy", "noeviction")
    await world.plain.config_set("maxmemory", "1")
    try:
        heals(world.proxy)
        before = world.store.failures
        await world.until(lambda: failed_since(world, before), 5)
        assert world.store.is_fallback
        assert int(await world.store.get(KEY)) >= newest
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            await world.plain.config_set(name, was_set[name])
    await world.until(world.is_up, 5)
    assert await world.in_redis() >= newest


async def failed_since(world, before):
    return world.store.failures > before
