"""
The only module that spells Redis keys.

    arb:v1:{env}:state:{session_id}:{category}      24 hours, unless set otherwise
    arb:v1:{env}:metrics:{symbol}:{metric_type}      7 days
    arb:v1:{env}:cache:{cache_key}                   1 hour

A part may hold letters, digits, ``.``, ``_`` and ``-``; the last part of a cache key may
hold ``:`` too. So a key reads back into the parts that it was built from.

The form before version 1 held states only: ``arbitrage:state:{env}:{session_id}:{category}``.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from arb_ray.domain.errors import BadInput

PREFIX: Final = "arb:v1"
OURS: Final = "arb:"
OLD_PREFIX: Final = "arbitrage:state"

STATE_TTL_S: Final = 24 * 3600
METRICS_TTL_S: Final = 7 * 24 * 3600
CACHE_TTL_S: Final = 3600

KEY_LENGTH_MAX: Final = 300

_PART = re.compile(r"[A-Za-z0-9._\-]+")
_LAST_PART = re.compile(r"[A-Za-z0-9._:\-]+")


class StateKey(msgspec.Struct, frozen=True):
    """State of one session, by category."""

    env: str
    session_id: str
    category: str

    def __str__(self) -> str:
        return _join(self.env, "state", self.session_id, self.category)


class MetricKey(msgspec.Struct, frozen=True):
    """One metric document of a symbol."""

    env: str
    symbol: str
    metric_type: str

    def __str__(self) -> str:
        return _join(self.env, "metrics", self.symbol, self.metric_type)


class CacheKey(msgspec.Struct, frozen=True):
    """Anything that can be had again elsewhere."""

    env: str
    cache_key: str

    def __str__(self) -> str:
        if not _LAST_PART.fullmatch(self.cache_key):
            raise _refused(self.cache_key)
        return _bounded(f"{_join(self.env, 'cache')}:{self.cache_key}")


Key = StateKey | MetricKey | CacheKey


class OldStateKey(msgspec.Struct, frozen=True):
    """State of one session as it was spelled before version 1."""

    env: str
    session_id: str
    category: str

    def __str__(self) -> str:
        return _joined(OLD_PREFIX, self.env, self.session_id, self.category)

    @property
    def now(self) -> StateKey:
        """The same state as it is spelled today."""
        return StateKey(self.env, self.session_id, self.category)


class KeyLives(msgspec.Struct, frozen=True):
    """Seconds until a key of each kind is forgotten."""

    state_s: float = STATE_TTL_S
    metrics_s: float = METRICS_TTL_S
    cache_s: float = CACHE_TTL_S

    def of(self, key: Key) -> float:
        """Return the life of ``key``, in seconds."""
        match key:
            case StateKey():
                return self.state_s
            case MetricKey():
                return self.metrics_s
            case CacheKey():
                return self.cache_s


def parse(key: str) -> Key:
    """Read a key back. Raises BadInput when it is none of ours."""
    parts = key.split(":")
    match parts:
        case ["arb", "v1", env, "state", session_id, category]:
            found: Key = StateKey(env, session_id, category)
        case ["arb", "v1", env, "metrics", symbol, metric_type]:
            found = MetricKey(env, symbol, metric_type)
        case ["arb", "v1", env, "cache", _, *_]:
            found = CacheKey(env, ":".join(parts[4:]))
        case _:
            raise BadInput(key[:KEY_LENGTH_MAX], "it is not a key of arb_ray", "See redis_keys.")
    str(found)  # refuses parts that no key of ours has
    return found


def parse_old(key: str) -> OldStateKey:
    """Read a key of the old form. Raises BadInput when it is none."""
    match key.split(":"):
        case ["arbitrage", "state", env, session_id, category]:
            found = OldStateKey(env, session_id, category)
        case _:
            raise BadInput(key[:KEY_LENGTH_MAX], "it is no key of the old form", "See redis_keys.")
    str(found)
    return found


def environment_pattern(env: str) -> str:
    """Return the SCAN pattern of every key of an environment."""
    return f"{_join(env)}:*"


def states_pattern(env: str) -> str:
    """Return the SCAN pattern of the state of all sessions."""
    return f"{_join(env, 'state')}:*"


def old_pattern(env: str) -> str:
    """Return the SCAN pattern of an environment's keys of the old form."""
    return f"{_joined(OLD_PREFIX, env)}:*"


def session_pattern(env: str, session_id: str) -> str:
    """Return the SCAN pattern of all state of a session."""
    return f"{_join(env, 'state', session_id)}:*"


def _join(*parts: str) -> str:
    return _joined(PREFIX, *parts)


def _joined(prefix: str, *parts: str) -> str:
    for part in parts:
        if not _PART.fullmatch(part):
            raise _refused(part)
    return _bounded(":".join((prefix, *parts)))


def _bounded(key: str) -> str:
    if len(key) > KEY_LENGTH_MAX:
        raise _refused(key[:KEY_LENGTH_MAX])
    return key


def _refused(part: str) -> BadInput:
    return BadInput(
        f"Redis key part {part!r}",
        "it is empty, too long, or has a character that keys do not have",
        "Use letters, digits, '.', '_' and '-'.",
    )
