"""
What should run on a cluster, whole: the settings as they were submitted, the session, the actors.

``submit`` writes it to PostgreSQL, the Supervisor carries it out, RiskGuard takes its limits
from it. It holds every setting but the secrets, so that an actor that starts again next week
starts with what was submitted and not with what a node's files say by then. It travels as
a Ray argument too: symbols by name only, because Ray loses large ones (RAY.md, point 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from arb_ray import __version__
from arb_ray.app.config_files import flatten
from arb_ray.app.registry import PairInstruments, load_registry
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import Settings, load_settings
from arb_ray.domain.errors import BadInput
from arb_ray.domain.instrument import Symbol
from arb_ray.engine.topology import Role, Topology

if TYPE_CHECKING:
    from arb_ray.adapters.storage.topology_store import StoredTopology

SCHEMA = 1


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """
    One version of what should run.

    ``values`` are all settings by dotted key; ``symbols`` what runs, ``leaving`` those of them
    that only close what they have open; ``packing`` what the hosts were cut by. A stopped one
    wants no actor at all, and with ``flatten`` no position either.
    """

    version: int
    env: str
    session: SessionFacts
    values: dict[str, Any]
    symbols: tuple[str, ...]
    topology: Topology
    leaving: tuple[str, ...] = ()
    recorded: tuple[PairInstruments, ...] = ()  # of source recorded, which lie in files
    packing: str = ""
    is_stopped: bool = False
    flatten: bool = False
    code: str = __version__
    schema: int = SCHEMA

    def settings(self) -> Settings:
        """Return the settings that were submitted, with this node's secrets."""
        return load_settings(self.env, self.values)

    def pairs(self, settings: Settings) -> tuple[PairInstruments, ...]:
        """Return the instruments of the symbols."""
        if self.recorded:
            return self.recorded
        return load_registry().instruments_for(
            [Symbol(symbol) for symbol in self.symbols],
            settings.leg_b,
            synthetic=settings.source == "sim",
        )

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the symbols of each host, by its key."""
        return {host.key: host.symbols for host in self.topology.of(Role.HOST)}

    @property
    def served(self) -> tuple[str, ...]:
        """What the embedded exchanges serve; empty when there are none."""
        return next((one.symbols for one in self.topology.of(Role.SOURCE)), ())


def submitted_values(settings: Settings) -> dict[str, Any]:
    """Return every setting that is no secret, by dotted key, as ``load_settings`` takes them."""
    return flatten(settings.public_values())


def encode(deployment: Deployment, actor: str) -> StoredTopology:
    """Return what is stored of a deployment; ``actor`` is who submits it."""
    # Here, because most actors that are built from a deployment never talk to PostgreSQL.
    from arb_ray.adapters.storage.topology_store import StoredTopology

    return StoredTopology(deployment.version, msgspec.json.encode(deployment), actor)


def decode(stored: StoredTopology) -> Deployment:
    """
    Read a stored deployment.

    Raises:
        BadInput: A newer arb_ray wrote it.
    """
    try:
        found = msgspec.json.decode(stored.desired, type=Deployment)
    except msgspec.MsgspecError as error:
        raise _unreadable(stored, str(error)) from error
    if found.schema > SCHEMA:
        raise _unreadable(stored, f"it has schema {found.schema}, this code knows {SCHEMA}")
    return found


def _unreadable(stored: StoredTopology, problem: str) -> BadInput:
    return BadInput(
        f"wanted state {stored.version}",
        f"it cannot be read ({problem})",
        "Install on this node the arb_ray that wrote it",
    )


def differing_values(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that change, with what they were and will be."""
    keys = sorted({*before, *after})
    return {
        key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    }
