"""
Keys that have outlived their use: those of finished sessions removed, those of old form moved.

Both go by SCAN in pages, do nothing that cannot be repeated, and can be ended at any page: what
is done is done, and the next call goes on with the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import redis.asyncio

from arb_ray.adapters.storage.redis_keys import (
    STATE_TTL_S,
    OldStateKey,
    StateKey,
    old_pattern,
    parse,
    parse_old,
    states_pattern,
)
from arb_ray.adapters.storage.redis_state import BROKEN
from arb_ray.adapters.storage.redis_survey import as_text
from arb_ray.domain.errors import BadInput, StoreUnavailable

PAGE_KEYS: Final = 500
NAMED_MAX: Final = 200
"""Keys that a report names one by one; all are counted."""

FinishedOf = Callable[[Sequence[str]], Awaitable[tuple[set[str], set[str]]]]
"""Tells of session ids which are closed, and which PostgreSQL knows at all."""

Told = Callable[[int], None]


class Cleanup(msgspec.Struct):
    """What a cleanup saw and removed."""

    env: str
    dry_run: bool
    keys: int = 0
    removed: int = 0  # or would be, of a dry run
    kept_open: int = 0
    kept_unknown: int = 0  # of sessions that PostgreSQL does not know
    kept_malformed: int = 0
    cursor: int = 0  # where the next call goes on; 0 when this one came to the end
    named: list[str] = []


class Move(msgspec.Struct, frozen=True):
    """One key that was moved; ``ttl_ms`` is what it had left, -1 when it was never to expire."""

    old: str
    new: str
    ttl_ms: int


class Moves(msgspec.Struct):
    """What a migration saw and moved."""

    env: str
    dry_run: bool
    moved: int = 0  # or would be, of a dry run
    gone: int = 0  # between the look and the move
    conflicts: int = 0  # both names are taken: nothing was done
    malformed: int = 0
    named: list[str] = []

    def note(self, text: str) -> None:
        """Name a key, as long as there is room."""
        if len(self.named) < NAMED_MAX:
            self.named.append(text)

    def count(self, outcome: int, source: str, target: str) -> None:
        """Count a move by what ``_rename`` answered, and name it."""
        self.moved += outcome == 1
        self.conflicts += outcome == 0
        self.gone += outcome == -1
        self.note(f"{source} -> {target}" if outcome == 1 else f"{source} was not moved")


async def clean_finished(
    client: redis.asyncio.Redis,
    env: str,
    finished_of: FinishedOf,
    *,
    keys_max: int,
    cursor: int = 0,
    with_unknown: bool = False,
    dry_run: bool = False,
    told: Told = lambda _: None,
) -> Cleanup:
    """
    Remove the state of finished sessions; sessions that are open keep theirs.

    A key of a session that PostgreSQL does not know is kept unless ``with_unknown``. It ends
    after the page that reaches ``keys_max``, and tells where to go on.

    Raises:
        StoreUnavailable: One of the servers is away; what was removed stays removed.
    """
    done = Cleanup(env, dry_run, cursor=cursor)
    with _redis_errors():
        while True:
            done.cursor, names = await client.scan(
                done.cursor, match=states_pattern(env), count=PAGE_KEYS
            )
            await _clean_page(
                client, done, [as_text(name) for name in names], finished_of, with_unknown
            )
            told(done.keys)
            if done.cursor == 0 or done.keys >= keys_max:
                return done


async def _clean_page(
    client: redis.asyncio.Redis,
    done: Cleanup,
    names: Sequence[str],
    finished_of: FinishedOf,
    with_unknown: bool,
) -> None:
    done.keys += len(names)
    keys: dict[str, StateKey] = {}
    for name in names:
        try:
            key = parse(name)
        except BadInput:
            done.kept_malformed += 1
            continue
        assert isinstance(key, StateKey)
        keys[name] = key
    if not keys:
        return
    closed, known = await finished_of(sorted({key.session_id for key in keys.values()}))
    removed = []
    for name, key in keys.items():
        if key.session_id in closed or (with_unknown and key.session_id not in known):
            removed.append(name)
        elif key.session_id in known:
            done.kept_open += 1
        else:
            done.kept_unknown += 1
    done.named.extend(removed[: NAMED_MAX - len(done.named)])
    if removed and not done.dry_run:
        await client.unlink(*removed)
    done.removed += len(removed)


async def move_old(
    client: redis.asyncio.Redis, env: str, report: Path | None, told: Told = lambda _: None
) -> Moves:
    """
    Move keys of the old form to version 1; values stay as they are.

    Each move is written to ``report`` before it is made, so that ``move_back`` finds it. Without a
    report it is a dry run. A key without a life gets the life of a state key. Both names taken
    is a conflict, and nothing is done: a repeat after a crash finds either the old or the new.

    Raises:
        StoreUnavailable: Redis is away; the next call moves the rest.
        BadInput: The report cannot be written.
    """
    done = Moves(env, dry_run=report is None)
    with _redis_errors(), _appending(report) as file:
        cursor = 0
        while True:
            cursor, names = await client.scan(cursor, match=old_pattern(env), count=PAGE_KEYS)
            for name in sorted(as_text(name) for name in names):
                await _move_one(client, done, name, file)
            told(done.moved)
            if cursor == 0:
                return done


async def _move_one(
    client: redis.asyncio.Redis, done: Moves, name: str, file: TextIO | None
) -> None:
    try:
        old: OldStateKey = parse_old(name)
    except BadInput as error:
        done.malformed += 1
        done.note(str(error))
        return
    new = str(old.now)
    ttl_ms = int(await client.pttl(name))
    if await client.exists(new):
        done.conflicts += 1
        done.note(f"{new} is there already: {name} stays")
        return
    if file is None:
        done.count(1, name, new)
        return
    file.write(msgspec.json.encode(Move(name, new, ttl_ms)).decode() + "\n")
    file.flush()
    os.fsync(file.fileno())
    life_ms = STATE_TTL_S * 1000 if ttl_ms == -1 else None
    done.count(await _rename(client, name, new, life_ms), name, new)


async def move_back(
    client: redis.asyncio.Redis,
    env: str,
    report: Path,
    *,
    dry_run: bool,
    told: Told = lambda _: None,
) -> Moves:
    """
    Undo what ``move_old`` did by its report; a key that has expired since stays gone.

    Raises:
        BadInput: The report cannot be read, or is of another environment.
        StoreUnavailable: Redis is away; the next call moves the rest.
    """
    done = Moves(env, dry_run)
    with _redis_errors():
        for move in _read_report(report, env):
            if not await client.exists(move.new):
                done.gone += 1
            elif await client.exists(move.old):
                done.conflicts += 1
                done.note(f"{move.old} is there again: {move.new} stays")
            else:
                # What a run has written under the new name since goes back with it.
                life_ms = -1 if move.ttl_ms == -1 else None
                outcome = 1 if dry_run else await _rename(client, move.new, move.old, life_ms)
                done.count(outcome, move.new, move.old)
            told(done.moved)
    return done


# One step on the server: a crash leaves the key under one of its names, with a life.
_RENAME: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('RENAMENX', KEYS[1], KEYS[2]) == 0 then return 0 end
local life_ms = tonumber(ARGV[1])
if life_ms == -1 then redis.call('PERSIST', KEYS[2])
elseif life_ms > 0 then redis.call('PEXPIRE', KEYS[2], life_ms) end
return 1
"""


async def _rename(
    client: redis.asyncio.Redis, source: str, target: str, life_ms: int | None
) -> int:
    """Rename unless the target exists; ``life_ms`` None keeps the life, -1 takes it away."""
    answer: Any = await client.eval(_RENAME, 2, source, target, life_ms or 0)
    return int(answer)


@contextlib.contextmanager
def _appending(report: Path | None) -> Iterator[TextIO | None]:
    if report is None:
        yield None
        return
    try:
        file = report.open("a", encoding="utf-8")
    except OSError as error:
        raise BadInput(
            "--report", f"{report}: {error}", "Name a file that can be written"
        ) from error
    with file:
        yield file


def _read_report(report: Path, env: str) -> list[Move]:
    try:
        lines = report.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "--report", f"{report}: {error}", "Name the report of the migration"
        ) from error
    moves = []
    for number, line in enumerate(lines, start=1):
        place = f"{report}:{number}"
        try:
            move = msgspec.json.decode(line, type=Move)
        except msgspec.DecodeError as error:
            if number == len(lines):
                break  # torn by a crash before its move was made
            raise BadInput(
                place, f"no move ({error})", "Name the report of the migration"
            ) from error
        if parse_old(move.old).env != env:
            raise BadInput(place, f"{move.old} is not of {env}", "Name its environment with --env")
        moves.append(move)
    return moves


@contextlib.contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise StoreUnavailable("redis", str(error) or type(error).__name__) from error
