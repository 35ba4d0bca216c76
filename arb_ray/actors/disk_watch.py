"""
Room on the disk that must take what PostgreSQL does not.

Exits are possible always, and without PostgreSQL they go to this disk. So while it could not
take them nothing new is entered: a full disk is an alarm and REDUCE_ONLY, not a crash. Room
again ends the alarm; entries begin with an operator's resume, like after every restriction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from arb_ray.domain.errors import ArbError
from arb_ray.ports import Metrics

CHECK_INTERVAL_S = 2.0

Restrict = Callable[[str], Awaitable[object]]
"""Tells RiskGuard to allow no entries, for a reason. Raises ArbError when it does not hear."""


class DiskWatch:
    """
    Measures free space, hears of refusals, and lets nothing be entered while there is need.

    RiskGuard is told at every look, in the words of the first one: somebody may have resumed
    meanwhile, and what it knows already changes nothing there.
    """

    def __init__(
        self,
        *,
        free_bytes: Callable[[], int],
        free_min_bytes: int,
        restrict: Restrict,
        metrics: Metrics,
        log: Any,
    ) -> None:
        self._free_bytes = free_bytes
        self._free_min_bytes = free_min_bytes
        self._restrict = restrict
        self._metrics = metrics
        self._log = log
        self._refusal = ""
        self._reason = ""  # of the present need, as it was first seen
        self.trouble = ""

    def note_refused(self, cause: str) -> None:
        """Hear that the spool took no record."""
        self._refusal = cause

    def note_taken(self) -> None:
        """Hear that it takes records, or has been emptied."""
        self._refusal = ""

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def check(self) -> None:
        """Look once, and see to it that RiskGuard knows."""
        self.trouble = await self._look()
        self._metrics.set("disk_full", float(bool(self.trouble)))
        if not self.trouble:
            if self._reason:
                self._log.warning("disk_has_room")
            self._reason = ""
            return
        if not self._reason:
            self._log.error("disk_full", cause=self.trouble)
            self._reason = self.trouble
        try:
            await self._restrict(self._reason)
        except ArbError as error:
            # It recovers, or is away: without it nothing is entered either. Again next time.
            self._log.warning("restriction_waits", cause=str(error))

    async def _look(self) -> str:
        try:
            free = await asyncio.to_thread(self._free_bytes)
        except OSError as error:
            return f"the disk of the spool does not answer: {error}"
        self._metrics.set("disk_free_bytes", float(free))
        if free < self._free_min_bytes:
            return f"the disk of the spool has {free} bytes left, less than {self._free_min_bytes}"
        if self._refusal:
            return f"the spool takes no records: {self._refusal}"
        return ""
