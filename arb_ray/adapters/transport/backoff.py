"""How long to wait before trying again: exponential, jittered, bounded, forgiving."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    The waits between attempts.

    The n-th failure in a row waits between ``(1 - jitter)`` and 1 times
    ``min(maximum_s, initial_s * factor ** (n - 1))``. Jitter keeps the clients of a venue
    that restarted from all coming back in the same instant. A connection forgives the
    failures before it once it has lived ``stable_s``: one that opens and dies at once is a
    failure like any other.
    """

    initial_s: float = 0.25
    factor: float = 2.0
    maximum_s: float = 30.0
    jitter: float = 0.5
    stable_s: float = 30.0

    def __post_init__(self) -> None:
        assert 0 < self.initial_s <= self.maximum_s
        assert self.factor >= 1
        assert 0 <= self.jitter <= 1
        assert self.stable_s >= 0


class Backoff:
    """
    The state of one retrying client.

    ``uniform`` draws from [0, 1), as ``random.Random(seed).random`` does; the caller owns
    the source, so a seed repeats the waits.
    """

    def __init__(self, policy: BackoffPolicy, uniform: Callable[[], float]) -> None:
        self.failures = 0  # in a row; what an alarm counts
        self._policy = policy
        self._uniform = uniform
        self._ceiling_s = policy.initial_s

    def failed(self) -> float:
        """Count an attempt that failed and return the seconds to wait before the next."""
        self.failures += 1
        wait_s = self._ceiling_s * (1 - self._policy.jitter * self._uniform())
        # Stepwise rather than by a power, which overflows on a night of endless retries.
        self._ceiling_s = min(self._policy.maximum_s, self._ceiling_s * self._policy.factor)
        return wait_s

    def lost(self, uptime_s: float) -> float:
        """Count the loss of a connection that lived ``uptime_s`` and return the wait."""
        if uptime_s >= self._policy.stable_s:
            self.reset()
        return self.failed()

    def reset(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self._ceiling_s = self._policy.initial_s
