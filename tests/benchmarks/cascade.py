"""The cascade with the real edge and the recorded backend: `python -m tests.benchmarks.cascade`.

Starts a recorded backend and a gateway whose edge is not calibrated. The first half of the plain facts is
asked: nothing stands, and the log holds a verdict for each answer. `firstdraft edge calibrate` learns from
these. Then `firstdraft bench cascade` asks the other half, and questions that nobody calibrated for.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.upstream.recorded import DATA

_POLICY = """
backends:
  edge: {{type: edge, model: smollm2-135m-instruct, region: local}}
  recorded: {{type: openai, base_url: "{url}", region: local}}
models:
  large: [{{backend: recorded, model: recorded-gpt-4, price: {{input: 10, output: 30}}, max_output_tokens: 1000}}]
routes:
  - {{name: cascade, when: request.feature == "cascade", mode: cascade, cascade: {{threshold: {threshold}}}}}
  - {{name: reference, mode: cloud_only}}
tenants:
  guest: {{keyless: true}}
"""


@contextlib.contextmanager
def running(*command: str, log: Path) -> Iterator[None]:
    """A process of ours, as long as the context is open."""
    with log.open("ab") as errors:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=errors, stderr=errors)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> str:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def firstdraft(*words: str) -> None:
    """Run a command, its output where ours goes."""
    subprocess.run([sys.executable, "-m", "gateway.cli.main", *words], check=True)


def main() -> None:
    """Calibrate on one half, measure on the other."""
    parser = argparse.ArgumentParser(description="The cascade with the real edge and the recorded backend.")
    parser.add_argument("--threshold", default="0.8")
    parser.add_argument("--limit", default="78", help="plain facts to calibrate with, and as many to measure with")
    parser.add_argument("--others", default="20", help="questions of GSM8K and of MT-bench")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ports = free_port(), free_port()
        url, gateway = f"http://127.0.0.1:{ports[0]}/v1", f"http://127.0.0.1:{ports[1]}"
        pace = ("--ttft", "0.8", "--tokens-per-second", "50")
        stack.enter_context(running("tests.upstream.recorded", "--port", ports[0], *pace, log=folder / "backend.log"))
        (folder / "policy").mkdir()
        (folder / "policy" / "policy.yaml").write_text(_POLICY.format(url=url, threshold=given.threshold))
        serve = ("serve", "--policies", str(folder / "policy"), "--state", str(folder / "state"), "--port", ports[1])
        stack.enter_context(running("gateway.cli.main", *serve, "--log-format", "json", log=folder / "gateway.log"))
        firstdraft("status", "--url", gateway, "--wait", "120")
        facts, maths, talk = (
            str(DATA / file) for file in ("plain_facts.csv", "gsm8k_strong_answers.csv", "mt_bench_questions.jsonl")
        )
        asked = ("bench", "cascade", "--url", gateway, "--max-tokens", "64")
        firstdraft(*asked, facts, "--shots", "4", "--limit", given.limit)
        firstdraft("edge", "calibrate", str(folder / "gateway.log"), "--state", str(folder / "state"))
        firstdraft(*asked, facts, "--shots", "4", "--skip", given.limit, "--limit", given.limit)
        firstdraft(*asked, maths, talk, "--limit", given.others)


if __name__ == "__main__":
    main()
