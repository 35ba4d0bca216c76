"""What a run needs: symbols, venues, actors, folders; ``--dry-run`` shows it and starts nothing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from arb_ray import __version__
from arb_ray.app.deployment import Deployment
from arb_ray.app.markets import leg_b_venue
from arb_ray.app.progress import Progress
from arb_ray.app.recorded_pairs import pairs_of_recordings
from arb_ray.app.registry import PairInstruments, load_registry
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadInput
from arb_ray.engine.topology import Digests, Topology, plan, symbols_by_host

SYMBOLS_SHOWN = 8
"""Symbols of one actor on one line for people; the JSON has all."""


def wanted_pairs(
    settings: Settings, *, symbols_option: bool = False
) -> tuple[PairInstruments, ...]:
    """
    Return the instruments that the settings name.

    Raises:
        BadInput: One is not known. Its place is ``--symbols`` where that option named it
            (``symbols_option``), else the setting ``symbols``, or a recording.
    """
    try:
        return _pairs(settings)
    except BadInput as error:
        if error.place == "symbols" and symbols_option:
            raise BadInput("--symbols", error.problem, error.mend) from error
        raise


def _pairs(settings: Settings) -> tuple[PairInstruments, ...]:
    if settings.source in ("recorded", "replay"):
        return pairs_of_recordings(settings)
    is_sim = settings.source == "sim"
    registry = load_registry()
    symbols = registry.wanted(settings.symbols, settings.leg_b, synthetic=is_sim)
    return registry.instruments_for(symbols, settings.leg_b, synthetic=is_sim)


def make_topology(
    settings: Settings,
    session_id: str,
    pairs: Sequence[PairInstruments],
    *,
    cpus: int | None = None,
    before: Deployment | None = None,
    leaving: Sequence[str] = (),
) -> Topology:
    """
    Return the actors that a session needs.

    Args:
        settings: What is wanted.
        session_id: Whose actors they are; in another session all are others.
        pairs: What is traded.
        cpus: Processors to plan for; None counts this machine's.
        before: What runs now; what need not change keeps its place and its name.
        leaving: Symbols that only close what they have open; their hosts must be told.
    """
    symbols = [str(pair.symbol) for pair in pairs]
    hosts_auto = max(1, settings.topology.hosts_auto_count * (cpus or os.cpu_count() or 1) // 2)
    kept = before.groups() if before and before.packing == packing(settings) else None
    groups = symbols_by_host(symbols, settings.topology.symbols_per_actor, hosts_auto, kept)
    venues = used_venues(settings, pairs)
    return plan(
        session_id,
        _digests(settings, venues),
        groups=groups,
        leaving=leaving,
        venues=venues,
        served=_served(settings, symbols, before),
        has_gateway=settings.gateway.enabled,
    )


def packing(settings: Settings) -> str:
    """Return what the hosts are cut by; another one cuts them anew."""
    section = settings.topology
    return f"{section.symbols_per_actor}/{section.hosts_auto_count}"


def _served(
    settings: Settings, symbols: Sequence[str], before: Deployment | None
) -> tuple[str, ...]:
    """Return what the embedded exchanges serve: they keep what they have when they have enough."""
    if settings.source not in ("sim", "recorded"):
        return ()
    if before is not None and set(symbols) <= set(before.served):
        return before.served
    return tuple(sorted({*symbols, *(before.served if before else ())}))


def _digests(settings: Settings, venues: Sequence[str]) -> Digests:
    """Digest what each role was started with; RiskGuard's limits are told to it while it runs."""

    def of(*sections: str) -> str:
        return settings.config_hash(*sections)

    def of_venue(venue: str) -> str:
        section = getattr(settings.venues, venue)
        return hashlib.sha256(section.model_dump_json().encode()).hexdigest()[:12]

    feed = of("recording", "topology", "source")
    return Digests(
        everyone=f"{__version__}/{of('env', 'mode', 'postgres', 'redis', 'telemetry', 'ray')}",
        source=of("source", "sim", "recording", "venues"),
        host=of("source", "leg_b", "venues", "strategy", "execution", "persistence"),
        feeds={venue: f"{feed}/{of_venue(venue)}" for venue in venues},
        persistence=f"{of('persistence')}/{settings.session.data_dir}",
        gateway=of("gateway"),
    )


def used_venues(settings: Settings, pairs: Sequence[PairInstruments]) -> tuple[str, ...]:
    """Return the venues that need a feed, Upbit first."""
    if settings.source != "recorded":
        return ("upbit", str(leg_b_venue(settings)))
    found = {str(i.venue) for pair in pairs for i in (pair.a, pair.b) if pair.has(i.id)}
    return tuple(sorted(found, key=lambda venue: (venue != "upbit", venue)))


class PlannedActor(msgspec.Struct, frozen=True, kw_only=True):
    """One actor that would be started."""

    role: str
    key: str
    symbols: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would run; ``--json`` prints it as one line."""

    env: str
    source: str
    preset: str | None
    symbols: tuple[str, ...]
    data_dir: str
    record_dir: str | None
    config_hash: str
    actors: tuple[PlannedActor, ...]


def run_plan(settings: Settings, pairs: Sequence[PairInstruments]) -> Plan:
    """Return the plan of a run."""
    topology = make_topology(settings, "dry-run", pairs)
    return Plan(
        env=settings.env,
        source=settings.source,
        preset=settings.sim.preset if settings.source == "sim" else None,
        symbols=tuple(str(pair.symbol) for pair in pairs),
        data_dir=settings.session.data_dir,
        record_dir=settings.recording.record_dir,
        config_hash=settings.config_hash(),
        actors=tuple(
            PlannedActor(role=str(actor.role), key=actor.key, symbols=actor.symbols)
            for actor in topology.actors
        ),
    )


def show_plan(plan: Plan, progress: Progress, out: TextIO | None) -> None:
    """Tell the plan to a person, or write it as one line of JSON to ``out``."""
    if out is not None:
        out.write(msgspec.json.encode(plan).decode() + "\n")
        return
    head = f"{plan.env}, source {plan.source}, {len(plan.symbols)} symbols"
    progress.say(f"{head}: {', '.join(plan.symbols)}")
    for actor in plan.actors:
        progress.say(f"  {actor.role} {actor.key}  {_some(actor.symbols)}".rstrip())
    progress.say("Nothing was started.")


def _some(symbols: Sequence[str]) -> str:
    shown = " ".join(symbols[:SYMBOLS_SHOWN])
    return shown if len(symbols) <= SYMBOLS_SHOWN else f"{shown} … ({len(symbols)} symbols)"


def check_folders(settings: Settings) -> None:
    """
    Try whether the folders that a run writes to can be made; nothing stays of the trial.

    Raises:
        BadInput: One is a file, lies below one, or lies where this user may not write.
    """
    _check_folder(settings.session.data_dir, "--data-dir")
    if settings.recording.record_dir is not None:
        _check_folder(settings.recording.record_dir, "--record")


def _check_folder(name: str, option: str) -> None:
    folder = Path(name).absolute()
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        # Rights alone do not tell: root may do everything, and yet not on a read-only disk.
        with tempfile.TemporaryDirectory(prefix=".arb-ray-", dir=nearest):
            pass
    except OSError as error:
        problem = f"the folder cannot be made or written ({error.strerror or error})"
        raise BadInput(str(folder), problem, f"Name another with {option}") from error
