"""
What submit and its job on the head say to each other: a request one way, lines the other.

The request travels as an argument of the job's command and stays readable in Ray's job list, so
it holds what the command line said and no secret. The job answers with JSON lines among
whatever Ray prints on the same stream.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any, TypeAlias

import msgspec

from arb_ray import __version__

JOB_MODULE = "arb_ray.app.cluster_job"


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the job must do; ``overrides`` are dotted settings, as the command line gave them."""

    env: str
    overrides: dict[str, Any]
    actor: str  # who asks, for the record
    code: str = __version__  # of the desk: another one may mean other things by its request
    resume: bool | None = None
    is_stop: bool = False
    flatten: bool = False
    dry_run: bool = False

    def entrypoint(self) -> str:
        """Return the command line that the job runs on the head."""
        text = msgspec.json.encode(self).decode()
        return f"python -m {JOB_MODULE} {shlex.quote(text)}"


class Said(msgspec.Struct, frozen=True, tag="said", tag_field="arb"):
    """One sentence of progress."""

    text: str


class Counted(msgspec.Struct, frozen=True, tag="counted", tag_field="arb"):
    """``done`` of ``total``."""

    done: int
    total: int
    what: str


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="arb"):
    """The last line: the exit code, an error's sentence, or what came of it."""

    code: int
    error: str = ""
    result: dict[str, Any] = {}


Line: TypeAlias = Said | Counted | Ended

_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def write_line(line: Line) -> None:
    """Say a line on stdout, at once."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def read_line(text: str) -> Line | None:
    """Return the line that ``text`` is; None for anything that is not ours."""
    if not text.startswith('{"arb":'):
        return None
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError:
        return None
