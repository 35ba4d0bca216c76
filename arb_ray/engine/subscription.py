"""
What one connection has asked for, and what has come of it.

Venues accept a wrong code without a word, so the only proof of a subscription is that it
delivers. Times are arguments: ns of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable

NS_PER_S = 1_000_000_000


class Subscription:
    """The codes that one connection asked for when it opened, each waiting for its first data."""

    def __init__(self, codes: Iterable[str], now_ns: int) -> None:
        self._codes = dict.fromkeys(codes, False)  # in order; True once it has delivered
        self._asked_ns = now_ns
        self.last_alive_ns = now_ns
        self.last_data_ns = now_ns  # of any code; the connection's opening before the first

    def on_alive(self, now_ns: int) -> None:
        """Note a proof of life, a frame or a pong; an older one changes nothing."""
        if now_ns > self.last_alive_ns:  # noqa: PLR1730 - a call of max costs as much as this method
            self.last_alive_ns = now_ns

    def on_delivery(self, code: str, now_ns: int) -> None:
        """Note data for ``code``; data that nobody asked for proves nothing."""
        if code in self._codes:
            self._codes[code] = True
            self.last_data_ns = now_ns

    def has_delivered(self, code: str) -> bool:
        """Tell whether ``code`` has delivered on this connection."""
        return self._codes.get(code, False)

    def silent(self, now_ns: int, after_s: float) -> tuple[str, ...]:
        """Return the codes that have never delivered, ``after_s`` seconds after the request."""
        if now_ns - self._asked_ns < int(after_s * NS_PER_S):
            return ()
        return tuple(code for code, has_delivered in self._codes.items() if not has_delivered)

    def is_dry(self, now_ns: int, after_s: float) -> bool:
        """Tell whether no code at all has delivered for ``after_s``, alive or not."""
        return now_ns - self.last_data_ns > int(after_s * NS_PER_S)
