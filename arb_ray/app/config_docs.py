"""
Make the reference pages from what the program knows: settings, log events, metrics.

    python -m arb_ray.app.config_docs          write docs/
    python -m arb_ray.app.config_docs --check  tell whether docs/ is current
"""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from arb_ray.adapters.telemetry.events import EVENTS, TRADE_EVENTS
from arb_ray.adapters.telemetry.metric_registry import REGISTRY
from arb_ray.app import config_files
from arb_ray.app.config_files import flatten
from arb_ray.app.settings import ENVIRONMENTS, Settings, known_keys, secret_keys
from arb_ray.app.settings_fields import UNITS, Section
from arb_ray.engine.topology import Role

MADE = "<!-- Made by `make docs`; do not edit. -->"
UNITS_OF_KEYS = {"strategy.depth_share_max": "ratio"}
"""Keys of the engine whose last word is no unit."""


def unit_of(key: str, field: FieldInfo) -> str:
    """Return the unit that a key's last word names; empty for what is not a number."""
    if not is_number(field):
        return ""
    return UNITS_OF_KEYS.get(key) or UNITS.get(key.rpartition("_")[2].rpartition(".")[2], "")


def is_number(field: FieldInfo) -> bool:
    """Tell whether a setting is a number, or several."""
    return bool(re.search(r"\b(int|float|Decimal)\b", _type_text(field.annotation, exact=True)))


def configuration_page(folder: Path | None = None) -> str:
    """Return docs/CONFIGURATION.md."""
    folder = config_files.config_dir(os.environ) if folder is None else folder
    base = flatten(config_files.read_yaml(folder / "base.yaml"))
    changes = {env: flatten(config_files.read_yaml(folder / f"{env}.yaml")) for env in ENVIRONMENTS}
    lines = [
        "# Configuration",
        "",
        MADE,
        "",
        "Settings are read in layers; the later one wins: `config/base.yaml`, then",
        "`config/dev.yaml`, `staging.yaml` or `prod.yaml`, then secret files, then environment",
        "variables, then the command line. An unknown key or an impossible value ends the start",
        "with a sentence for each, which names the key, where it was written, and what to write.",
        "",
        "- Environment: `risk.daily_loss_usdt` is `ARB_RISK__DAILY_LOSS_USDT`.",
        "- Secret files: `postgres.password` is the file `arb_postgres__password` in",
        "  `/run/secrets`, or in the folder that `ARB_SECRETS_DIR` names. Secrets are refused in",
        "  YAML and on the command line.",
        "- `ARB_CONFIG_DIR` names another folder for the YAML files.",
        "- A key's last word is its unit.",
    ]
    section = None
    for key, field in known_keys():
        head = key.rpartition(".")[0]
        if head != section:
            section = head
            lines += ["", *_heading(head), "", "| key | type | unit | base | differs | meaning |"]
            lines.append("|---|---|---|---|---|---|")
        differs = ", ".join(
            f"{env}: `{_value(values[key])}`" for env, values in changes.items() if key in values
        )
        default = "secret" if key in secret_keys() else f"`{_value(base.get(key))}`"
        cells = (
            f"`{key}`",
            _type_text(field.annotation),
            unit_of(key, field),
            "`--env`" if key == "env" else default,
            differs,
            field.description or "",
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _heading(section: str) -> list[str]:
    if not section:
        return ["## Top level"]
    model: Any = Settings
    for name in section.split("."):
        model = model.model_fields[name].annotation
    assert issubclass(model, Section)
    about = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    return [f"## {section}", "", about]


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(str(part) for part in value)}]"
    return str(value)


def _type_text(annotation: Any, *, exact: bool = False) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(part, exact=exact) for part in arguments)
    if origin is tuple:
        return f"list of {_type_text(arguments[0], exact=exact)}"
    if hasattr(annotation, "__metadata__"):
        return _type_text(arguments[0], exact=exact)
    names: Mapping[Any, str] = {
        str: "text",
        int: "int" if exact else "whole number",
        bool: "true or false",
        SecretStr: "secret text",
        type(None): "null",
    }
    return names.get(annotation) or (annotation.__name__ if exact else "number")


def events_page() -> str:
    """Return docs/EVENTS.md."""
    lines = [
        "# Log events",
        "",
        MADE,
        "",
        "Every log line is a JSON object. On every line:",
        "",
        "| field | meaning |",
        "|---|---|",
        "| `timestamp` | UTC, ISO 8601 with microseconds |",
        "| `level` | `debug`, `info`, `warning`, `error` |",
        "| `logger` | the module that speaks |",
        "| `event` | one of the names below; what else is on the line is the event's own |",
        "| `session_id` | the run's session, from the moment that there is one |",
        "| `actor` | the actor in whose process it was written, or the one that the line tells |",
        "| | of, as the Supervisor's lines do; not in `submit.log` |",
        "",
        "On every line about an opportunity, a trade or an order (marked T below):",
        "",
        "| field | meaning |",
        "|---|---|",
        "| `symbol` | the coin |",
        "| `direction` | `long_a_short_b` buys on Upbit, `long_b_short_a` on Binance |",
        "| `notional_usd` | size of the entry, in USDT at its decision |",
        "| `spread_bps` | gross edge of the opportunity that began the trade |",
        "| `trade_id` | the trade, from the moment that it has its number |",
        "",
        "These two numbers are rounded and stay the same over the life of a trade. Amounts that",
        "are booked (`realized_usdt`, `pnl_fees_usdt`) are exact, as text. A secret is replaced",
        "by `[redacted]`; texts, lists and nesting are bounded. Ray writes marker lines such as",
        "`:actor_name:FeedActor` between ours: leave out every line that does not begin with `{`.",
        "",
        "`arb-ray logs` shows the lines of all processes in the order of time, for a person.",
        "",
        "One name per fact:",
        "",
        "| event | | meaning |",
        "|---|---|---|",
        *(
            f"| `{name}` | {'T' if name in TRADE_EVENTS else ''} | {meaning} |"
            for name, meaning in EVENTS.items()
        ),
    ]
    return "\n".join(lines) + "\n"


METRICS_HEAD = (
    "Declared in `arb_ray/adapters/telemetry/metric_registry.py`, counted in each actor's",
    "process, exported in two ways:",
    "",
    "- **The Gateway's `/metrics`** has every actor's series on one page, under the names below:",
    "  `curl http://127.0.0.1:8790/metrics`, or a scrape job with that target. An actor that does",
    "  not answer is missing from the page and counted in `arb_metrics_unanswered_total`.",
    "- **Ray's export** has them with the prefix `ray_` (`ray_arb_frames_total`), on the metrics",
    "  port of each node, beside Ray's own. Prometheus finds the nodes at the dashboard's",
    "  `/api/prometheus/sd`. Values are up to 12 s old there; a dead actor's gauges go after 20 s,",
    "  its counters stay: `sum without (WorkerId) (rate(...))`. A histogram gets at most 50",
    "  samples every 2 s a series, fairly chosen: quantiles are right, `_count` may be too small.",
    "",
    "Every series has the label `actor`, role and key of who set it (`feed:upbit`, `host:000`,",
    "`risk:main`), besides those in the table: `symbol` (`BTC`), `venue` (`upbit`,",
    "`binance_spot`, `binance_usdm`) and others. A counter starts at 0, for every value of its",
    "labels that is known; a gauge is absent until it was measured. `/status` and the live",
    "terminal show what runs without Prometheus.",
)


def metrics_page() -> str:
    """Return docs/METRICS.md."""
    lines = [
        "# Metrics",
        "",
        MADE,
        "",
        *METRICS_HEAD,
        "",
        "| name | kind | unit | labels | set by | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for spec in REGISTRY.values():
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        roles = [str(role) for role in Role if role in spec.roles]
        setters = "every actor" if len(roles) == len(Role) else ", ".join(roles)
        lines.append(
            f"| `{spec.exported_name}` | {spec.kind} | {spec.unit} | {labels} | {setters} "
            f"| {spec.help} |"
        )
    return "\n".join(lines) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "CONFIGURATION.md": configuration_page,
    "EVENTS.md": events_page,
    "METRICS.md": metrics_page,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` name those that are not current."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    stale = 0
    for name, page in PAGES.items():
        path = docs / name
        text = page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            stale += 1
            sys.stderr.write(f"docs/{name} is not current: run `make docs` and commit it\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
