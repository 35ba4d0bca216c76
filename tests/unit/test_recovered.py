"""What counts as whole again after a fault, and what does not."""

import pytest

from benchmarks.recovered import Fault, births, missing_yet
from benchmarks.recovery import judge
from benchmarks.recovery_run import Recovery
from tests.status_examples import feed, host, status, symbol_row

S = 10**9
FAULT_NS = 1_000 * S
SEEN_NS = FAULT_NS + 4 * S
REBORN_NS = FAULT_NS + 2 * S
FAULT = Fault(FAULT_NS, {"host:000": 7})


def row(symbol="BTC", age_ms=100.0, **changes):
    prices = {"bid_a_krw": 1.0, "bid_b_usdt": 1.0}
    return symbol_row(symbol, **{**prices, "age_a_ms": age_ms, "age_b_ms": age_ms, **changes})


def whole(*, host_changes=None, **changes):
    """A status that is whole again, but for what a test changes."""
    told = {"rows": [row()], "born_ns": REBORN_NS, **(host_changes or {})}
    said = {
        "hosts": {"host:000": host(["BTC"], **told)},
        "feeds": {"feed:upbit": feed("upbit", born_ns=9)},
        "risk": {"ready": True, "state": "active", "born_ns": 3},
        "missing": [],
        "age_s": 0.5,
    }
    return status(**{**said, **changes})


def test_a_reborn_host_with_fresh_books_is_whole():
    assert missing_yet(whole(), FAULT, SEEN_NS) == ""


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (whole(age_s=None), "asked nobody"),
        (whole(age_s=4.5), "nobody was asked since"),
        (whole(missing=["feed:upbit"]), "does not answer"),
        (whole(host_changes={"born_ns": 7}), "another process"),
        (whole(host_changes={"ready": False, "why": "w"}), "not ready"),
        (whole(feeds={"feed:upbit": feed("upbit", ready=False)}), "not ready"),
        (whole(feeds={}), "no feed"),
        (whole(risk={"ready": False}), "recovering"),
        (whole(risk={"ready": True, "unheard": 2}), "2 open trades"),
        (whole(host_changes={"live": []}), "0 of 1"),
        (whole(host_changes={"rows": []}), "no books"),
        (whole(host_changes={"rows": [row(bid_a_krw=0.0)]}), "no books"),
        (whole(host_changes={"rows": [row(age_ms=1_600.0)]}), "older than"),
        (whole(host_changes={"rows": [row(refusal="store_unavailable")]}), "enters nothing"),
    ],
)
def test_what_is_missing_is_told(seen, words):
    assert words in missing_yet(seen, FAULT, SEEN_NS)


def test_a_fault_without_a_victim_wants_books_that_are_younger_than_it():
    old = whole(host_changes={"born_ns": 7, "rows": [row(age_ms=3_600.0)]})
    new = whole(host_changes={"born_ns": 7, "rows": [row(age_ms=3_400.0)]})
    assert "older than" in missing_yet(old, Fault(FAULT_NS), SEEN_NS)
    assert missing_yet(new, Fault(FAULT_NS), SEEN_NS) == ""


def test_births_are_told_of_hosts_feeds_and_singletons():
    seen = whole(wanted=["risk:main@1", "host:000", "gateway:main@1"])
    assert births(seen) == {"host:000": REBORN_NS, "feed:upbit": 9, "risk:main@1": 3}


def test_each_kind_is_held_against_its_budget():
    def missed(kind, *times_s):
        verdicts = judge([Recovery(kind, at, []) for at in times_s], 10.0)
        return {one.name for one in verdicts if not one.is_kept}

    assert missed("kill-host", 1.0, 2.9, 9.9) == set()
    assert missed("kill-host", 1.0, 3.1, 9.9) == {"kill-host, median"}
    assert missed("kill-feed", 1.0, 2.0, 10.1) == {"kill-feed, worst"}
    assert missed("kill-guard", 1.0, 2.0, None) == {"kill-guard, worst"}
    assert missed("freeze-host", 12.9) == set()
    assert missed("freeze-host", 13.1) == {"freeze-host, worst"}
    assert missed("postgres-cut", 2.1, 2.2, 0.1) == {"postgres-cut, median"}
