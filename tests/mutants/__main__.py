"""``python -m tests.mutants``: see ``tests.mutants.command``."""

import sys

from tests.mutants.command import main

sys.exit(main(sys.argv[1:]))
