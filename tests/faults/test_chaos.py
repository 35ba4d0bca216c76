"""A short run of ``make chaos``, by the command that a user types."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.runs import ROOT

pytestmark = pytest.mark.timeout(300)

SEED = 2
"""Its first faults kill an actor and break a store; see --plan."""


@pytest.fixture(scope="module")
def told():
    command = (
        sys.executable, "-m", "tests.chaos", "--minutes", "0.4", "--seed", str(SEED),
        "--symbols", "5", "--json",
    )  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


def test_a_short_run_against_the_adversary_ends_without_a_violation(told):
    verdict = json.loads(told.stdout)
    assert verdict["violations"] == [], told.stderr
    assert told.returncode == 0, told.stderr


def test_it_broke_something_and_traded_all_the_same(told):
    verdict = json.loads(told.stdout)
    assert verdict["faults"] >= 3, told.stderr
    assert verdict["trades"]["posted"] > 0
    assert verdict["seed"] == SEED
