"""Prometheus and Alertmanager from Debian, with the files of deploy/ and other addresses."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from arb_ray.adapters.storage.process import free_port
from tests.e2e.runs import ROOT

DEPLOY = ROOT / "deploy"
START_TIMEOUT_S = 60.0


def program(name):
    """Return a program's path, or skip the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; `make test-system` as root installs it")
    return path


def alertmanager_config(url):
    """Return deploy/alertmanager's file for a webhook; Debian's 0.25 does not know url_file."""
    text = (DEPLOY / "alertmanager/alertmanager.yml").read_text()
    line = "url_file: /run/secrets/arb_alert_webhook_url"
    assert text.count(line) == 1
    return text.replace(line, f"url: {url}")


def prometheus_config(addresses):
    """Return deploy/prometheus/prometheus.yml with ``addresses`` in the place of its own."""
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    text = text.replace("rules/*.yml", f"{DEPLOY}/prometheus/rules/*.yml")
    for ours, theirs in addresses.items():
        assert text.count(ours) == 1, ours
        text = text.replace(ours, theirs)
    return text


class Prometheus:
    """A Prometheus that runs until the end of the ``with``."""

    def __init__(self, port):
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression):
        """Return the samples of an instant query: (labels, value)."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self._url}/query?{query}", timeout=15) as answer:
            result = json.load(answer)["data"]["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def targets(self):
        """Return the active targets."""
        with urllib.request.urlopen(f"{self._url}/targets", timeout=15) as answer:
            return json.load(answer)["data"]["activeTargets"]


class Webhook:
    """Takes what Alertmanager sends."""

    def __init__(self):
        self.alerts = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.alerts.extend(body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def webhook():
    """A webhook until the end of the ``with``."""
    hook = Webhook()
    try:
        yield hook
    finally:
        hook.close()


@contextlib.contextmanager
def alertmanager(folder, hook_url):
    """An Alertmanager with the configuration of deploy/; gives its address."""
    address = f"127.0.0.1:{free_port()}"
    config = folder / "alertmanager.yml"
    config.write_text(alertmanager_config(hook_url))
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with _running(command, f"http://{address}/-/ready", folder / "alertmanager.log"):
        yield address


@contextlib.contextmanager
def prometheus(folder, addresses):
    """A Prometheus with the configuration of deploy/."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(prometheus_config(addresses))
    command = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=expand-external-labels",
    ]
    log = folder / "prometheus.log"
    with _running(command, f"http://127.0.0.1:{port}/-/ready", log, ARB_ENV="dev"):
        yield Prometheus(port)


@contextlib.contextmanager
def _running(command, ready_url, log, **environment):
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **environment}
        )
    try:
        wait_until(lambda: _answers(ready_url), f"{command[0]}: {log.read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until(is_so, what, timeout_s=START_TIMEOUT_S):
    """Wait for a condition; return what it gave."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := is_so():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")
