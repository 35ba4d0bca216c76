"""The tick plane as the settings want it: a feed's board, a host's view of its node's boards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.adapters.plane.segments import SHARED_MEMORY, run_folder
from arb_ray.app.process_facts import node_name
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
