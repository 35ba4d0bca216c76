"""
Python's garbage collector in the processes that ticks go through.

A process with Ray in it holds ninety thousand objects that live as long as it does. The
collector looks through all of them in a full round, tens of milliseconds in which no tick is
taken. So what is there when the process starts and what has settled ten seconds later is
frozen: no round looks at it again. What comes later is collected as ever, in fewer and larger
rounds, so memory stays bounded; what is given up is garbage in cycles among what was frozen.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from arb_ray.actors.hosting import Loops
from arb_ray.engine.lately import LatelyMax
from arb_ray.ports import Metrics

SETTLED_S = 10.0
"""After its birth; imports, connections and first books are there by then."""

THRESHOLDS = (10_000, 20, 20)
"""
Young objects that start a round, and rounds of one age that start one of the next; Python has
700, 10, 10. Decision 22 has the figures.
"""

WINDOW_S = 15.0
"""As long as the usual time between two scrapes."""

TELL_S = 2.0


class Collector:
    """Tunes this process' collector, and tells how long its rounds take."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began_s = 0.0
        self._pauses = LatelyMax(WINDOW_S)

    async def run(self) -> None:
        """Freeze what is there, and once more when all has settled; tell for ever."""
        gc.callbacks.append(self._note)
        try:
            self.freeze()  # the one long round, before the first tick
            await asyncio.sleep(SETTLED_S)
            self.freeze()  # looks at what came since
            while True:
                self._metrics.set("gc_pause_ms", self._pauses.value(time.monotonic()))
                await asyncio.sleep(TELL_S)
        finally:
            gc.callbacks.remove(self._note)
            gc.unfreeze()

    def freeze(self) -> None:
        """Clear away what a start left, and never look at the rest again."""
        gc.set_threshold(*THRESHOLDS)
        gc.collect()
        gc.freeze()

    def _note(self, phase: str, _info: dict[str, Any]) -> None:
        now_s = time.monotonic()
        if phase == "start":
            self._began_s = now_s
        else:
            self._pauses.add((now_s - self._began_s) * 1e3, now_s)


def start_collecting(metrics: Metrics, loops: Loops) -> None:
    """Start it beside an actor's other loops."""
    loops.start("collector", Collector(metrics).run())
