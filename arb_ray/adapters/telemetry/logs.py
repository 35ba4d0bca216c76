"""
Logs: one JSON object a line, or a console's lines for a person.

    {"timestamp": "...Z", "level": "info", "logger": "arb_ray.actors.feed",
     "event": "ws_connected", "session_id": "...", "symbol": "BTC", ...}

structlog's loggers and the standard library's end in the same handler, so a library's
warning is a line of the same form.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from typing import Any, Literal, TextIO, cast

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor

from arb_ray.adapters.telemetry.events import LIBRARY
from arb_ray.adapters.telemetry.redaction import Redactor

LogFormat = Literal["json", "console"]

FIRST_KEYS = ("timestamp", "level", "logger", "event", "session_id", "symbol")
QUIET_LIBRARIES = ("websockets", "asyncio", "aiohttp", "asyncpg", "redis", "yoyo", "ray")
"""Their news is ours already; only warnings and worse are theirs to tell."""


def configure_logs(
    level: str,
    log_format: LogFormat,
    secrets: Iterable[SecretStr] = (),
    stream: TextIO | None = None,
) -> None:
    """
    Set up this process' logs on ``stream`` (standard error by default).

    ``level`` is debug, info, warning or error. ``secrets`` are kept out of every line.
    Calling it again replaces the set-up.
    """
    stream = sys.stderr if stream is None else stream
    redact = Redactor(secrets)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_common(), _library_line],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            _order,
            _renderer(log_format, stream),
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "is_arb_ray", False):
            root.removeHandler(old)
    handler.is_arb_ray = True  # type: ignore[attr-defined]  # so that a second call finds it
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a cached logger would keep an earlier set-up
    )


def get_log(name: str, **context: Any) -> structlog.stdlib.BoundLogger:
    """Return a logger; ``context`` (session_id, symbol, venue, actor) is on each of its lines."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name, **context))


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _library_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # A library's text is no event name of ours.
    event["message"], event["event"] = event.get("event", ""), LIBRARY
    return event


def _order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    first = {key: event[key] for key in FIRST_KEYS if key in event}
    return {**first, **{key: value for key, value in event.items() if key not in first}}


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
    return structlog.processors.JSONRenderer(serializer=_to_json)


def _to_json(event: EventDict, **_: Any) -> str:
    # The redactor left plain data; `default` is the last net, because an actor's line that
    # cannot be written must not end the actor.
    return json.dumps(event, default=str, ensure_ascii=False, separators=(", ", ": "))
