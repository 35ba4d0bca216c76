"""
What breaks a process of ours from within; Python imports it at start where PYTHONPATH leads here.

Only a chaos world puts this folder on the path of its Ray nodes, so nothing of it is in
production. It waits until the process becomes one of our actors, and then looks, twenty times a
second, into ``$CHAOS_CONTROL/<pid>.json``: how far off is the wall clock, and what happens to
the calls that this actor makes. No file, no fault.
"""

import importlib.abc
import importlib.machinery
import os
import sys

ACTORS = "arb_ray.actors.cluster"
POLL_S = 0.05


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module where everybody does, and has a look at it when it is loaded."""

    def find_spec(self, fullname, path, target=None):
        if fullname != ACTORS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                _haunt(module)

            spec.loader.exec_module = exec_module
        return spec


class _Spell:
    """What holds for this process now."""

    wall_offset_ns = 0
    calls = None


def _haunt(cluster):
    import threading

    _bend_clock()
    _bend_calls(cluster)
    threading.Thread(target=_listen, name="chaos", daemon=True).start()


def _listen():
    import json
    import time
    from pathlib import Path

    folder = Path(os.environ["CHAOS_CONTROL"])
    seen = None
    while True:
        path = folder / f"{os.getpid()}.json"
        try:
            stamp = path.stat().st_mtime_ns
            if stamp != seen:
                told = json.loads(path.read_text())
                _Spell.wall_offset_ns = int(told.get("wall_offset_ns", 0))
                _Spell.calls = told.get("calls")
                seen = stamp
                path.with_suffix(".taken").write_text(str(stamp))
        except FileNotFoundError:
            _Spell.wall_offset_ns, _Spell.calls, seen = 0, None, None
        time.sleep(POLL_S)


def _bend_clock():
    import time

    wall_ns, wall_s = time.time_ns, time.time
    time.time_ns = lambda: wall_ns() + _Spell.wall_offset_ns
    time.time = lambda: wall_s() + _Spell.wall_offset_ns / 1e9


def _bend_calls(cluster):
    import asyncio
    import random

    rng = random.Random(os.getpid())
    real_handle = cluster.RayLinks.handle

    class Method:
        """A remote method of another actor, over a bad wire."""

        def __init__(self, method):
            self._method = method

        def options(self, **options):
            return Method(self._method.options(**options))

        def remote(self, *args, **named):
            calls = _Spell.calls
            if not calls or rng.random() > calls["share"]:
                return self._method.remote(*args, **named)
            if calls["what"] == "lost":
                return asyncio.get_running_loop().create_future()  # it never left
            if calls["what"] == "answer":
                self._method.remote(*args, **named)  # it arrives; its answer does not
                return asyncio.get_running_loop().create_future()
            return _later(rng.uniform(0, calls["delay_s"]), self._method, args, named)

    class Handle:
        def __init__(self, handle):
            self._handle = handle

        def __getattr__(self, name):
            return Method(getattr(self._handle, name))

    async def _later(delay_s, method, args, named):
        await asyncio.sleep(delay_s)
        return await method.remote(*args, **named)

    def handle(self, name):
        found = real_handle(self, name)
        return Handle(found) if _Spell.calls else found

    cluster.RayLinks.handle = handle


if "CHAOS_CONTROL" in os.environ:
    sys.meta_path.insert(0, _Finder())
