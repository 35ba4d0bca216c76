"""
Group commit: calls that come while a commit is under way share the next one.

A call that finds nobody at work is begun at once; nothing waits for a timer. One group is at
work at a time, in the order of arrival, so whoever holds the turn knows that none is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from arb_ray.domain.risk_intent import ReserveIntent, Settlement

GROUP_MAX = 50
"""Decisions of one commit: it lasts milliseconds. What is more waits for the next."""

Asked = ReserveIntent | Settlement


class Call:
    """Something asked for, and whoever waits for its answer."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(self, answer: Any) -> None:
        """Tell everyone who waits."""
        if not self.answered.done():
            self.answered.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Raise an error at everyone who waits."""
        if not self.answered.done():
            self.answered.set_exception(error)


class Groups:
    """
    Collects calls, and hands them on group by group while it holds the turn.

    A repeat of a call that is under way shares its outcome: while PostgreSQL hangs, one call
    an id waits for it, however often a host asks. How many wait is bounded by the calls that
    Ray lets into the actor (``max_concurrency``).
    """

    def __init__(
        self,
        carry_out: Callable[[Sequence[Call]], Awaitable[None]],
        turn: asyncio.Lock,
        log: Any,
    ) -> None:
        self._carry_out = carry_out
        self._turn = turn
        self._log = log
        self._waiting: deque[Call] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.under_way: dict[Asked, Call] = {}

    async def join(self, asked: Asked) -> Any:
        """
        Have ``asked`` carried out with those that wait too; return its answer.

        The id is in ``asked``, and other content under the same id is another call. A caller
        that goes away does not take the call with it.
        """
        call = self.under_way.get(asked)
        if call is None:
            call = self.under_way[asked] = Call(asked)
            call.answered.add_done_callback(lambda _: self._forget(asked))
            self._waiting.append(call)
            if self._worker is None or self._worker.done():
                self._worker = asyncio.get_running_loop().create_task(self._work())
        return await asyncio.shield(call.answered)

    def _forget(self, asked: Asked) -> None:
        answered = self.under_way.pop(asked).answered
        # Looked at here, because its caller may have gone.
        if not answered.cancelled() and (error := answered.exception()) is not None:
            self._log.debug("call_failed", trade_id=asked.trade_id, cause=str(error))

    async def _work(self) -> None:
        while self._waiting:
            async with self._turn:
                group = self._next_group()
                try:
                    await self._carry_out(group)
                    # A repeat would join a call that nobody answers any more, for ever.
                    assert all(call.answered.done() for call in group), "a call has no answer"
                except Exception as error:  # noqa: BLE001 (a bug: everyone it concerns is told)
                    for call in group:
                        call.fail(error)

    def _next_group(self) -> list[Call]:
        """Take what waits, up to the bound, and up to an id that is in the group already."""
        group: list[Call] = []
        ids: set[str] = set()
        while self._waiting and len(group) < GROUP_MAX:
            trade_id = self._waiting[0].asked.trade_id
            if trade_id in ids:
                break
            ids.add(trade_id)
            group.append(self._waiting.popleft())
        return group

    async def stop(self) -> None:
        """Let go of everything; what is on its way to the store may still arrive there."""
        self._waiting.clear()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for call in list(self.under_way.values()):
            call.answered.cancel()
