"""
The settings of a run: read in layers, checked as a whole, frozen.

``base.yaml``, then ``dev|staging|prod.yaml``, then secret files, then ``ARB_`` variables
(``__`` between section and key), then the command line; the later one wins. Every problem
found is reported, not only the first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from arb_ray.app import config_files
from arb_ray.app.config_files import Layer
from arb_ray.app.settings_errors import BadSettings, problems_in
from arb_ray.app.settings_fields import Section, impossible
from arb_ray.app.settings_rules import broken_rules
from arb_ray.app.settings_sections import (
    GatewaySettings,
    PersistenceSettings,
    PostgresSettings,
    RaySettings,
    RecordingSettings,
    RedisSettings,
    SessionSettings,
    SimSettings,
    TelemetrySettings,
    TopologySettings,
)
from arb_ray.app.settings_trading import (
    BalancesSettings,
    ExecutionSettings,
    RiskSettings,
    StrategySettings,
)
from arb_ray.app.settings_venues import VenuesSettings
from arb_ray.domain.errors import BadConfig

ENVIRONMENTS = ("dev", "staging", "prod")
SYMBOLS_MAX = 2_000


def _paper_only(mode: object) -> object:
    if mode == "live":
        raise impossible(
            "",
            "live orders are not part of arb_ray, which trades on paper only",
            "Write paper",
        )
    return mode


def _joined(symbols: object) -> object:
    if isinstance(symbols, list | tuple):
        wrong = [symbol for symbol in symbols if not isinstance(symbol, str)]
        if wrong:
            raise impossible(
                "", f"{wrong[0]!r} is not text", "Put symbols such as ON or NO in quotation marks"
            )
        return ",".join(symbols)
    return symbols


def _symbols(text: str) -> str:
    if text.startswith("top:"):
        is_right = text[4:].isdecimal() and 1 <= int(text[4:]) <= SYMBOLS_MAX
    else:
        text = text.replace(" ", "").upper()
        is_right = all(name.isascii() and name.isalnum() for name in text.split(","))
    if not is_right:
        raise impossible(
            "",
            f"{text[:60]!r} names no symbols",
            f"Write symbols such as BTC,ETH or the number of the largest such as top:20 "
            f"(at most {SYMBOLS_MAX})",
        )
    return text


class Settings(BaseSettings):
    """Everything that can be set. Build it with ``load_settings``."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    env: Literal["dev", "staging", "prod"] = Field(
        description="The environment. It owns balances, limits and risk state; sessions do not."
    )
    mode: Annotated[Literal["paper"], BeforeValidator(_paper_only)] = Field(
        description="Only `paper`; `live` is refused."
    )
    source: Literal["sim", "paper", "recorded", "replay"] = Field(
        description="`sim` runs simulated exchanges, `paper` reads the real ones, `recorded` "
        "serves captured frames over WebSocket, `replay` runs them in one process."
    )
    leg_b: Literal["spot", "perp"] = Field(
        description="Binance market of leg B: `spot` needs inventory, `perp` can be short."
    )
    symbols: Annotated[
        str,
        BeforeValidator(_joined),
        AfterValidator(_symbols),
    ] = Field(description="What to trade: `BTC,ETH`, a list of such, or `top:20`.")
    session: SessionSettings
    venues: VenuesSettings
    strategy: StrategySettings
    execution: ExecutionSettings
    risk: RiskSettings
    balances: BalancesSettings
    topology: TopologySettings
    postgres: PostgresSettings
    redis: RedisSettings
    persistence: PersistenceSettings
    sim: SimSettings
    recording: RecordingSettings
    gateway: GatewaySettings
    telemetry: TelemetrySettings
    ray: RaySettings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read our layers, first wins, instead of the sources that pydantic-settings finds."""
        layers: Sequence[Layer] = init_settings().get("layers", ())
        return tuple(_LayerSource(settings_cls, layer) for layer in layers)

    def without_secrets(self) -> Settings:
        """Return a copy that may travel as a Ray argument; nodes read secrets themselves."""
        sections = {
            name: section.model_copy(update=dict.fromkeys(secrets))
            for name, section in self
            if isinstance(section, Section) and (secrets := _secrets_of(section))
        }
        return self.model_copy(update=sections)

    def secret_values(self) -> tuple[SecretStr, ...]:
        """Return every secret, for the log's redaction."""
        return tuple(
            secret
            for _, section in self
            if isinstance(section, Section)
            for secret in _secrets_of(section).values()
        )

    def public_values(self, *sections: str) -> dict[str, Any]:
        """Return plain JSON of everything but secrets, or of some top-level keys only."""
        plain = self.model_dump(mode="json", include=set(sections) or None)
        for key in secret_keys():
            section, _, name = key.rpartition(".")
            plain.get(section, {}).pop(name, None)
        return plain

    def config_hash(self, *sections: str) -> str:
        """Return 12 hex digits that change whenever a value that is no secret does."""
        text = json.dumps(self.public_values(*sections), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _LayerSource(PydanticBaseSettingsSource):
    """One of our layers, as pydantic-settings reads a source."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return one top-level value; pydantic-settings' interface."""
        del field
        return self._layer.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return all values, unknown ones too, which the model then refuses."""
        return self._layer.values


def load_settings(
    env: str,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config_dir: Path | None = None,
    *,
    wants_secrets: bool = True,
) -> Settings:
    """
    Read the settings of an environment.

    ``overrides`` are the command line's, by dotted key (``{"session.duration_s": 60}``);
    a value of None means that it was not given. Without ``wants_secrets`` none need be there:
    whoever submits to a cluster has none, its nodes have them.

    Raises:
        BadConfig: Something is wrong; ``BadSettings`` when it is more than one thing.
    """
    environ = os.environ if environ is None else environ
    if env not in ENVIRONMENTS:
        raise BadConfig("env", f"{env!r} is no environment", "Write dev, staging or prod")
    folder = config_files.config_dir(environ) if config_dir is None else config_dir
    layers = [
        Layer("--env", {"env": env}, {}, may_hold_secrets=False),
        config_files.overrides_layer(overrides or {}),
        config_files.environment_layer(environ),
        config_files.secrets_layer(environ),
        config_files.yaml_layer(folder / f"{env}.yaml"),
        config_files.yaml_layer(folder / "base.yaml"),
    ]
    problems = [*_misplaced_secrets(layers), *_other_environment(env, layers, environ)]
    try:
        # Not a field: settings_customise_sources takes the layers from here.
        settings = Settings(**cast("dict[str, Any]", {"layers": layers}))
    except ValidationError as error:
        problems += problems_in(error, layers, dict(known_keys()), secret_keys())
    else:
        problems += broken_rules(settings, wants_secrets=wants_secrets)
    if len(problems) > 1:
        raise BadSettings(tuple(problems))
    if problems:
        raise problems[0]
    return settings


def known_keys(
    model: type[BaseSettings | Section] = Settings, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that can be set, dotted, with its field, in the order of the models."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from known_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def secret_keys() -> frozenset[str]:
    """Return the dotted keys whose values are secrets."""
    return frozenset(key for key, field in known_keys() if SecretStr in _types_in(field.annotation))


def _types_in(annotation: Any) -> set[Any]:
    found = {annotation}
    for part in get_args(annotation):
        found |= _types_in(part)
    return found


def _secrets_of(section: Section) -> dict[str, SecretStr]:
    return {name: value for name, value in section if isinstance(value, SecretStr)}


def _misplaced_secrets(layers: Sequence[Layer]) -> list[BadConfig]:
    found = []
    for layer in layers:
        values = {} if layer.may_hold_secrets else config_files.flatten(layer.values)
        for key in sorted(secret_keys() & values.keys()):
            file = config_files.SECRET_PREFIX + key.replace(".", "__")
            if values[key] is not None:
                found.append(
                    BadConfig(
                        key,
                        f"is a secret and was found in {layer.origin(key)}",
                        f"Put it into the secret file {file} or the variable {file.upper()}",
                    )
                )
    return found


def _other_environment(
    env: str, layers: Sequence[Layer], environ: Mapping[str, str]
) -> list[BadConfig]:
    said = {layer.name: layer.values.get("env", env) for layer in layers}
    said["ARB_ENV"] = environ.get("ARB_ENV", env)
    return [
        BadConfig("env", f"{name} says {value!r}, but {env!r} was asked for", f"Write {env}")
        for name, value in said.items()
        if value != env
    ]
