"""SIGKILL, SIGSTOP with and without a SIGCONT, of the process of one actor."""

from __future__ import annotations

import contextlib
import os
import signal

import requests

from tests.chaos.faults.broken import Broken, NotHere


def begin(world, planned) -> Broken:
    """Kill or stop the target's process."""
    target = planned.target
    try:
        victim = world.pid(target)
    except (LookupError, requests.RequestException) as error:
        raise NotHere(str(error)) from error
    with _already_gone():
        os.kill(victim, signal.SIGKILL if planned.kind.startswith("kill") else signal.SIGSTOP)
    if planned.kind == "freeze":
        return Broken(heal=lambda: _go_on(victim))

    def is_replaced():
        return world.pid(target, timeout_s=0.0) != victim

    # A hang's only cure is its end, so whoever watches the process must bring that about.
    return Broken(is_replaced=is_replaced)


def _go_on(victim: int) -> None:
    with _already_gone():
        os.kill(victim, signal.SIGCONT)


def _already_gone():
    return contextlib.suppress(ProcessLookupError)
