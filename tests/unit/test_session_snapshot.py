"""A start believes a snapshot only when it can be what was written, and takes no money from it."""

import pytest

from arb_ray.engine.session_snapshot import (
    Counts,
    Expected,
    counts_of,
    damage,
    objection,
    with_ledger,
)

S = 10**9
EXPECTED = Expected("s1", "sim/lively/spot", now_ns=1_000 * S, age_max_ns=100 * S)


def payload(**changes):
    fields = {
        "schema": 2,
        "session_id": "s1",
        "market": "sim/lively/spot",
        "symbols": 3,
        "decisions": 100,
        "opportunities": 9,
        "trades_opened": 5,
        "trades_closed": 3,
        "open_positions": 2,
        "frames": {"upbit": 7},
        "errors": [],
    }
    return {key: value for key, value in (fields | changes).items() if value is not ...}


def test_what_was_written_is_believed():
    assert damage(payload(), 990 * S, EXPECTED) == ""
    assert objection(payload(), 990 * S, EXPECTED) == ""
    assert counts_of(payload()) == Counts(100, 9, 5, 3, {"upbit": 7})


@pytest.mark.parametrize(
    "changes",
    [
        {"open_positions": 3},  # one on each symbol
        {"trades_closed": 8},  # each symbol's trade was opened before anybody counted
        {"symbols": 5_000},
        {"opportunities": 10**15},
        {"frames": {str(n): 1 for n in range(50)}},
    ],
)
def test_what_is_on_a_bound_is_no_damage(changes):
    assert damage(payload(**changes), 990 * S, EXPECTED) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decisions": ...}, "lacks decisions"),
        ({"frames": ..., "market": ...}, "lacks market, frames"),
        ({"session_id": "s2"}, "of session 's2'"),
        ({"open_positions": 4}, "4 open positions on 3 symbols"),
        ({"symbols": 5_001}, "5001 symbols"),
        ({"symbols": "3"}, "'3' symbols"),
        ({"decisions": -1}, "decisions are -1"),
        ({"decisions": 1.5}, "decisions are 1.5"),
        ({"opportunities": True}, "opportunities are True"),
        ({"opportunities": 10**15 + 1}, "opportunities are"),
        ({"trades_closed": 9}, "more trades were closed"),
        ({"frames": [1]}, "no counts by venue"),
        ({"frames": {"upbit": -1}}, "no counts by venue"),
        ({"frames": {str(n): 1 for n in range(51)}}, "no counts by venue"),
    ],
)
def test_what_cannot_have_been_written_is_damage(changes, words):
    assert words in damage(payload(**changes), 990 * S, EXPECTED)


def test_a_snapshot_from_the_future_is_damage_unless_a_clock_ahead_explains_it():
    assert damage(payload(), 1_060 * S, EXPECTED) == ""
    assert "future" in damage(payload(), 1_060 * S + 1, EXPECTED)


def test_another_market_or_an_old_snapshot_is_of_no_use_and_no_damage():
    other = payload(market="sim/calibrated/spot")
    assert damage(other, 990 * S, EXPECTED) == ""
    assert "sim/calibrated/spot" in objection(other, 990 * S, EXPECTED)
    assert objection(payload(), 900 * S, EXPECTED) == ""
    assert "is 101 s old" in objection(payload(), 899 * S, EXPECTED)


@pytest.mark.parametrize("schema", [..., 1, 3])
def test_what_another_version_wrote_is_of_no_use_and_no_damage(schema):
    other = payload(schema=schema, decisions=...)
    assert damage(other, 990 * S, EXPECTED) == ""
    assert "this version reads 2" in objection(other, 990 * S, EXPECTED)


def test_the_ledger_s_figures_stand_over_the_snapshot_s():
    restored = with_ledger(counts_of(payload()), opened=7, closed=6)
    assert restored == Counts(100, 9, 7, 6, {"upbit": 7})
