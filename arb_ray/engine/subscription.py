"""
What one connection has asked for, and what has come of it.

Venues accept a wrong code without a word, so the only proof of a subscription is that it
delivers. Times are arguments: ns of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Subscription:
    """The codes of one connection; a code is whatever the venue delivers by."""

    def __init__(self, codes: Iterable[str] = ()) -> None:
        self._requested_ns: dict[str, int] = {}
        self._first_ns: dict[str, int] = {}
        self._last_ns: dict[str, int] = {}
        self._codes = tuple(dict.fromkeys(codes))
        self.is_up = False
        self.last_frame_ns = 0
        self.last_alive_ns = 0
        self.last_data_ns = 0  # of any code; the connection's opening before the first

    @property
    def codes(self) -> tuple[str, ...]:
        """What is asked for, in order, once each."""
        return self._codes

    def replace(self, codes: Iterable[str], now_ns: int) -> None:
        """
        Ask for exactly ``codes`` from now on, as Upbit does with every request.

        A code that stays keeps its history; one that goes is forgotten, and a frame or two
        that still come for it are not counted against anything.
        """
        self._codes = tuple(dict.fromkeys(codes))
        kept = set(self._codes)
        for times in (self._requested_ns, self._first_ns, self._last_ns):
            for gone in times.keys() - kept:
                del times[gone]
        if self.is_up:
            for code in self._codes:
                self._requested_ns.setdefault(code, now_ns)

    def on_connected(self, now_ns: int) -> None:
        """Start over: everything is requested anew and nothing has delivered."""
        self._requested_ns = dict.fromkeys(self._codes, now_ns)
        self._first_ns.clear()
        self._last_ns.clear()
        self.is_up = True
        self.last_frame_ns = 0
        self.last_alive_ns = self.last_data_ns = now_ns

    def on_disconnected(self) -> None:
        """Nothing is delivered until the next connection."""
        self.is_up = False

    def on_alive(self, now_ns: int) -> None:
        """The peer proved alive without data: a pong, a ping, a status frame."""
        self.last_alive_ns = max(self.last_alive_ns, now_ns)

    def on_frame(self, now_ns: int) -> None:
        """Any frame came; it proves the connection alive."""
        self.last_frame_ns = now_ns
        self.on_alive(now_ns)

    def on_delivery(self, code: str, now_ns: int) -> bool:
        """Note data for ``code``; False when it is not among those asked for."""
        if code not in self._requested_ns:
            return False
        self.last_data_ns = now_ns
        self._first_ns.setdefault(code, now_ns)
        self._last_ns[code] = now_ns
        return True

    def has_delivered(self, code: str) -> bool:
        """Tell whether ``code`` has delivered on this connection."""
        return self.is_up and code in self._first_ns

    def silent(self, now_ns: int, after_s: float) -> tuple[str, ...]:
        """Return the codes that have never delivered, ``after_s`` seconds after the request."""
        if not self.is_up:
            return ()
        due_ns = now_ns - int(after_s * NS_PER_S)
        return tuple(
            code
            for code, at_ns in self._requested_ns.items()
            if code not in self._first_ns and at_ns <= due_ns
        )

    def is_stalled(self, now_ns: int, after_s: float) -> bool:
        """Tell whether a connection that counts as up has not proved alive for ``after_s``."""
        return self.is_up and now_ns - self.last_alive_ns > int(after_s * NS_PER_S)

    def is_dry(self, now_ns: int, after_s: float) -> bool:
        """Tell whether no code at all has delivered for ``after_s``, alive or not."""
        return self.is_up and now_ns - self.last_data_ns > int(after_s * NS_PER_S)

    def alive_age_ms(self, now_ns: int) -> float:
        """Return the time since the connection last proved alive; infinite when it is down."""
        if not self.is_up:
            return float("inf")
        return max(now_ns - self.last_alive_ns, 0) / NS_PER_MS

    def staleness_ms(self, code: str, now_ns: int) -> float:
        """
        Return how old the book of ``code`` may be, in ms.

        It is the time since the connection last proved alive, provided the code has
        delivered (a quiet book is old and right); infinite otherwise.
        """
        if not self.has_delivered(code):
            return float("inf")
        return self.alive_age_ms(now_ns)

    def unchanged_ms(self, code: str, now_ns: int) -> float:
        """Return the time since ``code`` last delivered; infinite when it never has."""
        if code not in self._last_ns:
            return float("inf")
        return max(now_ns - self._last_ns[code], 0) / NS_PER_MS
