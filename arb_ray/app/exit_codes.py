"""What a command's exit code means, and the one border where an error becomes a sentence."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable
from typing import TextIO

from arb_ray.domain.errors import (
    ArbError,
    BadConfig,
    BadInput,
    OutcomeUnknown,
    RateLimited,
    StoreUnavailable,
    VenueUnreachable,
)


class ExitCode(enum.IntEnum):
    """Exit codes of every command. 1 from a run means a bug: its traceback was printed."""

    CLEAN = 0
    FOUND = 1  # a check ran and found what it looks for (gaps, mismatches, differing hashes)
    BAD_USAGE = 2
    UNAVAILABLE = 3
    ENDED_WITH_ERRORS = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells count


MEANINGS = """\
exit codes:
  0    clean
  1    a check found what it looks for; or a bug, with its traceback
  2    the command line or the configuration is wrong
  3    a server, port, cluster or file is not available
  4    the run ended with errors, which its summary lists
  130  interrupted before the clean stop was done"""


def code_of(error: ArbError) -> ExitCode:
    """Return the exit code for an error that ended a command."""
    match error:
        case BadConfig() | BadInput() if isinstance(error.__cause__, OSError):
            return ExitCode.UNAVAILABLE  # a port that is occupied, a file that cannot be opened
        case BadConfig():
            return ExitCode.BAD_USAGE
        # An option, or the setting `symbols`; all else lies outside.
        case BadInput() if error.place.startswith("-") or error.place == "symbols":
            return ExitCode.BAD_USAGE
        case BadInput() | StoreUnavailable() | VenueUnreachable() | RateLimited():
            return ExitCode.UNAVAILABLE
        case OutcomeUnknown():
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.ENDED_WITH_ERRORS


def run_command(program: str, command: Callable[[], int], stderr: TextIO | None = None) -> int:
    """
    Run a command; tell an ``ArbError`` in its own sentence on stderr.

    Anything else is a bug and leaves with its traceback: a swallowed one could not be mended.
    """
    stream = sys.stderr if stderr is None else stderr
    try:
        code = int(command())
        sys.stdout.flush()
    except ArbError as error:
        stream.write(f"{program}: {sentence(error)}\n")
        return int(code_of(error))
    except KeyboardInterrupt:
        stream.write(f"{program}: interrupted\n")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left (`| head`). Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.CLEAN)
    return code


def sentence(error: ArbError) -> str:
    """Return the error's words, ended as a sentence is."""
    text = str(error).rstrip()
    return text if text.endswith((".", "?", "!")) else f"{text}."
