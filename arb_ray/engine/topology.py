"""
Which actors should exist, and what must change so that they do.

Level-triggered, after Ray Serve's controller: ``plan`` says what is wanted, ``difference``
compares it with what is there, and applying the difference twice does nothing the second
time. An actor's name carries the version of what it was started with, so a changed
configuration is a new name, and what did not change is left alone.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping, Sequence

import msgspec

SCHEMA = 1

MAIN = "main"
"""The key of a role that has one actor."""


class Role(enum.StrEnum):
    """What an actor is for; the order is the order of starting."""

    SOURCE = "source"  # embedded exchanges, simulated or recorded
    PERSISTENCE = "persistence"
    RISK = "risk"
    HOST = "host"
    FEED = "feed"
    GATEWAY = "gateway"
    SUPERVISOR = "supervisor"


class WantedActor(msgspec.Struct, frozen=True):
    """
    One actor that should exist.

    ``key`` names it within its role (a venue, a host's number); ``symbols`` is what it
    works on; ``version`` digests everything that a running copy could not be told later.
    """

    role: Role
    key: str
    symbols: tuple[str, ...]
    version: str

    @property
    def name(self) -> str:
        """The actor's name in Ray: role, key and version."""
        return f"{self.role}:{self.key}@{self.version}"


class Topology(msgspec.Struct, frozen=True):
    """Everything that should run for one session."""

    session_id: str
    version: str
    actors: tuple[WantedActor, ...]
    schema: int = SCHEMA

    def of(self, role: Role) -> tuple[WantedActor, ...]:
        """The wanted actors of one role, in order of their keys."""
        return tuple(actor for actor in self.actors if actor.role is role)


class Difference(msgspec.Struct, frozen=True):
    """What to start and what to stop, each in the right order."""

    start: tuple[WantedActor, ...]
    stop: tuple[str, ...]


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an actor of each role was started with and cannot be told later, digested.

    An actor's name changes with its digest alone, so a new limit (RiskGuard reads it from the
    wanted state) renames nobody, and a new fee renames the hosts and nothing else.
    """

    everyone: str = ""  # the code and where the stores are
    source: str = ""
    host: str = ""
    feeds: Mapping[str, str] = {}  # by venue
    persistence: str = ""
    gateway: str = ""


def symbols_by_host(
    symbols: Sequence[str],
    symbols_per_actor: str,
    host_count_auto: int,
    before: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """
    Give each symbol to one strategy host; return the hosts' symbols by the hosts' keys.

    ``symbols_per_actor`` is ``"auto"`` (``host_count_auto`` hosts) or a positive number.

    Without ``before`` the groups are contiguous and sorted, so that serving hosts in order is
    serving symbols in order, which a lock-step replay relies on. With it every symbol stays
    where it was; a new one goes to the host that has the fewest, or to a new host when all
    are full. A host that is left without symbols is not wanted any more.
    """
    ordered = sorted(symbols)
    if not ordered:
        return {}
    if symbols_per_actor == "auto":
        count = max(1, min(host_count_auto, len(ordered)))
        room = -(-len(ordered) // count)
    else:
        room = int(symbols_per_actor)
        assert room > 0, "the settings refuse anything else"
        count = -(-len(ordered) // room)
    if not before:
        return _split(ordered, count)
    kept = {key: [s for s in group if s in ordered] for key, group in sorted(before.items())}
    groups = {key: group for key, group in kept.items() if group}
    placed = {symbol for group in groups.values() for symbol in group}
    for symbol in (one for one in ordered if one not in placed):
        key = _host_with_room(groups, count)
        groups.setdefault(key, []).append(symbol)
    return {key: tuple(sorted(group)) for key, group in sorted(groups.items())}


def _split(ordered: Sequence[str], count: int) -> dict[str, tuple[str, ...]]:
    base, extra = divmod(len(ordered), count)
    groups: dict[str, tuple[str, ...]] = {}
    at = 0
    for index in range(count):
        size = base + (1 if index < extra else 0)
        groups[_key(index)] = tuple(ordered[at : at + size])
        at += size
    return groups


def _host_with_room(groups: Mapping[str, Sequence[str]], count: int) -> str:
    if len(groups) >= count:
        # So many hosts have room for all symbols, so the one with the fewest has some.
        return min(groups, key=lambda one: (len(groups[one]), one))
    return next(key for key in map(_key, range(len(groups) + 1)) if key not in groups)


def _key(index: int) -> str:
    return f"{index:03d}"


def plan(
    session_id: str,
    digests: Digests,
    *,
    groups: Mapping[str, Sequence[str]],
    venues: Sequence[str],
    leaving: Sequence[str] = (),
    served: Sequence[str] = (),
    has_gateway: bool = True,
) -> Topology:
    """
    Return the actors that a session needs: singletons, one feed a venue, the hosts.

    ``groups`` are the symbols of each host by its key, ``leaving`` those among them that only
    close what they have open; ``served`` is what the embedded exchanges
    serve, and empty when there are none: they may serve more than is traded, so that a symbol
    that leaves and returns does not restart the market.
    """
    traded = tuple(sorted(symbol for group in groups.values() for symbol in group))
    common = (session_id, digests.everyone)
    actors = [
        WantedActor(Role.PERSISTENCE, MAIN, (), _version(*common, digests.persistence)),
        WantedActor(Role.RISK, MAIN, (), _version(*common)),
    ]
    if served:
        version = _version(*common, digests.source, *served)
        actors.insert(0, WantedActor(Role.SOURCE, MAIN, tuple(served), version))
    for key, group in sorted(groups.items()):
        gone = [symbol for symbol in group if symbol in leaving]
        version = _version(*common, digests.host, *group, "leaving", *gone)
        actors.append(WantedActor(Role.HOST, key, tuple(group), version))
    actors += [
        WantedActor(
            Role.FEED, venue, traded, _version(*common, digests.feeds.get(venue, ""), *traded)
        )
        for venue in venues
    ]
    if has_gateway:
        actors.append(WantedActor(Role.GATEWAY, MAIN, (), _version(*common, digests.gateway)))
    version = _version(*(actor.name for actor in actors))
    return Topology(session_id, version, tuple(actors))


def difference(wanted: Topology, present: Mapping[str, bool]) -> Difference:
    """
    Compare what is wanted with what is there.

    Args:
        wanted: The desired topology.
        present: Names of existing actors, and whether each is alive or coming back.
    """
    names = {actor.name for actor in wanted.actors}
    start = tuple(actor for actor in wanted.actors if not present.get(actor.name, False))
    # Consumers stop before what they consume: the reverse of the order of starting.
    order = {str(role): index for index, role in enumerate(Role)}
    stale = [name for name in present if name not in names]
    # What nobody knows (an older version's role) goes last.
    stale.sort(key=lambda name: -order.get(_role_of(name), -1))
    return Difference(start, tuple(stale))


def _role_of(name: str) -> str:
    return name.split(":", 1)[0]


def _version(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:8]
