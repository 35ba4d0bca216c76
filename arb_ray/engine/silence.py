"""
How long has an actor been silent? Counted only while whoever asks was awake itself.

A supervisor that was frozen, or held up by a busy machine, finds every answer overdue when it
goes on. So silence is the sum of its own turns, each counted for a second at most, and not a
difference of two clock readings.
"""

from __future__ import annotations

NS_PER_S = 1_000_000_000

TURN_NS_MAX = NS_PER_S
"""A turn that took longer tells of the one who asks, not of those who are asked."""


class Silence:
    """Who has said nothing, and for how long: since the last answer, or the first question."""

    def __init__(self) -> None:
        self._silent_ns: dict[str, int] = {}
        self._turned_ns: int | None = None

    def turn(self, now_mono_ns: int) -> None:
        """Count the time since the last turn to everyone who is listened to."""
        if self._turned_ns is not None:
            passed_ns = min(now_mono_ns - self._turned_ns, TURN_NS_MAX)
            for name in self._silent_ns:
                self._silent_ns[name] += passed_ns
        self._turned_ns = now_mono_ns

    def asked(self, name: str) -> None:
        """Listen to ``name`` from now on, or still."""
        self._silent_ns.setdefault(name, 0)

    def heard(self, name: str) -> None:
        """Note an answer."""
        self._silent_ns[name] = 0

    def forget(self, name: str) -> None:
        """Listen to it no more."""
        self._silent_ns.pop(name, None)

    def lasts_s(self, name: str) -> float:
        """Return for how long ``name`` has said nothing."""
        return self._silent_ns.get(name, 0) / NS_PER_S

    @property
    def names(self) -> tuple[str, ...]:
        """Everyone who is listened to."""
        return tuple(self._silent_ns)
