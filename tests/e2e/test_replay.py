"""A recording made by a run replays alike: twice in one process, and through Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "arb_ray.submit", "--env", "dev", "--json", "--seed", "3"]
REPLAY = [str(Path(sys.executable).parent / "arb-ray"), "replay", "--json"]
SECONDS = "14"


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Both legs and KRW-USDT of four coins, written by ``submit --record``."""
    folder = tmp_path_factory.mktemp("recorded")
    command = [
        *RUN, "--symbols", "BTC,ETH,XRP,PEPE", "--duration", "12s",
        "--data-dir", str(folder / "data"), "--record", str(folder / "frames"),
    ]  # fmt: skip
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((folder / "frames").glob("*.jsonl.zst"))
    assert {file.name.split("_2")[0] for file in files} == {"upbit", "binance_spot"}
    return [str(file) for file in files]


def replayed(files, *options):
    command = [*REPLAY, *files, *options]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.timeout(400)
def test_one_process_and_ray_in_lock_step_decide_alike(recording):
    here = replayed(recording, "--seed", "3", "--seconds", SECONDS)
    again = replayed(recording, "--seed", "3", "--seconds", SECONDS)
    there = replayed(recording, "--seed", "3", "--seconds", SECONDS, "--through", "ray")

    assert here["frames"] > 300
    assert here["decisions"] > 300
    assert again["decision_hash"] == here["decision_hash"]
    assert there["decision_hash"] == here["decision_hash"]
    for key in ("frames", "opportunities", "trades_opened", "realized_pnl_usdt"):
        assert there[key] == here[key], key


def test_other_parameters_leave_another_hash(recording):
    whole = replayed(recording, "--seed", "3")
    fewer = replayed(recording, "--seed", "3", "--symbols", "BTC,ETH")

    assert whole["symbols"] == ["BTC", "ETH", "PEPE", "XRP"]
    assert fewer["symbols"] == ["BTC", "ETH"]
    assert fewer["decision_hash"] != whole["decision_hash"]
