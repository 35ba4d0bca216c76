"""
All benchmarks, or those that are named, one after another.

    python -m benchmarks                    # all; a table on stderr each
    python -m benchmarks decode risk        # two of them
    python -m benchmarks decode --check     # what follows the names goes to each

The exit code is the worst of theirs. `python -m benchmarks --list` tells what there is.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """Return every benchmark's name with its first sentence: a module that judges itself."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        text = path.read_text()
        if "    add_outputs(parser)" in text and path.stem != "__main__":
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the worst exit code."""
    said = list(sys.argv[1:] if arguments is None else arguments)
    known = benchmarks()
    if said and said[0] in {"-h", "--help", "--list"}:
        print((__doc__ or "").strip(), *(f"  {k:12} {v}" for k, v in known.items()), sep="\n")
        return 0
    names = []
    while said and not said[0].startswith("-"):
        names.append(said.pop(0))
    if unknown := [name for name in names if name not in known]:
        print(f"There is no benchmark {unknown}; there are {sorted(known)}", file=sys.stderr)
        return 2
    worst = 0
    for name in names or known:
        print(f"== {name}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *said], check=False)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
