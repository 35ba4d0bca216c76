"""
Draws the live view on the terminal's second screen, which leaves the first one as it was.

Where stdout is no terminal, and with ``--json``, a plain line goes to stderr every few
seconds instead.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live

from arb_ray.app.live_view import Moment, plain_line, render
from arb_ray.app.run_context import RunContext
from arb_ray.engine.status import SystemStatus

PLAIN_INTERVAL_S = 5.0
RATE_WINDOW_S = 4.0


class FrameRates:
    """Frames a second of each feed over the last seconds; bounded by the window."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def update(self, status: SystemStatus, mono_s: float) -> dict[str, float]:
        """Take a status at a monotonic time (seconds); return the rates by actor name."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in status.feeds}
        rates = {}
        for name, feed in status.feeds.items():
            seen = self._seen.setdefault(name, deque())
            if seen and feed.frames < seen[-1][1]:
                seen.clear()  # the feed was started again and counts from zero
            seen.append((mono_s, feed.frames))
            while len(seen) > 2 and mono_s - seen[0][0] > RATE_WINDOW_S:
                seen.popleft()
            (begun_s, begun), (ended_s, ended) = seen[0], seen[-1]
            rates[name] = (ended - begun) / (ended_s - begun_s) if ended_s > begun_s else 0.0
        return rates


class LiveView:
    """
    Shows statuses: on the terminal, or as plain lines on stderr.

    Use as a context manager, so that the terminal is given back whatever happens.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        as_json: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._stderr = stderr or sys.stderr
        self._mono_s = mono_s
        self._rates = FrameRates()
        self._plain_at_s = float("-inf")
        console = Console(file=stdout or sys.stdout)
        is_screen = console.is_terminal and not console.is_dumb_terminal and not as_json
        self._live = Live(console=console, screen=True, auto_refresh=False) if is_screen else None

    @property
    def is_screen(self) -> bool:
        """Tell whether the terminal is taken; logs must go elsewhere meanwhile."""
        return self._live is not None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, status: SystemStatus, elapsed_s: float | None) -> None:
        """Show a status; ``elapsed_s`` is None until all symbols are live."""
        now_s = self._mono_s()
        moment = Moment(elapsed_s, self._rates.update(status, now_s))
        if self._live is not None:
            size = self._live.console.size
            picture = render(status, self._context, moment, width=size.width, height=size.height)
            self._live.update(picture, refresh=True)
        elif now_s - self._plain_at_s >= PLAIN_INTERVAL_S:
            self._plain_at_s = now_s
            self._stderr.write(f"{plain_line(status, moment)}\n")
            self._stderr.flush()
