"""``python -m tests.chaos``: see ``tests.chaos.command``."""

import sys

from tests.chaos.command import main

sys.exit(main(sys.argv[1:]))
