"""Redis comes and goes: when it is given up, what is kept meanwhile, what is there afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import msgspec
import redis.asyncio

from arb_ray.actors.snapshots import system_snapshot
from arb_ray.adapters.storage.redis_keys import StateKey, environment_pattern, parse
from arb_ray.adapters.storage.redis_state import PROBE_FIRST_S, RedisStateStore
from arb_ray.app.stability.check import Check, require
from arb_ray.app.stability.wire import wire_to
from arb_ray.domain.errors import StoreUnavailable
from arb_ray.engine.state_document import document_flaw
from arb_ray.engine.status import SystemStatus

CATEGORIES = ("session", "positions", "metrics", "risk_guard")
FAILURES_MAX = 3
FALLBACK_MAX_S = 4.0
"""Three time-outs of a second and a little: a wire that refuses is given up much sooner."""

RECOVERY_MAX_S = PROBE_FIRST_S + 2.0
"""The first probe is due so soon after giving up, and finds it there."""


class RedisChecks:
    """The checks on one server, under an environment that nobody else has."""

    def __init__(self, url: str, env: str) -> None:
        self._url = url
        self._env = env

    def checks(self) -> tuple[Check, ...]:
        """Return them."""
        return (
            Check("redis: fallback timing", self._cleaned(self._fallback)),
            Check("redis: key consistency", self._cleaned(self._keys)),
        )

    def _cleaned(self, run: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
        async def checked() -> str:
            try:
                return await run()
            finally:
                await self._forget()

        return checked

    async def _forget(self) -> None:
        client = redis.asyncio.Redis.from_url(self._url)
        try:
            keys = [
                key async for key in client.scan_iter(environment_pattern(self._env), count=500)
            ]
            if keys:
                await client.delete(*keys)
        except redis.exceptions.RedisError as error:
            raise StoreUnavailable("redis", str(error)) from error
        finally:
            await client.aclose()

    async def _fallback(self) -> str:
        parts = urlsplit(self._url)
        async with wire_to(parts.hostname or "127.0.0.1", parts.port or 6379) as wire:
            login = parts.netloc.rpartition("@")[0]
            netloc = f"{login}@127.0.0.1:{wire.port}" if login else f"127.0.0.1:{wire.port}"
            # The server proves by its certificate who it is, and not that it is our wire.
            query = parts.query.replace("ssl_check_hostname=true", "ssl_check_hostname=false")
            url = urlunsplit(parts._replace(netloc=netloc, query=query))
            store = RedisStateStore(url, self._env)
            try:
                return await self._there_and_back(store, wire.down, wire.up)
            finally:
                await store.close()

    async def _there_and_back(
        self,
        store: RedisStateStore,
        down: Callable[[], Awaitable[None]],
        up: Callable[[], Awaitable[None]],
    ) -> str:
        key = StateKey(self._env, "s1", "session")
        await store.put_state("s1", {"session": b"1"})
        await down()
        began = time.monotonic()
        for failures in range(1, FAILURES_MAX + 1):
            require(not store.is_fallback, f"it was given up after {failures - 1} failures")
            await _failing(store)
        fallback_s = time.monotonic() - began
        require(store.is_fallback, f"it was not given up after {FAILURES_MAX} failures")
        require(fallback_s <= FALLBACK_MAX_S, f"giving up took {fallback_s:.2f} s")
        await store.put_state("s1", {"session": b"2"})
        require(await store.get(key) == b"2", "a read meanwhile did not give the newest")
        await up()
        began = time.monotonic()
        while store.is_fallback:
            require(time.monotonic() - began < RECOVERY_MAX_S, "it did not come back")
            await _failing(store)
            await asyncio.sleep(0.02)
        recovery_s = time.monotonic() - began
        require(await store.get(key) == b"2", "what was written meanwhile was not republished")
        return (
            f"given up after {FAILURES_MAX} failures, {fallback_s:.2f} s;"
            f" back in {recovery_s:.2f} s with what was written meanwhile"
        )

    async def _keys(self) -> str:
        store = RedisStateStore(self._url, self._env)
        client = redis.asyncio.Redis.from_url(self._url)
        now_ns = time.time_ns()
        try:
            _, states = system_snapshot(_status(), now_ns, 7)
            await store.put_state("s1", states)
            found = client.scan_iter(environment_pattern(self._env), count=500)
            names = sorted([key.decode() async for key in found])
            wanted = sorted(str(StateKey(self._env, "s1", name)) for name in CATEGORIES)
            require(names == wanted, f"the keys are {names}")
            for name in names:
                require(str(parse(name)) == name, f"{name} does not read back")
                require(await client.ttl(name) > 0, f"{name} has no time to live")
            versions = set()
            for name in names:
                text = cast("bytes", await client.get(name))
                require(not document_flaw(text), f"{name}: {document_flaw(text)}")
                versions.add(msgspec.json.decode(text)["version"])
            require(versions == {7}, f"one write of all categories has the versions {versions}")
        finally:
            await store.close()
            await client.aclose()
        return f"{len(names)} keys read back, expire, and are of one writing"


async def _failing(store: RedisStateStore) -> None:
    try:
        await store.ping_ms()
    except StoreUnavailable:
        return


def _status() -> SystemStatus:
    return SystemStatus("s1", "t", False, [], {}, {}, {}, {}, {}, {}, [])
