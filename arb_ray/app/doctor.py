"""
What a run needs of this machine and its surroundings, checked one by one.

Each check tells ok, warn or fail, in words and with a remedy. A check that cannot be made says
why; nothing here changes anything, and no secret is shown.
"""

from __future__ import annotations

import asyncio
import enum
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.app.config_files import SECRET_PREFIX, SECRETS_DIR
from arb_ray.app.settings import Settings, load_settings, secret_keys
from arb_ray.app.settings_errors import BadSettings
from arb_ray.domain.errors import BadConfig


class Verdict(enum.StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"  # it runs, but not as well or as safely as it should
    FAIL = "fail"  # a run does not start, or does not work


class Check(msgspec.Struct, frozen=True):
    """One check; ``remedy`` is empty when there is nothing to mend."""

    name: str
    verdict: Verdict
    words: str
    remedy: str = ""


def ok(name: str, words: str) -> Check:
    """Return a check that found nothing to mend."""
    return Check(name, Verdict.OK, words)


def warn(name: str, words: str, remedy: str) -> Check:
    """Return a check that found a weakness."""
    return Check(name, Verdict.WARN, words, remedy)


def fail(name: str, words: str, remedy: str) -> Check:
    """Return a check that found an obstacle."""
    return Check(name, Verdict.FAIL, words, remedy)


def examine(
    env: str,
    overrides: Mapping[str, Any],
    *,
    address: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Check]:
    """Make every check of ``env``; ``address`` is a Ray cluster's, dashboard or head."""
    from arb_ray.app import doctor_machine, doctor_ray, doctor_services

    environ = os.environ if environ is None else environ
    found = [doctor_machine.python(), doctor_machine.package()]
    settings, problems = read_config(env, overrides, environ)
    found += problems
    found += doctor_ray.environment(environ, address)
    if settings is not None:
        found += secrets(settings, environ)
        found += doctor_machine.machine(settings)
        found += doctor_ray.authentication(settings, environ)
        found += asyncio.run(doctor_services.services(settings))
    found.append(doctor_machine.open_files())
    if address is not None:
        found.append(asyncio.run(doctor_ray.reachable(address, environ)))
    return found


def read_config(
    env: str, overrides: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Settings | None, list[Check]]:
    """Load the settings, or tell every problem with them."""
    try:
        settings = load_settings(env, overrides, environ)
    except BadConfig as error:
        problems = error.problems if isinstance(error, BadSettings) else (error,)
        found = [fail("config", f"{one.key}: {one.problem}", one.mend) for one in problems]
        rest = "What depends on the settings was not checked"
        return None, [*found, warn("config", rest, "Mend the settings and ask again")]
    hashed = settings.config_hash()
    return settings, [ok("config", f"the settings of {env} are whole; config hash {hashed}")]


def secrets(settings: Settings, environ: Mapping[str, str]) -> list[Check]:
    """Tell which secrets there are, by name, and who may read their files."""
    folder = Path(environ.get("ARB_SECRETS_DIR", "") or SECRETS_DIR)
    found = []
    for key in sorted(secret_keys()):
        file = folder / f"{SECRET_PREFIX}{key.replace('.', '__')}"
        section, _, name = key.rpartition(".")
        if getattr(getattr(settings, section), name) is None:
            found.append(_absent(key, file, settings.env))
        elif file.name.upper() in environ:
            found.append(ok("secret", f"{key} is in the environment ({file.name.upper()})"))
        else:
            found.append(_readers(key, file))
    return found


def _absent(key: str, file: Path, env: str) -> Check:
    if key == "gateway.token" and env != "dev":
        return warn(
            "secret",
            "gateway.token is missing: the Gateway refuses halt, resume and flatten",
            f"Put a random one into {file}, on every node and where arb-ray is called",
        )
    return ok("secret", f"{key} is not set, and {env} does not need it")


def _readers(key: str, file: Path) -> Check:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        return warn("secret", f"{key}: {file} cannot be looked at ({error.strerror})", "Check it")
    if mode & 0o077:
        words = f"{key}: {file} has mode {mode:04o}, so others on this machine may read it"
        return warn("secret", words, f"chmod 600 {file}")
    return ok("secret", f"{key} is in {file}, mode {mode:04o}")
