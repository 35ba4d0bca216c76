"""
Commands in the docs, as data.

A block of commands (fenced or indented) is run by a test when the line before it says so:

    <!-- run -->
    <!-- run exit=2 shows="what it prints" in=repo secrets database timeout=60 -->

A block is one bash script. It runs in an empty folder, or in the repository with ``in=repo``;
``secrets`` gives it the secret files that staging and prod need, ``database`` the variable DSN: a
ledger with some trades. It must end with code 0, or with
``exit``, and print what ``shows`` says.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
MARK = re.compile(r"^<!-- run\b(?P<options>.*?)-->$")
KNOWN = frozenset({"exit", "shows", "in", "secrets", "database", "timeout"})
SHELL = frozenset({"", "sh", "bash", "console", "shell"})


class Script(msgspec.Struct, frozen=True):
    """A block of a page; ``options`` is None where it is not to be run."""

    page: str
    line: int
    text: str
    options: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its command lines, continued ones joined, without comments and prompts."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def scripts_of(page: str, text: str) -> list[Script]:
    """Return every block of a page, in order."""
    found = []
    options: dict[str, str] | None = None
    lines = text.splitlines()
    n = 0
    while n < len(lines):
        line = lines[n]
        begins_indented = line.startswith("    ") and (
            n == 0 or not lines[n - 1].strip() or options is not None
        )
        if mark := MARK.match(line):
            options = options_of(mark["options"], f"{page}:{n + 1}")
        elif line.startswith("```"):
            end = next(m for m in range(n + 1, len(lines)) if lines[m].startswith("```"))
            if line.removeprefix("```").strip() in SHELL:
                found.append(Script(page, n + 2, "\n".join(lines[n + 1 : end]), options))
            options, n = None, end
        elif begins_indented:
            end = n
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text_of_block = "\n".join(part[4:] for part in lines[n:end]).rstrip()
            found.append(Script(page, n + 1, text_of_block, options))
            options, n = None, end - 1
        elif line.strip():
            assert options is None, f"{page}:{n + 1}: a run mark stands before no block"
        n += 1
    assert options is None, f"{page}: a run mark stands at the end"
    return found


def options_of(text: str, place: str) -> dict[str, str]:
    """Read ``exit=2 shows="a b" secrets``."""
    options = {}
    for word in shlex.split(text):
        key, _, value = word.partition("=")
        assert key in KNOWN, f"{place}: {key} is none of {sorted(KNOWN)}"
        options[key] = value
    return options


def all_scripts() -> list[Script]:
    """Return every block of every page."""
    return [
        script
        for page in PAGES
        for script in scripts_of(str(page.relative_to(ROOT)), page.read_text())
    ]


def runnable() -> list[Script]:
    """Return those that are to be run."""
    return [script for script in all_scripts() if script.options is not None]
