#!/usr/bin/env python3
"""
Is the Ray node of this container alive? Exit 0 when it is, 1 with a sentence when it is not.

    ray-node-health           the raylet, asked through its node's agent
    ray-node-health --head    and the head's control store (GCS), asked through the dashboard

Ray answers these two paths without a token.
"""

import http.client
import os
import sys

TIMEOUT_S = 3.0
AGENT_PORT = int(os.environ.get("RAY_NODE_AGENT_PORT", "52365"))
DASHBOARD_PORT = int(os.environ.get("RAY_NODE_DASHBOARD_PORT", "8265"))


def trouble_at(port: int, path: str) -> str:
    """Return what is wrong with an endpoint, or nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(200).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"port {port} does not answer {path}: {error!r}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{path} on port {port}: {answer.status} {text}"


def main(arguments: list[str]) -> int:
    """Ask, tell, and return the exit code."""
    asked = [(AGENT_PORT, "/api/local_raylet_healthz")]
    if arguments == ["--head"]:
        asked.append((DASHBOARD_PORT, "/api/gcs_healthz"))
    elif arguments:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    troubles = [trouble for port, path in asked if (trouble := trouble_at(port, path))]
    sys.stdout.write("\n".join(troubles or ["alive"]) + "\n")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
