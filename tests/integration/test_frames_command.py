from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arb_ray.adapters.storage.recordings import RecordingWriter
from arb_ray.cli import frames

SHARED = Path(__file__).parents[3] / "shared" / "market_data"
KEYS = {
    "file",
    "venue",
    "frames",
    "unknown",
    "malformed",
    "symbols",
    "gaps",
    "books_rebuilt",
    "compared",
    "mismatches",
    "clock_offset_ms",
    "clock_jitter_ms",
    "frames_per_s",
}
MS = 1_000_000
WALL = 1_790_000_000_000 * MS

SNAPSHOT_REQUEST = "GET /api/v3/depth?symbol=BTCUSDT&limit=1000"
SNAPSHOT = '{"lastUpdateId":100,"bids":[["99","1"]],"asks":[["101","1"]]}'


def diff(first: int, last: int, bid: str = "99", size: str = "5") -> str:
    data = {"e": "depthUpdate", "E": WALL // MS + 1_273, "s": "BTCUSDT", "U": first, "u": last}
    data |= {"b": [[bid, size]], "a": []}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": data})


def ticker(update_id: int, bid: str = "99", size: str = "5") -> str:
    data = {"u": update_id, "s": "BTCUSDT", "b": bid, "B": size, "a": "101", "A": "1"}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data})


def record(folder: Path, *lines: str | tuple[str, str], venue: str = "binance_spot") -> Path:
    writer = RecordingWriter(folder, venue)
    for line in lines:
        raw, request = (line, None) if isinstance(line, str) else line
        writer.append(WALL, raw, request)
    writer.close()
    (path,) = folder.glob(f"{venue}_*")
    return path


def check(capsys: pytest.CaptureFixture[str], *files: Path) -> tuple[int, list[dict[str, Any]]]:
    code = frames.run(files, json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return code, json.loads(out)["files"]


GOOD = (
    diff(95, 100),
    ticker(102),
    diff(101, 102),
    (SNAPSHOT, SNAPSHOT_REQUEST),
    diff(103, 103),
    diff(104, 106, size="6"),
    ticker(106, size="6"),
)


def test_a_sound_recording_is_clean_and_compares_both_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (report,) = check(capsys, record(tmp_path, *GOOD))
    assert code == 0
    assert set(report) == KEYS
    assert report["frames"] == {"REST depth": 1, "bookTicker": 2, "depthUpdate": 4}
    assert (report["compared"], report["mismatches"]) == (2, 0)
    assert (report["symbols"], report["books_rebuilt"]) == (["BTCUSDT"], 1)
    assert report["clock_offset_ms"] == 1_273
    assert report["frames_per_s"] > 0


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ((*GOOD, diff(108, 109)), "gaps"),
        ((*GOOD, diff(107, 108, bid="101")), "gaps"),
        ((*GOOD[:-1], ticker(106, size="7")), "mismatches"),
        ((*GOOD, ticker(106, size="7")), "mismatches"),
        ((diff(95, 100), ticker(102, bid="98"), *GOOD[2:]), "mismatches"),
        ((*GOOD, "{not json"), "malformed"),
        ((*GOOD, ("<html>", "GET /api/v3/exchangeInfo")), "malformed"),
    ],
)
def test_each_fault_is_found_and_sets_the_exit_code(
    lines: tuple[str | tuple[str, str], ...],
    fault: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, (report,) = check(capsys, record(tmp_path, *lines))
    assert code == 1
    found = {name: report[name] for name in ("gaps", "mismatches", "malformed") if report[name]}
    assert found == {fault: 1}


def test_unknown_types_refusals_and_sent_frames_are_counted_and_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (
        *GOOD,
        '{"e":"newThing"}',
        ('{"method":"SUBSCRIBE","params":[],"id":1}', "WS send"),
        ('{"code":-1121,"msg":"Invalid symbol."}', "GET /api/v3/depth?symbol=NOPE&limit=5"),
        ('{"serverTime":1}', "GET /api/v3/time"),
        '{"result":null,"id":1}',
    )
    code, (report,) = check(capsys, record(tmp_path, *lines))
    assert code == 0
    assert report["unknown"] == 1
    for name in ("WS send", "REST error", "REST time", "reply"):
        assert report["frames"][name] == 1


def test_a_file_of_two_venues_gives_two_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = {"type": "orderbook", "code": "KRW-BTC", "timestamp": 5, "orderbook_units": []}
    upbit = record(tmp_path / "a", json.dumps(book), venue="upbit")
    spot = record(tmp_path / "b", *GOOD)
    both = tmp_path / "both.jsonl.zst"
    both.write_bytes(upbit.read_bytes() + spot.read_bytes())
    code, reports = check(capsys, both)
    assert code == 0
    assert [report["venue"] for report in reports] == ["upbit", "binance_spot"]
    assert reports[0]["frames"] == {"orderbook": 1}


def test_a_file_that_cannot_be_read_is_one_sentence_and_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frames.run([tmp_path / "absent.zst"], json=True) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "absent.zst" in said.err
    assert frames.run([record(tmp_path, "{}", venue="kraken")], json=True) == 3
    assert "kraken" in capsys.readouterr().err


def test_the_table_for_people_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path, *GOOD)
    assert frames.run([path], json=False) == 0
    out = capsys.readouterr().out
    assert path.name in out
    assert "2 with bookTicker, 0 mismatches" in out


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded frames are not beside the repository")
def test_the_recorded_exchanges_hold_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    code, reports = check(capsys, *sorted(SHARED.glob("*.jsonl.zst")))
    assert code == 0
    compared = {Path(report["file"]).name.split(".")[0]: report["compared"] for report in reports}
    assert compared["binance_spot_btcusdt_20240808_650s"] == 1_072
    assert compared["binance_usdm_btcusdt_20240808_345s"] == 629
    behind = [report["clock_offset_ms"] for report in reports if "2024" in report["file"]]
    assert all(1_268 < offset_ms < 1_280 for offset_ms in behind)
    counts = {report["venue"]: report["frames"] for report in reports if "2024" in report["file"]}
    assert counts["binance_spot"]["bookTicker"] == 73_174
    assert counts["binance_usdm"]["depthUpdate"] == 6_551
