"""``arb-ray replay`` on what the real exchanges sent, also on symbols that nobody trades."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "market_data"
REPLAY = Path(sys.executable).parent / "arb-ray"
FILES = sorted(SHARED.glob("*.jsonl.zst"))

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not SHARED.is_dir(), reason="the recorded frames are not beside the repository"
    ),
]


def replayed(*files):
    command = [REPLAY, "replay", *map(str, files), "--seconds", "3", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_first_seconds_of_each_recording_replay(file):
    result = replayed(file)
    assert result["frames"] > 0
    assert result["seconds_recorded"] <= 3.0
    assert result["trades_opened"] == 0  # one leg alone is watched, not traded


def test_all_recordings_replay_together_though_one_symbol_is_on_both_binance_markets():
    assert len(FILES) == 5
    result = replayed(*FILES)
    assert result["frames"] > 1_000
    assert result["decisions"] > 0
    assert "BTC" in result["symbols"]
