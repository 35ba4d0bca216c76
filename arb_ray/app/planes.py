"""The tick plane as the settings want it: a feed's board, a host's view of its node's boards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arb_ray.actors.node_relay import NodeRelay
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.adapters.plane.segments import SHARED_MEMORY, run_folder, try_out
from arb_ray.app.process_facts import node_name
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadConfig, PlaneUnavailable
from arb_ray.domain.instrument import Venue

SYMBOLS_TRIED = 300
"""A trial is made for as many symbols as a node is built for; they take a megabyte or two."""

MEND = "Give the node more (docker: --shm-size), or write auto or ray"


def plane_folder(settings: Settings, session_id: str) -> Path:
    """Return where a session's boards and bells are on this node: apart from every other run's."""
    return run_folder(SHARED_MEMORY, settings.ray.namespace, settings.env, session_id)


def boards_bytes(settings: Settings, symbols: int) -> int:
    """Return the shared memory that all boards of a node take, for so many symbols."""
    leg_b = Venue.BINANCE_SPOT if settings.leg_b == "spot" else Venue.BINANCE_USDM
    layouts = [
        board_layout(symbols + 1, getattr(settings.venues, venue).depth_levels)
        for venue in (Venue.UPBIT, leg_b)
    ]
    return sum(layout.size for layout in layouts)


def plane_problem(settings: Settings, symbols: int = SYMBOLS_TRIED) -> str:
    """Return why ticks cannot go through shared memory on this node; nothing when they can."""
    if settings.topology.tick_plane == "ray":
        return ""
    try:
        try_out(boards_bytes(settings, symbols))
    except PlaneUnavailable as error:
        return error.problem
    return ""


def check_plane(settings: Settings) -> None:
    """Raise BadConfig where shared memory is demanded and cannot be had."""
    if settings.topology.tick_plane == "shm" and (problem := plane_problem(settings)):
        raise BadConfig("topology.tick_plane", f"shm cannot be had: {problem}", MEND)


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
