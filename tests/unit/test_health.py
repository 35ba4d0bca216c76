"""Silence is a problem, and every problem is a sentence."""

import pytest

from arb_ray.engine.health import judge, live_symbols
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
        ({"risk": {}}, "RiskGuard"),
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


def test_live_and_wanted_symbols_are_those_of_all_hosts():
    told = status(hosts={"a": host(["BTC"], live=[]), "b": host(["ETH"])})
    assert live_symbols(told) == ({"ETH"}, {"BTC", "ETH"})
