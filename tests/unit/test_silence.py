"""Silence is counted in the time of a supervisor that was awake."""

import pytest

from arb_ray.engine.silence import Silence

S = 10**9


@pytest.fixture
def silence():
    one = Silence()
    one.turn(100 * S)
    return one


def turn(silence, *at_s):
    for at in at_s:
        silence.turn(int(at * S))


def test_who_never_answered_is_silent_since_the_first_question(silence):
    turn(silence, 101)
    silence.asked("host")
    assert silence.lasts_s("host") == 0
    turn(silence, 101.5, 102.5)
    assert silence.lasts_s("host") == 1.5


def test_a_question_that_is_repeated_does_not_begin_anew(silence):
    silence.asked("host")
    turn(silence, 101)
    silence.asked("host")
    turn(silence, 102)
    assert silence.lasts_s("host") == 2


def test_it_counts_from_the_last_answer_and_not_from_the_question_that_follows(silence):
    silence.asked("host")
    silence.asked("feed")
    turn(silence, 101)
    silence.heard("host")
    turn(silence, 101.5)
    silence.asked("host")
    turn(silence, 102)
    assert (silence.lasts_s("host"), silence.lasts_s("feed")) == (1, 2)


def test_who_is_forgotten_is_not_silent(silence):
    silence.asked("host")
    silence.forget("host")
    turn(silence, 101)
    assert (silence.lasts_s("host"), silence.names) == (0, ())


def test_a_supervisor_that_was_frozen_blames_nobody(silence):
    silence.asked("host")
    turn(silence, 101, 161)
    assert silence.lasts_s("host") == 2
