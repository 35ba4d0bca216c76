"""The same recording decides alike, whether batches are handed over or lie on boards in between."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest

from arb_ray.actors.lockstep import NODE
from arb_ray.actors.node_relay import NodeRelay
from arb_ray.actors.wire import pack, unpack
from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.app import replay_world
from arb_ray.app.progress import Progress
from arb_ray.app.recorded_pairs import pairs_of_recordings, recorded_depth
from arb_ray.app.replaying import replay
from arb_ray.app.settings import load_settings
from arb_ray.domain.book import TickBatch
from tests.shell_world import Log

SHARED = Path(__file__).parents[3] / "shared" / "market_data"
FILES = sorted(SHARED.glob("*.jsonl.zst"))
SECONDS = 2.0

pytestmark = [
    pytest.mark.shared_data,
    # A replay that ends early leaves its files to the collector, as the command does.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the recorded frames are not beside the repository"
    ),
]


class OverBoards:
    """A host in lock-step that reads what it is told from shared memory."""

    def __init__(self, host, folder, name, clock):
        self._host, self._clock, self.batches = host, clock, 0
        self._boards = HostBoards(folder, name, NODE, clock, Log())
        self._relay = NodeRelay(
            node=NODE,
            clock=clock,
            make_board=lambda feed, epoch: FeedBoard(folder, feed, epoch, board_layout(600, 30)),
            neighbours=self._boards.neighbours,
            transit_allowance_ns=0,
        )

    def __getattr__(self, name):
        return getattr(self._host, name)

    async def prepare(self, now_ns):
        await self._host.prepare(now_ns)
        self._boards.watch(self._host._host.parts.view.watched)

    async def step(self, batch, now_ns):
        self._clock.set(now_ns)
        assert self._relay.take(unpack(batch, TickBatch))
        due = self._clock.next_due()
        for one in self._boards.look(is_all=True):
            self.batches += 1
            due = await self._host.step(pack(one), now_ns)
        return due

    def close(self):
        self._boards.close()
        self._relay.stop()


def replayed():
    overrides = {
        "source": "replay",
        "recording.files": [str(file) for file in FILES],
        "symbols": "top:2000",
    }
    settings = load_settings("dev", overrides)
    settings = load_settings("dev", overrides | recorded_depth(settings))
    pairs = pairs_of_recordings(settings)
    result = asyncio.run(
        replay(settings, pairs, through="process", progress=Progress(sys.stderr), seconds=SECONDS)
    )
    gc.collect()
    return result


def test_a_recording_decides_alike_by_hand_and_over_shared_memory(tmp_path, monkeypatch):
    by_hand = replayed()
    folder = segments.run_folder(tmp_path, "lockstep")
    made, make_host = [], replay_world.make_host

    def make_over_boards(settings, setup, name, symbols, clock, *others):
        host = make_host(settings, setup, name, symbols, clock, *others)
        made.append(OverBoards(host, folder, name, clock))
        return made[-1]

    monkeypatch.setattr(replay_world, "make_host", make_over_boards)
    over_boards = replayed()
    batches = [one.batches for one in made]
    for one in made:
        one.close()
    assert min(batches) > 100
    assert by_hand.decisions > 0
    assert over_boards.decision_hash == by_hand.decision_hash
    for figure in ("frames", "decisions", "opportunities", "trades_opened"):
        assert getattr(over_boards, figure) == getattr(by_hand, figure), figure
