"""Redis state against a real Valkey, also while the wire to it breaks."""

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.adapters.storage import redis_keys, redis_state
from arb_ray.adapters.storage.redis_keys import CacheKey, KeyLives, MetricKey, StateKey
from arb_ray.adapters.storage.redis_state import RedisStateStore
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.domain.instrument import Symbol
from tests.tcp_proxy import TcpProxy

BTC = Symbol("BTC")


@pytest.fixture
async def plain(redis_url):
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def proxied(embedded_valkey, redis_url):
    async with TcpProxy("127.0.0.1", embedded_valkey.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        store = RedisStateStore(url, "dev", timeout_s=0.2, probe_first_s=0)
        yield proxy, store
        await store.close()


async def test_keys_and_times_to_live_are_those_of_the_design(redis_url, plain):
    store = RedisStateStore(redis_url, "dev")
    await store.put_state("s1", {"positions": b"p", "risk": b"r"})
    await store.put_metric(BTC, "premium", b"m")
    await store.put_cache("rules:upbit", b"c")
    await store.close()
    wanted = {
        b"arb:v1:dev:state:s1:positions": (b"p", 24 * 3600),
        b"arb:v1:dev:state:s1:risk": (b"r", 24 * 3600),
        b"arb:v1:dev:metrics:BTC:premium": (b"m", 7 * 24 * 3600),
        b"arb:v1:dev:cache:rules:upbit": (b"c", 3600),
    }
    assert set(await plain.keys("*")) == set(wanted)
    for key, (value, ttl_s) in wanted.items():
        assert await plain.get(key) == value
        assert ttl_s - 5 < await plain.ttl(key) <= ttl_s


async def test_three_failures_in_a_row_switch_to_memory_and_a_ping_brings_it_back(proxied, plain):
    proxy, store = proxied
    await store.put_state("s1", {"a": b"0"})
    proxy.cut()
    proxy.refuse(True)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.put_state("s1", {"a": b"1"})
    assert not store.is_fallback
    await store.put_state("s1", {"a": b"2", "b": b"2"})
    assert store.is_fallback
    await store.put_metric(BTC, "premium", b"3")
    assert await store.get(StateKey("dev", "s1", "a")) == b"2"
    with pytest.raises(StoreUnavailable):
        await store.ping_ms()
    assert await plain.get("arb:v1:dev:state:s1:a") == b"0"

    proxy.refuse(False)
    assert await store.ping_ms() > 0
    assert not store.is_fallback
    assert await plain.get("arb:v1:dev:state:s1:a") == b"2"
    assert await plain.get("arb:v1:dev:metrics:BTC:premium") == b"3"
    assert 86000 < await plain.ttl("arb:v1:dev:state:s1:b") <= 86400
    assert store.fallbacks == 1


async def test_failures_count_only_in_a_row(proxied):
    proxy, store = proxied
    for _ in range(3):
        proxy.refuse(True)
        proxy.cut()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.put_state("s1", {"a": b"1"})
        proxy.refuse(False)
        await store.put_state("s1", {"a": b"2"})
    assert not store.is_fallback
    assert store.failures == 6


async def test_lives_and_patience_are_the_callers_to_choose(redis_url, plain):
    lives = KeyLives(state_s=100, metrics_s=200, cache_s=300)
    store = RedisStateStore(redis_url, "dev", lives=lives)
    await store.put_state("s1", {"a": b"1"})
    await store.put_metric(BTC, "premium", b"1")
    await store.put_cache("c", b"1")
    await store.close()
    found = sorted([await plain.ttl(key) for key in await plain.keys("*")])
    assert [ttl_s // 10 for ttl_s in found] in ([9, 19, 29], [10, 20, 30])

    store = RedisStateStore("redis://127.0.0.1:1/0", "dev", failures_to_fallback=1)
    await store.put_state("s1", {"a": b"1"})
    assert store.is_fallback
    await store.close()


async def test_a_silent_redis_is_given_up_in_time(proxied):
    proxy, store = proxied
    await store.ping_ms()
    proxy.stall()
    with pytest.raises(StoreUnavailable):
        await store.ping_ms()
    proxy.resume()


async def test_memory_is_bounded_and_keeps_the_newest(proxied, monkeypatch):
    proxy, store = proxied
    monkeypatch.setattr(redis_state, "MEMORY_KEYS_MAX", 3)
    proxy.refuse(True)
    for n in range(2):
        with pytest.raises(StoreUnavailable):
            await store.put_state("s1", {f"c{n}": b"x"})
    for n in range(2, 6):
        await store.put_state("s1", {f"c{n}": b"x"})
    assert store.forgotten == 3
    assert await store.get(StateKey("dev", "s1", "c2")) is None
    assert await store.get(StateKey("dev", "s1", "c5")) == b"x"
    monkeypatch.setattr(redis_state, "MEMORY_BYTES_MAX", 100)
    await store.put_state("s1", {"big": b"x" * 60})
    assert await store.get(StateKey("dev", "s1", "c5")) is None


async def test_a_part_that_would_break_a_key_is_refused(redis_url):
    store = RedisStateStore(redis_url, "dev")
    with pytest.raises(BadInput, match="Redis key part 'a:b'"):
        await store.put_state("a:b", {"x": b""})
    await store.close()


parts = st.from_regex(redis_keys._PART, fullmatch=True).filter(lambda part: len(part) < 60)
cache_parts = st.from_regex(redis_keys._LAST_PART, fullmatch=True).filter(lambda p: len(p) < 60)


@given(
    st.one_of(
        st.builds(StateKey, parts, parts, parts),
        st.builds(MetricKey, parts, parts, parts),
        st.builds(CacheKey, parts, cache_parts),
    )
)
def test_every_key_reads_back_into_its_parts(key):
    assert redis_keys.parse(str(key)) == key
    assert str(key).startswith("arb:v1:")


@given(st.text(max_size=60))
def test_foreign_keys_are_refused(text):
    try:
        key = redis_keys.parse(text)
    except BadInput:
        return
    assert str(key) == text
