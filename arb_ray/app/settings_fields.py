"""
What every section of the settings is made of: a frozen model, bounded numbers, units.

A key's last word is its unit, so that ``UNITS`` can explain every number and a test can
hold the rule. Values live in ``config/*.yaml`` and nowhere else: a field has a type, bounds
and a meaning here, and no default.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

UNITS = {
    "ms": "milliseconds",
    "s": "seconds",
    "h": "hours",
    "days": "days",
    "bps": "basis points",
    "pct": "percent",
    "usdt": "USDT",
    "krw": "KRW",
    "bytes": "bytes",
    "rows": "rows",
    "records": "records",
    "levels": "price levels",
    "count": "count",
    "number": "number",
    "port": "TCP port",
    "ratio": "ratio",
    "fractions": "ratios",
    "seed": "number",
    "niceness": "nice value",
}
"""A key's last word, and what it stands for."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000)]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortOrAny = Annotated[int, Field(ge=0, le=65_535)]
Ms = Annotated[int, Field(gt=0, le=86_400_000)]
MsOrZero = Annotated[int, Field(ge=0, le=86_400_000)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
Bps = Annotated[Decimal, Field(ge=0, le=10_000)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Usdt = Annotated[Decimal, Field(gt=0, le=1_000_000_000)]
Krw = Annotated[Decimal, Field(gt=0, le=1_000_000_000_000)]
Bytes = Annotated[int, Field(gt=0, le=1 << 40)]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$")]


def split_commas(value: object) -> object:
    """Take a list from one text, as environment variables and the command line write it."""
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value


Texts = Annotated[tuple[Text, ...], BeforeValidator(split_commas)]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=4_096)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_enum_values=False
    )


def one_of(*choices: int) -> AfterValidator:
    """Accept these numbers only; unlike a Literal, also when they arrive as text."""

    def check(value: int) -> int:
        if value not in choices:
            wish = ", ".join(str(choice) for choice in choices)
            raise impossible("", f"{value} is not served", f"Write one of {wish}")
        return value

    return AfterValidator(check)


def impossible(key: str, problem: str, mend: str) -> PydanticCustomError:
    """
    Return what a validator raises about a combination of values.

    ``key`` is relative to the section of the validator; ``load_settings`` turns the three
    into ``BadConfig``.
    """
    context: dict[str, Any] = {"key": key, "problem": problem, "mend": mend}
    return PydanticCustomError("impossible", "{problem}", context)
