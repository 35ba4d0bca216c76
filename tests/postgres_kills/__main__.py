"""``python -m tests.postgres_kills``."""

import sys

from tests.postgres_kills.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
