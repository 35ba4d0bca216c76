"""
Does an actor keep up? A process that is given more than it can look at says so.

Overload costs no correctness here: the newest book wins, and what is decided stays young. It
costs edge, because most of what the market said was never looked at, and it is the sign that
there is no room for more symbols.
"""

from __future__ import annotations

NS_PER_S = 10**9

DECIDED_SHARE_MIN = 0.5
"""
Of the updates, looked at before a newer one came; below it an actor is overloaded.

A venue that sends a book twice in one moment makes 60 to 80 % usual on an idle machine (the
preset lively does), so the bound lies below that.
"""

BUSY_SHARE_MIN = 0.8
BUSY_LOST_PER_S = 1_000
"""Where so many are lost a second it is no coincidence of a few, and this share is the bound."""

LOOP_LAG_MAX_MS = 250.0
"""How late a timer may be."""

LASTS_S = 5.0
"""Either must last so long to be told, and its end too."""

UPDATES_MIN = 100
"""The share of fewer says nothing."""


class Overload:
    """Judges totals that somebody else keeps; look at them about once a second."""

    def __init__(self) -> None:
        self.why = ""  # in words; empty while it keeps up
        self.decided_share = 1.0  # in the last look that had enough updates
        self._decided = self._overwritten = 0  # totals when the share was last judged
        self._judged_ns = 0
        self._lost_per_s = 0.0  # in the same look as the share
        self._since_ns: int | None = None  # when the opposite of what is told began

    @property
    def is_overloaded(self) -> bool:
        """Whether it is told now."""
        return bool(self.why)

    def look(self, now_mono_ns: int, decided: int, overwritten: int, loop_lag_ms: float) -> bool:
        """
        Judge what was added to the totals; True when overload began or is over.

        ``decided`` are updates that were looked at, ``overwritten`` those that were not and never
        will be.
        """
        self._judge_share(now_mono_ns, decided, overwritten)
        problem = self._problem(loop_lag_ms)
        if bool(problem) == self.is_overloaded:
            self._since_ns = None
            self.why = problem
            return False
        if self._since_ns is None:
            self._since_ns = now_mono_ns
        if now_mono_ns - self._since_ns < LASTS_S * NS_PER_S:
            return False
        self._since_ns = None
        self.why = problem
        return True

    def _judge_share(self, now_mono_ns: int, decided: int, overwritten: int) -> None:
        added, lost = decided - self._decided, overwritten - self._overwritten
        is_enough = added + lost >= UPDATES_MIN
        is_time = now_mono_ns - self._judged_ns >= LASTS_S * NS_PER_S
        if not is_enough and not is_time:
            return
        self._lost_per_s = lost * NS_PER_S / max(1, now_mono_ns - self._judged_ns)
        self._decided, self._overwritten, self._judged_ns = decided, overwritten, now_mono_ns
        self.decided_share = added / (added + lost) if is_enough else 1.0

    def _problem(self, loop_lag_ms: float) -> str:
        is_busy = self._lost_per_s > BUSY_LOST_PER_S
        if self.decided_share < (BUSY_SHARE_MIN if is_busy else DECIDED_SHARE_MIN):
            return f"{self.decided_share:.0%} of the updates are looked at in time"
        if loop_lag_ms > LOOP_LAG_MAX_MS:
            return f"the event loop is {loop_lag_ms:.0f} ms late"
        return ""
