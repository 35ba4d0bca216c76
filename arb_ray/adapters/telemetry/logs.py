"""
Logs: one JSON object a line, or a console's lines for a person.

    {"timestamp": "...Z", "level": "info", "logger": "arb_ray.actors.host",
     "event": "trade_opened", "session_id": "...", "actor": "host:000@1f3a",
     "symbol": "BTC", "direction": "long_a_short_b", "notional_usd": 500.0,
     "spread_bps": 52.3, ...}

structlog's loggers and the standard library's end in the same handler, so a library's
warning is a line of the same form.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, TextIO, cast

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor

from arb_ray.adapters.telemetry.events import LIBRARY
from arb_ray.adapters.telemetry.redaction import Redactor

LogFormat = Literal["json", "console"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_context: dict[str, str] = {}
# Not a context variable: an actor's calls, loops and threads each have a context of their own,
# and what is meant here is the process.

BASE_KEYS = ("timestamp", "level", "logger", "event")
"""On every line."""
TRADE_KEYS = ("symbol", "direction", "notional_usd", "spread_bps")
"""On every line about an opportunity, a trade or an order."""
FIRST_KEYS = (*BASE_KEYS, "session_id", "actor", *TRADE_KEYS)
CONSOLE_EVENT_WIDTH = 18
"""Fits almost every event's name, so that what follows stands in a column."""
QUIET_LIBRARIES = ("websockets", "asyncio", "aiohttp", "asyncpg", "redis", "yoyo", "ray")
"""Their news is ours already; only warnings and worse are theirs to tell."""


def configure_logs(
    level: str,
    log_format: LogFormat,
    secrets: Iterable[SecretStr] = (),
    stream: TextIO | None = None,
    context: Mapping[str, str] | None = None,
) -> None:
    """
    Set up this process' logs on ``stream`` (standard error by default).

    ``level`` is debug, info, warning or error. ``secrets`` are kept out of every line.
    ``context`` (session_id, actor) is on every line of the process, a library's too; more
    comes with ``add_context``. Calling it again replaces the set-up.
    """
    _context.clear()
    _context.update(context or {})
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


def add_context(**context: str) -> None:
    """Put ``context`` on every later line of this process, whoever writes it."""
    _context.update(context)


def get_log(name: str, **context: Any) -> structlog.stdlib.BoundLogger:
    """Return a logger; ``context`` (session_id, symbol, venue, actor) is on each of its lines."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name, **context))


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _spread_trade_facts,
        _add_process_context,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _spread_trade_facts(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # They travel in one variable (actors/effect_runner.py), and are fields of the line.
    facts = event.pop("trade_facts", None)
    return {**facts, **event} if facts else event


def _add_process_context(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {**_context, **event}


def _library_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # A library's text is no event name of ours, and the colours in it are for terminals.
    event["message"], event["event"] = _COLOUR.sub("", str(event.get("event", ""))), LIBRARY
    return event


def _order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    first = {key: event[key] for key in FIRST_KEYS if key in event}
    return {**first, **{key: value for key, value in event.items() if key not in first}}


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    if log_format == "console":
        return ConsoleLines(colors=stream.isatty())
    return structlog.processors.JSONRenderer(serializer=_to_json)


class ConsoleLines:
    """
    Lines for a person: local time to the millisecond, and only what differs from line to line.

        16:19:24.104 info     trade_opened       symbol=BTC direction=long_a_short_b ...
    """

    LEFT_OUT = ("session_id", "logger")

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, sort_keys=False, pad_event_to=CONSOLE_EVENT_WIDTH
        )

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> str:
        """Render as a processor of structlog."""
        return self.line(event)

    def line(self, event: Mapping[str, Any]) -> str:
        """Return one event as a line, and a stack trace below it."""
        told = {key: value for key, value in event.items() if key not in self.LEFT_OUT}
        at = datetime.fromisoformat(str(event["timestamp"])).astimezone()
        told["timestamp"] = at.strftime("%H:%M:%S.%f")[:-3]
        return self._render(None, "", told)


def _to_json(event: EventDict, **_: Any) -> str:
    # The redactor left plain data; `default` is the last net, because an actor's line that
    # cannot be written must not end the actor.
    return json.dumps(event, default=str, ensure_ascii=False, separators=(", ", ": "))
