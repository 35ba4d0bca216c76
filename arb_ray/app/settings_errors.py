"""What pydantic found wrong, told as ``BadConfig``: the key, the problem, what to write."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from arb_ray.app.config_files import ENV_PREFIX, Layer, flatten
from arb_ray.domain.errors import BadConfig

SHOWN_MAX = 60
"""A wrong value is quoted up to this many characters."""


class BadSettings(BadConfig):
    """Several things are wrong at once; ``problems`` holds each, the first is its own key."""

    def __init__(self, problems: tuple[BadConfig, ...]) -> None:
        first = problems[0]
        super().__init__(first.key, first.problem, first.mend)
        self.problems = problems
        self.args = (problems,)  # pickle rebuilds an exception from its args

    def __str__(self) -> str:
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        return f"{len(self.problems)} settings are wrong:\n{lines}"


def problems_in(
    error: ValidationError,
    layers: Sequence[Layer],
    known: Mapping[str, FieldInfo],
    secrets: Collection[str],
) -> list[BadConfig]:
    """Translate every problem that pydantic found, sorted by key."""
    problems = [_problem(detail, layers, known, secrets) for detail in error.errors()]
    return sorted(problems, key=lambda problem: problem.key)


def _problem(
    detail: ErrorDetails,
    layers: Sequence[Layer],
    known: Mapping[str, FieldInfo],
    secrets: Collection[str],
) -> BadConfig:
    key = ".".join(str(part) for part in detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(_variable_key(key, layers), layers, known)
    if kind == "missing":
        return BadConfig(key, "is missing", f"Write it in base.yaml: {_meaning(key, known)}")
    if kind == "impossible":
        key = ".".join(part for part in (key, context["key"]) if part)
        problem = f"{context['problem']}{_origin(key, layers)}"
        return BadConfig(key, problem, context["mend"])
    shown = "the secret" if key in secrets else _shown(detail["input"])
    problem = f"{shown}{_origin(key, layers)} cannot be used"
    return BadConfig(key, problem, _mend(detail, key, layers))


def _unknown(key: str, layers: Sequence[Layer], known: Mapping[str, FieldInfo]) -> BadConfig:
    section, _, _ = key.rpartition(".")
    problem = f"is unknown{_origin(key, layers)}"
    # ARB_RISK_DAILY_LOSS_USDT, with one underscore too few, is near risk.daily_loss_usdt.
    spelled = {name.replace(".", "_"): name for name in known}
    near = difflib.get_close_matches(key.replace(".", "_"), spelled, n=2, cutoff=0.75)
    variable = _variable(key, layers)
    if variable:
        mends = [ENV_PREFIX + spelled[name].replace(".", "__").upper() for name in near]
        mend = f"Did you mean {' or '.join(mends)}?" if mends else "Unset it"
        return BadConfig(variable, "is the variable of no setting", mend)
    if near:
        return BadConfig(key, problem, f"Did you mean {' or '.join(spelled[n] for n in near)}?")
    level = section.count(".") + 1 if section else 0
    beside = sorted(
        {
            name.split(".")[level]
            for name in known
            if name.startswith(f"{section}." if section else "")
        }
    )
    if not beside:
        return BadConfig(key, problem, "Remove it")
    return BadConfig(key, problem, f"Remove it, or write one of {', '.join(beside)}")


def _variable_key(key: str, layers: Sequence[Layer]) -> str:
    """Return the whole key where an unknown section comes from a variable such as ARB_FOO__BAR."""
    for layer in layers:
        for name, origin in layer.origins.items():
            if name.startswith(f"{key}.") and origin.startswith(ENV_PREFIX):
                return name
    return key


def _variable(key: str, layers: Sequence[Layer]) -> str:
    """Return the environment variable that set ``key``, as it was written; empty for others."""
    written = next((layer.origins[key] for layer in layers if key in layer.origins), "")
    return written if written.startswith(ENV_PREFIX) else ""


def _origin(key: str, layers: Sequence[Layer]) -> str:
    for layer in layers:
        keys = flatten(layer.values)
        if any(name == key or name.startswith(f"{key}.") for name in keys):
            return f" (in {layer.origin(key)})"
    return ""


def _meaning(key: str, known: Mapping[str, FieldInfo]) -> str:
    field = known.get(key)
    return (field.description or "a value") if field else "a section"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"


def _mend(detail: ErrorDetails, key: str, layers: Sequence[Layer]) -> str:
    message = detail["msg"].split(", unable")[0].split(", got")[0]
    if detail["type"] == "string_pattern_mismatch":
        wish = f"Write text of the form {detail['ctx']['pattern']}"
    elif detail["type"] in ("model_type", "model_attributes_type"):
        wish = "Write a mapping of keys below it"
    else:
        wish = message
        for begin in ("Input should be ", "Decimal input should be ", "String should "):
            wish = wish.removeprefix(begin)
        comparison = wish.startswith(("greater", "less", "equal", "have"))
        wish = f"Write a value that is {wish}" if comparison else f"Write {wish}"
        wish = wish.replace("that is have", "of which the text must have")
    base = flatten(layers[-1].values).get(key)
    return wish if base is None else f"{wish}; base.yaml has {base}"
