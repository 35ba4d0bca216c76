"""One thing at a time beside a loop's passes."""

import asyncio

import pytest

from arb_ray.actors.beside import Beside


async def test_what_takes_long_holds_up_nobody_and_its_result_comes_once():
    beside, ready, starts = Beside(), asyncio.Event(), []

    async def work():
        starts.append(1)
        await ready.wait()
        return "done"

    assert await beside.result() is None
    beside.begin(work)
    assert await beside.result(0.001) is None
    beside.begin(work)
    ready.set()
    assert await beside.result(1.0) == "done"
    assert await beside.result(1.0) is None
    assert starts == [1]


async def test_a_bug_in_it_comes_out():
    beside = Beside()

    async def work():
        raise ValueError("a bug")

    beside.begin(work)
    with pytest.raises(ValueError, match="a bug"):
        await beside.result(1.0)


async def test_what_is_cancelled_has_no_result():
    beside = Beside()
    beside.begin(asyncio.Event().wait)
    await beside.cancel()
    assert await beside.result() is None
