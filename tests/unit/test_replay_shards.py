"""A worker of a sharded replay reads the frames of its own symbols, F's and nobody's."""

import io

import msgspec
import pytest

from arb_ray.adapters.storage.recordings import LEFT_OUT
from arb_ray.app.progress import Progress
from arb_ray.app.registry import load_registry
from arb_ray.app.replay_frames import ReplayFrame
from arb_ray.app.replay_progress import Part
from arb_ray.app.replay_shards import _Own, _ShardDriver
from arb_ray.app.replay_world import ReplaySetup, World
from arb_ray.domain.instrument import Venue

START_NS = 1_790_000_000 * 10**9


@pytest.fixture
def own():
    registry = load_registry()
    pairs = registry.instruments_for(registry.wanted("BTC,ETH", "spot"), "spot")
    setup = ReplaySetup(
        seed=1, start_ns=START_NS, pairs=pairs, groups=(("BTC",), ("ETH",)), prices_usdt={}
    )
    return _Own(setup, ("BTC",))


@pytest.mark.parametrize(
    ("text", "is_wanted"),
    [
        ('{"type":"orderbook","code":"KRW-BTC","timestamp":1}', True),
        ('{"type":"orderbook","code":"KRW-ETH","timestamp":1}', False),
        ('{"type":"orderbook","code":"KRW-USDT","timestamp":1}', True),
        ('{"type":"orderbook", "code": "KRW-ETH.15"}', False),
        ('{"ty":"orderbook","cd":"KRW-BTC","tms":1}', True),
        ('{"stream":"btcusdt@depth20@100ms","data":{}}', True),
        ('{"stream":"ethusdt@bookTicker","data":{}}', False),
        ('{"stream":"!serverShutdown","data":{}}', True),
        ('{"status":"UP"}', True),
        ("no JSON", True),
        ("", True),
    ],
)
def test_a_frame_is_wanted_by_the_market_that_its_head_names(own, text, is_wanted):
    assert own.wants(msgspec.Raw(msgspec.json.encode(text))) is is_wanted


def test_foreign_frames_are_counted_and_not_played(own):
    frames = [
        ReplayFrame(START_NS + 1, Venue.UPBIT, "{}"),
        ReplayFrame(START_NS + 2, Venue.UPBIT, LEFT_OUT),
        ReplayFrame(START_NS + 3, Venue.BINANCE_SPOT, "{}", "BTCUSDT"),
        ReplayFrame(START_NS + 4, Venue.BINANCE_SPOT, "{}", "ETHUSDT"),
    ]
    assert list(own.of(iter(frames))) == [frames[0], frames[2]]
    assert own.frames == 4
    assert own.last_ns == START_NS + 4


async def test_a_sleeper_that_is_due_with_a_sweep_comes_before_it():
    parts = []

    class Host:
        async def wake(self):
            parts.append(driver.line.part)

        async def mark(self, _):
            parts.append(driver.line.part)

        learn = sweep = mark

    class Line:
        part = Part.FRAME

        def reach(self, _at_ns, part):
            self.part = part

    setup = ReplaySetup(seed=1, start_ns=START_NS, pairs=(), groups=(), prices_usdt={})
    driver = _ShardDriver(World({}, [Host()], None), setup, Progress(io.StringIO()))
    driver.line = Line()
    driver._dues[0] = (START_NS, "a sleeper")
    await driver.until(START_NS)
    assert parts == [Part.WAKE, Part.MARK, Part.LEARN, Part.LOOK]
