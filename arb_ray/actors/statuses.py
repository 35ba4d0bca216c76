"""What the actors said last, and which process said it: counts go on over a restart."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from arb_ray.actors.wire import unpack
from arb_ray.engine.status import FeedStatus, HostStatus
from arb_ray.engine.status_carry import feed_after, host_after
from arb_ray.engine.topology import Role, WantedActor


class Statuses:
    """
    The newest status of every actor, by name.

    What the processes before today's had counted is set aside; today's statuses include it.
    ``born_ns`` tells the processes of an actor apart.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, HostStatus] = {}
        self.feeds: dict[str, FeedStatus] = {}
        self.others: dict[str, dict[str, object]] = {}
        self.born_ns: dict[str, int] = {}
        self._former_hosts: dict[str, HostStatus] = {}
        self._former_feeds: dict[str, FeedStatus] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.hosts or name in self.feeds or name in self.others

    def lacks(self, name: str) -> str:
        """Tell in a word why an actor does not do all its work yet; empty when it does."""
        if name not in self:
            return "unheard"
        if (host := self.hosts.get(name)) is not None:
            is_whole = set(host.symbols) <= set(host.live)
            return "" if host.ready and is_whole else "books" if host.ready else "unready"
        feed, other = self.feeds.get(name), self.others.get(name, {})
        if other.get("postgres") == "down":
            return "store"
        is_ready = feed.ready if feed is not None else other.get("ready", True)
        return "" if is_ready else "unready"

    def singleton(self, role: Role) -> dict[str, object]:
        """Return what the one actor of a role said; nothing when it has not answered."""
        return next((told for name, told in self.others.items() if name.startswith(f"{role}:")), {})

    def take(self, actor: WantedActor, told: Any) -> bool:
        """Take an answer; tell whether another process than before gave it."""
        name = actor.name
        if actor.role is Role.HOST:
            host = unpack(told, HostStatus)
            is_reborn = self._is_reborn(name, host.born_ns)
            if is_reborn and name in self.hosts:
                self._former_hosts[name] = self.hosts[name]
            former_host = self._former_hosts.get(name)
            self.hosts[name] = host_after(former_host, host) if former_host else host
        elif actor.role is Role.FEED:
            feed = unpack(told, FeedStatus)
            is_reborn = self._is_reborn(name, feed.born_ns)
            if is_reborn and name in self.feeds:
                self._former_feeds[name] = self.feeds[name]
            former_feed = self._former_feeds.get(name)
            self.feeds[name] = feed_after(former_feed, feed) if former_feed else feed
        else:
            is_reborn = self._is_reborn(name, told.get("born_ns", 0))
            self.others[name] = told
        return is_reborn

    def set_aside(self, name: str) -> None:
        """Keep what a former process counted and nothing else: the new one is not born yet."""
        if name in self.hosts:
            self._former_hosts[name] = self.hosts.pop(name)
        if name in self.feeds:
            self._former_feeds[name] = self.feeds.pop(name)
        self.others.pop(name, None)
        self.born_ns.pop(name, None)

    def retire(self, name: str) -> None:
        """Forget the former processes of an actor that is not wanted any more."""
        for told in (self._former_hosts, self._former_feeds, self.born_ns):
            told.pop(name, None)

    def keep_only(self, wanted: Container[str]) -> None:
        """Drop what everyone else said."""
        for told in (self.hosts, self.feeds, self.others):
            for name in [name for name in told if name not in wanted]:
                del told[name]

    def _is_reborn(self, name: str, born_ns: int) -> bool:
        before = self.born_ns.get(name, 0)
        if born_ns:
            self.born_ns[name] = born_ns
        return bool(before and born_ns and born_ns != before)
