from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from gateway.cli.main import firstdraft


def chunk(delta=None, draft=None, finish=None):
    body = {"model": "large", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}]}
    return f"data: {json.dumps(body if draft is None else {**body, 'draft': draft})}\n\n"


STREAM = [
    chunk({"role": "assistant", "content": ""}),
    chunk(draft={"seq": 0, "text": "Par", "state": "partial", "model": "smollm2"}),
    ": keepalive\n\n",
    chunk(draft={"seq": 1, "text": "is.", "state": "partial", "model": "smollm2"}),
    chunk(draft={"seq": 2, "state": "complete", "model": "smollm2", "confidence": None, "ttft_s": 0.1, "tokens": 2}),
    chunk({"content": "It is Paris"}),
    chunk({"content": " [of course]."}),
    chunk(draft={"seq": 3, "state": "revised", "model": "smollm2", "similarity": 0.5}),
    chunk(finish="stop"),
    "data: [DONE]\n\n",
]
USAGE = {
    "budgets": [
        {"limit": 1000, "unit": "tokens", "per": "day", "feature": None, "left": 900, "resets_in_s": 5},
        {"limit": 20.0, "unit": "usd", "per": "month", "feature": "chat", "left": 19.5, "resets_in_s": 5},
    ],
    "last": {
        "request_id": "r1",
        "deployment": "edge/smollm2",
        "attempts": [
            {"deployment": "cloud/large", "outcome": "backend_unreachable"},
            {"deployment": "edge/smollm2", "outcome": "ok"},
            {"deployment": "cloud/large", "outcome": "backend_unreachable"},
        ],
        "cost_usd": 0.00042,
        "input_tokens": 9,
        "output_tokens": 7,
        "draft_tokens": 2,
    },
}


class _Gateway(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((body, dict(self.headers)))
        self._send(self.server.status, self.server.answer, "text/event-stream")

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        self._send(200, json.dumps(USAGE), "application/json")

    def _send(self, status, body, kind):
        data = body.encode()
        self.send_response(status)
        for name, value in (
            ("content-type", kind),
            ("content-length", str(len(data))),
            ("x-request-id", "r1"),
            ("x-firstdraft-route", "chat"),
            ("x-firstdraft-mode", "draft_refine"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    """A server that answers as a gateway does, with what the test puts in `answer`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    server.seen, server.status, server.answer = [], 200, "".join(STREAM)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(server, *flags, **environ):
    url = f"http://127.0.0.1:{server.server_port}"
    environ = {"COLUMNS": "120", **environ}
    return CliRunner().invoke(firstdraft, ["ask", "Where?", "--url", url, *flags], env=environ)


def test_draft_and_final(gateway):
    """Draft, verdict, final, decision, cost and budgets are shown."""
    done = ask(gateway)
    assert done.exit_code == 0, done.output
    for part in (
        "draft · smollm2 · first token after",
        "Paris.",
        "revised: the final changed parts of it (similarity 0.50)",
        "final · large · first token after",
        "It is Paris [of course].",
        "route chat · mode draft_refine",
        "$0.000420 (9 tokens in, 7 out, 2 drafted)",
        "900 of 1,000 tokens a day",
        "$19.5000 of $20.00 a month for chat",
    ):
        assert part in done.output
    assert gateway.seen[1][0] == "/v1/firstdraft/usage?request=r1"


def test_who_answered_and_who_failed(gateway):
    """An answer of the fallback's is not taken for the model's own, and the last line ends where no terminal is."""
    done = ask(gateway)
    assert "deployment edge/smollm2" in done.output
    assert done.output.count("failed    cloud/large: backend_unreachable") == 1
    assert done.output.endswith("\n")


@pytest.mark.parametrize("key", ["sk-ключ", "two\nlines"])
def test_a_key_that_no_header_can_hold(gateway, key):
    """It is refused by its variable's name, and not shown."""
    done = ask(gateway, FIRSTDRAFT_KEY=key)
    assert done.exit_code == 1
    assert "FIRSTDRAFT_KEY" in done.output
    assert "ключ" not in done.output
    assert "two" not in done.output
    assert not gateway.seen


def test_a_feature_that_is_no_name(gateway):
    """It is refused before anything is asked."""
    assert ask(gateway, "--feature", "фича").exit_code == 2
    assert not gateway.seen


def test_what_is_asked(gateway):
    """The flags become the request, and the key comes from the environment."""
    ask(gateway, "--model", "small", "--draft", "off", "--max-tokens", "5", "--feature", "f", FIRSTDRAFT_KEY="fd-k")
    body, headers = gateway.seen[0]
    assert body == {
        "model": "small",
        "messages": [{"role": "user", "content": "Where?"}],
        "max_tokens": 5,
        "stream": True,
        "draft": "off",
    }
    assert headers["authorization"] == "Bearer fd-k"
    assert headers["x-firstdraft-feature"] == "f"


def test_draft_as_reasoning(gateway):
    """A draft that comes as reasoning is shown as a draft."""
    gateway.answer = chunk({"reasoning_content": "Paris?"}) + chunk({"content": "Paris!"}, finish="stop")
    done = ask(gateway, "--draft", "reasoning")
    assert "draft · edge" in done.output
    assert "Paris?" in done.output
    assert "Paris!" in done.output


def test_refused(gateway):
    """An error's code and message are shown; exit status 1."""
    gateway.status, gateway.answer = 401, json.dumps({"error": {"message": "No key.", "code": "invalid_api_key"}})
    done = ask(gateway)
    assert done.exit_code == 1
    assert "401 invalid_api_key: No key." in done.output


def test_error_inside_the_stream(gateway):
    """An error after the first token is shown beside what had come; exit status 1."""
    gateway.answer = STREAM[5] + 'data: {"error": {"message": "The backend was cut off."}}\n\n'
    done = ask(gateway)
    assert done.exit_code == 1
    assert "It is Paris" in done.output
    assert "The backend was cut off." in done.output


@pytest.mark.parametrize("answer", ["data: {\n\n", 'data: {"choices": 7}\n\n', "data: \xff\n\n"])
def test_something_else_answers(gateway, answer):
    """What is no gateway is reported as such, without a traceback."""
    gateway.answer = answer
    done = ask(gateway)
    assert done.exit_code == 1
    assert "no Firstdraft gateway" in done.output


def test_nobody_listens(gateway):
    """Without a gateway the command says how to start one."""
    done = CliRunner().invoke(firstdraft, ["ask", "Where?", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "`firstdraft serve` starts one" in done.output
