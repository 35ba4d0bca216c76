"""The gateway's judgement: an answer that cannot be had counts as a bad one."""

import json

import pytest

from arb_ray.actors.gateway import Gateway
from arb_ray.actors.gateway_actions import Actions
from arb_ray.domain.errors import OutcomeUnknown
from tests.shell_world import Ends, Log
from tests.status_examples import persistence, risk, status


def gateway(answer, guard=None):
    async def ask(method):
        assert method == "status"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask_guard(method):
        assert method == "status"
        if guard is None:
            raise OutcomeUnknown("risk.status", 5)
        return guard

    async def command(*said):
        raise AssertionError("nobody asked for anything to be done")

    async def page():
        raise AssertionError("nobody asks for metrics here")

    return Gateway(
        host="127.0.0.1",
        port=0,
        ask_supervisor=ask,
        ask_guard=ask_guard,
        actions=Actions(command, None, Log()),
        metrics_page=page,
        log=Log(),
        loops=Ends().loops,
    )


async def answers(answer, guard=None):
    one = gateway(answer, guard)
    replies = [await handler(None) for handler in (one._health, one._ready, one._status)]
    return [(reply.status, json.loads(reply.body)) for reply in replies]


async def test_a_whole_system_is_well_and_ready():
    (health, ready, told) = await answers(status())
    assert health == (200, {"healthy": True, "problems": [], "warnings": []})
    assert ready == (200, {"ready": True, "problems": [], "warnings": []})
    assert told[0] == 200
    assert told[1]["session_id"] == status().session_id
    assert told[1]["health"] == {"healthy": True, "ready": True, "problems": [], "warnings": []}


async def test_a_problem_makes_it_unhealthy_not_unready():
    health, ready, told = await answers(status(persistence=persistence(postgres="down")))
    assert health[0] == 503
    assert "PostgreSQL" in health[1]["problems"][0]
    assert ready[0] == 200
    assert told[1]["health"]["problems"] == health[1]["problems"]


async def test_a_warning_is_told_with_a_200():
    health, ready, _ = await answers(status(persistence=persistence(redis="fallback")))
    assert (health[0], ready[0]) == (200, 200)
    assert "Redis" in health[1]["warnings"][0]


async def test_a_silent_supervisor_is_the_worst_answer():
    for code, body in await answers(OutcomeUnknown("supervisor.status", 5)):
        assert code == 503
        assert "supervisor.status" in json.dumps(body)


async def test_the_guard_answers_for_itself_when_the_supervisor_does_not():
    dead = OutcomeUnknown("supervisor.status", 5)
    *_, (code, told) = await answers(dead, guard=risk(state="halted"))
    assert (code, told["risk"]["state"], told["health"]["ready"]) == (503, "halted", False)
    *_, (code, told) = await answers(dead)
    assert (code, told["risk"]["ready"]) == (503, False)


async def test_a_bug_is_not_an_answer():
    with pytest.raises(AssertionError):
        await answers(AssertionError("bug"))


async def test_it_is_ready_only_when_it_listens():
    assert (await gateway(status()).status())["ready"] is False
