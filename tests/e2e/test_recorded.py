"""Captured frames served again: one run over a recording that the test makes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import msgspec
import pytest

from arb_ray.adapters.storage.recordings import RecordingWriter
from tests.e2e.ledger import read_ledger
from tests.e2e.runs import END_TIMEOUT_S, START_TIMEOUT_S, one_line_of_json, short_folder, submit

pytestmark = pytest.mark.timeout(300)

BEGIN_NS = 1_790_000_000 * 10**9
SECONDS, SPEED, STEPS_PER_S = 60, 20, 5
STEP_MS = 1_000 // STEPS_PER_S
FX_KRW = 1_400.0
USDT_OF = {"BTC": 60_000.0, "SOL": 150.0, "ETH": 3_000.0}
ON_UPBIT = ("USDT", "BTC", "ETH")  # SOL is on Binance only, and ETH on Upbit only
ON_BINANCE = ("BTC", "SOL")


class Recorder:
    """Writes what both venues sent while prices wandered: books, diffs and one REST book each."""

    def __init__(self, folder: Path) -> None:
        self._random = random.Random(5)
        self._last_bid: dict[str, float] = {}
        self._files = {venue: RecordingWriter(folder, venue) for venue in ("upbit", "binance_spot")}
        self.frames = dict.fromkeys(self._files, 0)
        for step in range(SECONDS * STEPS_PER_S):
            self._step(step, BEGIN_NS + step * STEP_MS * 1_000_000)
        for file in self._files.values():
            file.close()

    def _step(self, step: int, now_ns: int) -> None:
        drift = 1 + 0.002 * math.sin(step / 40)
        for coin in ON_UPBIT:
            krw = FX_KRW * (USDT_OF[coin] * drift if coin != "USDT" else 1)
            self._keep("upbit", now_ns, self._whole_book(coin, round(krw), now_ns))
        for coin in ON_BINANCE:
            bid = round(USDT_OF[coin] * drift, 2)
            self._keep("binance_spot", now_ns, self._diff(coin, step, bid, now_ns))
            if step == 1:
                body = self._snapshot(coin, bid)
                request = f"GET /api/v3/depth?symbol={coin}USDT&limit=1000"
                self._files["binance_spot"].append(now_ns + 1_000, body, request)

    def _keep(self, venue: str, now_ns: int, frame: dict) -> None:
        self._files[venue].append(now_ns, json.dumps(frame, separators=(",", ":")))
        self.frames[venue] += 1

    def _whole_book(self, coin: str, krw: int, now_ns: int) -> dict:
        tick = 1 if krw < 5_000 else 1_000
        bid = krw // tick * tick
        units = [
            {
                "ask_price": bid + (level + 1) * tick,
                "bid_price": bid - level * tick,
                "ask_size": round(self._random.uniform(1, 9), 4),
                "bid_size": round(self._random.uniform(1, 9), 4),
            }
            for level in range(15)
        ]
        stamp = {"timestamp": now_ns // 1_000_000, "stream_type": "REALTIME"}
        return {"type": "orderbook", "code": f"KRW-{coin}", **stamp, "orderbook_units": units}

    def _diff(self, coin: str, step: int, bid: float, now_ns: int) -> dict:
        # Every level of the last step goes, so that the book is never crossed.
        gone = self._levels(self._last_bid[coin]) if step else ([], [])
        self._last_bid[coin] = bid
        bids, asks = (
            [[price, size] for price, size in ({p: "0" for p, _ in old} | dict(new)).items()]
            for old, new in zip(gone, self._levels(bid), strict=True)
        )
        data = {
            "e": "depthUpdate", "E": now_ns // 1_000_000, "s": f"{coin}USDT",
            "U": 10 * step + 1, "u": 10 * step + 10, "b": bids, "a": asks,
        }  # fmt: skip
        return {"stream": f"{coin.lower()}usdt@depth@100ms", "data": data}

    def _levels(self, bid: float) -> tuple[list, list]:
        bids = [[f"{bid - n / 100:.2f}", "2.5"] for n in range(15)]
        asks = [[f"{bid + (n + 1) / 100:.2f}", "2.5"] for n in range(15)]
        return bids, asks

    def _snapshot(self, coin: str, bid: float) -> str:
        bids, asks = self._levels(bid)
        return json.dumps({"lastUpdateId": 20, "bids": bids, "asks": asks})


@pytest.fixture(scope="module")
def recorded_run():
    with short_folder() as folder:
        recorder = Recorder(folder / "frames")
        files = sorted((folder / "frames").glob("*.jsonl.zst"))
        assert len(files) == 2
        options = ("--source", "recorded", "--speed", str(SPEED), "--duration", "8s", "--json")
        recordings = [word for file in files for word in ("--recording", str(file))]
        with submit(folder / "data", *options, *recordings) as run:
            code = run.wait(START_TIMEOUT_S + 8 + END_TIMEOUT_S)
            assert code == 0, run.err
            yield recorder, one_line_of_json(run), run, read_ledger(folder / "data")


def test_a_recording_runs_to_a_clean_end(recorded_run):
    _, summary, run, _ = recorded_run
    assert (summary["source"], summary["errors"]) == ("recorded", [])
    assert summary["symbols"] == ["BTC", "ETH", "SOL"]
    assert summary["open_positions"] == 0
    assert "clean stop done" in run.err
    assert run.left_running() == []


def test_its_frames_arrive_and_are_counted(recorded_run):
    recorder, summary, _, _ = recorded_run
    assert set(summary["frames"]) == {"upbit", "binance_spot"}
    for venue, count in recorder.frames.items():
        # All of them on a quiet machine; a busy one may not reach the recording's end.
        assert summary["frames"][venue] > count / 2, venue
        assert summary["book_updates"][venue] > count / 2, venue
    assert summary["decisions"] > 0


def test_a_symbol_with_one_leg_is_watched_and_not_traded(recorded_run):
    _, _, _, ledger = recorded_run
    assert ledger.problems() == []
    assert {row["symbol"] for row in ledger.trades} <= {"BTC"}
    assert ledger.open_trades() == set()
    assert msgspec.json.decode(ledger.sessions[0]["summary"])["source"] == "recorded"
