"""What comes from Debian: packages, and Compose from the release after this one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tests.containers.progress import Failed, attempt, run

PACKAGES = ("docker.io", "mmdebstrap", "iptables", "util-linux")
NEXT_SUITE = "trixie"  # Debian 12 has Compose 1 only
COMPOSE_MIN = (2, 20)
PLUGIN = Path("usr/libexec/docker/cli-plugins/docker-compose")
PLUGIN_FOLDERS = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def install_packages() -> list[str]:
    """Install what is missing, as root; return the names. Raises Failed."""
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        # RUNLEVEL=1: a package's start script starts no server.
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        wait = ("-o", "DPkg::Lock::Timeout=120")
        run("apt-get", "-qq", *wait, "update", timeout_s=180, env=quiet)
        install = ("install", "--yes", "--no-install-recommends")
        run("apt-get", "-qq", *wait, *install, *missing, timeout_s=300, env=quiet)
    return missing


def _is_installed(name: str) -> bool:
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status}", name)
    return attempt(*query, timeout_s=30).stdout == "installed"


def installed_compose() -> Path | None:
    """Return a Compose 2 that is on this machine already."""
    for folder in PLUGIN_FOLDERS:
        program = Path(folder).expanduser() / "docker-compose"
        if program.is_file() and _version(program) >= COMPOSE_MIN:
            return program
    return None


def _version(program: Path) -> tuple[int, ...]:
    said = attempt(program, "version", "--short", timeout_s=30).stdout
    found = re.match(r"v?(\d+)\.(\d+)", said.strip())
    return tuple(int(part) for part in found.groups()) if found else (0,)


def fetch_compose(folder: Path) -> Path:
    """
    Unpack the next Debian's Compose below ``folder``; nothing of this system changes.

    The package is read through lists of its own, from the mirror that this machine uses anyway.

    Raises:
        Failed: This is no Debian, or the mirror has it not.
    """
    program = folder / PLUGIN
    if program.is_file():
        return program
    if shutil.which("apt-get") is None:
        raise Failed("this is no Debian; install Docker's compose plugin by hand")
    apt = folder / "apt"
    options = next_suite(apt)
    run("apt-get", "-qq", *options, "download", "docker-compose", timeout_s=180, cwd=apt)
    (package,) = apt.glob("docker-compose_*.deb")
    run("dpkg-deb", "--extract", package, folder, timeout_s=60)
    shutil.rmtree(apt)
    return program


def next_suite(apt: Path, kind: str = "deb") -> list[str]:
    """Read the next Debian's lists into ``apt``; return the options with which apt-get uses them."""
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"{kind} {_mirror()} {NEXT_SUITE} main\n")
    places = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": apt / "parts",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, place in places.items() for word in ("-o", f"{name}={place}")]
    run("apt-get", "-qq", *options, "update", timeout_s=180)
    return options


def _mirror() -> str:
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", timeout_s=30)
    for line in listed.splitlines():
        uri, _, component = line.rpartition(" ")
        if component == "main" and "security" not in uri:
            return uri
    raise Failed("apt knows no mirror of Debian's main archive")


def has_root() -> bool:
    """Tell whether packages can be installed here."""
    return os.geteuid() == 0


def docker_program(name: str) -> Path:
    """Return a program of Debian's docker.io, whatever else is first on the PATH."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin")
    if found is None:
        raise Failed(f"{name} of docker.io is not there")
    return Path(found)


def compose_environment(program: Path, folder: Path) -> dict[str, str]:
    """Return variables with which ``docker`` finds this Compose and no other configuration."""
    plugins = folder / "docker-config" / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    link = plugins / "docker-compose"
    link.unlink(missing_ok=True)
    link.symlink_to(program)
    return {"DOCKER_CONFIG": str(folder / "docker-config")}
