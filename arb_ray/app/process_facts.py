"""What a process knows of itself; every actor asks, so nothing heavy is imported here."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil


def node_name() -> str:
    """Name this machine's run: monotonic clocks can be compared within it only."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    boot = boot_id.read_text(encoding="ascii").strip() if boot_id.exists() else ""
    return f"{platform.node()}/{boot}"


def rss_mb() -> float:
    """Return this process's resident memory, MB."""
    return float(psutil.Process().memory_info().rss) / 1e6
