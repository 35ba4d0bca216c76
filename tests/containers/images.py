"""The images: a base from Debian's packages, stand-ins for what cannot be pulled, and ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.containers.engine import Engine
from tests.containers.progress import Failed, attempt, step

HERE = Path(__file__).parent
BASE = "python:3.11-slim-bookworm"
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,passwd"
STANDINS = ("postgres", "redis", "prometheus", "alertmanager")
OURS = "arb_ray:container-test"
PIP_MARK = "container-test-mark-of-pip-conf"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def standin(name: str) -> str:
    """Return the tag of a stand-in."""
    return f"standin-{name}:1"


def build_base(engine: Engine) -> None:
    """Make the base image with mmdebstrap, under the name that the Dockerfile asks for."""
    if engine.docker("images", "--quiet", BASE).strip():
        return
    with step(f"base image {BASE} from Debian's packages"):
        words = ["mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", "-"]
        env = os.environ | engine.environ
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as maker:
            done = subprocess.run(
                [str(engine.program), "import", "-", BASE],
                check=False,
                stdin=maker.stdout,
                env=env,
                capture_output=True,
                timeout=300,
            )
            said = maker.communicate(timeout=30)[1]
        if maker.returncode != 0 or done.returncode != 0:
            raise Failed(f"no base image: {said.decode()[-500:]} {done.stderr.decode()[-500:]}")


def build_standins(engine: Engine) -> None:
    """Build one image for each server that Debian has."""
    with step(f"stand-ins for {', '.join(STANDINS)}"):
        for name in STANDINS:
            words = ("--file", str(HERE / "standins.Dockerfile"), "--target", name)
            tag = ("--tag", standin(name), "--quiet", "--network", "host")
            engine.docker("build", *words, *tag, str(HERE), timeout_s=300)


def pip_secrets(folder: Path) -> dict[str, str]:
    """
    Write the pip.conf of the build: this machine's index and certificates, if it has its own.

    Returns the variables of .env that name the two files.
    """
    lines = [f"# {PIP_MARK}", "[global]", "timeout = 60"]
    said = attempt("python3", "-m", "pip", "config", "list", timeout_s=60).stdout
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    for name in ("index-url", "trusted-host"):
        for key, value in values.items():
            if key in {f"global.{name}", f":env:.{name}"}:
                lines.append(f"{name} = {value.strip(chr(39))}")
    found = {"BUILD_PIP_CONF": str(folder / "pip.conf")}
    if BUNDLE.is_file():
        lines.append("cert = /run/secrets/pip_ca")
        found["BUILD_PIP_CA"] = str(BUNDLE)
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return found
