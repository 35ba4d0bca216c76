"""What a feed rings for, and when: at the end of a turn, or sooner in a long one."""

import asyncio

import pytest

from arb_ray.actors.board_routes import RING_AFTER_NS, BoardRoutes
from arb_ray.domain.book import BookUpdate
from arb_ray.domain.instrument import InstrumentId
from arb_ray.engine.clock_offset import ClockEstimate

BTC, ETH = InstrumentId("upbit:BTC-KRW"), InstrumentId("upbit:ETH-KRW")


class Board:
    """Tells of what it is asked for; implements ``BookBoard``."""

    def __init__(self):
        self.told = []

    def reach(self, host):
        return ""

    def put_pulse(self, pulse):
        """Nobody looks."""

    def put_book(self, instrument, book):
        self.told.append(instrument)

    def ring(self, hosts, now_mono_ns):
        self.told.append(sorted(hosts))
        return False

    def close(self):
        """Nothing is open."""


class Clock:
    def mono_ns(self):
        return 0


@pytest.fixture
async def routes():
    def fail(name, error):
        raise AssertionError(name) from error

    board = Board()
    one = BoardRoutes(
        board,
        feed="upbit",
        epoch=1,
        clock=Clock(),
        alive=lambda now_ns: (),
        clock_estimate=lambda: ClockEstimate(0.0, 0.0, 0.0, 0),
        fail=fail,
    )
    one.serve("a", frozenset({BTC}))
    one.serve("b", frozenset({ETH}))
    await asyncio.sleep(0)
    board.told.clear()
    yield one, board
    one.stop()


def update(instrument):
    return BookUpdate(instrument, 1, 1, 0, 0, 0, 0, ((1.0, 1.0),), ((2.0, 1.0),))


async def test_a_short_turn_rings_once_at_its_end_and_only_for_whom_it_concerns(routes):
    one, board = routes
    one.offer(update(BTC), 1_000)
    one.offer(update(BTC), 1_000 + RING_AFTER_NS)
    assert board.told == [BTC, BTC]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert board.told == [BTC, BTC, ["a"]]


async def test_a_long_turn_rings_before_its_end_and_again_for_what_comes_later(routes):
    one, board = routes
    one.offer(update(BTC), 1_000)
    one.offer(update(ETH), 1_001 + RING_AFTER_NS)
    assert board.told == [BTC, ETH, ["a", "b"]]
    one.offer(update(ETH), 1_002 + RING_AFTER_NS)
    await asyncio.sleep(0)
    assert board.told == [BTC, ETH, ["a", "b"], ETH, ["b"]]


async def test_what_was_rung_for_early_is_not_rung_for_again_at_the_end(routes):
    one, board = routes
    one.offer(update(BTC), 1_000)
    one.offer(update(BTC), 1_001 + RING_AFTER_NS)
    await asyncio.sleep(0)
    assert board.told == [BTC, BTC, ["a"]]
