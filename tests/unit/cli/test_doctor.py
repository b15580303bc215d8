"""`firstdraft doctor` finds the metrics, wherever they are, and says what keeps it from them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from gateway.cli.main import firstdraft

METRICS = "firstdraft_info 1.0\nfirstdraft_store_up 1.0\n"


class _Gateway(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != self.server.metrics_at:
            return self.send_error(404)
        if self.server.key and self.headers["authorization"] != f"Bearer {self.server.key}":
            return self.send_error(401)
        self.send_response(200)
        self.end_headers()
        return self.wfile.write(METRICS.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    """A server with metrics at `metrics_at`, for those who bring `key`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    server.metrics_at, server.key = "/metrics", ""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def doctor(server, **environ):
    environ = {"FIRSTDRAFT_URL": f"http://127.0.0.1:{server.server_port}", **environ}
    return CliRunner().invoke(firstdraft, ["doctor"], env=environ)


def test_the_url_of_the_environment(gateway):
    """`FIRSTDRAFT_URL` says where the gateway is, as for all commands."""
    done = doctor(gateway)
    assert done.exit_code == 0, done.output
    assert "Nothing was asked" in done.output


def test_metrics_on_the_admin_surface(gateway):
    """They are found below `/admin`, with the key; without it the command says which one is missing."""
    gateway.metrics_at, gateway.key = "/admin/metrics", "fd-admin"
    assert doctor(gateway, FIRSTDRAFT_KEY="fd-admin").exit_code == 0
    refused = doctor(gateway)
    assert refused.exit_code == 1
    assert "set FIRSTDRAFT_KEY" in refused.output


def test_no_metrics(gateway):
    """Where there are none the command says where they may be."""
    gateway.metrics_at = "/elsewhere"
    done = doctor(gateway)
    assert done.exit_code == 1
    assert "admin surface" in done.output
