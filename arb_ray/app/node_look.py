"""What an actor will need on a node, looked at from a process on that node."""

from __future__ import annotations

import asyncio
import platform
from typing import Any

import msgspec

from arb_ray import __version__
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.redis_state import RedisStateStore
from arb_ray.app.planes import plane_problem
from arb_ray.app.settings import Settings, load_settings
from arb_ray.app.stores import postgres_dsn, redis_url
from arb_ray.domain.errors import ArbError


class NodeLook(msgspec.Struct, frozen=True):
    """
    What was found; texts are empty where all is well.

    ``config_hash`` tells whether the node reads the submitted settings as the head does.
    """

    host: str
    code: str
    python: str
    config_hash: str = ""
    config: str = ""  # why the settings cannot be read here: a missing secret, an unknown key
    postgres: str = ""  # why PostgreSQL cannot be used from here
    redis: str = ""
    plane: str = ""  # why shared memory cannot carry ticks here, where that is demanded


class Look(msgspec.Struct, frozen=True):
    """The task: travels to the node, so it holds no secret."""

    env: str
    values: dict[str, Any]

    def __call__(self) -> NodeLook:
        """Look; whatever is wrong is an answer and not an error."""
        here = NodeLook(platform.node(), __version__, platform.python_version())
        try:
            settings = load_settings(self.env, self.values)
        except ArbError as error:
            return msgspec.structs.replace(here, config=str(error))
        postgres, redis = asyncio.run(_try_stores(settings))
        return msgspec.structs.replace(
            here,
            config_hash=settings.config_hash(),
            postgres=postgres,
            redis=redis,
            plane=plane_problem(settings) if settings.topology.tick_plane == "shm" else "",
        )


async def _try_stores(settings: Settings) -> tuple[str, str]:
    pool = Postgres(postgres_dsn(settings), size=1)
    state = RedisStateStore(
        redis_url(settings), settings.env, timeout_s=settings.redis.connect_timeout_s
    )
    postgres = redis = ""
    try:
        async with pool.connection() as connection:
            await connection.fetchval("SELECT 1")
    except ArbError as error:
        postgres = str(error)
    finally:
        await pool.close()
    try:
        await state.ping_ms()
    except ArbError as error:
        redis = str(error)
    finally:
        await state.close()
    return postgres, redis


def node_problems(looks: dict[str, Any], addresses: dict[str, str], config_hash: str) -> list[str]:
    """
    Return what keeps a node from running our actors, in sentences.

    Redis being away is none of it: it is fast and disposable, and trading goes on without.
    """
    problems = []
    for node_id, found in sorted(looks.items()):
        place = f"node {addresses.get(node_id, node_id[:8])}"
        if not isinstance(found, NodeLook):
            problems.append(f"{place}: it could not be looked at ({found})")
            continue
        if found.code != __version__:
            problems.append(f"{place}: it has arb_ray {found.code}, the head has {__version__}")
        if found.python != platform.python_version():
            here = platform.python_version()
            problems.append(f"{place}: it has Python {found.python}, the head has {here}")
        if found.config:
            problems.append(f"{place}: {found.config}")
        elif found.config_hash != config_hash:
            problems.append(f"{place}: it reads other settings than the head; install the same")
        if found.postgres:
            problems.append(f"{place}: {found.postgres}")
        if found.plane:
            problems.append(f"{place}: topology.tick_plane is shm: {found.plane}")
    return problems
