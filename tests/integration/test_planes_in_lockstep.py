"""The same recording leaves the same decisions on either tick plane, in lock-step."""

from __future__ import annotations

import asyncio
import contextlib
import io

import pytest

from arb_ray.actors.board_routes import BoardRoutes
from arb_ray.actors.lockstep import NODE
from arb_ray.actors.wire import unpack
from arb_ray.adapters.plane import segments
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.app import replaying
from arb_ray.app.progress import Progress
from arb_ray.app.recorded_pairs import pairs_of_recordings, recorded_depth
from arb_ray.app.replay_world import open_world
from arb_ray.app.settings import load_settings
from arb_ray.domain.book import TickBatch
from arb_ray.engine.clock_offset import ClockEstimate
from benchmarks.replay_recording import SYMBOLS, write_recording
from tests.shell_world import Log

HOST = "host:000@1"
LEVELS = 15


class FeedOnBoard:
    """A feed's end of shared memory, which is given what a call would have carried."""

    def __init__(self, folder, batch, clock, watched):
        self.batch = batch
        self.watched = watched
        board = FeedBoard(folder, batch.feed, batch.feed_epoch, board_layout(32, LEVELS))
        self.routes = BoardRoutes(
            board,
            feed=batch.feed,
            epoch=batch.feed_epoch,
            clock=clock,
            alive=lambda _: self.batch.alive,
            fail=lambda name, error: pytest.fail(f"{name}: {error}"),
            clock_estimate=lambda: ClockEstimate(
                self.batch.clock_offset_ms, 0.0, self.batch.clock_skew_ms, 1
            ),
        )

    def write(self, batch, now_ns):
        self.batch = batch
        self.routes.serve(HOST, self.watched)
        for update in batch.updates:
            self.routes.offer(update, now_ns)
        for funding in batch.funding:
            self.routes.offer_funding(funding)
        self.routes.pulse()


class HostOnBoards:
    """A host in lock-step that reads what comes from boards in shared memory."""

    def __init__(self, inner, folder):
        self.inner = inner
        self.host, self.clock = inner._host, inner._clock
        self.boards = HostBoards(folder, HOST, NODE, self.clock, Log())
        self.boards.open(1)
        self.folder, self.feeds = folder, {}
        self.batches = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def step(self, data, now_ns):
        self.clock.set(now_ns)
        batch = unpack(data, TickBatch)
        watched = self.host.parts.view.watched
        if batch.feed not in self.feeds:
            self.feeds[batch.feed] = FeedOnBoard(self.folder, batch, self.clock, watched)
            self.boards.watch(watched)
        self.feeds[batch.feed].write(batch, now_ns)
        for read in self.boards.look(is_all=True):
            self.batches += 1
            self.host.apply(read)
        await self.clock.settle()
        return self.clock.next_due()

    def close(self):
        for feed in self.feeds.values():
            feed.routes.stop()
        self.boards.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "drawn.jsonl.zst"
    return write_recording(path, symbols=SYMBOLS[:4], frames=5_000, swing_bps=75.0)


def replayed(recording):
    overrides = {"source": "replay", "recording.files": [str(recording)], "symbols": "top:2000"}
    settings = load_settings("dev", overrides)
    settings = load_settings("dev", overrides | recorded_depth(settings))
    pairs = pairs_of_recordings(settings)
    progress = Progress(io.StringIO())
    return asyncio.run(replaying.replay(settings, pairs, through="process", progress=progress))


@pytest.mark.timeout(300)
def test_calls_and_shared_memory_bring_the_same_decisions(recording, tmp_path, monkeypatch):
    by_calls = replayed(recording)
    assert by_calls.opportunities > 2
    assert by_calls.trades_closed > 0
    hosts = []

    @contextlib.asynccontextmanager
    async def on_boards(settings, setup, **said):
        async with open_world(settings, setup, **said) as world:
            folder = segments.run_folder(tmp_path, "lockstep")
            world.hosts = hosts[:] = [HostOnBoards(one, folder) for one in world.hosts]
            yield world
            for host in hosts:
                host.close()

    monkeypatch.setattr(replaying, "open_world", on_boards)
    by_boards = replayed(recording)
    assert hosts[0].batches > by_calls.frames
    assert hosts[0].boards.missed == hosts[0].boards.torn == 0
    assert by_boards.decision_hash == by_calls.decision_hash
    assert by_boards.realized_pnl_usdt == by_calls.realized_pnl_usdt
    assert by_boards.trades_closed == by_calls.trades_closed
