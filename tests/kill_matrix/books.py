"""What both venues show in a cell."""

from __future__ import annotations

import asyncio

from tests.kill_matrix.market import START
from tests.kill_matrix.process import Process

FEEDS = {"feed-a": "upbit", "feed-b": "binance"}
SHOWN_WITHIN_S = 5.0


class Books:
    """Sets the feeds' books, and knows when a host has them."""

    def __init__(self, now: dict[str, Process]) -> None:
        self._now = now
        self._books: dict[str, tuple[str, ...]] = dict(START)
        self._version = 0
        self._shown: dict[str, tuple[int, int]] = {}
        self._has_shown = asyncio.Event()

    def set(self, **books: str) -> None:
        """Show these from now on; Upbit shows the dollar's price beside."""
        self._books |= {
            venue: (name, "f") if venue == "upbit" else (name,) for venue, name in books.items()
        }
        self._version += 1
        self.tell()

    def tell(self) -> None:
        """Tell the feeds that there are."""
        for feed, venue in FEEDS.items():
            if feed in self._now:
                self._now[feed].say("show", self._version, self._books[venue])

    def shown(self, feed: str, life: int, version: int) -> None:
        """Note that a host of this life has taken a feed's books."""
        self._shown[feed] = (life, version)
        self._has_shown.set()

    async def until_shown(self) -> None:
        """Wait until the host of now has the newest books."""
        life = self._now["host"].part.life
        async with asyncio.timeout(SHOWN_WITHIN_S):
            while any(self._shown.get(feed, (-1, 0)) < (life, self._version) for feed in FEEDS):
                self._has_shown.clear()
                await self._has_shown.wait()
