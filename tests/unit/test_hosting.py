"""Loops start with an actor and never end quietly; tasks beside them are heard of when they fail."""

import asyncio

import pytest

from arb_ray.actors import hosting
from arb_ray.actors.hosting import EXIT_LOOP_ENDED, Loops
from arb_ray.actors.tasks import LoopTasks
from arb_ray.adapters.telemetry.logs import configure_logs
from tests.shell_world import Ends


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def forever():
    await asyncio.Event().wait()


async def fails():
    raise ValueError("bug")


async def returns():
    return


async def test_a_loop_that_returns_or_raises_is_an_end():
    ends = Ends()
    ends.loops.start("quiet", returns())
    ends.loops.start("loud", fails())
    await turns()
    assert [(name, type(error)) for name, error in ends.ended] == [
        ("quiet", type(None)),
        ("loud", ValueError),
    ]


async def test_a_loop_that_was_cancelled_from_within_has_ended_too():
    async def awaits_what_was_cancelled():
        inner = asyncio.create_task(forever())
        inner.cancel()
        await inner

    ends = Ends()
    ends.loops.start("work", awaits_what_was_cancelled())
    await turns()
    assert [(name, type(error)) for name, error in ends.ended] == [("work", asyncio.CancelledError)]


async def test_stopping_is_no_end():
    ends = Ends()
    ends.loops.start("a", forever())
    ends.loops.start("b", forever())
    await turns()
    assert ends.loops.names == ("a", "b")
    await ends.loops.stop()
    ends.loops.fail("task", ValueError("while stopping"))
    await turns()
    assert ends.ended == []
    assert ends.loops.names == ()


async def test_one_loop_can_be_ended_and_started_again():
    ends = Ends()
    ends.loops.start("route", forever())
    ends.loops.start("other", forever())
    await turns()
    await ends.loops.cancel("route")
    await ends.loops.cancel("unknown")
    ends.loops.start("route", forever())
    await turns()
    assert (ends.ended, set(ends.loops.names)) == ([], {"route", "other"})
    await ends.loops.stop()


async def test_a_name_has_one_loop():
    ends = Ends()
    ends.loops.start("a", forever())
    second = forever()
    with pytest.raises(AssertionError):
        ends.loops.start("a", second)
    second.close()
    await ends.loops.stop()


async def test_the_process_leaves_when_nothing_else_is_said(monkeypatch, capsys):
    codes = []
    configure_logs("info", "json", ())  # whatever a test before this one has configured
    monkeypatch.setattr(hosting.os, "_exit", codes.append)
    loops = Loops()
    loops.start("work", fails())
    await turns()
    assert codes == [EXIT_LOOP_ENDED]
    told = "".join(capsys.readouterr())
    assert "loop_ended" in told
    assert "ValueError: bug" in told


async def test_the_process_leaves_even_when_the_log_fails(monkeypatch):
    codes = []
    monkeypatch.setattr(hosting.os, "_exit", codes.append)
    monkeypatch.setattr(hosting.structlog, "get_logger", lambda name: None)
    with pytest.raises(AttributeError):
        hosting._exit_process("work", ValueError("bug"))
    assert codes == [EXIT_LOOP_ENDED]


async def test_a_failed_task_is_reported_and_a_cancelled_one_is_not():
    bugs = []
    tasks = LoopTasks(lambda name, error: bugs.append((name, str(error))))
    tasks.spawn(fails(), "bad")
    tasks.spawn(returns(), "good")
    tasks.spawn(forever(), "long")
    await turns()
    await tasks.cancel_all()
    assert bugs == [("bad", "bug")]
    assert not tasks._tasks


async def test_a_loop_that_swallows_a_cancellation_is_stopped_all_the_same(monkeypatch):
    monkeypatch.setattr(hosting, "CANCEL_AGAIN_S", 0.01)

    async def deaf_once():
        try:
            await forever()
        except asyncio.CancelledError:
            await forever()

    ends = Ends()
    ends.loops.start("deaf", deaf_once())
    await turns()
    await ends.loops.stop()
    assert ends.loops.names == ()
    assert ends.ended == []
