"""A recording that is replayed by several processes leaves the decisions of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.replay_recording import SYMBOLS, write_recording

REPLAY = [str(Path(sys.executable).parent / "arb-ray"), "replay", "--json", "--seed", "3"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "drawn.jsonl.zst"
    return write_recording(path, symbols=SYMBOLS[:5], frames=6_000, swing_bps=75.0)


def replayed(file, *options):
    command = [*REPLAY, str(file), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(500)
def test_any_number_of_workers_decides_like_one_process(recording):
    one = replayed(recording)
    assert one["opportunities"] > 5
    assert one["trades_closed"] > 1
    for workers in (2, 3):
        many = replayed(recording, "--workers", str(workers))
        assert many["workers"] == workers
        assert many["decision_hash"] == one["decision_hash"]
        for key in ("frames", "opportunities", "trades_closed", "realized_pnl_usdt", "pnl_parts"):
            assert many[key] == one[key], key


def test_there_are_no_more_workers_than_symbols(recording):
    few = replayed(recording, "--workers", "9", "--symbols", "BTC,ETH", "--seconds", "1")
    assert few["workers"] == 2
