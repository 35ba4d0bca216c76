"""
Frames for the benchmarks of decoding: recorded ones where they are, else the simulators' own.

Recorded Binance frames come as they were captured. The recorded Upbit frames are in short keys,
which a feed of ours does not ask for, so Upbit's are the simulator's renderings of a seeded walk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from arb_ray.adapters.storage.recordings import read_recording
from arb_ray.adapters.venues.sim import binance_wire, upbit_wire
from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.instruments import Change
from arb_ray.domain.instrument import Venue

SHARED = Path(__file__).parents[2] / "shared" / "market_data"
RECORDED = {
    Venue.BINANCE_SPOT: "binance_spot_btcusdt_20240808_650s.jsonl.zst",
    Venue.BINANCE_USDM: "binance_usdm_btcusdt_20240808_345s.jsonl.zst",
}
FRAMES = 500
E8 = 10**8
AT_MS = 1_790_134_742_106


class FrameSet(msgspec.Struct, frozen=True):
    """Frames of one kind (``bookTicker``, ``diff``, ``partial`` or ``book``) and their source."""

    name: str
    venue: Venue
    kind: str
    source: str
    frames: tuple[bytes, ...]


def frame_sets() -> tuple[FrameSet, ...]:
    """Return every kind of book frame that a feed reads."""
    spot, usdm = Venue.BINANCE_SPOT, Venue.BINANCE_USDM
    return (
        _recorded_or(spot, "bookTicker", "@bookTicker", _spot_tops),
        _recorded_or(usdm, "bookTicker", "@bookTicker", _usdm_tops),
        _recorded_or(spot, "diff", "@depth@", _spot_diffs),
        _recorded_or(usdm, "diff", "@depth@", _usdm_diffs),
        FrameSet("binance_spot partial, 20", spot, "partial", "generated", tuple(_partials())),
        FrameSet("upbit orderbook, 15", Venue.UPBIT, "book", "generated", tuple(_upbit_books())),
    )


def _recorded_or(
    venue: Venue, kind: str, stream: str, generate: Callable[[], Iterator[bytes]]
) -> FrameSet:
    path = SHARED / RECORDED[venue]
    if path.exists():
        frames = tuple(_recorded(path, stream))
        return FrameSet(f"{venue.value} {kind}", venue, kind, "recorded", frames)
    return FrameSet(f"{venue.value} {kind}", venue, kind, "generated", tuple(generate()))


def _recorded(path: Path, stream: str) -> Iterator[bytes]:
    left = FRAMES
    for frame in read_recording(path):
        if frame.request is None and stream in frame.raw[:64]:
            yield frame.raw.encode()
            left -= 1
            if not left:
                return


def _books() -> Iterator[tuple[int, Book]]:
    """Walk a book of 20 levels at random, seeded; prices and sizes in 1e-8."""
    rng = random.Random(6)
    mid = 61_837_635_000_000 // 10
    for number in range(FRAMES):
        mid += rng.randint(-50, 50) * 1_000_000
        bids = tuple((mid - step * 1_000_000, rng.randint(1, 9 * E8)) for step in range(1, 21))
        asks = tuple((mid + step * 1_000_000, rng.randint(1, 9 * E8)) for step in range(1, 21))
        yield number, Book(bids, asks)


def _spelling() -> binance_wire.Spelling:
    return binance_wire.Spelling("BTCUSDT", 2, 5)


def _spot_tops() -> Iterator[bytes]:
    for number, book in _books():
        text = binance_wire.spot_book_ticker(_spelling(), number, book.bids[0], book.asks[0])
        yield binance_wire.enveloped("btcusdt@bookTicker", text)


def _usdm_tops() -> Iterator[bytes]:
    for number, book in _books():
        top = (book.bids[0], book.asks[0])
        text = binance_wire.usdm_book_ticker(_spelling(), number, *top, AT_MS + number)
        yield binance_wire.enveloped("btcusdt@bookTicker", text)


def _changes() -> Iterator[Change]:
    for number, book in _books():
        before = Book(book.bids[4:], book.asks[3:])  # four bids and three asks are new
        yield Change(AT_MS + number, 3 * number + 1, 3 * number + 3, 3 * number, before, book, ())


def _spot_diffs() -> Iterator[bytes]:
    for change in _changes():
        text = binance_wire.spot_depth_update(_spelling(), change, change.at_ms)
        yield binance_wire.enveloped("btcusdt@depth@100ms", text)


def _usdm_diffs() -> Iterator[bytes]:
    for change in _changes():
        text = binance_wire.usdm_depth_update(
            _spelling(), change, change.at_ms, change.bids, change.asks
        )
        yield binance_wire.enveloped("btcusdt@depth@100ms", text)


def _partials() -> Iterator[bytes]:
    for number, book in _books():
        text = binance_wire.spot_partial_depth(_spelling(), number, book.bids, book.asks)
        yield binance_wire.enveloped("btcusdt@depth20@100ms", text)


def _upbit_books() -> Iterator[bytes]:
    for number, book in _books():
        yield upbit_wire.orderbook(
            "KRW-BTC", AT_MS + number, book, 15, stream_type="REALTIME", is_simple=False
        ).encode()
