"""A process that starts again pays for its own imports, not for those of the other actors."""

import subprocess
import sys

NOT_OF_A_HOST = (
    "aiohttp.web",
    "redis",
    "websockets",
    "arb_ray.actors.gateway",
    "arb_ray.adapters.venues.sim.exchange",
    "arb_ray.adapters.venues.upbit.rest",
)


def test_the_kit_alone_loads_nothing_that_only_some_actors_need():
    found = subprocess.run(
        (sys.executable, "-c", "import arb_ray.app.kit, sys; print(*sys.modules, sep='\\n')"),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = set(found.stdout.split())
    assert "arb_ray.actors.strategy_host" in loaded
    assert loaded & set(NOT_OF_A_HOST) == set()
