"""The hand that writes what the shim in a process reads."""

from __future__ import annotations

import json
import time

import requests

from tests.chaos.faults.broken import Broken, NotHere

TAKEN_WITHIN_S = 2.0


def cast(world, target: str, spell: dict) -> Broken:
    """Put a spell on the target's process, and wait until it is on. Raises NotHere."""
    try:
        pid = world.pid(target)
    except (LookupError, requests.RequestException) as error:
        raise NotHere(str(error)) from error
    path = world.control / f"{pid}.json"
    written = path.with_suffix(".new")
    written.write_text(json.dumps(spell))
    written.replace(path)
    stamp = str(path.stat().st_mtime_ns)

    def heal():
        path.unlink(missing_ok=True)

    deadline = time.monotonic() + TAKEN_WITHIN_S
    taken = path.with_suffix(".taken")
    while not (taken.exists() and taken.read_text() == stamp):
        if time.monotonic() > deadline:
            heal()
            raise NotHere(f"the process of {target} did not take the spell")
        time.sleep(0.02)
    return Broken(heal=heal)
