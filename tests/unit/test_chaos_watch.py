"""When a run counts as trading again: no old news, no victim that lives on, no idle host."""

from __future__ import annotations

import time

import msgspec
import pytest

from tests.chaos import watch as watching
from tests.chaos.faults.broken import at_once
from tests.chaos.watch import Look, Watch, what_is_wrong
from tests.status_examples import host, status

SYMBOLS = ("BTC", "ETH")


def seen(**changes):
    return status(SYMBOLS, **changes)


def test_a_run_in_which_all_trade_has_nothing_wrong():
    assert what_is_wrong(seen(), SYMBOLS, lease_age_s=0.5) == ()


@pytest.mark.parametrize("age_s", [None, 3.0])
def test_a_guard_that_does_not_renew_its_lease_is_wrong(age_s):
    assert what_is_wrong(seen(), SYMBOLS, age_s) == ("the guard's lease was not renewed",)


def test_an_old_status_is_wrong():
    (told,) = what_is_wrong(seen(age_s=4.0), SYMBOLS, 0.5)
    assert "4.0 s old" in told


@pytest.mark.parametrize("side", ["age_a_ms", "age_b_ms"])
def test_an_old_book_of_either_venue_is_wrong(side):
    told = seen()
    row = next(row for one in told.hosts.values() for row in one.rows if row.symbol == "BTC")
    setattr(row, side, 3_500.0)
    (words,) = what_is_wrong(told, SYMBOLS, 0.5)
    assert words.startswith("BTC: books")


def test_a_symbol_that_nobody_shows_is_wrong():
    assert "XRP has no row" in what_is_wrong(seen(), (*SYMBOLS, "XRP"), 0.5)


def test_what_health_complains_of_is_wrong():
    told = seen(hosts={"host:000@1": host(SYMBOLS, ready=False, why="it recovers")})
    assert any("it recovers" in words for words in what_is_wrong(told, SYMBOLS, 0.5))


@pytest.mark.parametrize(
    ("phase", "refusal", "is_wrong"),
    [
        ("idle", "clock_offset", True),
        ("idle", "risk_unreachable", True),
        ("idle", "no_edge", False),
        ("idle", "warming_up", False),
        ("holding", "clock_offset", False),  # it is of before the entry
    ],
)
def test_a_gate_that_tells_of_a_fault_is_wrong(phase, refusal, is_wrong):
    told = seen()
    row = next(row for one in told.hosts.values() for row in one.rows if row.symbol == "BTC")
    row.phase, row.refusal = phase, refusal
    assert bool(what_is_wrong(told, SYMBOLS, 0.5)) is is_wrong


class Film(Watch):
    """A watch that is shown looks, a new one at each glance; the last one stays."""

    def __init__(self, *looks):
        self._looks = list(looks)

    @property
    def newest(self):
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(watching, "POLL_S", 0.004)


def look(after_s, decisions=1, **changes):
    now_s = time.monotonic()
    at_s = now_s + after_s
    shown = Look(at_s, at_s, (), {"host:000": decisions}, {})
    return msgspec.structs.replace(shown, **changes)


def until_well(*looks, is_replaced=at_once, timeout_s=0.1):
    return Film(*looks).until_well(time.monotonic() - 1.0, is_replaced, timeout_s + 1.0)


def test_it_is_well_when_all_decide_again():
    took_s, why = until_well(look(0.0, 5), look(0.1, 6))
    assert why == ""
    assert took_s == pytest.approx(1.1, abs=0.5)


def test_a_host_that_decides_nothing_is_not_well():
    assert until_well(look(0.0, 5), look(0.1, 5))[1] == "a host decides nothing"


def test_what_was_asked_before_the_fault_tells_nothing():
    old = look(0.1, 5, asked_s=time.monotonic() - 2.0)
    assert until_well(old)[1] == "not looked at since"


def test_a_victim_that_lives_on_is_not_replaced():
    assert until_well(look(0.0, 5), look(0.1, 6), is_replaced=lambda: False)[1] == (
        "the victim was not replaced"
    )


def test_what_was_asked_before_the_victim_was_replaced_tells_nothing():
    found = until_well(look(-0.5, 5), look(-0.4, 6), is_replaced=lambda: True)
    assert found[1] == "not looked at since"


def test_problems_are_told_when_nobody_waits_longer():
    assert until_well(look(0.0, 5, problems=("BTC is dark",)))[1] == "BTC is dark"
