"""``arb-ray db roles``: the writer and the reader, and what each may do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from arb_ray.app.command_line import Parser
from arb_ray.app.exit_codes import ExitCode
from arb_ray.domain.errors import BadInput


def add_role_arguments(parser: Parser) -> None:
    """Add the arguments of ``db roles``."""
    for kind in ("writer", "reader"):
        parser.add_argument(
            f"--{kind}", metavar="NAME", help=f"of roles: its name (default arb_{kind})"
        )
        parser.add_argument(
            f"--{kind}-password-file",
            type=Path,
            metavar="FILE",
            help=f"lets the {kind} log in; without, it can what it could",
        )
    parser.add_argument("--check", action="store_true", help="roles only looks, and changes none")


def run_roles(said: argparse.Namespace, dsn: str) -> ExitCode:
    """Make the roles, or look at them; 1 when one may more or less than it should."""
    from arb_ray.adapters.storage.roles import READER, WRITER, look_at_roles, make_roles

    if said.check:
        states = look_at_roles(dsn)
    else:
        states = make_roles(
            dsn,
            said.writer or WRITER,
            said.reader or READER,
            writer_password=_password("--writer-password-file", said.writer_password_file),
            reader_password=_password("--reader-password-file", said.reader_password_file),
        )
    if said.json:
        sys.stdout.write(f"{msgspec.json.encode(states).decode()}\n")
    else:
        for state in states:
            login = "logs in" if state.can_login else "cannot log in"
            sys.stdout.write(f"{state.name}: {state.kind}, {login}\n")
            sys.stdout.writelines(f"  {problem}\n" for problem in state.problems)
        if not states:
            sys.stdout.write("There is neither writer nor reader: arb-ray db roles makes them.\n")
    is_well = states and not any(state.problems for state in states)
    return ExitCode.CLEAN if is_well else ExitCode.FOUND


def _password(option: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(option, f"{path}: {error}", "Name a file with one line") from error
