"""The least that a reader can make of a frame: typed fields, the newest of each symbol kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.decode import BareBook, BareDiff, BarePartial, BareTop
from benchmarks.feed_frames import Kind


class _Top(msgspec.Struct):
    stream: str
    data: BareTop


class _Diff(msgspec.Struct):
    stream: str
    data: BareDiff


class _Partial(msgspec.Struct):
    stream: str
    data: BarePartial


FRAMES = {
    "binance depth diff": _Diff,
    "binance depth20": _Partial,
    "binance bookTicker": _Top,
    "upbit orderbook 15": BareBook,
}


def decoder_of(kind: Kind) -> Callable[[Any], None]:
    """Return what decodes a frame of ``kind`` and keeps it."""
    decode = msgspec.json.Decoder(FRAMES[kind.name], strict=False).decode
    newest: dict[str, Any] = {}
    if kind.venue == "upbit":

        def take_book(data: Any) -> None:
            book = decode(data)
            newest[book.code] = book

        return take_book

    def take(data: Any) -> None:
        frame = decode(data)
        newest[frame.stream] = frame.data

    return take
