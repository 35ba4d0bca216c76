"""
From a request to the next wanted state, and what changes by it; decides, and does nothing.

What runs keeps its place: a symbol stays on its host, a host whose symbols and settings are
the same keeps its name and so its process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from arb_ray.app.deployment import Deployment, differing_values, submitted_values
from arb_ray.app.registry import PairInstruments
from arb_ray.app.run_plan import make_topology, packing
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import Settings
from arb_ray.engine.topology import difference

VALUES_SHOWN = 20
"""Changed settings told to a person; the JSON has all."""


class DeployPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a submit changes; names are actors' names."""

    version: int
    session_id: str
    symbols: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    leaving: tuple[str, ...]  # removed, but with a trade that must be closed first
    start: tuple[str, ...]
    stop: tuple[str, ...]
    keep: tuple[str, ...]
    changed: dict[str, Any]  # settings, with what they were and will be

    def words(self) -> list[str]:
        """Tell it to a person, a line each."""
        counts = (
            f"{len(self.start)} actors to start, {len(self.stop)} to stop, {len(self.keep)} to keep"
        )
        head = f"plan {self.version} of session {self.session_id}"
        lines = [f"{head}: {len(self.symbols)} symbols, {counts}"]
        for what, symbols in (("added", self.added), ("removed", self.removed)):
            if symbols:
                lines.append(f"  {what}: {', '.join(symbols)}")
        if self.leaving:
            lines.append(f"  closing first: {', '.join(self.leaving)}")
        for key, (before, after) in list(self.changed.items())[:VALUES_SHOWN]:
            lines.append(f"  {key}: {before} becomes {after}")
        if len(self.changed) > VALUES_SHOWN:
            lines.append(f"  and {len(self.changed) - VALUES_SHOWN} more settings")
        lines += [f"  start {name}" for name in self.start]
        lines += [f"  stop {name}" for name in self.stop]
        return lines


def next_deployment(
    settings: Settings,
    session: SessionFacts,
    *,
    asked: Sequence[PairInstruments],
    running: Sequence[PairInstruments],
    cpus: int,
    before: Deployment | None,
) -> Deployment:
    """
    Return the wanted state that follows ``before``.

    Args:
        settings: All settings, addresses of the embedded exchanges included.
        session: The session that it belongs to.
        asked: What is to be traded.
        running: That, and whatever has a trade that must be closed.
        cpus: Processors of the cluster.
        before: The newest wanted state, stopped or not; None when there was none.
    """
    alive = before if is_running(before) else None
    wanted = {str(pair.symbol) for pair in asked}
    leaving = tuple(sorted({str(pair.symbol) for pair in running} - wanted))
    return Deployment(
        version=before.version + 1 if before else 1,
        env=settings.env,
        session=session,
        values=submitted_values(settings),
        symbols=tuple(sorted(str(pair.symbol) for pair in running)),
        leaving=leaving,
        recorded=tuple(running) if settings.source == "recorded" else (),
        packing=packing(settings),
        topology=make_topology(
            settings,
            session.session_id,
            running,
            cpus=cpus,
            before=alive,
            leaving=leaving,
        ),
    )


def is_running(deployment: Deployment | None) -> bool:
    """Tell whether a wanted state wants anything."""
    return deployment is not None and not deployment.is_stopped


def deploy_plan(before: Deployment | None, after: Deployment, present: Sequence[str]) -> DeployPlan:
    """
    Return what changes.

    Args:
        before: The wanted state so far.
        after: The one to come.
        present: Names of our actors that the cluster has now.
    """
    change = difference(after.topology, dict.fromkeys(present, True))
    former = set(before.symbols) - set(before.leaving) if is_running(before) and before else set()
    traded = set(after.symbols) - set(after.leaving)
    starting = {actor.name for actor in change.start}
    return DeployPlan(
        version=after.version,
        session_id=after.session.session_id,
        symbols=after.symbols,
        added=tuple(sorted(traded - former)),
        removed=tuple(sorted(former - traded)),
        leaving=after.leaving,
        start=tuple(actor.name for actor in change.start),
        stop=change.stop,
        keep=tuple(actor.name for actor in after.topology.actors if actor.name not in starting),
        changed=differing_values(before.values, after.values) if before else {},
    )
