"""
Which hosts of other nodes share a board there, so that one call carries the ticks of all.

A host on another node is asked who its neighbours are. Where it has some that this feed serves
too, it becomes their relay (``node_relay.py``): it is called for all of them, and they are called
no more. It is asked again and again; when it ends, or knows a host no more, those that it served
are called one by one until another relay is found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from arb_ray.domain.errors import ArbError

ASK_S = 1.0
"""How often a feed asks who shares a node with whom."""


class RelayMap:
    """Which host is served by which other one."""

    def __init__(self, ask: Callable[[str], Awaitable[Sequence[str]]]) -> None:
        self._ask = ask
        self._relay_of: dict[str, str] = {}
        self._next = 0

    @property
    def relays(self) -> frozenset[str]:
        """The hosts that relay."""
        return frozenset(self._relay_of.values())

    def relay_of(self, host: str) -> str | None:
        """Return the relay that serves a host, itself perhaps; None when it is called alone."""
        return self._relay_of.get(host)

    def served_by(self, relay: str) -> frozenset[str]:
        """Return the hosts that a relay serves."""
        return frozenset(host for host, by in self._relay_of.items() if by == relay)

    async def renew(self, elsewhere: Iterable[str]) -> bool:
        """
        Ask every relay, and one of the hosts that are called alone; tell whether anything changed.

        ``elsewhere`` are the hosts that are not on the feed's own board.
        """
        hosts = sorted(elsewhere)
        before = dict(self._relay_of)
        found: dict[str, str] = {}
        for relay in sorted(self.relays.intersection(hosts)):
            await self._take(relay, hosts, found)
        alone = [host for host in hosts if host not in found]
        if alone:
            self._next += 1
            await self._take(alone[self._next % len(alone)], alone, found)
        self._relay_of = found
        return found != before

    async def _take(self, relay: str, hosts: Sequence[str], found: dict[str, str]) -> None:
        if relay in found:
            return
        try:
            there = await self._ask(relay)
        except ArbError:
            return
        mine = [host for host in hosts if host in there and host not in found]
        if relay in mine and len(mine) > 1:
            found.update(dict.fromkeys(mine, relay))
