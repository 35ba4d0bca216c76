"""``python -m tests.resume``."""

import sys

from tests.resume.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
