"""
Calls to a store that are answered within a second, or count as unanswered.

The pool waits seven seconds for a server that is only slow. An exit cannot: with its record on
the local disk it need not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from arb_ray.domain.errors import OutcomeUnknown

ANSWER_S: Final = 1.0
"""A call without an answer for so long is given up; what it wrote, if anything, is unknown."""

CUT_S: Final = 0.3
"""After its connection was cut, a call gets so long to tell how it ended."""

Result = TypeVar("Result")


class PromptCalls:
    """Awaits calls; ``cut`` throws away the connections that somebody waits on."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut

    async def answer(self, call: Coroutine[Any, Any, Result], what: str) -> Result:
        """
        Return the call's answer.

        Raises:
            OutcomeUnknown: There was none in time. Also whatever the call raises.
        """
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task}, timeout=ANSWER_S)
            if not task.done():
                # Whatever hangs, hangs on the same wire: everybody learns of it at once.
                self._cut()
                task.cancel()
                await asyncio.wait({task}, timeout=CUT_S)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_heard)
            raise
        if task.done() and not task.cancelled():
            return task.result()
        task.add_done_callback(_heard)
        raise OutcomeUnknown(what, round(ANSWER_S * 1000))


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of how an abandoned call ended, so that nobody complains that nobody did."""
    if not task.cancelled():
        task.exception()
