"""Checks around Ray: traps in the environment, the token, whether a cluster answers."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from arb_ray.app.doctor import Check, fail, ok, warn
from arb_ray.app.settings import Settings

TIMEOUT_S = 5.0
TRAPS = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray takes these before an address that is given to it, in this order (RAY_ADDRESS last)."""

ANSWER_BYTES_MAX = 65_536


def environment(environ: Mapping[str, str], address: str | None) -> list[Check]:
    """Look for variables that would send a submission to another cluster than the one named."""
    found = []
    for name in TRAPS:
        value = environ.get(name, "")
        if value and value != address:
            named = f"the address {address}" if address else "an address that is named"
            words = f"{name} is {value}, and Ray takes it before {named}"
            found.append(warn("ray address", words, f"unset {name}"))
    return found or [ok("ray address", "no variable redirects Ray")]


def authentication(settings: Settings, environ: Mapping[str, str]) -> list[Check]:
    """Check that this process and its settings agree on Ray's token."""
    wanted = settings.ray.auth_mode
    said = environ.get("RAY_AUTH_MODE", "")
    if settings.ray.address is None:
        return [ok("ray token", f"a run here sets RAY_AUTH_MODE={wanted} itself")]
    found = []
    if said != wanted:
        words = f"RAY_AUTH_MODE is {said or 'not set'}, and ray.auth_mode is {wanted}"
        found.append(fail("ray token", words, f"export RAY_AUTH_MODE={wanted}"))
    if wanted == "token":
        found.append(_token(environ))
    return found or [ok("ray token", "RAY_AUTH_MODE=disabled, as ray.auth_mode says")]


def _token(environ: Mapping[str, str]) -> Check:
    path = environ.get("RAY_AUTH_TOKEN_PATH", "")
    if not path:
        words = "RAY_AUTH_TOKEN_PATH is not set"
        return fail("ray token", words, "Set it to the file with the cluster's token, mode 0600")
    file = Path(path)
    try:
        found = file.stat()
        is_empty = not file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return fail("ray token", f"{file} cannot be read ({error})", "Correct RAY_AUTH_TOKEN_PATH")
    mode = stat.S_IMODE(found.st_mode)
    if is_empty:
        return fail("ray token", f"{file} is empty", "Put the cluster's token into it")
    if mode & 0o077:
        words = f"{file} has mode {mode:04o}, so others on this machine may read it"
        return fail("ray token", words, f"chmod 600 {file}")
    return ok("ray token", f"RAY_AUTH_TOKEN_PATH is {file}, mode {mode:04o}")


async def reachable(address: str, environ: Mapping[str, str]) -> Check:
    """Ask a cluster: its dashboard when the address begins with http, its head's port if not."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if address.startswith(("http://", "https://")):
                return await _dashboard(address.rstrip("/"), environ)
            parts = urlsplit(f"//{address}")
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
            await writer.wait_closed()
    except TimeoutError:
        return fail("ray cluster", f"{address} does not answer in {TIMEOUT_S:g} s", _START)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return fail("ray cluster", f"{address} does not answer ({error})", _START)
    return ok("ray cluster", f"something listens at {address}")


_START = "Start the cluster, or open the way to it; the dashboard listens on the head's loopback"


def _token_header(environ: Mapping[str, str]) -> dict[str, str]:
    path = Path(environ.get("RAY_AUTH_TOKEN_PATH", ""))
    if environ.get("RAY_AUTH_MODE") != "token" or not path.is_file():
        return {}
    return {"Authorization": f"Bearer {path.read_text(encoding='utf-8').strip()}"}


async def _dashboard(address: str, environ: Mapping[str, str]) -> Check:
    headers = await asyncio.to_thread(_token_header, environ)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{address}/api/version", headers=headers, allow_redirects=False) as reply,
    ):
        raw = await reply.content.read(ANSWER_BYTES_MAX)
    if reply.status in {401, 403}:
        return fail(
            "ray cluster", f"{address} refuses our token", "Use the token of this very cluster"
        )
    try:
        version = msgspec.json.decode(raw, type=dict[str, object]).get("ray_version")
    except msgspec.MsgspecError:
        version = None
    if reply.status != 200 or not version:
        words = f"{address} answers HTTP {reply.status}, and not as Ray's dashboard does"
        return fail("ray cluster", words, "Correct the address")
    return ok("ray cluster", f"{address} is the dashboard of Ray {version}")
