"""What all command lines share: one-line complaints, and arguments that explain themselves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from arb_ray.app.exit_codes import MEANINGS, ExitCode, sentence
from arb_ray.domain.errors import BadInput

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """An argparse parser that complains in one sentence and shows examples below its help."""

    def __init__(self, *, examples: str = "", **options: object) -> None:
        epilog = f"examples:\n{examples}\n\n{MEANINGS}" if examples else MEANINGS
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=epilog,
            allow_abbrev=False,  # an abbreviation would change its meaning with the next option
            **options,  # type: ignore[arg-type]  # argparse's own, passed through
        )

    def error(self, message: str) -> NoReturn:
        """Complain and leave with code 2."""
        sys.stderr.write(f"{self.prog}: {message}. See {self.prog} --help.\n")
        sys.exit(int(ExitCode.BAD_USAGE))


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return ``parse`` for argparse, which then tells a ``BadInput`` in our words."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except BadInput as error:
            # argparse names the option itself, and its sentence ends with a full stop.
            words = sentence(error).removeprefix(f"{error.place}: ").rstrip(".")
            raise argparse.ArgumentTypeError(words) from error

    return parsed


def positive_float(text: str) -> float:
    """Read a number above zero. Raises BadInput."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise BadInput("", f"{text!r} is no number above 0", "Write one, for example 10")
    return number


def natural(text: str) -> int:
    """Read a whole number from 0. Raises BadInput."""
    if not (text.isascii() and text.isdigit()):
        raise BadInput("", f"{text!r} is no whole number from 0", "Write one, for example 7")
    return int(text)
