"""What a process began with is frozen, what comes later is collected, pauses are told."""

import asyncio
import gc
import weakref

import pytest

from arb_ray.actors import collector as module
from arb_ray.actors.collector import THRESHOLDS, Collector
from tests.shell_world import Counts


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def python_s_own():
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


async def test_what_settled_is_frozen_and_what_comes_later_is_collected(python_s_own, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    monkeypatch.setattr(module, "TELL_S", 0.001)
    metrics = Counts()
    early = Ring()
    seen_early, frozen_before = weakref.ref(early), gc.get_freeze_count()
    task = asyncio.create_task(Collector(metrics).run())
    while "gc_pause_ms" not in metrics.gauges:  # noqa: ASYNC110 (a bound is the run's)
        await asyncio.sleep(0.001)
    assert gc.get_freeze_count() > frozen_before
    assert gc.get_threshold() == THRESHOLDS
    late = Ring()
    seen_late = weakref.ref(late)
    del early, late
    gc.collect()
    assert seen_early() is not None, "nobody looks at it again"
    assert seen_late() is None
    await asyncio.sleep(0.01)
    assert max(metrics.gauges["gc_pause_ms"], 0) > 0
    callbacks = len(gc.callbacks)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(gc.callbacks) == callbacks - 1


async def test_the_long_round_is_before_the_first_tick_and_not_among_them(
    python_s_own, monkeypatch
):
    monkeypatch.setattr(module, "SETTLED_S", 60.0)
    frozen_before = gc.get_freeze_count()
    task = asyncio.create_task(Collector(Counts()).run())
    await asyncio.sleep(0)
    assert gc.get_freeze_count() > frozen_before + 1_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
