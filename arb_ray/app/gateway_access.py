"""
How a command finds the Gateway of a run, and what it shows there.

A run on this machine leaves its address and token in ``gateway.json`` of its data folder, for
its owner's eyes only; elsewhere both come from the settings. Nothing but the Gateway's own
settings is read: a halt must not fail because a database's password is not on this machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from arb_ray.adapters.storage.process import write_private
from arb_ray.app import config_files
from arb_ray.app.config_files import flatten
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import BadConfig, BadInput, StoreUnavailable

FILE_NAME = "gateway.json"
FILE_BYTES_MAX = 16_384
TOKEN_VARIABLE = "ARB_GATEWAY__TOKEN"  # noqa: S105  # the name of a variable
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  # what the Gateway may listen on


class LocalGateway(msgspec.Struct, frozen=True):
    """What ``gateway.json`` holds."""

    url: str
    token: str


class GatewayAccess(msgspec.Struct, frozen=True):
    """Where the Gateway is, and the token to show; None when none was found."""

    url: str
    token: SecretStr | None


@contextlib.contextmanager
def local_gateway(settings: Settings) -> Iterator[None]:
    """
    Give a run on this machine a token, and leave address and token for its owner's commands.

    The token reaches the Gateway through the environment, which a local Ray inherits: it is
    in no Ray argument, no runtime_env and no log.
    """
    if not settings.gateway.enabled:
        yield
        return
    configured = settings.gateway.token
    token = configured.get_secret_value() if configured else secrets.token_urlsafe(32)
    path = Path(settings.session.data_dir) / FILE_NAME
    found = LocalGateway(url_of(settings.gateway.host, settings.gateway.http_port), token)
    write_private(path, msgspec.json.encode(found).decode())
    if configured is None:
        os.environ[TOKEN_VARIABLE] = token
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if configured is None:
            os.environ.pop(TOKEN_VARIABLE, None)


def url_of(host: str, port: int) -> str:
    """Return the address to call a Gateway that listens there."""
    reachable = "127.0.0.1" if host in ANY_ADDRESS else host
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def parse_url(text: str) -> str:
    """Check an address such as http://10.0.0.5:8790. Raises BadInput."""
    parts = urlsplit(text.rstrip("/"))
    try:
        is_right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        is_right = False
    if not is_right or parts.path or parts.query or parts.username is not None:
        raise BadInput("--url", f"{text!r} is no address", "Write one such as http://host:8790")
    return text.rstrip("/")


def find_gateway(
    env: str,
    url: str | None = None,
    data_dir: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> GatewayAccess:
    """
    Return where the Gateway of ``env`` is, and what to show there.

    Raises:
        BadConfig: A file of the settings or of a secret cannot be used.
        StoreUnavailable: No run of ``dev`` has left its address.
    """
    settings = _settings(env, os.environ if environ is None else environ)
    said = settings.get("gateway.token")
    if said and not all("!" <= character <= "~" for character in str(said)):
        raise BadConfig("gateway.token", "holds blanks or letters beyond ASCII", "Correct it")
    token = SecretStr(str(said)) if said else None
    local = None
    if env == "dev":
        folder = Path(data_dir or str(settings.get("session.data_dir", "data")))
        local = _read_local(folder / FILE_NAME)
        if local is None and url is None and not settings.get("gateway.http_port"):
            raise StoreUnavailable(
                "Gateway",
                f"no run has left its address in {folder / FILE_NAME}. Start one, or name its "
                "folder with --data-dir or its address with --url",
            )
    if local is not None and url in (None, local.url):
        return GatewayAccess(local.url, SecretStr(local.token))
    if url is not None:
        return GatewayAccess(url, token)
    host, port = str(settings.get("gateway.host")), int(str(settings.get("gateway.http_port")))
    return GatewayAccess(url_of(host, port), token)


def _settings(env: str, environ: Mapping[str, str]) -> dict[str, object]:
    folder = config_files.config_dir(environ)
    layers = (
        config_files.yaml_layer(folder / "base.yaml"),
        config_files.yaml_layer(folder / f"{env}.yaml"),
        config_files.secrets_layer(environ),
        config_files.environment_layer(environ),
    )
    merged: dict[str, object] = {}
    for layer in layers:
        merged |= flatten(layer.values)
    port = str(merged.get("gateway.http_port", ""))
    if not (port.isascii() and port.isdigit()):
        raise BadConfig("gateway.http_port", f"{port!r} is no port", "Write a number such as 8790")
    merged["gateway.http_port"] = int(port)
    return merged


def _read_local(path: Path) -> LocalGateway | None:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise BadInput(str(path), problem, "Call this as the user that started the run") from error
    try:
        return msgspec.json.decode(raw, type=LocalGateway)
    except msgspec.MsgspecError as error:
        raise BadInput(str(path), f"is damaged ({error})", "Remove it, or use --url") from error
