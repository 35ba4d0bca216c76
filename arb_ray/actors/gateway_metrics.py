"""
The Gateway's ``/metrics``: every actor's values on one page.

Who runs is the Supervisor's knowledge. All are asked at the same time; one that does not
answer in time is missing from the page and counted on it, and never spoils the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from arb_ray.domain.errors import ArbError
from arb_ray.ports import MetricsSource

ANSWER_TIMEOUT_S = 2.0
"""For the list of actors, and then for all of their answers: well below a scrape's ten seconds."""

PAGE_AGE_MAX_S = 1.0
"""A page so young is served again: the bound on what a crowd of scrapers can cost the actors."""


class MetricsPage:
    """Gathers and merges the actors' expositions."""

    def __init__(
        self,
        *,
        own: MetricsSource,
        own_name: str,
        names: Callable[[], Awaitable[Sequence[str]]],
        ask: Callable[[str], Awaitable[bytes]],
        supervisor: str,
    ) -> None:
        self._own = own
        self._own_name = own_name
        self._names = names
        self._ask = ask
        self._supervisor = supervisor
        self._known: tuple[str, ...] = ()
        self._page = b""
        self._made_s = float("-inf")
        self._turn = asyncio.Lock()
        self._count_unanswered(supervisor, 0)

    async def page(self) -> bytes:
        """Return the page in Prometheus' text format; one is made at a time."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            if loop.time() - self._made_s > PAGE_AGE_MAX_S:
                self._page = await self._make()
                self._made_s = loop.time()
            return self._page

    async def _make(self) -> bytes:
        names = await self._who_runs()
        answers = await asyncio.gather(*(self._families_of(name) for name in names))
        own = _families(self._own.exposition())  # last, so that it has this page's own misses
        return await asyncio.to_thread(_merged, [*answers, own])

    async def _who_runs(self) -> tuple[str, ...]:
        try:
            names = await self._names()
        except ArbError:
            pass  # asked for its own metrics next, it will be counted; the others live on
        else:
            self._known = tuple(name for name in names if name != self._own_name)
            for name in self._known:
                self._count_unanswered(name, 0)
        return (*self._known, self._supervisor)

    async def _families_of(self, name: str) -> Sequence[Metric]:
        try:
            answer = await self._ask(name)
            # Some milliseconds of work with many symbols: not on the loop that serves probes.
            return await asyncio.to_thread(_families, answer)
        except (ArbError, ValueError):  # no answer, or one that is no exposition
            self._count_unanswered(name, 1)
            return ()

    def _count_unanswered(self, name: str, count: int) -> None:
        self._own.inc("metrics_unanswered", count, role=name.split(":", 1)[0])


class _Families(Collector):
    """Families to be written out."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(exposition: bytes) -> Sequence[Metric]:
    return tuple(text_string_to_metric_families(exposition.decode()))


def _merged(answers: Iterable[Sequence[Metric]]) -> bytes:
    """Write all series under one heading a family; the label ``actor`` tells them apart."""
    merged: dict[str, Metric] = {}
    for families in answers:
        for family in families:
            known = merged.setdefault(family.name, family)
            if known is not family:
                known.samples.extend(family.samples)
    return generate_latest(_Families(merged.values()))
