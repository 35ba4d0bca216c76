"""What a person asked for on the command line, as data; settings fill in what was not said."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.domain.errors import BadInput

SYMBOLS_FORM = re.compile(r"top:[1-9][0-9]{0,3}|[A-Z0-9]{1,20}(,[A-Z0-9]{1,20})*")
DURATION_FORM = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII
)
DURATION_MAX_S = 31_536_000.0  # a year; the settings refuse more, too


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    One call of ``python -m arb_ray.submit``.

    ``None`` means that nothing was said, so that the settings of ``env`` decide.
    ``duration_s`` counts from the moment when all symbols are live. ``extra`` are the
    dotted keys of ``--set``, still text, as a variable of the environment would be.
    """

    env: str
    source: str | None = None
    recordings: tuple[Path, ...] = ()
    speed_ratio: float | None = None
    preset: str | None = None
    symbols: str | None = None
    leg_b: str | None = None
    duration_s: float | None = None
    seed: int | None = None
    resume: bool | None = None
    address: str | None = None
    record_dir: Path | None = None
    data_dir: Path | None = None
    extra: tuple[tuple[str, str], ...] = ()
    as_json: bool = False
    dry_run: bool = False
    stop: bool = False
    flatten: bool = False

    @property
    def is_for_cluster(self) -> bool:
        """Tell a request for a running cluster from a run on this machine."""
        return self.env != "dev" or self.address is not None

    def overrides(self) -> dict[str, Any]:
        """
        Return the settings that were given, by dotted key, for ``load_settings``.

        Raises:
            BadInput: ``--set`` names a key twice, or one that an option has set already.
        """
        said: dict[str, Any] = {
            "source": self.source,
            "recording.files": [str(file) for file in self.recordings] or None,
            "recording.speed_ratio": self.speed_ratio,
            "sim.preset": self.preset,
            "symbols": self.symbols,
            "leg_b": self.leg_b,
            "session.duration_s": self.duration_s,
            "sim.market_seed": self.seed,
            "session.resume": self.resume,
            "ray.address": self.address,
            "recording.record_dir": None if self.record_dir is None else str(self.record_dir),
            "session.data_dir": None if self.data_dir is None else str(self.data_dir),
        }
        given = {key: value for key, value in said.items() if value is not None}
        for key, value in self.extra:
            if key in given:
                raise BadInput("--set", f"{key} is given twice on this command line", "Say it once")
            given[key] = value
        return given


def parse_duration_s(text: str) -> float:
    """
    Read ``60s``, ``10m``, ``2h`` or ``1h30m`` as seconds.

    Raises:
        BadInput: It is not such a text, is zero, or is longer than a year.
    """
    found = DURATION_FORM.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise BadInput(
            "--duration",
            f"{text!r} is no length of time",
            "Write a number with its unit: 60s, 10m, 2h or 1h30m",
        )
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    duration_s = hours * 3_600 + minutes * 60 + seconds
    if not 0 < duration_s <= DURATION_MAX_S:
        raise BadInput(
            "--duration",
            f"{text!r} is {'nothing' if duration_s == 0 else 'longer than a year'}",
            "Write a shorter time, or leave --duration out to run until Ctrl-C"
            if duration_s
            else "Leave --duration out to run until Ctrl-C",
        )
    return duration_s


def parse_symbols(text: str) -> str:
    """Read ``BTC,ETH`` or ``top:20`` in any case. Raises BadInput."""
    compact = text.replace(" ", "")
    symbols = compact.lower() if compact.lower().startswith("top:") else compact.upper()
    if not SYMBOLS_FORM.fullmatch(symbols):
        raise BadInput(
            "--symbols", f"{text!r} names no symbols", "Write names such as BTC,ETH or top:20"
        )
    names = symbols.split(",")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput("--symbols", f"{twice[0]} stands there twice", "Name each symbol once")
    return symbols


def parse_assignment(text: str) -> tuple[str, str]:
    """Read ``risk.daily_loss_usdt=50`` as key and value. Raises BadInput."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", key.strip()):
        raise BadInput(
            "--set",
            f"{text!r} is no assignment",
            "Write key.path=value, for example risk.daily_loss_usdt=50",
        )
    return key.strip(), value.strip()


def check_files(option: str, files: Iterable[Path]) -> tuple[Path, ...]:
    """Return ``files`` when each of them can be opened. Raises BadInput with the file's name."""
    checked = tuple(files)
    for file in checked:
        if not file.exists():
            problem = "there is no such file"
        elif not file.is_file():
            problem = "is not a file"
        else:
            continue
        raise BadInput(str(file), problem, f"Correct what {option} names")
    return checked


def check_together(request: RunRequest) -> RunRequest:
    """Return ``request`` when its parts fit together. Raises BadInput."""
    source = request.source
    if request.stop and not request.is_for_cluster:
        raise BadInput(
            "--stop", "is for a cluster; a run on one machine ends with Ctrl-C", "Leave it out"
        )
    if request.flatten and not request.stop:
        raise BadInput("--flatten", "needs --stop", "Add it, or use arb-ray flatten")
    if request.recordings and source != "recorded":
        raise BadInput("--recording", "needs --source recorded", "Add it, or name no recording")
    if request.speed_ratio is not None and source != "recorded":
        raise BadInput("--speed", "needs --source recorded", "Add it, or leave --speed out")
    if source == "recorded" and not request.recordings and not _is_set(request, "recording.files"):
        raise BadInput("--source", "recorded needs files to play", "Name them with --recording")
    if request.preset is not None and source not in (None, "sim"):
        raise BadInput(
            "--preset",
            f"is a kind of simulated market, and --source {source} is not simulated",
            "Leave it out, or use --source sim",
        )
    return request


def _is_set(request: RunRequest, key: str) -> bool:
    return any(name == key for name, _ in request.extra)
