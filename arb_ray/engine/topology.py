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


def symbols_by_host(
    symbols: Sequence[str], symbols_per_actor: str, host_count_auto: int
) -> tuple[tuple[str, ...], ...]:
    """
    Split sorted symbols into contiguous groups, one a strategy host.

    ``symbols_per_actor`` is ``"auto"`` (``host_count_auto`` groups) or a positive number.
    Contiguous and sorted, so that serving hosts in order is serving symbols in order, which
    a lock-step replay relies on.
    """
    ordered = sorted(symbols)
    if not ordered:
        return ()
    if symbols_per_actor == "auto":
        groups = max(1, min(host_count_auto, len(ordered)))
    else:
        size = int(symbols_per_actor)
        assert size > 0, "the settings refuse anything else"
        groups = -(-len(ordered) // size)
    base, extra = divmod(len(ordered), groups)
    split: list[tuple[str, ...]] = []
    at = 0
    for index in range(groups):
        size = base + (1 if index < extra else 0)
        split.append(tuple(ordered[at : at + size]))
        at += size
    return tuple(split)


def plan(
    session_id: str,
    config_version: str,
    *,
    groups: Sequence[Sequence[str]],
    venues: Sequence[str],
    has_source: bool,
    has_gateway: bool = True,
) -> Topology:
    """Return the actors that a session needs: singletons, one feed a venue, the hosts."""
    everything = tuple(sorted(symbol for group in groups for symbol in group))
    actors = [
        WantedActor(Role.PERSISTENCE, "main", (), _version(session_id)),
        WantedActor(Role.RISK, "main", (), _version(session_id, config_version)),
    ]
    if has_source:
        actors.insert(
            0, WantedActor(Role.SOURCE, "main", everything, _version(session_id, *everything))
        )
    for index, group in enumerate(groups):
        key = f"{index:03d}"
        version = _version(session_id, config_version, *group)
        actors.append(WantedActor(Role.HOST, key, tuple(group), version))
    actors += [
        WantedActor(Role.FEED, venue, everything, _version(session_id, config_version, *everything))
        for venue in venues
    ]
    if has_gateway:
        actors.append(WantedActor(Role.GATEWAY, "main", (), _version(session_id)))
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
