"""The screen of ``arb-ray status``."""

import msgspec

from arb_ray.app.status_words import status_in_words, without_supervisor_in_words
from arb_ray.engine.health import StatusAnswer, judge
from tests.status_examples import feed, persistence, risk, status


def screen(**changes):
    told = status(**changes)
    answer = StatusAnswer(**msgspec.structs.asdict(told), health=judge(told))
    return status_in_words(answer, "http://g:1")


def test_a_whole_system_fits_on_one_screen():
    text = screen(wanted=["a", "b"])
    assert text.startswith("arb_ray is healthy, ready · http://g:1")
    assert "20 of 20 live" in text
    assert "12.50000000 of 200.00000000 USDT on 2025-12-31" in text
    assert "ADA holding, -0.42000000 USDT if closed now" in text
    assert "PostgreSQL up, Redis up" in text
    assert "2 of 2 answer" in text
    assert "problems" not in text
    assert len(text.splitlines()) <= 24
    assert max(len(line) for line in text.splitlines()) <= 120


def test_who_stopped_it_when_and_why_is_told():
    stopped = risk(state="reduce_only", reason="odd", actor="ann@desk", since_ns=10**18)
    assert "reduce only since 2001-09-09 01:46:40 UTC, by ann@desk: odd" in screen(risk=stopped)


def test_what_is_being_closed_is_told():
    assert "being closed: BTC, ETH" in screen(risk=risk(flatten=["BTC", "ETH"]))
    assert "every open trade is being closed" in screen(risk=risk(flatten_all=True))


def test_a_gap_loss_is_told_as_a_number():
    assert "past reservations" not in screen()
    told = screen(risk=risk(state="halted", gap_loss_usdt="12.5"))
    assert "12.50000000 USDT lost past reservations, by price gaps" in told


def test_every_problem_is_told():
    text = screen(
        feeds={"f": feed("upbit", connected=False, reconnects=3, gaps=1)},
        risk={},
        persistence=persistence(postgres="down", redis="fallback"),
        missing=["host:000@v"],
        wanted=["host:000@v"],
        errors=[f"error {number}" for number in range(9)],
    )
    for words in (
        "UNHEALTHY, not ready",
        "RiskGuard recovers or does not answer",
        "upbit NOT CONNECTED",
        "3 reconnects, 1 gaps",
        "PostgreSQL is away",
        "Redis is away",
        "0 of 1 answer",
        "error 8",
    ):
        assert words in text, words
    assert "error 3" not in text


def test_without_persistence_the_stores_are_not_known():
    assert "not known: Persistence" in screen(persistence={})


def test_a_dead_supervisor_leaves_the_guards_word():
    body = {"error": "x", "health": {"problems": ["supervisor: gone"]}, "risk": risk()}
    assert "active" in without_supervisor_in_words(body, "u")
    assert "supervisor: gone" in without_supervisor_in_words(body, "u")
    assert "not known" in without_supervisor_in_words({"error": "x"}, "u")
