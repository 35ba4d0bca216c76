"""
What an operator can do over HTTP: halt, resume, flatten.

RiskGuard is called by its own name and not through the Supervisor: it is the one that says
yes, so entries stop whoever else is dead. Every request shows the token; its body is bounded
and checked before anybody is asked.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from pydantic import SecretStr

from arb_ray.domain.errors import ArbError, BadInput, OutcomeUnknown
from arb_ray.domain.risk_intent import RiskStatus

VERBS = ("halt", "resume", "flatten")
REASON_NEEDED = frozenset({"halt", "resume"})

BODY_BYTES_MAX = 4_096
REASON_CHARS_MAX = 500
ACTOR_CHARS_MAX = 100
UNNAMED = "unnamed"
DEFAULT_REASON = "asked for by the operator"

_SYMBOL = re.compile(r"[A-Z0-9]{1,20}")

Command = Callable[[str, str, str, str], Awaitable[RiskStatus]]
"""RiskGuard's ``command``: verb, reason, actor, symbol or ""."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON body of an action."""

    reason: str = ""
    actor: str = UNNAMED
    symbol: str | None = None  # of flatten: close this one's trade only


def read_asked(verb: str, body: bytes) -> Asked:
    """Check a body. Raises BadInput, whose place is the field."""
    try:
        asked = msgspec.json.decode(body or b"{}", type=Asked)
    except msgspec.MsgspecError as error:
        mend = 'Send {"reason": "...", "actor": "..."}'
        raise BadInput("body", f"it is not the JSON object that is meant: {error}", mend) from None
    asked = msgspec.structs.replace(asked, reason=asked.reason.strip(), actor=asked.actor.strip())
    _check_text("reason", asked.reason, REASON_CHARS_MAX)
    _check_text("actor", asked.actor, ACTOR_CHARS_MAX)
    if not asked.actor:
        raise BadInput("actor", "it is empty", "Say who asks")
    if not asked.reason and verb in REASON_NEEDED:
        raise BadInput("reason", f"{verb} needs one", "Say why; it is kept with the risk state")
    if asked.symbol is not None:
        if verb != "flatten":
            raise BadInput("symbol", f"{verb} is for all symbols", "Leave it out")
        if not _SYMBOL.fullmatch(asked.symbol):
            raise BadInput("symbol", "it is no symbol", "Write one such as BTC")
    return asked


def _check_text(place: str, text: str, chars_max: int) -> None:
    if len(text) > chars_max:
        problem = f"it has {len(text)} characters, and {chars_max} are allowed"
        raise BadInput(place, problem, "Make it shorter")
    if not text.isprintable():
        raise BadInput(place, "it holds a control character", "Write one line of plain text")


class Actions:
    """The routes of the actions, and who may call them."""

    def __init__(self, command: Command, token: SecretStr | None, log: Any) -> None:
        self._command = command
        self._token = token
        self._log = log

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add ``POST /halt``, ``/resume`` and ``/flatten``."""
        for verb in VERBS:
            router.add_post(f"/{verb}", self._handler(verb))

    def _handler(self, verb: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            refused = self._refusal(verb, request)
            if refused is not None:
                return refused
            # Read in parts and left at the bound, whatever length was announced.
            body = b""
            body = b""
            while len(body) <= BODY_BYTES_MAX and (part := await request.content.readany()):
                body += part
            if len(body) > BODY_BYTES_MAX:
                return _answer(413, f"body: it is larger than {BODY_BYTES_MAX} bytes")
            try:
                asked = read_asked(verb, body)
            except BadInput as error:
                return _answer(400, str(error))
            return await self._do(verb, asked)

        return handle

    def _refusal(self, verb: str, request: web.Request) -> web.Response | None:
        if self._token is None:
            return _answer(
                403,
                f"{verb} is refused: no gateway.token is configured. Put one into the secret file "
                "arb_gateway__token of the head, and start the run again (submit --stop, submit)",
            )
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        wanted = b"Bearer " + self._token.get_secret_value().encode()
        if hmac.compare_digest(shown, wanted):
            return None
        self._log.warning("action_refused", verb=verb, remote=request.remote)
        said = "the token is wrong" if shown else "no token was shown"
        answer = _answer(401, f"{verb} is refused: {said}. Send Authorization: Bearer TOKEN")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    async def _do(self, verb: str, asked: Asked) -> web.Response:
        reason = asked.reason or DEFAULT_REASON
        try:
            status = await self._command(verb, reason, asked.actor, asked.symbol or "")
        except BadInput as error:  # the guard's: it knows which trades are open
            return _answer(409, str(error))
        except OutcomeUnknown as error:
            self._log.error("action_failed", verb=verb, cause=str(error))
            what = f"RiskGuard gave no answer to {verb} ({error.what})"
            return _answer(503, f"{what}: it may have been done; ask status", outcome="unknown")
        except ArbError as error:
            self._log.error("action_failed", verb=verb, cause=str(error))
            return _answer(503, f"{verb} was not done: {error}", outcome="not_done")
        told = {"done": verb, "risk": msgspec.to_builtins(status)}
        return web.json_response(body=msgspec.json.encode(told))


def _answer(code: int, problem: str, *, outcome: str = "not_done") -> web.Response:
    body = {"error": problem, "outcome": outcome}
    return web.json_response(body, status=code)
