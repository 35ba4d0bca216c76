"""What a stability check is, and what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from arb_ray.domain.errors import ArbError

TIMEOUT_S = 60.0
"""One check; a server that hangs fails it."""


class Failed(Exception):
    """What a check wanted to see was not so; says what was seen."""


class Result(msgspec.Struct, frozen=True):
    """One check with its verdict; ``words`` is what was measured, or what was wrong."""

    name: str
    is_passed: bool
    words: str
    took_ms: int


class Check(NamedTuple):
    """A check by name; it returns what it measured, and raises Failed."""

    name: str
    run: Callable[[], Awaitable[str]]


def require(is_so: bool, words: str) -> None:
    """Fail the check with what was seen."""
    if not is_so:
        raise Failed(words)


async def carry_out(check: Check) -> Result:
    """Run one check to its verdict. What is amiss with a server is a verdict too."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            words, is_passed = await check.run(), True
    except Failed as failed:
        words, is_passed = str(failed), False
    except TimeoutError:
        words, is_passed = f"no end after {TIMEOUT_S:g} s", False
    except (ArbError, AssertionError) as error:
        words, is_passed = f"{type(error).__name__}: {error}", False
    took_ms = round((time.perf_counter() - began) * 1000)
    return Result(check.name, is_passed, words, took_ms)
