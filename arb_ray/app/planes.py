"""The tick plane as the settings want it: a feed's board, a host's view of its node's boards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arb_ray.actors.node_relay import NodeRelay
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.adapters.plane.segments import SHARED_MEMORY, run_folder
from arb_ray.app.process_facts import node_name
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.domain.instrument import Venue


def plane_folder(settings: Settings, session_id: str) -> Path:
    """Return where a session's boards and bells are on this node: apart from every other run's."""
    return run_folder(SHARED_MEMORY, settings.ray.namespace, settings.env, session_id)


def board_maker(
    settings: Settings, venue: Venue, instruments: int, session_id: str, name: str
) -> Callable[[int], FeedBoard] | None:
    """Return what makes a feed's board for an epoch, or None when Ray's plane is wanted."""
    if settings.topology.tick_plane == "ray":
        return None
    folder = plane_folder(settings, session_id)
    levels = getattr(settings.venues, venue).depth_levels
    layout = board_layout(instruments, levels)
    return lambda epoch: FeedBoard(folder, name, epoch, layout)


def host_boards(settings: Settings, session_id: str, name: str, log: Any) -> HostBoards | None:
    """Return a host's view of the boards, or None when Ray's plane is wanted."""
    if settings.topology.tick_plane == "ray":
        return None
    folder = plane_folder(settings, session_id)
    return HostBoards(folder, name, node_name(), SystemClock(), log)


def node_relay(
    settings: Settings,
    pairs: Sequence[PairInstruments],
    session_id: str,
    name: str,
    boards: HostBoards | None,
    transit_allowance_ns: int,
) -> NodeRelay | None:
    """Return what lays the ticks of other nodes' feeds on boards of this one, or None."""
    if boards is None:
        return None
    folder = plane_folder(settings, session_id)
    ids = {one.id for pair in pairs for one in (pair.a, pair.b, pair.fx)}
    levels = max(getattr(settings.venues, venue).depth_levels for venue in Venue)
    layout = board_layout(len(ids), levels)
    return NodeRelay(
        node=node_name(),
        clock=SystemClock(),
        make_board=lambda feed, epoch: FeedBoard(folder, f"{feed}.by.{name}", epoch, layout),
        neighbours=boards.neighbours,
        transit_allowance_ns=transit_allowance_ns,
    )
