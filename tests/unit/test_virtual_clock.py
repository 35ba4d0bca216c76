"""A recording's time: it moves only when everything that was set off is quiet."""

import asyncio

import pytest

from arb_ray.adapters.clock import VirtualClock


async def test_tasks_run_in_the_order_they_were_spawned_and_only_when_settled():
    clock, seen = VirtualClock(100), []

    async def work(name):
        seen.append(name)
        await asyncio.sleep(0)
        seen.append(name)

    for name in "ab":
        clock.spawn(work(name), name)
    assert seen == []
    await clock.settle()
    assert seen == ["a", "a", "b", "b"]


async def test_sleepers_wake_by_time_then_by_key():
    clock, seen = VirtualClock(0), []

    async def sleeper(due_ns, key):
        await clock.sleep_until_ns(due_ns, key)
        seen.append((clock.now_ns(), key))

    for due_ns, key in ((20, "b"), (10, "z"), (20, "a"), (30, "c")):
        clock.spawn(sleeper(due_ns, key), key)
    await clock.settle()
    assert clock.next_due() == (10, "z")
    await clock.advance(25)
    assert seen == [(10, "z"), (20, "a"), (20, "b")]
    assert clock.now_ns() == clock.mono_ns() == 25
    await clock.advance(40)
    assert (seen[-1], clock.now_ns(), clock.next_due()) == ((30, "c"), 40, None)


async def test_an_instant_that_has_passed_is_not_waited_for():
    clock = VirtualClock(50)
    await clock.sleep_until_ns(50, "now")
    assert clock.next_due() is None


async def test_what_a_woken_task_spawns_runs_before_time_goes_on():
    clock, seen = VirtualClock(0), []

    async def child():
        seen.append(("child", clock.now_ns()))

    async def parent():
        await clock.sleep_until_ns(5, "p")
        clock.spawn(child(), "child")

    async def other():
        await clock.sleep_until_ns(9, "o")
        seen.append(("other", clock.now_ns()))

    clock.spawn(parent(), "p")
    clock.spawn(other(), "o")
    await clock.settle()
    await clock.advance(10)
    assert seen == [("child", 5), ("other", 9)]


async def test_time_never_goes_back():
    clock = VirtualClock(50)
    clock.set(10)
    assert clock.now_ns() == 50


async def test_a_task_that_fails_is_heard_of():
    clock = VirtualClock(0)

    async def fails():
        await clock.sleep_until_ns(5, "f")
        raise ValueError("bug")

    clock.spawn(fails(), "f")
    await clock.settle()
    with pytest.raises(ValueError, match="bug"):
        await clock.advance(10)


async def test_a_sleeper_that_was_cancelled_is_passed_over():
    clock, seen = VirtualClock(0), []

    async def sleeper(due_ns, key):
        await clock.sleep_until_ns(due_ns, key)
        seen.append(key)

    clock.spawn(sleeper(5, "gone"), "gone")
    clock.spawn(sleeper(6, "there"), "there")
    await clock.settle()
    (gone,) = [task for task in clock._tasks if task.get_name() == "gone"]
    gone.cancel()
    await asyncio.sleep(0)
    await clock.advance(10)
    assert seen == ["there"]
