"""The benchmark of the tick path measures what it says: rows, stamps, budgets."""

import asyncio

import msgspec

from arb_ray.adapters.venues.binance import codec
from arb_ray.domain.instrument import Venue
from benchmarks.tick_load import Generator, row_of
from benchmarks.tick_path import ALONE, PACKED, _verdicts
from benchmarks.tick_path_stage import Cell, Cost, Outcome
from benchmarks.tick_tables import Spread, Tables, spread


def test_each_prepared_frame_is_binances_and_tells_its_row(tmp_path):
    generator = Generator(str(tmp_path), ["BTC", "ETH", "XRP"], 1)
    asyncio.run(generator.prepare(10))
    symbols = []
    for row, frame in enumerate(generator.frames):
        assert frame[:2] == b"\x81\x7e"
        assert int.from_bytes(frame[2:4], "big") == len(frame) - 4
        (top,) = codec.decode(frame[4:], Venue.BINANCE_SPOT)
        assert row_of(top.bid_qty) == row
        assert top.bid < top.ask
        symbols.append(top.venue_symbol)
    assert all(len(set(symbols[at : at + 3])) == 3 for at in (0, 3, 6)), "each once a round"


def test_only_rows_with_both_stamps_have_a_time(tmp_path):
    tables, seen = Tables(tmp_path), Tables(tmp_path)
    tables.clear(4)
    for row, (sent, decided) in enumerate([(5, 7), (5, 0), (6, 9), (0, 0)]):
        tables.sent.rows[row], seen.decided.rows[row] = sent, decided
    assert tables.latencies_ns(0, 4) == ([2, 3], 3)
    tables.clear(4)
    assert seen.latencies_ns(0, 4) == ([], 0)


def test_percentiles_are_of_sorted_times():
    told = spread([one * 1_000_000 for one in range(1_000)])
    assert (told.p50_ms, told.p99_ms, told.p999_ms, told.most_ms) == (500, 990, 999, 999)
    assert spread([]).p50_ms == float("inf")


def _outcome(plane: str, cell: Cell, p50_ms: float, share: float = 1.0) -> Outcome:
    times = Spread(p50_ms, 10 * p50_ms, 0, 0)
    where = msgspec.structs.replace(cell, plane=plane)
    return Outcome(where, times, 100, share, 0, 0, 0, Cost(0, 0, 0), 0, 0)


def test_every_budget_can_be_missed():
    good = [
        *(_outcome("shm", cell, 0.4) for cell in (PACKED, ALONE)),
        *(_outcome("ray", cell, 4.0) for cell in (PACKED, ALONE)),
    ]
    assert [one.is_kept for one in _verdicts(good, "shm")] == [True] * 6
    bad = [
        *(_outcome("shm", cell, 1.1, 0.9) for cell in (PACKED, ALONE)),
        *(_outcome("ray", cell, 4.0) for cell in (PACKED, ALONE)),
    ]
    assert [one.is_kept for one in _verdicts(bad, "shm")] == [False] * 6
