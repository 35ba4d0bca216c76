"""
Bugs to plant, so that it can be seen what a checker is worth: ``python -m tests.sim --plant all``.

Each puts one mistake into the machines, the shells or the store that somebody could make. A
life under a planted bug must end with a violation in some of the seeds. A module a family.
"""

from tests.sim.bugs import books, guard, shells, spools, trade
from tests.sim.bugs.register import BUGS, planted

__all__ = ["BUGS", "books", "guard", "planted", "shells", "spools", "trade"]
