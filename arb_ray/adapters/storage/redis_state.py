"""
Fast, disposable state in Redis; implements ``ports.StateStore``.

Some failures in a row, three by default, switch to fallback: writes go to a bounded memory
only, and callers keep what matters in PostgreSQL as they always do. Probes then go out ever more
rarely, up to a bound. A healthy one publishes that memory, and only then switches back, so that
nobody reads what is older. Nothing that only Redis knows may matter (DESIGN section 4).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from arb_ray.adapters.storage.redis_keys import (
    CacheKey,
    Key,
    KeyLives,
    MetricKey,
    StateKey,
    parse,
)
from arb_ray.domain.errors import StoreUnavailable
from arb_ray.domain.instrument import Symbol

FAILURES_BEFORE_FALLBACK: Final = 3
TIMEOUT_S: Final = 1.0
"""Redis answers within a millisecond or is away; waiting longer would hold up Persistence."""

CONNECTIONS_MAX: Final = 8
MEMORY_KEYS_MAX: Final = 5_000
MEMORY_BYTES_MAX: Final = 32_000_000
"""Beyond either, the keys written longest ago are forgotten and counted."""

PROBE_FIRST_S: Final = 1.0
PROBE_MAX_S: Final = 15.0
"""In fallback a probe that fails doubles the wait for the next, between these."""

REPUBLISH_KEYS: Final = 200
"""Keys a pipeline while republishing, so that one pipeline stays small."""

BROKEN = (redis.exceptions.RedisError, OSError, TimeoutError)


class RedisStateStore:
    """
    ``ports.StateStore`` for one environment, with fallback. For one event loop.

    A write while Redis fails raises StoreUnavailable until ``failures_to_fallback`` failures
    in a row; from then on it succeeds into memory. ``ping_ms`` is what a caller repeats to
    come back. ``lives`` says how long each kind of key is kept.
    """

    def __init__(
        self,
        url: str,
        env: str,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float | None = None,
        connections_max: int = CONNECTIONS_MAX,
        failures_to_fallback: int = FAILURES_BEFORE_FALLBACK,
        lives: KeyLives | None = None,
        probe_first_s: float = PROBE_FIRST_S,
        probe_max_s: float = PROBE_MAX_S,
    ) -> None:
        self._env = env
        self._failures_to_fallback = failures_to_fallback
        self._lives = lives or KeyLives()
        self._memory = _Memory()
        self._lock = asyncio.Lock()
        self._failures_in_row = 0
        self.failures = 0
        self.fallbacks = 0
        self.fallback_cause = ""
        self._probe_first_s = probe_first_s
        self._probe_max_s = probe_max_s
        self._probe_wait_s = 0.0
        self._probe_due = 0.0
        # No retries inside: so many failures in a row must be so many calls of ours.
        self._client = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s if connect_timeout_s is None else connect_timeout_s,
            max_connections=connections_max,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def is_fallback(self) -> bool:
        """Whether memory stands in; ``fallback_cause`` says why."""
        return self.fallback_cause != ""

    @property
    def forgotten(self) -> int:
        """Keys that the memory's bound pushed out."""
        return self._memory.forgotten

    async def put_state(self, session_id: str, states: Mapping[str, bytes]) -> None:
        """Write all categories of a session in one MULTI."""
        await self._put(
            {StateKey(self._env, session_id, category): value for category, value in states.items()}
        )

    async def put_metric(self, symbol: Symbol, metric_type: str, payload: bytes) -> None:
        """Write one metric document of a symbol."""
        await self._put({MetricKey(self._env, symbol, metric_type): payload})

    async def put_cache(self, cache_key: str, payload: bytes) -> None:
        """Write something that can be had again elsewhere."""
        await self._put({CacheKey(self._env, cache_key): payload})

    async def get(self, key: Key) -> bytes | None:
        """Read a key: from Redis, or from memory while it is away. Raises StoreUnavailable."""
        if self.is_fallback:
            return self._memory.get(str(key), self._lives.of(key))
        try:
            found = await self._client.get(str(key))
        except BROKEN as error:
            raise self._failed(error) from error
        self._failures_in_row = 0
        assert found is None or isinstance(found, bytes), "decode_responses is off"
        return found

    async def ping_ms(self) -> float:
        """
        Return the round trip. In fallback, a healthy one republishes memory and switches back.

        In fallback it does not ask more often than the backoff lets it.

        Raises:
            StoreUnavailable: No answer, or the republishing failed half-way.
        """
        if self.is_fallback and time.monotonic() < self._probe_due:
            raise StoreUnavailable("redis", self.fallback_cause)
        began = time.perf_counter()
        try:
            await self._client.ping()
            round_trip_ms = (time.perf_counter() - began) * 1000
            if self.is_fallback:
                async with self._lock:  # writes wait, so that no old value follows a new one
                    await self._republish()
                    self.fallback_cause = ""
        except BROKEN as error:
            failure = self._failed(error)
            self._back_off()
            raise failure from error
        self._failures_in_row = 0
        return round_trip_ms

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _put(self, values: Mapping[Key, bytes]) -> None:
        async with self._lock:
            for key, value in values.items():
                self._memory.put(str(key), value)
            if self.is_fallback:
                return
            try:
                await self._write(
                    (str(key), self._lives.of(key), value) for key, value in values.items()
                )
            except BROKEN as error:
                failure = self._failed(error)
                if self._failures_in_row < self._failures_to_fallback:
                    raise failure from error
                return  # the last of the row: from here on memory has it
            self._failures_in_row = 0

    async def _write(self, items: Iterable[tuple[str, float, bytes]]) -> None:
        async with self._client.pipeline(transaction=True) as pipeline:
            for key, ttl_s, value in items:
                pipeline.set(key, value, px=max(1, round(ttl_s * 1000)))
            await pipeline.execute()

    async def _republish(self) -> None:
        items = [
            (key, self._lives.of(parse(key)) - age_s, value)
            for key, value, age_s in self._memory.items()
        ]
        alive = [item for item in items if item[1] > 0]
        for start in range(0, len(alive), REPUBLISH_KEYS):
            await self._write(alive[start : start + REPUBLISH_KEYS])

    def _failed(self, error: BaseException) -> StoreUnavailable:
        self.failures += 1
        self._failures_in_row += 1
        cause = str(error) or type(error).__name__
        if self._failures_in_row >= self._failures_to_fallback and not self.is_fallback:
            self.fallback_cause = cause
            self.fallbacks += 1
            self._probe_wait_s = 0.0
            self._back_off()
        return StoreUnavailable("redis", cause)

    def _back_off(self) -> None:
        if self.is_fallback:
            wait_s = max(self._probe_first_s, 2 * self._probe_wait_s)
            self._probe_wait_s = min(self._probe_max_s, wait_s)
            self._probe_due = time.monotonic() + self._probe_wait_s


class _Memory:
    """The newest value of each key, bounded by count and by bytes."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self.forgotten = 0

    def put(self, key: str, value: bytes) -> None:
        self._drop(key)
        self._values[key] = (value, time.monotonic())
        self._bytes += len(key) + len(value)
        while len(self._values) > MEMORY_KEYS_MAX or self._bytes > MEMORY_BYTES_MAX:
            self._drop(next(iter(self._values)))
            self.forgotten += 1

    def get(self, key: str, life_s: float) -> bytes | None:
        found = self._values.get(key)
        if found is None or time.monotonic() - found[1] >= life_s:
            return None  # Redis would have forgotten it too
        return found[0]

    def items(self) -> list[tuple[str, bytes, float]]:
        now = time.monotonic()
        return [(key, value, now - at) for key, (value, at) in self._values.items()]

    def _drop(self, key: str) -> None:
        found = self._values.pop(key, None)
        if found:
            self._bytes -= len(key) + len(found[0])
