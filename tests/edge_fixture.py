"""A real edge process with the shipped model, started once for a whole test run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.edge.model_files import SHIPPED_MODEL
from gateway.edge.protocol import VERSION, FrameReader, FrameWriter, Hello, Status

WARM_WITHIN_S = 60.0
N_CTX = 4_096


def start_edge(folder: Path, *, n_ctx: int = N_CTX, model: str = SHIPPED_MODEL) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts the process in this folder; it listens on the socket that is returned, soon."""
    socket_path = folder / "edge.sock"
    command = [sys.executable, "-m", "gateway.edge.process", "--socket", str(socket_path), "--state", str(folder)]
    command += ["--parent", str(os.getpid()), "--model", model, "--n-ctx", str(n_ctx)]
    with (folder / "edge.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"GGML_NO_BACKTRACE": "1"}
        )
    return process, socket_path


def wait_until_warm(process: subprocess.Popen[bytes], socket_path: Path) -> Status:
    """The status "warm", as told on a connection of its own. Fails the test when it does not come."""
    deadline = time.monotonic() + WARM_WITHIN_S
    log = (socket_path.parent / "edge.log").read_text
    while time.monotonic() < deadline and process.poll() is None:
        status = _status(socket_path, deadline)
        if status is not None and status.state == "warm":
            return status
        if status is not None and status.state == "failed":
            break
        time.sleep(0.05)
    return pytest.fail(f"the edge did not get warm (exit status {process.poll()}):\n{log()}")


def stop_edge(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _status(socket_path: Path, deadline: float) -> Status | None:
    """The last status that the edge tells until it is warm or failed; None while it does not listen."""
    last = None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            connection.connect(str(socket_path))
            connection.sendall(FrameWriter().encode(Hello(VERSION)))
            reader = FrameReader.at_worker()
            while data := connection.recv(65_536):
                for frame in reader.feed(data):
                    if isinstance(frame, Status):
                        last = frame
                if last is not None and last.state in {"warm", "failed"}:
                    break
        except OSError:
            return last
    return last


@pytest.fixture(scope="session")
def edge_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a warm edge, shared by all tests of the run: restart or stop it and others fail."""
    process, socket_path = start_edge(tmp_path_factory.mktemp("edge"))
    try:
        wait_until_warm(process, socket_path)
        yield socket_path
    finally:
        stop_edge(process)
