"""Questions and answers: the slow and the dead hold up nobody."""

import asyncio
import time

import pytest

from arb_ray.actors.asking import AGAIN_S, Asking
from arb_ray.domain.errors import OutcomeUnknown
from arb_ray.engine.topology import Role, WantedActor
from tests.shell_world import JumpClock

A, B = (WantedActor(Role.HOST, key, (), "v") for key in "ab")
S = 10**9


class Links:
    """Answers at once, but for those whose answers a test holds back."""

    def __init__(self):
        self.held, self.asked = {}, []

    async def call(self, name, method, *, timeout_s):
        self.asked.append(name)
        if name in self.held:
            return await self.held[name]
        return name

    def hold(self, name):
        self.held[name] = asyncio.get_running_loop().create_future()
        return self.held[name]


class World:
    def __init__(self):
        self.taken, self.links, self.clock = [], Links(), JumpClock()
        self.asking = Asking(
            clock=self.clock,
            timeout_s=1.0,
            patience_s=0.01,
            take=lambda actor, told: self.taken.append((actor.name, told)),
        )

    async def turn(self, *actors, passed_s=0.5):
        self.clock.now += int(passed_s * S)
        self.asking.silence.turn(self.clock.now)
        await self.asking.turn(self.links, actors or (A, B))


@pytest.fixture
def world():
    return World()


async def test_one_that_does_not_answer_holds_up_nobody_and_is_asked_once(world):
    held = world.links.hold(A.name)
    await world.turn()
    await world.turn()
    assert world.taken == [(B.name, B.name)] * 2
    assert world.links.asked.count(A.name) == 1
    held.set_result("late")
    await asyncio.sleep(0)
    assert world.taken[-1] == (A.name, "late")


async def test_the_end_of_a_silence_is_news_and_a_busy_moment_is_not(world):
    for silent_turns, is_news in ((1, False), (2, True)):
        held = world.links.hold(A.name)
        for _ in range(1 + silent_turns):
            await world.turn()
        held.set_result("late")
        await asyncio.sleep(0)
        assert world.asking.news.is_set() == is_news
        assert world.asking.silence.lasts_s(A.name) == 0


async def test_who_failed_is_missed_until_it_answers(world):
    world.links.hold(A.name).set_exception(OutcomeUnknown("a", 1))
    await world.turn()
    assert world.asking.is_missed(A.name)
    assert world.asking.missed_count == 1
    assert not world.asking.news.is_set()
    del world.links.held[A.name]
    await world.turn()
    assert not world.asking.is_missed(A.name)
    assert world.asking.news.is_set()


async def test_the_oldest_answer_tells_the_age(world):
    assert world.asking.age_s([A.name]) is None
    await world.turn()
    world.links.hold(A.name)
    await world.turn()
    assert world.asking.age_s([A.name, B.name]) == 0.5
    assert world.asking.age_s([B.name]) == 0


async def test_a_former_process_is_not_listened_to(world):
    held = world.links.hold(A.name)
    await world.turn()
    await world.turn()
    world.asking.forget(A.name)
    await asyncio.sleep(0)
    assert held.cancelled()
    assert world.asking.silence.lasts_s(A.name) == 0
    world.links.hold(A.name)
    await world.turn()
    assert world.links.asked.count(A.name) == 2
    assert (A.name, "late") not in world.taken


async def test_what_is_not_wanted_any_more_is_forgotten(world):
    world.links.hold(A.name)
    await world.turn()
    await world.turn(B)
    assert world.asking.silence.names == (B.name,)


async def test_all_are_asked_anew_and_waited_for(world):
    world.links.hold(A.name)
    await world.turn()
    world.links.held.clear()
    world.taken.clear()
    await world.asking.all(world.links, (A, B))
    assert sorted(world.taken) == [(A.name, A.name), (B.name, B.name)]


async def test_a_question_that_is_lost_while_a_process_starts_does_not_hold_up_the_next(world):
    """Ray loses what is sent meanwhile: the next answer must not wait for that time-out."""
    (lost,) = [world.links.hold(A.name)]
    lost.set_exception(OutcomeUnknown("a", 1))
    await world.turn()  # it died: the question failed
    assert world.asking.is_missed(A.name)
    world.links.hold(A.name)  # this one is lost
    await world.turn()
    del world.links.held[A.name]  # it is born
    before = len(world.taken)
    await asyncio.sleep(AGAIN_S + 0.1)
    assert (A.name, A.name) in world.taken[before:]
    assert not world.asking.is_missed(A.name)
    assert world.asking.news.is_set()


async def test_a_slow_answer_counts_though_it_was_asked_for_again(world):
    failed = world.links.hold(A.name)
    failed.set_exception(OutcomeUnknown("a", 1))
    await world.turn()
    slow = world.links.hold(A.name)
    await world.turn()
    world.links.hold(A.name)
    await asyncio.sleep(AGAIN_S + 0.1)
    slow.set_result("slow")
    await asyncio.sleep(0.05)
    assert (A.name, "slow") in world.taken


async def test_who_fails_at_once_again_and_again_is_asked_at_its_pace_until_it_answers(world):
    world.links.hold(A.name).set_exception(OutcomeUnknown("a", 1))
    await world.turn()
    began_s = time.monotonic()
    await world.turn()
    await asyncio.sleep(AGAIN_S / 2)
    assert world.links.asked.count(A.name) <= 2 + (time.monotonic() - began_s) / AGAIN_S
    del world.links.held[A.name]
    await asyncio.sleep(AGAIN_S)
    assert (A.name, A.name) in world.taken, "by the same turn's question"


async def test_who_answers_nothing_of_all_that_stays_missed(world):
    failed = world.links.hold(A.name)
    failed.set_exception(OutcomeUnknown("a", 1))
    await world.turn()
    world.links.hold(A.name)
    await world.turn()
    await asyncio.sleep(1.2)
    assert world.asking.is_missed(A.name)
    assert world.links.asked.count(A.name) <= 1 + 1.0 / AGAIN_S + 1
