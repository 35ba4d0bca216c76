"""
What lies in a Redis database, judged by the keyspace (docs/REDIS_KEYSPACE.md).

It only reads: SCAN in pages, then type, life and value of each key in one pipeline a page. A
key that comes or goes meanwhile may be seen or not, as SCAN says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import redis.asyncio
import redis.exceptions

from arb_ray.adapters.storage import redis_keys
from arb_ray.adapters.storage.redis_keys import Key, StateKey
from arb_ray.adapters.storage.redis_state import BROKEN
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.engine.state_document import document_flaw

PAGE_KEYS: Final = 500
VALUE_BYTES_MAX: Final = 1_000_000
"""Four times the largest document of docs/REDIS_KEYSPACE.md; larger ones are not read."""

FINDINGS_MAX: Final = 200
"""Findings that are named; all are counted."""

EVICTS_ANYTHING: Final = "allkeys-"

Told = Callable[[int], None]
"""Called after each page with the number of keys seen so far."""


class Finding(msgspec.Struct, frozen=True):
    """A key that should not be there as it is."""

    kind: str  # foreign, malformed, untimed, old
    key: str
    problem: str


class Survey(msgspec.Struct):
    """What was seen; ``findings`` names the first ``FINDINGS_MAX``, ``counts`` counts all."""

    env: str
    keys: int = 0
    counts: dict[str, int] = {}  # by kind: state, metrics, cache, other_env, and of findings
    findings: list[Finding] = []
    policy: str = ""  # maxmemory-policy; empty when the server does not tell
    is_complete: bool = True  # False when the bound on keys ended it

    @property
    def found(self) -> int:
        """Return how many keys should not be there as they are."""
        return sum(self.counts.get(kind, 0) for kind in ("foreign", "malformed", "untimed", "old"))

    @property
    def warning(self) -> str:
        """Return what the server's memory policy puts at risk; empty when nothing."""
        if not self.policy.startswith(EVICTS_ANYTHING):
            return ""
        return (
            f"maxmemory-policy is {self.policy}: when memory is full the server forgets the state "
            "of open sessions first come, first gone. Set volatile-ttl"
        )

    def note(self, kind: str, key: str = "", problem: str = "") -> None:
        """Count a key; name it when there is a problem."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if problem and len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(kind, key, problem))


async def survey(
    client: redis.asyncio.Redis, env: str, keys_max: int, told: Told = lambda _: None
) -> Survey:
    """
    Look at every key, at most ``keys_max``.

    Raises:
        StoreUnavailable: The server does not answer, or refuses.
    """
    seen = Survey(env)
    try:
        seen.policy = await memory_policy(client)
        cursor = 0
        while True:
            cursor, names = await client.scan(cursor, count=PAGE_KEYS)
            await _judge(client, seen, [as_text(name) for name in names])
            told(seen.keys)
            if cursor == 0:
                return seen
            if seen.keys >= keys_max:
                seen.is_complete = False
                return seen
    except BROKEN as error:
        raise StoreUnavailable("redis", str(error) or type(error).__name__) from error


async def memory_policy(client: redis.asyncio.Redis) -> str:
    """Return ``maxmemory-policy``; empty where CONFIG is not allowed."""
    try:
        found = await client.config_get("maxmemory-policy")
    except redis.exceptions.ResponseError:
        return ""
    return as_text(next(iter(found.values()), "") or "")


async def _judge(client: redis.asyncio.Redis, seen: Survey, names: Sequence[str]) -> None:
    seen.keys += len(names)
    ours: list[tuple[str, Key]] = []
    for name in names:
        key = _ours(seen, name)
        if key is not None:
            ours.append((name, key))
    if not ours:
        return
    async with client.pipeline(transaction=False) as pipeline:
        for name, _ in ours:
            pipeline.type(name)
            pipeline.pttl(name)
            pipeline.memory_usage(name, samples=0)
        facts = await pipeline.execute(raise_on_error=False)
    for position, (name, key) in enumerate(ours):
        kind, life_ms, size_bytes = facts[3 * position : 3 * position + 3]
        await _judge_one(client, seen, name, key, (as_text(kind), life_ms, size_bytes))


def _ours(seen: Survey, name: str) -> Key | None:
    """Count a name that says enough by itself; return the key whose content must be looked at."""
    if name.startswith(f"{redis_keys.OLD_PREFIX}:"):
        seen.note("old", name, "it has the form before version 1: arb-ray redis migrate moves it")
        return None
    if not name.startswith(redis_keys.OURS):
        seen.note("foreign", name, "it is no key of arb_ray")
        return None
    try:
        key = redis_keys.parse(name)
    except BadInput:
        seen.note("malformed", name, "it begins as ours do and is spelled as none is")
        return None
    if key.env != seen.env:
        seen.note("other_env")
        return None
    return key


async def _judge_one(
    client: redis.asyncio.Redis, seen: Survey, name: str, key: Key, facts: tuple[Any, Any, Any]
) -> None:
    kind, life_ms, size_bytes = facts
    if kind == "none":
        seen.note("gone")
        return
    if kind != "string":
        seen.note("malformed", name, f"it is a {kind}, and ours are strings")
        return
    if life_ms == -1:
        seen.note("untimed", name, "it would never expire")
        return
    if isinstance(key, StateKey):
        is_large = isinstance(size_bytes, int) and size_bytes > VALUE_BYTES_MAX
        problem = "it is larger than any of ours" if is_large else await _flaw(client, name)
        if problem:
            seen.note("malformed", name, problem)
            return
    seen.note(
        {"StateKey": "state", "MetricKey": "metrics", "CacheKey": "cache"}[type(key).__name__]
    )


async def _flaw(client: redis.asyncio.Redis, name: str) -> str:
    value = await client.get(name)
    if value is None:
        return ""  # it has expired since
    assert isinstance(value, bytes), "decode_responses is off"
    return document_flaw(value)


def as_text(value: bytes | str) -> str:
    """Return what a server answered as text; bytes that are none become visible marks."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
