"""
Where settings come from: YAML files, secret files, the environment, the command line.

Each becomes a ``Layer``, a nested mapping with a name for every value's origin, so that an
error can say where the wrong value was written. ``settings.py`` puts the layers together.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from arb_ray.domain.errors import BadConfig

ENV_PREFIX = "ARB_"
SECRET_PREFIX = "arb_"  # noqa: S105  # a file name's beginning
SECRETS_DIR = Path("/run/secrets")
NOT_SETTINGS = frozenset({"ARB_SECRETS_DIR", "ARB_CONFIG_DIR", "ARB_ENV"})
"""Variables with our prefix that say where to look, and are no settings themselves."""

YAML_MAX_BYTES = 1_000_000
SECRET_MAX_BYTES = 4_096

Tree = dict[str, Any]


class Layer(msgspec.Struct, frozen=True):
    """One source of settings; ``origin`` names a value's place by its dotted key."""

    name: str
    values: Tree
    origins: dict[str, str]
    may_hold_secrets: bool

    def origin(self, key: str) -> str:
        """Tell where the value of ``key``, or of something below it, was written."""
        return self.origins.get(key, self.name)


def config_dir(environ: Mapping[str, str]) -> Path:
    """
    Find the folder with ``base.yaml``: ARB_CONFIG_DIR, the checkout's, or the wheel's copy.

    Raises:
        BadConfig: None of them exists.
    """
    given = environ.get("ARB_CONFIG_DIR", "")
    if given:
        return _folder("ARB_CONFIG_DIR", Path(given))
    package = Path(__file__).resolve().parent.parent
    for place in (package.parent / "config", package / "_data" / "config"):
        if (place / "base.yaml").is_file():
            return place
    raise BadConfig(
        "config",
        f"no base.yaml in {package.parent / 'config'} nor in the installed package",
        "Install arb_ray again, or set ARB_CONFIG_DIR to a folder that holds base.yaml",
    )


def _folder(name: str, path: Path) -> Path:
    if not path.is_dir():
        raise BadConfig(name, f"{path} is not a folder", "Write the path of an existing folder")
    return path


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is written twice, in lines {seen[key]} and {line}"
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Tree:
    """
    Read a mapping.

    Raises:
        BadConfig: The file is missing, too large, no YAML, or no mapping; the key is its path.
    """
    place = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise BadConfig(place, problem, "Make the file readable, or correct the path") from error
    if len(raw) > YAML_MAX_BYTES:
        raise BadConfig(place, f"is larger than {YAML_MAX_BYTES} bytes", "Make it smaller")
    try:
        # The loader is a SafeLoader, which makes plain values only.
        content = yaml.load(raw, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        problem = " ".join(str(error).split())[:300]
        raise BadConfig(place, f"is not valid YAML: {problem}", "Correct it") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadConfig(place, "is not a mapping with text keys", "Begin each line with `key:`")
    return cast("Tree", content)


def yaml_layer(path: Path) -> Layer:
    """Read one YAML file of settings. Raises BadConfig."""
    values = read_yaml(path)
    return Layer(path.name, values, {}, may_hold_secrets=False)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Take every ``ARB_`` variable: ``ARB_RISK__DAILY_LOSS_USDT`` is ``risk.daily_loss_usdt``."""
    found = (
        (name.removeprefix(ENV_PREFIX).lower(), name, value)
        for name, value in sorted(environ.items())
        if name.startswith(ENV_PREFIX) and name not in NOT_SETTINGS
    )
    return _layer_of("environment", found, may_hold_secrets=True)


def secrets_layer(environ: Mapping[str, str]) -> Layer:
    """
    Take every file ``arb_<section>__<key>`` of ARB_SECRETS_DIR, or of /run/secrets.

    A trailing line break is not part of a secret. Files without our prefix are others'.

    Raises:
        BadConfig: The folder that was named does not exist, or a file cannot be used.
    """
    given = environ.get("ARB_SECRETS_DIR", "")
    folder = _folder("ARB_SECRETS_DIR", Path(given)) if given else SECRETS_DIR
    if not folder.is_dir():
        return Layer("secret files", {}, {}, may_hold_secrets=True)
    paths = sorted(path for path in folder.iterdir() if path.name.startswith(SECRET_PREFIX))
    found = [
        (path.name.removeprefix(SECRET_PREFIX).lower(), str(path), _read_secret(path))
        for path in paths
    ]
    return _layer_of("secret files", found, may_hold_secrets=True)


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(SECRET_MAX_BYTES + 1)
        text = raw.decode().rstrip("\r\n")
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise BadConfig(str(path), problem, "Give this user the right to read it") from error
    except UnicodeDecodeError as error:
        raise BadConfig(str(path), "is not UTF-8 text", "Write the secret as text") from error
    if not text or len(raw) > SECRET_MAX_BYTES:
        problem = "is empty" if not text else f"is larger than {SECRET_MAX_BYTES} bytes"
        raise BadConfig(str(path), problem, "Write the secret and nothing else into it")
    return text


def overrides_layer(overrides: Mapping[str, Any]) -> Layer:
    """Take the command line's values by dotted key; None means that one was not given."""
    values: Tree = {}
    origins = {}
    for key, value in overrides.items():
        if value is not None:
            put(values, key.split("."), value)
            origins[key] = "command line"
    return Layer("command line", values, origins, may_hold_secrets=False)


def _layer_of(name: str, found: Iterable[tuple[str, str, str]], *, may_hold_secrets: bool) -> Layer:
    values: Tree = {}
    origins = {}
    for path, origin, value in found:
        keys = path.split("__")
        put(values, keys, value)
        origins[".".join(keys)] = origin
    return Layer(name, values, origins, may_hold_secrets)


def put(tree: Tree, path: list[str], value: object) -> None:
    """Set a value deep in a tree. Raises BadConfig where a value is in the way."""
    for depth, key in enumerate(path[:-1], start=1):
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            section = ".".join(path[:depth])
            raise BadConfig(section, "is set to a value and to keys below it", "Set one of them")
        tree = branch
    tree[path[-1]] = value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every leaf by its dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat
