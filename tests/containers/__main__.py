"""``make container-test``, or ``python -m tests.containers``: as root on Debian 12."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable

from tests.containers import debian, images, machine
from tests.containers.engine import engine
from tests.containers.progress import Failed, say, step
from tests.containers.scenario import SUBMIT_ARGS, Scenario
from tests.containers.stack import ROOT, Stack, settings

LIMIT_S = 870.0  # fifteen minutes, less what make and the look afterwards take
WORK = ROOT / "build" / "container-test"

EXAMPLES = """\
exit codes: 0 when everything held, 1 when it did not; the last line says which

examples:
  make container-test
  make container-test ARGS=--bare        images, nodes, stores and a crash; nothing is traded
  make container-test ARGS=--keep        keep the images for the next run

The engine's logs of the last run, and Ray's when it failed, are in build/container-test."""


def parser() -> argparse.ArgumentParser:
    """Return the options; the same ones inside the namespaces and outside."""
    options = argparse.ArgumentParser(
        prog="make container-test",
        description="The real image and the real compose file on a Docker engine of its own.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--bare", action="store_true", help="start and crash, trade nothing")
    options.add_argument("--keep", action="store_true", help="keep the images for the next run")
    options.add_argument("--inside", choices=("build", "run"), help=argparse.SUPPRESS)
    return options


def main(arguments: list[str]) -> int:
    """Run; the verdict is the last line."""
    said = parser().parse_args(arguments)
    if said.inside == "build":
        return _told(_build)
    if said.inside == "run":
        return _told(lambda: _run(bare=said.bare))
    # A kind end runs what tidies up; after a kill -9 the kernel still takes the namespaces back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began_s = time.monotonic()
    code = _told(lambda: _outside(arguments, keep=said.keep))
    took = f"{time.monotonic() - began_s:.0f} s"
    say(f"container-test: {'PASSED' if code == 0 else 'FAILED'} after {took}")
    return code


def _outside(arguments: list[str], *, keep: bool) -> None:
    if not debian.has_root():
        raise Failed("it makes namespaces and mounts, so it needs root")
    began_s = time.monotonic()
    with step("Debian's packages, and Compose from the next Debian") as notes:
        notes.extend(debian.install_packages())
        debian.fetch_compose(WORK / "compose")
    before = machine.shared_state(WORK)
    codes = []
    try:
        with machine.own_folders():
            for phase in ("build", "run"):
                left_s = LIMIT_S - (time.monotonic() - began_s)
                words = ["--inside", phase, *arguments]
                codes.append(machine.run_inside(words, left_s, with_network=phase == "build"))
                if codes[-1] != 0:
                    break
    finally:
        shutil.rmtree(WORK / "secrets", ignore_errors=True)
        for name in () if keep else ("engine", "compose", "docker-config"):
            shutil.rmtree(WORK / name, ignore_errors=True)
        left = machine.leftovers(before, WORK)
        say("  nothing is left behind" if not left else f"  LEFT BEHIND: {', '.join(left)}")
    if any(codes) or left:
        raise Failed("see above; the logs are in build/container-test")


def _build() -> None:
    with engine(WORK, builds=True) as running:
        images.build_base(running)
        images.build_standins(running)
        stack = Stack(running, WORK, debian.fetch_compose(WORK / "compose"))
        stack.configure(settings(images.pip_secrets(WORK) | {"BUILD_NETWORK": "host"}))
        with step("docker compose build") as notes:
            stack.compose("build", "--quiet", "migrate", timeout_s=480)
            size = running.docker("image", "inspect", "--format", "{{.Size}}", images.OURS)
            notes.append(f"{int(size) / 1e6:.0f} MB")


def _run(*, bare: bool) -> None:
    with engine(WORK, builds=False) as running:
        stack = Stack(running, WORK, debian.fetch_compose(WORK / "compose"))
        stack.configure(settings({"SUBMIT_ARGS": SUBMIT_ARGS}))
        Scenario(stack).play(bare=bare)


def _told(play: Callable[[], None]) -> int:
    try:
        play()
    except Failed as failed:
        say(f"  FAILED: {failed}")
        return 1
    return 0


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    sys.exit(main(sys.argv[1:]))
