"""A supervisor that answers nobody is ended, so that Ray starts it again."""

import asyncio

import pytest

from arb_ray.actors.supervisor_watch import BIRTH_TIMEOUT_S, SupervisorWatch
from arb_ray.domain.errors import OutcomeUnknown
from tests.shell_world import JumpClock, Log

HEALTH_TIMEOUT_S = 5.0


class World:
    def __init__(self):
        self.answers, self.restarts, self.problem = True, 0, None
        self.late = None
        self.clock = JumpClock()
        self.watch = SupervisorWatch(
            name="supervisor",
            ping=self.ping,
            restart=self.restart,
            clock=self.clock,
            log=Log(),
            health_timeout_s=HEALTH_TIMEOUT_S,
        )

    async def ping(self, timeout_s):
        if self.late is not None:
            return await self.late
        return self.answers

    def restart(self):
        self.restarts += 1
        if self.problem:
            raise self.problem

    async def turn(self, seconds):
        for _ in range(int(seconds)):
            self.clock.now += 10**9
            await self.watch.turn()


@pytest.fixture
def world():
    return World()


async def test_one_that_answers_is_left_alone(world):
    await world.turn(200)
    assert world.restarts == 0


async def test_one_that_is_silent_for_the_time_out_is_ended_once(world):
    await world.turn(1)
    world.answers = False
    await world.turn(HEALTH_TIMEOUT_S - 1)
    assert world.restarts == 0
    await world.turn(1)
    assert world.restarts == 1
    await world.turn(HEALTH_TIMEOUT_S * 2)
    assert world.restarts == 1


async def test_a_start_has_more_patience_the_first_and_every_other(world):
    world.answers = False
    await world.turn(BIRTH_TIMEOUT_S)
    assert world.restarts == 0
    await world.turn(1)
    assert world.restarts == 1
    await world.turn(BIRTH_TIMEOUT_S)
    assert world.restarts == 1
    await world.turn(1)
    assert world.restarts == 2


async def test_an_answer_that_comes_late_is_an_answer(world):
    await world.turn(1)
    world.late = asyncio.get_running_loop().create_future()
    await world.turn(HEALTH_TIMEOUT_S - 1)
    world.late.set_result(True)
    world.late = None
    await world.turn(HEALTH_TIMEOUT_S)
    assert world.restarts == 0


async def test_one_that_does_not_exist_is_waited_for(world):
    await world.turn(1)
    world.answers, world.problem = False, OutcomeUnknown("actor supervisor", 0)
    await world.turn(HEALTH_TIMEOUT_S * 2)
    world.answers = True
    await world.turn(1)
    assert world.restarts == 1


async def test_a_watch_that_was_frozen_itself_ends_nobody(world):
    await world.turn(1)
    world.answers = False
    world.clock.now += 60 * 10**9
    await world.watch.turn()
    assert world.restarts == 0
