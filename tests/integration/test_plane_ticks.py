"""From a feed's board to a host's view, through real shared memory: the same as by Ray calls."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arb_ray.actors.board_routes import BoardRoutes
from arb_ray.actors.board_watch import BoardWatch
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.plane import layout, segments
from arb_ray.adapters.plane.feed_side import FeedBoard, board_layout
from arb_ray.adapters.plane.host_side import HostBoards
from arb_ray.domain.book import ConnectionAlive, FundingUpdate
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.engine.market_view import MarketView
from tests.shell_world import Ends, Log
from tests.signal_market import F_ID, NODE, P_ID, U_FAIR, U_ID, make_update, perp_pair, spot_pair

HOST = "host:000@1"
ROOT = Path(__file__).resolve().parents[2]


class Feed:
    def __init__(self, folder, epoch=1, name="feed:upbit@1", levels=15):
        self.board = FeedBoard(folder, name, epoch, board_layout(4, levels))
        self.epoch, self.seq = epoch, 0
        self.alive = {0: True}
        self.alive_age_ns = 0
        self.estimate = ClockEstimate(1.5, 0.25, 0.25, 3)
        self.routes = BoardRoutes(
            self.board,
            feed=name,
            epoch=epoch,
            clock=SystemClock(),
            alive=lambda _: [
                ConnectionAlive(c, self.alive_age_ns, is_up) for c, is_up in self.alive.items()
            ],
            clock_estimate=lambda: self.estimate,
            fail=Ends().loops.fail,
        )

    def serve(self, *instruments, host=HOST):
        assert self.routes.reach(host) == ""
        self.routes.serve(host, frozenset(instruments))

    def offer(self, instrument, book=U_FAIR, connection=0):
        self.seq += 1
        update = make_update(instrument, self.seq, book, epoch=self.epoch, connection=connection)
        self.routes.offer(update, time.monotonic_ns())


class Host:
    def __init__(self, folder, name=HOST):
        self.log, self.ends = Log(), Ends()
        self.view = MarketView((spot_pair(),), transit_allowance_ns=0)
        self.boards = HostBoards(folder, name, NODE, SystemClock(), self.log)
        self.boards.watch(self.view.watched)
        self.batches = []
        self.watch = BoardWatch(
            self.boards,
            SystemClock(),
            take=self.take,
            missed=self.view.note_missed,
            fail=self.ends.loops.fail,
            log=self.log,
        )
        self.task = asyncio.get_running_loop().create_task(self.watch.run(5))

    def take(self, batch):
        self.batches.append(batch)
        self.view.apply(batch, time.monotonic_ns(), NODE)

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.ends.ended == []

    def seq(self, instrument):
        book = self.view.books.get(instrument)
        return book.seq if book else 0


@pytest.fixture
def folder(tmp_path):
    return segments.run_folder(tmp_path, "run")


@pytest.fixture
async def host(folder):
    host = Host(folder)
    await until(lambda: host.watch.is_open)
    yield host
    await host.stop()


@pytest.fixture
async def feed(folder, host):
    feed = Feed(folder)
    feed.serve(U_ID, F_ID)
    yield feed
    feed.routes.stop()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_book_arrives_with_all_that_a_ray_call_would_have_brought(feed, host):
    feed.offer(U_ID)
    await until(lambda: host.seq(U_ID) == 1)
    book = host.view.books[U_ID]
    assert (book.bids, book.asks) == (tuple(U_FAIR[0]), tuple(U_FAIR[1]))
    assert book.connection.is_up
    assert 0 <= time.monotonic_ns() - book.recv_mono_ns < 20e9
    state = host.view.feeds["feed:upbit@1"]
    assert (state.epoch, state.clock_offset_ms, state.clock_skew_ms) == (1, 1.5, 0.25)


async def test_a_host_that_starts_late_sees_every_book_at_once(folder, feed, host):
    feed.offer(U_ID)
    feed.offer(F_ID)
    late = Host(folder, "host:001@1")
    await until(lambda: (late.seq(U_ID), late.seq(F_ID)) == (1, 2))
    assert late.boards.missed == 0
    await late.stop()


async def test_what_is_overwritten_before_it_is_read_is_counted_and_nothing_else(feed, host):
    feed.offer(U_ID)
    feed.offer(F_ID)
    await until(lambda: (host.seq(U_ID), host.seq(F_ID)) == (1, 2))
    for number in range(1_998):
        feed.offer((U_ID, F_ID)[number % 2])
        if number % 97 == 0:
            await asyncio.sleep(0)
    await until(lambda: max(host.seq(U_ID), host.seq(F_ID)) == feed.seq)
    counts = host.view.counts
    unread = sum(not book.is_read for book in host.view.books.values())
    assert counts.accepted == 2_000 == feed.routes.sent
    assert counts.accepted == counts.read + counts.conflated + unread
    assert host.boards.missed > 0


async def test_a_cut_arrives_at_once_and_books_from_before_it_stay_stale(feed, host, folder):
    feed.offer(U_ID)
    await until(lambda: host.seq(U_ID) == 1)
    feed.alive[0] = False
    feed.routes.hurry()
    await until(lambda: not host.view.books[U_ID].connection.is_up)
    feed.alive[0] = True
    feed.routes.pulse()
    late = Host(folder, "host:001@1")  # knows nothing of the cut
    await until(lambda: late.seq(U_ID) == 1)
    for view in (host.view, late.view):
        assert not view.books[U_ID].connection.is_up
    feed.offer(F_ID)
    await until(lambda: host.seq(F_ID) == 2)
    await until(lambda: late.seq(F_ID) == 2)
    for view in (host.view, late.view):
        assert view.books[F_ID].connection.is_up
        assert not view.books[U_ID].connection.is_up
    await late.stop()


async def test_a_quiet_book_stays_as_fresh_as_its_connection_proves_and_ages_without(feed, host):
    feed.offer(U_ID)
    await until(lambda: host.seq(U_ID) == 1)
    book = host.view.books[U_ID]
    await asyncio.sleep(0.05)
    assert book.age_ns(time.monotonic_ns()) >= 50e6
    before = book.connection.alive_mono_ns
    feed.routes.pulse()
    await until(lambda: book.connection.alive_mono_ns > before)  # by the host's own sweep


async def test_funding_travels(folder, host):
    host.view.watch(perp_pair())
    host.boards.watch(host.view.watched)
    feed = Feed(folder)
    feed.serve(P_ID)
    told = FundingUpdate(P_ID, 3_000.0, 0.0001, 5, 7)
    feed.routes.offer_funding(told)
    await until(lambda: P_ID in host.view.funding)
    assert host.view.funding[P_ID] == told
    assert host.boards.missed == 0
    feed.routes.stop()


async def test_the_next_process_of_a_feed_takes_over_and_the_former_one_is_forgotten(
    folder, feed, host
):
    feed.offer(U_ID)
    await until(lambda: host.seq(U_ID) == 1)
    again = Feed(folder, epoch=2)
    again.serve(U_ID, F_ID)
    again.offer(U_ID)
    await until(lambda: host.view.books[U_ID].feed_epoch == 2)
    feed.offer(U_ID)
    await asyncio.sleep(0.1)
    assert host.view.books[U_ID].feed_epoch == 2
    again.routes.stop()
    await until(lambda: host.boards.boards == 1)


async def test_a_book_deeper_than_its_slot_loses_its_deepest_levels_and_is_counted(folder, host):
    feed = Feed(folder, levels=2)
    feed.serve(U_ID)
    deep = (tuple((100.0 - n, 1.0) for n in range(40)), tuple((101.0 + n, 1.0) for n in range(40)))
    feed.offer(U_ID, deep)
    await until(lambda: host.seq(U_ID) == 1)
    book = host.view.books[U_ID]
    assert book.bids == deep[0][: len(book.bids)]
    assert 2 <= len(book.bids) < 40
    assert feed.board.clipped == 1
    feed.routes.stop()


async def test_a_board_of_another_schema_is_told_of_and_never_read(folder, host, monkeypatch):
    monkeypatch.setattr("arb_ray.adapters.plane.board.SCHEMA", layout.SCHEMA + 1)
    feed = Feed(folder)
    monkeypatch.undo()
    feed.serve(U_ID)
    feed.offer(U_ID)
    await until(lambda: host.boards.unknown == 1)
    await asyncio.sleep(0.1)
    assert host.view.books == {}
    assert host.boards.unknown == 1
    feed.routes.stop()


async def test_a_host_of_another_schema_is_left_to_ray_s_plane(folder, host, monkeypatch):
    monkeypatch.setattr("arb_ray.adapters.plane.feed_side.SCHEMA", layout.SCHEMA + 1)
    feed = Feed(folder)
    assert "reads boards of schema 1" in feed.routes.reach(HOST)
    feed.routes.stop()


async def test_boards_of_another_run_are_not_seen(tmp_path, host):
    other = Feed(segments.run_folder(tmp_path, "another run"))
    other.routes.offer(make_update(U_ID, 1, U_FAIR), 0)
    await asyncio.sleep(0.15)
    assert host.boards.boards == 0
    other.routes.stop()


FEED = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.integration.test_plane_ticks import HOST, Feed
from tests.signal_market import F_ID, U_ID
async def main():
    feed = Feed(Path(sys.argv[1]), epoch=int(sys.argv[3]))
    feed.serve(U_ID, F_ID)
    while True:
        for _ in range(20):
            feed.offer(U_ID)
            feed.offer(F_ID)
        await asyncio.sleep(0.001)
asyncio.run(main())
"""


def start_feed(folder, epoch):
    return subprocess.Popen([sys.executable, "-c", FEED, str(folder), str(ROOT), str(epoch)])


async def test_a_feed_killed_at_any_moment_harms_no_host_and_its_successor_serves_on(folder, host):
    for epoch in range(1, 5):
        child = start_feed(folder, epoch)
        try:
            await until(lambda epoch=epoch: _epoch(host, U_ID) == _epoch(host, F_ID) == epoch)
            await asyncio.sleep(0.01 * epoch)
        finally:
            child.kill()
            child.wait()
        assert all(tuple(U_FAIR[0]) == book.bids for book in host.view.books.values())
    assert segments.remove_stale(folder.parent.parent)
    await until(lambda: host.boards.boards == 0)
    counts = host.view.counts
    unread = sum(not book.is_read for book in host.view.books.values())
    assert counts.accepted == counts.read + counts.conflated + unread


def _epoch(host, instrument):
    book = host.view.books.get(instrument)
    return book.feed_epoch if book else 0


HOST_PROCESS = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.integration.test_plane_ticks import Host
async def main():
    host = Host(Path(sys.argv[1]), "host:666@1")
    while not host.view.books:
        await asyncio.sleep(0.001)
    print("reads", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def start_host(folder):
    return subprocess.Popen(
        [sys.executable, "-c", HOST_PROCESS, str(folder), str(ROOT)], stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("signal_number", [9, 19])
async def test_a_host_killed_or_stopped_while_it_reads_harms_nobody(
    folder, feed, host, signal_number
):
    child = start_host(folder)
    try:
        await until(lambda: feed.routes.reach("host:666@1") == "")
        feed.serve(U_ID, F_ID, host="host:666@1")
        feed.offer(U_ID)
        assert await asyncio.to_thread(child.stdout.readline) == b"reads\n"
        os.kill(child.pid, signal_number)
        for _ in range(3_000):
            feed.offer(U_ID)
            await asyncio.sleep(0)
        await until(lambda: host.seq(U_ID) == feed.seq)
        if signal_number == 9:
            child.wait()
            assert feed.routes.reach("host:666@1")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
