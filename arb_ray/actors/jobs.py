"""
A cluster seen from outside, through its dashboard's HTTP: nodes, versions, jobs.

The client's blocking calls are for a command's thread, never for an actor's event loop.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

import msgspec
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from arb_ray.domain.errors import BadInput, OutcomeUnknown, VenueUnreachable

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray obeys them rather than an address that it is given (RAY.md, "Security")."""

POLL_S = 0.5
ASK_TIMEOUT_S = 15
NODES_MAX = 1_000
AGENT_TIMEOUT_S = 60.0
LOST_TIMEOUT_S = 30.0
"""So long the dashboard may be away while a job is followed."""

NO_AGENT = "No available agent"
"""What the dashboard answers while the head's agent is not up; nothing was run then."""


class NodeFacts(msgspec.Struct, frozen=True):
    """A living node, as the cluster's state API tells it."""

    node_id: str
    ip: str
    is_head: bool
    labels: dict[str, str]


class ClusterDoor:
    """
    The Jobs and state API behind ``http://HEAD:8265``.

    Raises (all methods):
        VenueUnreachable: Nobody answers there.
        BadInput: The cluster wants a token and did not get its own.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        refuse_other_address(address)
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise _no_entry(address, error) from error
        except (ConnectionError, RuntimeError, requests.RequestException) as error:
            raise VenueUnreachable(
                "ray", f"{address} does not answer as a Ray dashboard"
            ) from error

    def nodes(self) -> tuple[NodeFacts, ...]:
        """Return the living nodes, the head first."""
        try:
            found = list_nodes(
                self._address,
                filters=[("state", "=", "ALIVE")],
                limit=NODES_MAX,
                detail=True,
                timeout=ASK_TIMEOUT_S,
                raise_on_missing_output=False,
            )
        except AuthenticationError as error:
            raise _no_entry(self._address, error) from error
        except (RayStateApiException, ConnectionError, requests.RequestException) as error:
            raise VenueUnreachable("ray", f"{self._address} does not list its nodes") from error
        nodes = (
            NodeFacts(one.node_id, one.node_ip, bool(one.is_head_node), dict(one.labels or {}))
            for one in found
        )
        return tuple(sorted(nodes, key=lambda node: (not node.is_head, node.ip, node.node_id)))

    def run(self, entrypoint: str, timeout_s: float) -> Iterator[str]:
        """
        Run a job; yield its lines as they come, until it has ended.

        Raises:
            OutcomeUnknown: It has not ended in time, or can be asked no more; it goes on.
        """
        job_id = self._submit(entrypoint)
        deadline_s = time.monotonic() + timeout_s
        seen, lost_s = 0, 0.0
        while True:
            try:
                status, lines = self._look(job_id)
                lost_s = 0.0
            except OutcomeUnknown:
                # The job goes on, so one answer that does not come ends nothing.
                lost_s = lost_s or time.monotonic()
                if time.monotonic() > min(deadline_s, lost_s + LOST_TIMEOUT_S):
                    raise
                time.sleep(POLL_S)
                continue
            yield from lines[seen:]
            seen = max(seen, len(lines))
            if status.is_terminal():
                return
            if time.monotonic() > deadline_s:
                raise OutcomeUnknown(f"job {job_id} on {self._address}", int(timeout_s * 1e3))
            time.sleep(POLL_S)

    def _submit(self, entrypoint: str) -> str:
        """Send the job under an id of ours, so that a repeat cannot run it twice."""
        submission_id = f"arb-submit-{uuid.uuid4().hex[:12]}"
        give_up_s = time.monotonic() + AGENT_TIMEOUT_S
        while True:
            try:
                return str(
                    self._client.submit_job(entrypoint=entrypoint, submission_id=submission_id)
                )
            except AuthenticationError as error:
                raise _no_entry(self._address, error) from error
            except (ConnectionError, RuntimeError, requests.RequestException) as error:
                # A head that has just started has no agent to run jobs yet, and says so.
                if NO_AGENT not in str(error):
                    raise OutcomeUnknown(f"job on {self._address}: {error}", 0) from error
                if time.monotonic() > give_up_s:
                    problem = f"{self._address} has no agent that runs jobs"
                    raise VenueUnreachable("ray", problem) from error
            time.sleep(POLL_S)

    def _look(self, job_id: str) -> tuple[JobStatus, list[str]]:
        """Return the status, and every whole line so far; the status is taken first."""
        try:
            status = self._client.get_job_status(job_id)
            text = self._client.get_job_logs(job_id)
        except (ConnectionError, RuntimeError, requests.RequestException) as error:
            raise OutcomeUnknown(f"job {job_id} on {self._address}: {error}", 0) from error
        lines = text.splitlines()
        if text and not text.endswith("\n") and not status.is_terminal():
            lines.pop()
        return status, lines


def refuse_other_address(address: str) -> None:
    """Refuse variables that would take Ray to another cluster than ``address``. Raises BadInput."""
    for name in ADDRESS_VARIABLES:
        value = os.environ.get(name, "")
        if value and value.rstrip("/") != address.rstrip("/"):
            raise BadInput(
                name,
                f"it says {value}, which Ray would obey rather than --address {address}",
                f"Unset {name}, or make both say the same",
            )


def _no_entry(address: str, error: Exception) -> BadInput:
    said = str(error).strip().splitlines()
    return BadInput(
        "Ray's token",
        f"{address} does not let us in ({said[0] if said else type(error).__name__})",
        "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file that holds the cluster's token",
    )
