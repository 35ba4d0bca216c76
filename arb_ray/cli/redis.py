"""``arb-ray redis``: what lies in Redis, and what of it has outlived its use."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from arb_ray.app.command_line import Parser, argument, natural
from arb_ray.app.exit_codes import ExitCode
from arb_ray.cli.database import dsn_of, uri_of
from arb_ray.domain.errors import BadInput

if TYPE_CHECKING:
    import redis.asyncio

    from arb_ray.adapters.storage.redis_survey import Survey
    from arb_ray.adapters.storage.redis_upkeep import Cleanup, Moves

EXAMPLES = """\
  arb-ray redis check --env staging
  arb-ray redis cleanup --env staging --dry-run
  arb-ray redis migrate --env staging --report moved.jsonl
  arb-ray redis migrate --env staging --report moved.jsonl --back
exit code 1: `check` found a foreign, malformed, untimed or old key, or
`migrate` a conflict or a malformed key"""

KEYS_MAX = 1_000_000


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``redis``."""
    parser.add_argument("verb", choices=("check", "cleanup", "migrate"))
    parser.add_argument("--env", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument("--url", metavar="URI", help="Redis, instead of the settings of --env")
    parser.add_argument("--dsn", metavar="URI", help="PostgreSQL, which knows what is finished")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--max-keys",
        type=argument(natural),
        default=KEYS_MAX,
        metavar="N",
        help=f"end after so many keys (default {KEYS_MAX:,}); cleanup tells where to go on",
    )
    parser.add_argument(
        "--cursor", type=argument(natural), default=0, metavar="N", help="where cleanup goes on"
    )
    parser.add_argument(
        "--unknown", action="store_true", help="cleanup also what PostgreSQL knows no session of"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="migrate notes each move here before it is made"
    )
    parser.add_argument("--back", action="store_true", help="undo the moves of --report")
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Check, clean up or migrate."""
    if said.verb == "migrate" and said.report is None and (said.back or not said.dry_run):
        raise BadInput("--report", "is missing, and is the way back", "Name a file, or --dry-run")
    words, told, code = asyncio.run(_on_server(said))
    sys.stdout.write(f"{msgspec.json.encode(told).decode() if said.json else words}\n")
    return int(code)


async def _on_server(said: argparse.Namespace) -> tuple[str, Any, ExitCode]:
    from arb_ray.adapters.storage.redis_survey import survey
    from arb_ray.adapters.storage.redis_upkeep import move_back, move_old
    from arb_ray.app.progress import Progress

    progress = Progress(sys.stderr)

    def tell(count: int) -> None:
        if count:
            progress.count(count, count + 1, "keys and on")

    async with _client(said) as client:
        if said.verb == "check":
            seen = await survey(client, said.env, said.max_keys, tell)
            return _survey_words(seen), seen, ExitCode.FOUND if seen.found else ExitCode.CLEAN
        if said.verb == "cleanup":
            cleaned = await _cleanup(said, client, tell)
            return _cleanup_words(cleaned), cleaned, ExitCode.CLEAN
        if said.back:
            moves = await move_back(client, said.env, said.report, dry_run=said.dry_run, told=tell)
        else:
            moves = await move_old(client, said.env, None if said.dry_run else said.report, tell)
        is_clean = not (moves.conflicts or moves.malformed)
        return _move_words(moves), moves, ExitCode.CLEAN if is_clean else ExitCode.FOUND


async def _cleanup(said: argparse.Namespace, client: redis.asyncio.Redis, tell: Any) -> Cleanup:
    from arb_ray.adapters.storage.postgres_pool import Postgres, our_tables
    from arb_ray.adapters.storage.redis_upkeep import clean_finished
    from arb_ray.adapters.storage.session_records import SessionRecords

    postgres = Postgres(dsn_of(said))
    records = SessionRecords(postgres, said.env)

    async def finished_of(session_ids: Sequence[str]) -> tuple[set[str], set[str]]:
        with our_tables():
            return await records.closed_and_known(session_ids)

    try:
        return await clean_finished(
            client,
            said.env,
            finished_of,
            keys_max=said.max_keys,
            cursor=said.cursor,
            with_unknown=said.unknown,
            dry_run=said.dry_run,
            told=tell,
        )
    finally:
        await postgres.close()


@contextlib.asynccontextmanager
async def _client(said: argparse.Namespace) -> AsyncIterator[redis.asyncio.Redis]:
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url_of(said), socket_timeout=5, socket_connect_timeout=5)
    try:
        yield client
    finally:
        await client.aclose()


def url_of(said: argparse.Namespace) -> str:
    """Return Redis' URL: ``--url``, or by the settings of ``--env``. Raises BadInput."""
    if said.url is not None:
        return uri_of("--url", said.url, "Redis URL", ("redis://", "rediss://", "unix://"))
    from arb_ray.app.settings import load_settings
    from arb_ray.app.stores import redis_url

    settings = load_settings(said.env)
    if settings.redis.embedded:
        raise BadInput(
            "--env",
            f"{said.env} embeds its Redis, which a run starts and which takes a free port",
            "Name a running server with --url",
        )
    return redis_url(settings)


def _survey_words(seen: Survey) -> str:
    counts = "  ".join(f"{kind} {count:,}" for kind, count in sorted(seen.counts.items()))
    lines = [f"{seen.keys:,} keys seen: {counts or 'none'}"]
    lines += [f"  {one.kind:10}{one.key}: {one.problem}" for one in seen.findings]
    if seen.found > len(seen.findings):
        lines.append(f"  and {seen.found - len(seen.findings):,} more")
    if not seen.is_complete:
        lines.append("The bound of --max-keys ended it: there are more keys.")
    if seen.warning:
        lines.append(f"Warning: {seen.warning}.")
    if not seen.policy:
        lines.append("The server does not tell its maxmemory-policy (CONFIG is refused).")
    where = "" if seen.is_complete else " in what was seen"
    lines.append(f"{seen.found:,} findings." if seen.found else f"Nothing to object to{where}.")
    return "\n".join(lines)


def _cleanup_words(done: Cleanup) -> str:
    verb = "would be removed" if done.dry_run else "removed"
    lines = [f"  {name}" for name in done.named]
    lines.append(
        f"{done.removed:,} of {done.keys:,} state keys {verb}; kept: {done.kept_open:,} of open "
        f"sessions, {done.kept_unknown:,} of sessions that PostgreSQL does not know, "
        f"{done.kept_malformed:,} malformed."
    )
    if done.cursor:
        lines.append(f"There are more: go on with --cursor {done.cursor}.")
    return "\n".join(lines)


def _move_words(done: Moves) -> str:
    verb = "would be moved" if done.dry_run else "moved"
    lines = [f"  {text}" for text in done.named]
    lines.append(
        f"{done.moved:,} keys {verb}; {done.conflicts:,} conflicts, {done.malformed:,} malformed, "
        f"{done.gone:,} gone meanwhile."
    )
    return "\n".join(lines)
