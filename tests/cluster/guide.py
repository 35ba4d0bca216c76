"""
The guide's commands, as the test runs them.

A fenced block of docs/DEPLOYMENT_GUIDE.md that begins with ``sh step=NAME`` is a step of the
test; ``sh not-run`` marks what cannot run here (a cloud, a password prompt). There is no third
kind, and a unit test holds that: so the guide cannot say what nobody has tried. The section on
containers has a test of its own and is not read here.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "DEPLOYMENT_GUIDE.md"
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"sh step=(?P<name>[a-z0-9-]+)")


def text() -> str:
    """Return the guide, less its section on containers."""
    before, _, rest = GUIDE.read_text().partition("\n## Containers\n")
    _, heading, after = rest.partition("\n## ")
    return before + heading + after


def blocks(text: str) -> list[tuple[str, str]]:
    """Return every fenced block's info string and body, in order."""
    return [(found["info"].strip(), found["body"]) for found in FENCE.finditer(text)]


def steps(text: str) -> dict[str, str]:
    """Return the commands of each step by its name."""
    found: dict[str, str] = {}
    for info, body in blocks(text):
        if (named := STEP.fullmatch(info)) is not None:
            assert named["name"] not in found, f"{named['name']} stands in the guide twice"
            found[named["name"]] = body
    return found
