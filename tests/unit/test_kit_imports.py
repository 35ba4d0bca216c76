"""A process that starts again pays for its own imports, not for those of the other actors."""

import subprocess
import sys

OF_SOME_ACTORS_ONLY = (
    "aiohttp",
    "asyncpg",
    "redis",
    "websockets",
    "arb_ray.actors.feed",
    "arb_ray.actors.gateway",
    "arb_ray.actors.persistence",
    "arb_ray.actors.risk_guard",
    "arb_ray.actors.strategy_host",
    "arb_ray.actors.supervisor",
    "arb_ray.adapters.storage.postgres_pool",
    "arb_ray.adapters.venues.sim.exchange",
    "arb_ray.adapters.venues.upbit.rest",
)
NOT_OF_A_FEED = (
    "asyncpg",
    "redis",
    "arb_ray.actors.risk_guard",
    "arb_ray.actors.strategy_host",
    "arb_ray.actors.supervisor",
)
# What the kit imports to build a feed; connects to nothing.
BUILD_A_FEED = """
from arb_ray.app import kit
from arb_ray.actors import fan_out, feed
from arb_ray.app import feeds
"""


def loaded_by(code):
    found = subprocess.run(
        (sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, sep='\\n')"),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(found.stdout.split())


def test_the_kit_alone_loads_nothing_that_only_some_actors_need():
    loaded = loaded_by("import arb_ray.app.kit")
    assert "arb_ray.app.deployment" in loaded
    assert loaded & set(OF_SOME_ACTORS_ONLY) == set()


def test_a_feed_loads_no_database_and_no_strategy():
    loaded = loaded_by(BUILD_A_FEED)
    assert "arb_ray.adapters.venues.binance.feed" in loaded
    assert loaded & set(NOT_OF_A_FEED) == set()
