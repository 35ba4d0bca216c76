"""All stability checks, one after another, against the servers that the settings name."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from arb_ray.app.settings import Settings
from arb_ray.app.stability.check import Result, carry_out
from arb_ray.app.stability.database import own_database
from arb_ray.app.stability.guard import GuardChecks
from arb_ray.app.stability.redis_server import RedisChecks
from arb_ray.app.stability.snapshots import SnapshotChecks
from arb_ray.app.stability.sockets import CHECKS
from arb_ray.app.stores import postgres_dsn, redis_url

Tell = Callable[[Result], None]


class Servers(NamedTuple):
    """Where the checks are made."""

    postgres: str
    redis: str


async def stability(servers: Servers, tell: Tell) -> list[Result]:
    """
    Make every check and tell of each when it is done.

    Raises:
        BadInput: The login to PostgreSQL may not make databases.
        StoreUnavailable: PostgreSQL does not answer.
    """
    # Nobody else's: the words of Redis' keys and of the rows begin with it.
    env = f"stability-{secrets.token_hex(6)}"
    results = []
    async with own_database(servers.postgres) as postgres:
        checks = (
            *CHECKS,
            *RedisChecks(servers.redis, env).checks(),
            *SnapshotChecks(postgres, env).checks(),
            *GuardChecks(postgres, env).checks(),
        )
        for check in checks:
            results.append(await carry_out(check))
            tell(results[-1])
    return results


@contextlib.asynccontextmanager
async def servers_of(settings: Settings, dsn: str | None) -> AsyncIterator[Servers]:
    """Lend the configured servers; embedded ones run in a folder of their own meanwhile."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arb-stability-")))
        postgres, redis = dsn or "", ""
        if not postgres and settings.postgres.embedded:
            from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres

            server = EmbeddedPostgres(folder / "postgres")
            postgres = (await stack.enter_async_context(server)).dsn
        if settings.redis.embedded:
            from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey

            valkey = EmbeddedValkey(folder / "valkey")
            redis = (await stack.enter_async_context(valkey)).url
        yield Servers(postgres or postgres_dsn(settings), redis or redis_url(settings))
