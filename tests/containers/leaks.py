"""Where secrets may lie and must not: the image, the containers' description, logs, Ray's state."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from typing import IO

from tests.containers import images
from tests.containers.progress import Failed
from tests.containers.stack import DASHBOARD_URL, Stack

CHUNK_BYTES = 1 << 20
IN_THE_IMAGE = b"org.opencontainers.image.title"
"""A text that the image has: a search that does not find it would find nothing."""


def found_in(stream: Iterable[bytes], needles: dict[str, bytes]) -> set[str]:
    """Return the names of the needles that occur in a stream, across its chunks' borders too."""
    overlap = max(len(needle) for needle in needles.values()) - 1
    found = set()
    tail = b""
    for chunk in stream:
        text = tail + chunk
        found |= {name for name, needle in needles.items() if needle in text}
        tail = text[-overlap:] if overlap else b""
    return found


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what a file holds."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


class LeakSearch:
    """Looks for the stack's secrets and for the builder's pip.conf."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        paths = sorted(stack.secrets_dir.iterdir())
        self.needles = {path.name: path.read_text().strip().encode() for path in paths}
        # The address of nowhere is no secret.
        del self.needles["arb_alert_webhook_url"]

    def in_image(self) -> None:
        """Search every layer, the history and the description of our image. Raises Failed."""
        needles = self.needles | {"pip.conf": images.PIP_MARK.encode(), "": IN_THE_IMAGE}
        engine = self._stack.engine
        with subprocess.Popen(
            [str(engine.program), "save", images.OURS],
            stdout=subprocess.PIPE,
            env=os.environ | engine.environ,
        ) as saving:
            assert saving.stdout is not None
            found = found_in(chunks(saving.stdout), needles)
        if saving.returncode != 0:
            raise Failed("the image could not be read")
        history = engine.docker("history", "--no-trunc", images.OURS)
        described = engine.docker("image", "inspect", images.OURS)
        found |= found_in([history.encode(), described.encode()], needles)
        if "" not in found:
            raise Failed("the search in the image is blind: it misses what is there")
        self._refuse("the image", found - {""})

    def in_containers(self) -> None:
        """Search what the engine tells of each container, and what each has logged."""
        for one in self._stack.containers():
            described = self._stack.engine.docker("inspect", one.id)
            self._refuse(f"docker inspect {one.name}", self._found(described))
            logged = self._stack.engine.docker_both("logs", one.id)
            self._refuse(f"the log of {one.name}", self._found(logged))

    def in_ray(self) -> None:
        """Search Ray's logs on every node, its jobs with their logs, and its actors."""
        for one in self._stack.containers():
            if one.service in ("ray-head", "ray-worker") and one.state == "running":
                self._in_ray_logs(one.id, one.name)
        token = self._stack.secret("ray_auth_token")
        status, jobs = self._stack.get(f"{DASHBOARD_URL}/api/jobs/", token=token)
        if status != 200 or not jobs:
            raise Failed(f"Ray tells nothing of the jobs that ran: {status} {jobs}")
        self._refuse("Ray's jobs", self._found(json.dumps(jobs)))
        for job in jobs:
            path = f"/api/jobs/{job['submission_id']}/logs"
            told = self._stack.get(DASHBOARD_URL + path, token=token)
            self._refuse(f"the log of job {job['submission_id']}", self._found(json.dumps(told)))
        status, actors = self._stack.get(f"{DASHBOARD_URL}/api/v0/actors?detail=1", token=token)
        if status != 200:
            raise Failed(f"Ray tells nothing of its actors: {status}")
        self._refuse("Ray's actors", self._found(json.dumps(actors)))

    def _in_ray_logs(self, container: str, name: str) -> None:
        # The patterns are files inside the container already, so no command line names a secret.
        search = (
            "cd /tmp/ray && grep -rqF raylet . || exit 9; "
            "for secret in /run/secrets/*; do "
            'grep -rlF -f "$secret" . && echo "$secret"; done; true'
        )
        said = self._stack.engine.docker("exec", container, "sh", "-c", search, timeout_s=60)
        if said.strip():
            raise Failed(f"a secret stands in Ray's logs on {name}: {said.strip()[:500]}")

    def _found(self, text: str) -> set[str]:
        return found_in([text.encode()], self.needles)

    @staticmethod
    def _refuse(place: str, found: set[str]) -> None:
        if found:
            raise Failed(f"{place} holds {', '.join(sorted(found))}")
