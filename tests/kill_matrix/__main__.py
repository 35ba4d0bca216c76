"""``python -m tests.kill_matrix``."""

import sys

from tests.kill_matrix.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
