"""Lives from seeds: none breaks a promise, each can be lived again, planted bugs are seen."""

import os
import subprocess
import sys

import pytest

from tests.sim.bugs import planted
from tests.sim.command import find, live, main
from tests.sim.world import World

SEEDS = range(60)

SEEN_BY = {
    "guard_ignores_the_deadline": "risk.deadline",
    "guard_forgets_losses": "risk.daily_loss",
    "guard_halts_in_memory_only": "risk.gap",
    "trade_never_hedges": "trades.naked",
    "trade_gives_up_unwinding": "trades.flat",
    "pnl_uses_the_entrys_rate": "trades.worth",
    "host_acts_before_it_journals": "trades.journal",
    "host_fails_over_a_batch": "bug",
    "trade_forgets_the_void": "liveness",
    "release_forgets_an_asset": "ledger.balances",
    "spool_is_replayed_out_of_order": "bug",
    "spool_is_replayed_twice_without_idempotence": "ledger",
    "spool_is_replayed_after_the_claim": "spool.claim",
}

RARE = {"trade_forgets_the_void": range(100, 110)}
"""Lives in which a bug shows that is not seen in the first ones."""


def test_no_life_breaks_a_promise():
    outcomes = live(SEEDS)
    assert [(one.seed, str(one.violations[0])) for one in outcomes if one.violations] == []
    # A simulation in which nothing happens would break no promise either.
    assert sum(one.trades for one in outcomes) > len(SEEDS)
    assert sum(one.crashes for one in outcomes) > len(SEEDS)


def test_a_seed_lives_the_same_life_in_another_process():
    ours = [one.digest for one in live(range(3))]
    program = "from tests.sim.command import live; print([one.digest for one in live(range(3))])"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    )
    assert told.stdout.strip() == str(ours)


def test_two_seeds_live_two_lives():
    first, second = live(range(2))
    assert first.digest != second.digest


@pytest.mark.parametrize("bug", SEEN_BY)
def test_a_planted_bug_is_seen(bug):
    found = find(bug, RARE.get(bug, SEEDS))
    assert found.seed is not None
    assert found.check.startswith(SEEN_BY[bug])
    assert World(found.seed).run().violations == ()


def test_a_failing_seed_is_printed_as_the_command_that_repeats_it(capsys):
    with planted("trade_never_hedges"):
        assert main(["--seeds", "1", "--first", "0", "--jobs", "1"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "  again: python -m tests.sim --seeds 1 --first 0 --trace" in told
    count = told[0].split()[2]
    assert told[-1] == f"1 seeds, {count} violations"


def test_the_verdict_is_the_last_line_and_the_exit_code(capsys):
    assert main(["--seeds", "2", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 seeds, 0 violations"
