"""docs/REDIS_KEYSPACE.md against a real server and the code that makes the documents."""

import msgspec
import pytest
import redis.asyncio

from arb_ray.actors.snapshots import system_snapshot
from arb_ray.adapters.storage.redis_keys import CacheKey, KeyLives, MetricKey
from arb_ray.adapters.storage.redis_state import RedisStateStore
from arb_ray.app.settings import load_settings
from tests.keyspace import PAGE, documented_keys, undocumented
from tests.shell_world import RunnerWorld
from tests.status_examples import NOON_NS, status

SESSION = "20261125T161857-a05dd27888aa"
SYMBOLS_MAX = 400


@pytest.fixture
async def states():
    """What the Supervisor hands over when every symbol has a position, and there are many."""
    world = await RunnerWorld().start()
    await world.enter()
    world.look()
    told = status()
    (host,) = [h for h in told.hosts.values() if h.rows][:1]
    rows = [
        msgspec.structs.replace(
            host.rows[n % len(host.rows)], symbol=f"COIN{n}", phase="holding", refusal="busy",
            mark_usdt=world.runner.mark.pnl_usdt,
        )
        for n in range(SYMBOLS_MAX)
    ]  # fmt: skip
    host.rows, told.risk = rows, msgspec.to_builtins(await world.guard.status())
    _, documents = system_snapshot(told, NOON_NS, 1)
    return documents


async def written(redis_url, states):
    settings = load_settings(
        "prod", None, {"ARB_POSTGRES__PASSWORD": "x", "ARB_REDIS__PASSWORD": "x"}
    )
    lives = KeyLives(state_s=settings.redis.state_ttl_s)
    store = RedisStateStore(redis_url, "dev", lives=lives)
    await store.put_state(SESSION, states)
    await store.close()
    client = redis.asyncio.Redis.from_url(redis_url)
    found = {
        key.decode(): (
            (await client.type(key)).decode(), await client.pttl(key) / 1e3, await client.get(key)
        )
        async for key in client.scan_iter("*")
    }  # fmt: skip
    await client.aclose()
    return found


async def test_the_page_tells_of_every_key_its_type_life_size_and_fields(redis_url, states):
    keys = await written(redis_url, states)
    assert undocumented(keys) == []
    assert len(keys) == len(documented_keys())


async def test_the_comparison_can_fail(redis_url, states):
    keys = await written(redis_url, states)
    name = f"arb:v1:dev:state:{SESSION}:session"
    kind, ttl_s, value = keys[name]
    document = msgspec.json.decode(value)
    document["data"]["new_field"] = 1
    for wrong in (
        {name.replace("session", "other"): keys[name]},
        {"arb:v1:dev:metrics:BTC:premium": keys[name]},
        {name: ("hash", ttl_s, value)},
        {name: (kind, -1, value)},
        {name: (kind, ttl_s, msgspec.json.encode(document))},
        {name: (kind, ttl_s, value + b" " * 20_000)},
    ):
        assert undocumented(wrong), wrong


async def test_the_kinds_that_nothing_writes_are_spelled_as_on_the_page():
    page = PAGE.read_text()
    metric = str(MetricKey("ENV", "SYMBOL", "TYPE"))
    for part, name in (("ENV", "env"), ("SYMBOL", "symbol"), ("TYPE", "metric_type")):
        metric = metric.replace(part, f"{{{name}}}")
    assert f"`{metric}`" in page
    cache = str(CacheKey("ENV", "KEY")).replace("ENV", "{env}").replace("KEY", "{cache_key}")
    assert f"`{cache}`" in page
