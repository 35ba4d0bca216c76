"""What the Supervisor needs from outside: where it is written what should run, and the means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from arb_ray.domain.instrument import InstrumentId, Pair
from arb_ray.domain.ledger import Entry
from arb_ray.engine.session_snapshot import Counts
from arb_ray.engine.topology import Topology, WantedActor

NOTHING = Topology("", "", ())
"""What is wanted before the wanted state was read."""


class Cluster(Protocol):
    """Where actors live; Ray, or a test's stand-in."""

    links: Any

    def start(self, wanted: WantedActor) -> None:
        """Start or adopt an actor."""
        ...

    def present(self) -> tuple[str, ...]:
        """Return the names that exist."""
        ...

    async def ping(self, name: str, timeout_s: float) -> bool:
        """Tell whether an actor answers."""
        ...

    async def stop(self, name: str) -> None:
        """Drain and end an actor."""
        ...

    def end(self, name: str) -> None:
        """End an actor at once, also one that answers nobody."""
        ...


class Reference(Protocol):
    """What hosts, feeds and RiskGuard must know of the markets."""

    def instruments(self, venue: str, symbols: Sequence[str]) -> list[InstrumentId]:
        """Return what a host with ``symbols`` wants of a venue's feed."""
        ...

    async def pairs(self, symbols: Sequence[str]) -> Sequence[Pair]:
        """Return the pairs with their rules and fees."""
        ...

    async def opening(self) -> Sequence[Entry]:
        """Return the configured opening balances."""
        ...


class WantedState(msgspec.Struct, frozen=True):
    """One version of what is wanted, and the means to bring it about."""

    version: int
    topology: Topology
    is_stopped: bool  # nothing is wanted any more
    flatten: bool  # of a stopped one: positions are closed first
    cluster: Cluster
    reference: Reference
    market: str = ""
    # What the session had counted before its present run.
    carried: Counts = msgspec.field(default_factory=Counts)


class WantedStates(Protocol):
    """Where the wanted state lies."""

    async def newer(self, version: int) -> WantedState | None:
        """Return the state in force, or None when it is ``version``."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...
