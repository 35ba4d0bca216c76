"""
submit, as seen from the desk: the cluster is looked at, a job is sent, its lines are told.

Nothing is changed before the cluster has said that it is the right one. The job itself
(``cluster_job.py``) runs on the head, does the work and ends; the actors trade on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from arb_ray.app.exit_codes import ExitCode
from arb_ray.app.job_lines import Counted, Ended, JobRequest, Said, read_line
from arb_ray.app.person import this_person
from arb_ray.app.progress import Progress
from arb_ray.app.run_request import RunRequest
from arb_ray.app.settings import Settings, load_settings
from arb_ray.domain.errors import BadInput, OutcomeUnknown

HEAD_DASHBOARD = "http://127.0.0.1:8265"
"""Where a head node's own dashboard listens; what the address ``auto`` means."""

ENV_LABEL = "arb-env"
"""The label that every node of an environment's cluster is started with."""

JOB_MARGIN_S = 120.0
"""Beyond the time to become ready: checks, and the processes of the first actors."""

PATIENCE_LINES = 30
"""So many of a failed job's last own lines are shown."""


def submit_to_cluster(request: RunRequest, out: TextIO | None = None) -> int:
    """
    Carry a request out on a running cluster; return the exit code.

    Raises:
        BadInput, BadConfig: The request does not fit a cluster, or this is not its cluster.
        VenueUnreachable: Nobody answers there.
    """
    settings = load_settings(request.env, request.overrides(), wants_secrets=False)
    _refuse_what_needs_one_machine(request, settings)
    address = dashboard_address(settings.ray.address)
    _prepare_ray(settings)
    # Late, because Ray reads its environment when it is imported.
    from arb_ray.actors.jobs import ClusterDoor

    progress = Progress(sys.stderr)
    with progress.step(f"cluster at {address}", "answered"):
        door = ClusterDoor(address)
        nodes = door.nodes()
    check_identity({f"{node.ip}": node.labels for node in nodes}, request.env, address)
    progress.say(f"{len(nodes)} nodes, all of them {request.env}")
    job = job_request(request)
    timeout_s = settings.session.ready_timeout_s + settings.session.stop_timeout_s + JOB_MARGIN_S
    return _follow(door.run(job.entrypoint(), timeout_s), progress, request, out or sys.stdout)


def job_request(request: RunRequest) -> JobRequest:
    """Return what the job must do."""
    overrides = request.overrides()
    # Where the cluster is was for us to know; the job finds itself on it.
    overrides.pop("ray.address", None)
    overrides.pop("session.resume", None)
    return JobRequest(
        env=request.env,
        overrides=overrides,
        actor=this_person(),
        resume=request.resume,
        is_stop=request.stop,
        flatten=request.flatten,
        dry_run=request.dry_run,
    )


def dashboard_address(address: str | None) -> str:
    """
    Return the dashboard's address.

    Raises:
        BadInput: It is another kind of address, such as ``ray://`` or host:6379.
    """
    if address in (None, "auto"):
        return HEAD_DASHBOARD
    assert address is not None
    if not address.startswith(("http://", "https://")):
        raise BadInput(
            "--address",
            f"{address!r} is not the address of a Ray dashboard",
            "Write http://HEAD:8265, or auto on the head itself",
        )
    return address.rstrip("/")


def check_identity(labels: dict[str, dict[str, str]], env: str, address: str) -> None:
    """
    Refuse a cluster of another environment.

    Args:
        labels: The labels of every living node, by the node's address.
        env: What was asked for.
        address: Where the cluster was found.

    Raises:
        BadInput: A node bears another environment's label, or none.
    """
    others = {node: found.get(ENV_LABEL, "") for node, found in labels.items()}
    wrong = {node: said for node, said in others.items() if said != env}
    if not labels:
        raise BadInput(f"cluster {address}", "it has no living node", "Start its nodes first")
    if wrong:
        listed = ", ".join(
            f"{node} says {said or 'nothing'}" for node, said in sorted(wrong.items())[:5]
        )
        raise BadInput(
            f"cluster {address}",
            f"it is not the cluster of {env}: of {len(labels)} nodes, {listed}",
            f"Name the right cluster, or start its nodes with --labels={ENV_LABEL}={env}",
        )


def _refuse_what_needs_one_machine(request: RunRequest, settings: Settings) -> None:
    if settings.source in ("recorded", "replay"):
        raise BadInput(
            "--source",
            f"{settings.source} reads files of one machine and is not for a cluster",
            "Use paper or sim, or --env dev without --address",
        )
    if request.duration_s is not None:
        raise BadInput(
            "--duration",
            "is for a run on one machine; on a cluster the actors trade on after submit ends",
            "Leave it out, and end the run with --stop",
        )


def _prepare_ray(settings: Settings) -> None:
    """Say to Ray how it must authenticate: where it is not told it decides by itself."""
    os.environ["RAY_AUTH_MODE"] = settings.ray.auth_mode
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if settings.ray.auth_mode != "token":
        return
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if not path.is_file():
        raise BadInput(
            "Ray's token",
            f"{path} does not exist, and {settings.env} lets nobody in without",
            "Set RAY_AUTH_TOKEN_PATH to a file that holds the cluster's token",
        )


def _follow(lines: Any, progress: Progress, request: RunRequest, out: TextIO) -> int:
    """Tell the job's lines; return the exit code that it ended with."""
    others: list[str] = []
    for text in lines:
        match read_line(text):
            case Said(text=words):
                progress.say(words)
            case Counted(done=done, total=total, what=what):
                progress.count(done, total, what)
            case Ended() as ended:
                return _tell_end(ended, progress, request, out)
            case None:
                others.append(text)
    _tell_silence(others, progress)
    raise OutcomeUnknown("the job on the head ended without a last word", 0)


def _tell_end(ended: Ended, progress: Progress, request: RunRequest, out: TextIO) -> int:
    if ended.error:
        progress.say(ended.error)
    for error in ended.result.get("errors", ()):
        progress.say(f"  {error}")
    if request.as_json and ended.result:
        out.write(msgspec.json.encode(ended.result).decode() + "\n")
        out.flush()
    return ExitCode(ended.code)


def _tell_silence(others: Sequence[str], progress: Progress) -> None:
    for line in others[-PATIENCE_LINES:]:
        progress.say(f"  {line}")
