"""The adversary: what it breaks it heals, what it cannot break it tells, and it goes on till all was met."""

from __future__ import annotations

import pytest

from tests.chaos import adversary as module
from tests.chaos.adversary import Adversary
from tests.chaos.faults import Broken, NotHere
from tests.chaos.kinds import KINDS
from tests.chaos.schedule import Planned, schedule
from tests.chaos.watch import Look


class Seen:
    """A watch that finds all well after two seconds, and remembers what it was asked."""

    def __init__(self, *problems):
        self.newest = Look(0.0, 0.0, problems, {}, {"state": "active"})
        self.asked = []

    def until_well(self, since_s, is_replaced, timeout_s):
        self.asked.append((since_s, is_replaced()))
        return 2.0, ""


@pytest.fixture
def deeds(monkeypatch):
    """What was broken and healed, in order; time passes at once."""
    done = []
    now = [1000.0]

    def begin(world, fault):
        if fault.target == "nobody":
            raise NotHere("no such process")
        done.append(("begin", fault.kind, now[0]))
        return Broken(heal=lambda: done.append(("heal", fault.kind, now[0])))

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(module.faults, "begin", begin)
    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return done


def planned(kind, at_s=0.0, duration_s=0.0, episode=0, target="risk"):
    return Planned(episode, at_s, kind, target, duration_s, 0.0)


def run(watch, faults, run_s=60.0):
    lines = []
    adversary = Adversary(None, watch, lines.append)
    adversary.run(faults, run_s)
    return adversary.episodes, lines


def test_a_lasting_fault_is_healed_after_its_time_and_timed_from_there(deeds):
    watch = Seen()
    run(watch, [planned("silence", duration_s=4.0)])
    assert [(what, kind) for what, kind, _ in deeds] == [("begin", "silence"), ("heal", "silence")]
    assert deeds[1][2] - deeds[0][2] == pytest.approx(4.0)
    assert watch.asked[0][0] == deeds[1][2]


def test_a_kill_is_timed_from_the_kill(deeds):
    watch = Seen()
    run(watch, [planned("kill_risk")])
    assert watch.asked[0][0] == deeds[0][2]


def test_a_storm_is_in_force_together_and_timed_from_the_last_heal(deeds):
    watch = Seen()
    storm = [
        planned("silence", at_s=1.0, duration_s=6.0),
        planned("freeze", at_s=2.0, duration_s=2.0),
    ]
    (episode,), _ = run(watch, storm)
    order = [(what, kind) for what, kind, _ in deeds]
    assert order == [
        ("begin", "silence"),
        ("begin", "freeze"),
        ("heal", "freeze"),
        ("heal", "silence"),
    ]
    assert watch.asked[0][0] == deeds[-1][2]
    assert not episode.is_alone


def test_what_cannot_be_injected_is_told_with_its_reason_and_not_counted(deeds):
    (episode,), lines = run(Seen(), [planned("hang", target="nobody")])
    assert episode.faults == []
    assert episode.not_here == {"hang": "no such process"}
    assert "no such process" in lines[0]


def test_an_episode_knows_whether_all_traded_when_it_began(deeds):
    (episode,), _ = run(Seen("BTC is dark"), [planned("kill_risk")])
    assert not episode.clean


def test_a_short_run_ends_with_its_time(deeds):
    episodes, _ = run(Seen(), schedule(1, 60.0), 60.0)
    assert {fault.kind for episode in episodes for fault in episode.faults} < {
        k.name for k in KINDS
    }


@pytest.mark.parametrize("seed", range(10))
def test_a_run_of_ten_minutes_goes_on_until_every_kind_has_occurred(deeds, seed):
    episodes, _ = run(Seen(), schedule(seed, 600.0), 600.0)
    met = {fault.kind for episode in episodes for fault in episode.faults}
    assert met == {kind.name for kind in KINDS}
