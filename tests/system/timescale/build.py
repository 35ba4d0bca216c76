"""TimescaleDB beside a copy of Debian's PostgreSQL 15, built from the next Debian's source."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.containers import debian
from tests.containers.progress import Failed, run

POSTGRES = Path("usr/lib/postgresql/15")
SHARED = Path("usr/share/postgresql/15")
BUILD_TIMEOUT_S = 400


def build(folder: Path) -> Path:
    """
    Return the programs of a PostgreSQL 15 that has TimescaleDB; all of it lies below ``folder``.

    PostgreSQL finds its own files by where its programs lie, so a copy takes the extension in and
    nothing of this system changes. It is the Apache edition.

    Raises:
        Failed: A package is missing, or the mirror has not the source.
    """
    programs = ("apt-get", "dpkg-source", "cmake", "make", "cc")
    missing = [name for name in programs if shutil.which(name) is None]
    files = (Path("/") / POSTGRES / "bin" / name for name in ("postgres", "pg_config"))
    missing += [str(file) for file in files if not file.is_file()]
    if missing:
        raise Failed(f"{', '.join(missing)} is not installed; `make test-system` as root does it")
    options = debian.next_suite(folder / "apt", "deb-src")
    source = folder / "source"
    source.mkdir()
    fetch = ("source", "--download-only", "timescaledb")
    run("apt-get", "-qq", *options, *fetch, timeout_s=120, cwd=source)
    (described,) = source.glob("*.dsc")
    # apt-get has compared it with the lists, which are signed.
    unpack = ("--no-check", "--extract", described, source / "tree")
    run("dpkg-source", *unpack, timeout_s=60)
    tree = folder / "tree"
    for part in (POSTGRES, SHARED):
        shutil.copytree(Path("/") / part, tree / part, symlinks=True)
    made = folder / "build"
    switches = ("APACHE_ONLY=1", "REGRESS_CHECKS=OFF", "TAP_CHECKS=OFF", "WARNINGS_AS_ERRORS=OFF")
    # Nothing is timed here: without optimisation it is built in half the time.
    switches += ("CMAKE_BUILD_TYPE=Release", "CMAKE_C_FLAGS_RELEASE=-O0")
    config = f"PG_CONFIG=/{POSTGRES}/bin/pg_config"
    words = [f"-D{switch}" for switch in (*switches, config)]
    run("cmake", "-S", source / "tree", "-B", made, *words, timeout_s=120)
    run("make", "-C", made, f"-j{os.cpu_count()}", timeout_s=BUILD_TIMEOUT_S)
    run("make", "-C", made, "install", f"DESTDIR={tree}", timeout_s=60)
    return tree / POSTGRES / "bin"
