"""Who asks: written beside every change, believed and not proved."""

from __future__ import annotations

import getpass
import os
import socket


def this_person() -> str:
    """Return user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id that has no name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
