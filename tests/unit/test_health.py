"""Silence is a problem, and every problem is a sentence."""

import pytest

from arb_ray.engine.health import NAMES_MAX, STALE_S, judge, live_symbols
from tests.status_examples import feed, host, persistence, risk, status


def test_a_whole_system_is_well():
    assert judge(status()).problems == ()
    assert judge(status()).healthy
    assert judge(status()).ready


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"missing": ["host:000@v"]}, "host:000@v has not answered"),
        ({"hosts": {"h": host(["BTC"], ready=False, why="waiting for the ledger")}}, "the ledger"),
        ({"hosts": {"h": host(["BTC"], live=[])}}, "0 of 1 symbols"),
        ({"hosts": {}}, "0 of 0 symbols"),
        ({"feeds": {"f": feed("upbit", ready=False, why="no book yet")}}, "no book yet"),
        ({"risk": risk(ready=False)}, "RiskGuard"),
        ({"risk": {}}, "RiskGuard has not answered"),
        ({"risk": risk(state="asleep")}, "asleep"),
        ({"feeds": {}}, "no feed"),
        ({"age_s": None}, "has not asked"),
        ({"age_s": STALE_S + 1}, "16 s old"),
        ({"draining": True}, "being stopped"),
    ],
)
def test_what_is_incomplete_is_neither_ready_nor_healthy(changes, word):
    health = judge(status(**changes))
    assert not health.ready
    assert not health.healthy
    assert word in " ".join(health.problems)


@pytest.mark.parametrize(
    "changes",
    [
        {"feeds": {"f": feed("upbit", connected=False)}},
        {"persistence": persistence(postgres="down")},
        {"persistence": {}},
    ],
)
def test_what_broke_after_the_start_is_ready_but_not_healthy(changes):
    health = judge(status(**changes))
    assert health.ready
    assert not health.healthy
    assert len(health.problems) == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"risk": risk(state="halted", reason="lunch")}, "halted, lunch"),
        ({"risk": risk(state="reduce_only")}, "reduce_only"),
        ({"risk": risk(unwritten=1)}, "not yet in PostgreSQL"),
        ({"risk": risk(unheard=2)}, "no entries until 2 open trades are heard of"),
        ({"persistence": persistence(redis="fallback")}, "Redis"),
        ({"persistence": persistence(disk="the disk is full")}, "the disk is full: nothing is"),
        ({"persistence": persistence(snapshots_dropped=3)}, "3 snapshot rows"),
        ({"hosts": {"h": host(["BTC"], troubles=["the disk is full"])}}, "h: the disk is full"),
        ({"hosts": {"h": host(["BTC"], overloaded="9%")}}, "h is overloaded: 9%"),
        ({"feeds": {"f": feed("upbit", overloaded="9%")}}, "f is overloaded: 9%"),
        ({"feeds": {"f": feed("upbit", stale=["KRW-BTC"])}}, "f: the books of KRW-BTC"),
    ],
)
def test_what_a_restart_would_not_mend_is_told_and_healthy(changes, word):
    health = judge(status(**changes))
    assert health.healthy
    assert health.ready
    assert len(health.warnings) == 1
    assert word in health.warnings[0]


def test_a_whole_system_warns_of_nothing():
    assert judge(status()).warnings == ()


def test_a_status_that_is_just_fresh_enough_is_believed():
    assert judge(status(age_s=STALE_S)).healthy


def test_symbols_that_are_not_live_are_named_up_to_a_bound():
    symbols = [f"S{number:02d}" for number in range(NAMES_MAX + 2)]
    (problem,) = judge(status(hosts={"a": host(symbols, live=[])})).problems
    assert "S09" in problem
    assert "S10" not in problem
    assert "and 2 more" in problem


def test_a_silent_persistence_is_not_taken_for_a_postgres_that_is_away():
    (problem,) = judge(status(persistence={})).problems
    assert "Persistence has not answered" in problem


def test_live_and_wanted_symbols_are_those_of_all_hosts():
    told = status(hosts={"a": host(["BTC"], live=[]), "b": host(["ETH"])})
    assert live_symbols(told) == ({"ETH"}, {"BTC", "ETH"})


def test_a_host_that_a_broken_stop_has_drained_is_not_well():
    said = status()
    next(iter(said.hosts.values())).draining = True
    health = judge(said)
    assert not health.healthy
    assert any("drained" in problem for problem in health.problems)


def test_a_guard_on_former_limits_is_warned_of():
    said = status(deployment=5)
    said.risk["deployment"] = 4
    assert any("limits" in warning for warning in judge(said).warnings)
    said.risk["deployment"] = 5
    assert not any("limits" in warning for warning in judge(said).warnings)
