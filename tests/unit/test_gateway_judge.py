"""The gateway's judgement: an answer that cannot be had counts as a bad one."""

import json

import pytest

from arb_ray.actors.gateway import Gateway
from arb_ray.domain.errors import OutcomeUnknown
from tests.shell_world import Ends, Log
from tests.status_examples import persistence, status


def gateway(answer):
    async def ask(method):
        assert method == "status"
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Gateway(host="127.0.0.1", port=0, ask_supervisor=ask, log=Log(), loops=Ends().loops)


async def answers(answer):
    one = gateway(answer)
    replies = [await handler(None) for handler in (one._health, one._ready, one._status)]
    return [(reply.status, json.loads(reply.body)) for reply in replies]


async def test_a_whole_system_is_well_and_ready():
    (health, ready, told) = await answers(status())
    assert health == (200, {"healthy": True, "problems": []})
    assert ready == (200, {"ready": True, "problems": []})
    assert told[0] == 200
    assert told[1]["session_id"] == status().session_id


async def test_a_problem_makes_it_unhealthy_not_unready():
    health, ready, _ = await answers(status(persistence=persistence(postgres="down")))
    assert health[0] == 503
    assert "PostgreSQL" in health[1]["problems"][0]
    assert ready[0] == 200


async def test_a_silent_supervisor_is_the_worst_answer():
    for code, body in await answers(OutcomeUnknown("supervisor.status", 5)):
        assert code == 503
        assert "supervisor.status" in json.dumps(body)


async def test_a_bug_is_not_an_answer():
    with pytest.raises(AssertionError):
        await answers(AssertionError("bug"))


async def test_it_is_ready_only_when_it_listens():
    assert (await gateway(status()).status())["ready"] is False
