"""
Make the dashboards' JSON from the code beside this file.

    python -m deploy.grafana.build          write deploy/grafana/dashboards/
    python -m deploy.grafana.build --check  tell whether it is current
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.actors import actors
from deploy.grafana.overview import overview

FOLDER = Path(__file__).resolve().parent / "dashboards"

DASHBOARDS: Mapping[str, Callable[[], dashboard.Dashboard]] = {
    "overview.json": overview,
    "actors.json": actors,
}


def text(name: str) -> str:
    """Return a dashboard's file as it must be."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[name]().build()) + "\n"


def main(arguments: list[str]) -> int:
    """Write the dashboards, or with ``--check`` name those that are not current."""
    stale = 0
    for name in DASHBOARDS:
        path = FOLDER / name
        made = text(name)
        if path.is_file() and path.read_text(encoding="utf-8") == made:
            continue
        if "--check" in arguments:
            stale += 1
            sys.stderr.write(
                f"deploy/grafana/dashboards/{name} is not current: run `make docs` and commit it\n"
            )
        else:
            path.write_text(made, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
