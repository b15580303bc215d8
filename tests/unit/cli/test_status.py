from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from gateway.cli.main import firstdraft

WORKERS = {"vm:1": "abc", "vm:2": "abd"}
READY = {
    "status": "ready",
    "policy": {"ok": True, "version": "abc", "workers": WORKERS},
    "edge": {"ok": True, "state": "warm"},
}
STARTING = {
    "status": "not ready",
    "policy": {"ok": True, "version": "abc"},
    "edge": {"ok": False, "state": "starting", "reason": "the model is being loaded"},
}


class _Readiness(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.server.answers[0] if len(self.server.answers) == 1 else self.server.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    """A server that gives the answers of the test, the last one again and again."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Readiness)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def status(server, *flags):
    return CliRunner().invoke(firstdraft, ["status", "--url", f"http://127.0.0.1:{server.server_port}", *flags])


def test_ready(gateway):
    """A ready gateway gives exit status 0, and a line for each part."""
    gateway.answers = [(200, READY)]
    done = status(gateway)
    assert done.exit_code == 0
    assert "is ready" in done.stdout
    assert "edge     ok · state warm" in done.stdout
    assert "policy   ok · version abc · workers vm:1 abc, vm:2 abd" in done.stdout


def test_not_ready(gateway):
    """A gateway that is not ready gives exit status 1 at once, and the reason."""
    gateway.answers = [(503, STARTING)]
    done = status(gateway)
    assert done.exit_code == 1
    assert "edge     not ok · state starting · reason the model is being loaded" in done.stdout


def test_wait(gateway):
    """With `--wait` it waits until the gateway is ready, and says each reason once."""
    gateway.answers = [(503, STARTING), (503, STARTING), (200, READY)]
    done = status(gateway, "--wait", "30")
    assert done.exit_code == 0
    assert done.stderr == "waiting: edge: the model is being loaded\n"


def test_wait_in_vain(gateway):
    """The wait ends after the time that was given."""
    gateway.answers = [(503, STARTING)]
    assert status(gateway, "--wait", "0.3").exit_code == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'"x"', b"\xff"])
def test_something_else_answers(gateway, body):
    """What is no gateway is never taken for a ready one."""
    gateway.answers = [(200, body)]
    done = status(gateway)
    assert done.exit_code == 1
    assert "no Firstdraft gateway" in done.stdout


def test_nobody_there():
    """A gateway that cannot be reached gives exit status 1."""
    done = CliRunner().invoke(firstdraft, ["status", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "cannot be reached" in done.stdout


@pytest.mark.parametrize("url", ["nonsense", "http://[::1", "ftp://x", "http://", "http://x:port"])
def test_no_url(url):
    """What is no URL is refused before anything is asked."""
    done = CliRunner().invoke(firstdraft, ["status", "--url", url])
    assert done.exit_code == 2
    assert "is no URL such as" in done.stderr


def test_url_as_sdks_have_it(gateway):
    """The URL that SDKs are given, with `/v1`, names the same gateway."""
    gateway.answers = [(200, READY)]
    url = f"http://127.0.0.1:{gateway.server_port}/v1/"
    assert CliRunner().invoke(firstdraft, ["status", "--url", url]).exit_code == 0
