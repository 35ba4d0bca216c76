"""The venues' feeds on what the real exchanges sent."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from arb_ray.adapters.storage.recordings import read_recording
from arb_ray.adapters.venues.binance.feed import BinanceFeed
from arb_ray.adapters.venues.upbit.feed import UpbitFeed
from arb_ray.domain.book import book_problem
from arb_ray.domain.instrument import Instrument, InstrumentId, Kind, Venue, VenueSymbol
from arb_ray.domain.money import Asset
from arb_ray.engine.feed import FeedOptions, FetchSnapshot, VenueFeed

SHARED = Path(__file__).parents[3] / "shared" / "market_data"
FRAMES = 25_000

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the recorded frames are not beside the repository"
    ),
]


def options(venue: Venue, *symbols: str) -> FeedOptions:
    instruments = tuple(
        Instrument(
            InstrumentId(f"{venue}:{symbol}"),
            Asset(symbol),
            Asset("Q"),
            venue,
            Kind.SPOT,
            VenueSymbol(symbol),
        )
        for symbol in symbols
    )
    return FeedOptions(instruments=instruments)


@pytest.mark.parametrize(
    ("venue", "name"),
    [
        (Venue.BINANCE_SPOT, "binance_spot_btcusdt_20240808_650s.jsonl.zst"),
        (Venue.BINANCE_USDM, "binance_usdm_btcusdt_20240808_345s.jsonl.zst"),
    ],
)
def test_binance_books_are_whole_from_the_snapshot_on(venue: Venue, name: str) -> None:
    feed: VenueFeed = BinanceFeed(venue, options(venue, "BTCUSDT"))
    is_asked, is_connected, books = False, False, 0
    with read_recording(SHARED / name) as recording:
        for frame in islice(recording, FRAMES):
            if not is_connected:
                feed.on_connected(0, 1, frame.recv_ns)
                is_connected = True
            if frame.request is None:
                output = feed.on_frame(0, 1, frame.raw, frame.recv_ns, frame.recv_ns)
            else:
                assert is_asked, "the feed asks for the snapshot as soon as diffs come"
                symbol = VenueSymbol("BTCUSDT")
                output = feed.on_snapshot(symbol, frame.raw, frame.recv_ns, frame.recv_ns)
            is_asked = is_asked or any(
                isinstance(effect, FetchSnapshot) for effect in output.effects
            )
            for change in output.books:
                books += 1
                assert book_problem(change.bids, change.asks) == ""
                assert len(change.bids) == len(change.asks) == 15
    counters = feed.counters
    assert (counters.malformed, counters.gaps, counters.crossed) == (0, 0, 0)
    assert counters.unknown.total() == 0
    assert books > FRAMES / 2
    assert feed.clock().offset_ms == pytest.approx(1_273, abs=5)


def test_upbit_books_of_2021_are_read_in_the_simple_format() -> None:
    markets = ("KRW-LAMB", "KRW-WAVES", "BTC-XTZ", "BTC-ITAM", "BTC-PAX")
    feed: VenueFeed = UpbitFeed(options(Venue.UPBIT, *markets))
    books = 0
    feed.on_connected(0, 1, 0)
    for frame in read_recording(SHARED / "upbit_20210417_30s.jsonl.zst"):
        if frame.request is None:
            output = feed.on_frame(0, 1, frame.raw, frame.recv_ns, frame.recv_ns)
            books += len(output.books)
            assert all(book_problem(change.bids, change.asks) == "" for change in output.books)
    assert books + feed.counters.ignored == 145
    assert feed.counters.malformed == 0
    assert feed.silent(2**62) == ()
