"""
Every actor is asked for its status at its own pace: one that is slow or dead holds up nobody.

At most one question an actor is under way; whose last one got no answer is asked anew beside it,
because what is sent while a process starts again may be lost. A turn asks whoever owes nothing,
waits a moment for the answers and goes on with those that came; the others are taken when they
come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from arb_ray.domain.errors import ArbError, OutcomeUnknown
from arb_ray.engine.silence import Silence
from arb_ray.engine.topology import WantedActor
from arb_ray.ports import Clock

NEWS_S = 1.0
"""Whose answer took so long was starting or in trouble; a shorter time is a busy machine."""


AGAIN_S = 0.3
"""Whose last question got no answer is asked anew so often while the present one is under way."""


class Asking:
    """
    Asks, and keeps who is silent.

    ``take`` gets each answer. ``news`` is set when one was long in coming: what it changes
    should not wait for the next turn.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        timeout_s: float,
        patience_s: float,
        take: Callable[[WantedActor, Any], None],
    ) -> None:
        self.news = asyncio.Event()
        self.silence = Silence()
        self._clock = clock
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._take = take
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._missed: set[str] = set()
        self._heard_mono_ns: dict[str, int] = {}

    async def turn(self, links: Any, actors: Iterable[WantedActor]) -> None:
        """Ask everyone of whom no answer is awaited; return when all have, or after a moment."""
        wanted = {actor.name: actor for actor in actors}
        for name in [name for name in self.silence.names if name not in wanted]:
            self.forget(name)
        for name, actor in wanted.items():
            if name not in self._under_way:
                self.silence.asked(name)
                self._under_way[name] = asyncio.create_task(self._ask(links, actor))
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=self._patience_s)

    async def all(self, links: Any, actors: Iterable[WantedActor]) -> None:
        """Ask everyone anew and wait for each, as long as an answer may take."""
        wanted = list(actors)
        self.cancel()
        await self.turn(links, wanted)
        if self._under_way:
            await asyncio.wait(self._under_way.values())

    async def _ask(self, links: Any, actor: WantedActor) -> None:
        name, asked_ns = actor.name, self._clock.mono_ns()
        try:
            told = await self._answer(links, name)
        except ArbError:
            self._missed.add(name)
            self._under_way.pop(name, None)
            return
        self._under_way.pop(name, None)
        self._heard_mono_ns[name] = now_ns = self._clock.mono_ns()
        self.silence.heard(name)
        if now_ns - asked_ns >= NEWS_S * 1e9 or name in self._missed:
            self.news.set()
        self._missed.discard(name)
        self._take(actor, told)

    async def _answer(self, links: Any, name: str) -> Any:
        if name not in self._missed:
            return await links.call(name, "status", timeout_s=self._timeout_s)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._timeout_s
        calls: set[asyncio.Task[Any]] = set()
        try:
            while (left_s := end_s - loop.time()) > 0:
                call = links.call(name, "status", timeout_s=left_s)
                calls.add(asyncio.ensure_future(call))
                next_s = min(loop.time() + AGAIN_S, end_s)
                while calls and (wait_s := next_s - loop.time()) > 0:
                    done, calls = await asyncio.wait(
                        calls, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    for one in done:
                        with contextlib.suppress(ArbError):
                            return one.result()
                await asyncio.sleep(max(next_s - loop.time(), 0))
        finally:
            for one in calls:
                one.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        raise OutcomeUnknown(f"{name}.status", round(self._timeout_s * 1000))

    def is_missed(self, name: str) -> bool:
        """Tell whether the last question to ``name`` got no answer in time."""
        return name in self._missed

    @property
    def missed_count(self) -> int:
        """How many did not answer in time."""
        return len(self._missed)

    def age_s(self, names: Iterable[str]) -> float | None:
        """Return the age of the oldest answer of ``names``; None when none has answered."""
        heard = [self._heard_mono_ns[name] for name in names if name in self._heard_mono_ns]
        return (self._clock.mono_ns() - min(heard)) / 1e9 if heard else None

    def forget(self, name: str) -> None:
        """Await nothing of ``name`` any more: its process is another one, or not wanted."""
        task = self._under_way.pop(name, None)
        if task is not None:
            task.cancel()
        self.silence.forget(name)
        self._missed.discard(name)
        self._heard_mono_ns.pop(name, None)

    def cancel(self) -> None:
        """Await nobody any more."""
        for name in list(self._under_way):
            self._under_way.pop(name).cancel()
