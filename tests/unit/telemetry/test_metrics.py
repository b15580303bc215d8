from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.edge.protocol import Stats
from gateway.telemetry import snapshot as snapshot_module
from gateway.telemetry.metrics import Metrics, forget_worker, sharing
from gateway.telemetry.record import AttemptRecord, RequestRecord
from gateway.telemetry.snapshot import EdgeSnapshot, Snapshot, SnapshotCollector


def record(**changes):
    facts = {
        "request_id": "r1",
        "route": "chat",
        "mode": "draft_refine",
        "deployment": "gpu/large",
        "status": 200,
        "cache": "miss",
        "hold": "settled",
        "draft": "revised",
        "draft_ttft_s": 0.08,
        "draft_tokens": 20,
        "final_ttft_s": 0.8,
        "tpot_s": 0.02,
        "e2e_s": 3.0,
        "input_tokens": 100,
        "cached_input_tokens": 40,
        "output_tokens": 50,
        "cost_nanousd": 2_500_000,
        "attempts": [
            AttemptRecord(
                deployment="edge/smollm2", at="edge", role="draft", outcome="ok", queue_s=0.01, prefill_s=0.07
            ),
            AttemptRecord(deployment="gpu/large", outcome="ok", connect_s=0.1, prefill_s=0.7, decode_s=2.0),
        ],
    }
    return RequestRecord(**{**facts, **changes})


def samples(body):
    """All samples of a scrape as name{label=value,…} -> number."""
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}"
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def count(metrics, *records):
    for one in records:
        metrics.observe(one)
    return samples(metrics.render())


def test_one_request():
    """Every figure of a finished request is counted under its route and deployment."""
    found = count(Metrics(), record())
    by = "deployment=gpu/large,route=chat"
    expected = {
        "firstdraft_requests_total{mode=draft_refine,route=chat,status=2xx}": 1,
        "firstdraft_requests_in_flight{}": 0,
        "firstdraft_cache_total{result=miss,route=chat}": 1,
        "firstdraft_budget_holds_total{outcome=settled,route=chat}": 1,
        "firstdraft_drafts_total{route=chat,verdict=revised}": 1,
        "firstdraft_draft_ttft_seconds_count{deployment=edge/smollm2,route=chat}": 1,
        "firstdraft_draft_ttft_seconds_bucket{deployment=edge/smollm2,le=0.1,route=chat}": 1,
        "firstdraft_draft_ttft_seconds_bucket{deployment=edge/smollm2,le=0.05,route=chat}": 0,
        f"firstdraft_final_ttft_seconds_sum{{{by}}}": 0.8,
        f"firstdraft_tpot_seconds_sum{{{by}}}": 0.02,
        f"firstdraft_e2e_seconds_sum{{{by}}}": 3.0,
        "firstdraft_tokens_total{deployment=gpu/large,kind=input,route=chat}": 100,
        "firstdraft_tokens_total{deployment=gpu/large,kind=cached_input,route=chat}": 40,
        "firstdraft_tokens_total{deployment=gpu/large,kind=output,route=chat}": 50,
        "firstdraft_tokens_total{deployment=edge/smollm2,kind=draft,route=chat}": 20,
        f"firstdraft_cost_usd_total{{{by}}}": 0.0025,
        "firstdraft_attempts_total{deployment=edge/smollm2,outcome=ok}": 1,
        "firstdraft_attempts_total{deployment=gpu/large,outcome=ok}": 1,
        "firstdraft_attempt_phase_seconds_sum{at=edge,deployment=edge/smollm2,phase=queue}": 0.01,
        "firstdraft_attempt_phase_seconds_sum{at=backend,deployment=gpu/large,phase=connect}": 0.1,
        "firstdraft_attempt_phase_seconds_sum{at=backend,deployment=gpu/large,phase=prefill}": 0.7,
        "firstdraft_attempt_phase_seconds_sum{at=backend,deployment=gpu/large,phase=decode}": 2.0,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_promoted_draft():
    """A draft that became the answer is counted at the deployment that drafted."""
    edge = AttemptRecord(deployment="edge/smollm2", outcome="ok")
    found = count(Metrics(), record(deployment="edge/smollm2", draft="promoted", attempts=[edge]))
    assert found["firstdraft_draft_ttft_seconds_count{deployment=edge/smollm2,route=chat}"] == 1


def test_refused_request():
    """A request that got no answer counts as a request and as an error, and as no answer."""
    refused = RequestRecord(request_id="r", status=401, error="invalid_api_key", e2e_s=0.001)
    found = count(Metrics(), refused)
    assert found["firstdraft_requests_total{mode=,route=,status=4xx}"] == 1
    assert found["firstdraft_errors_total{code=invalid_api_key}"] == 1
    assert not [name for name in found if name.startswith("firstdraft_e2e")]


def test_budget_that_is_nearly_used_up():
    """Requests under a budget that warns are counted by tenant."""
    found = count(Metrics(), record(tenant="acme", budget_warnings=2), record(tenant="acme"))
    assert found["firstdraft_budget_warnings_total{tenant=acme}"] == 1


def test_requests_under_way():
    """A request is in flight from its begin to its end."""
    metrics = Metrics()
    metrics.begin()
    assert samples(metrics.render())["firstdraft_requests_in_flight{}"] == 1
    metrics.end()
    assert samples(metrics.render())["firstdraft_requests_in_flight{}"] == 0


def test_too_many_label_sets():
    """Beyond its bound a metric counts under `other`, and loses nothing."""
    metrics = Metrics(most_label_sets=10)
    found = count(metrics, *(record(route=f"route-{number}") for number in range(100)))
    series = {name: value for name, value in found.items() if name.startswith("firstdraft_requests_total")}
    assert len(series) == 11
    assert sum(series.values()) == 100
    assert series["firstdraft_requests_total{mode=other,route=other,status=other}"] == 90


def test_names_that_need_quoting():
    """A route's name may hold whatever YAML allows."""
    found = count(Metrics(), record(route='a"b\\c\nd'))
    assert found['firstdraft_requests_total{mode=draft_refine,route=a"b\\c\nd,status=2xx}'] == 1


def test_every_figure_of_the_edge_is_shown_or_left_out_knowingly():
    """What the edge counts is in the metrics, but for the number of its own question."""
    figures = dict.fromkeys(Stats.__struct_fields__, 1.0)
    snapshot = Snapshot(
        version="1",
        policy="p",
        policy_refused=False,
        store_up=True,
        edges=[EdgeSnapshot(model="m", state="warm", figures=figures)],
    )
    shown = {*snapshot_module._EDGE_GAUGES, *snapshot_module._EDGE_COUNTERS}
    assert set(figures) - shown == {"id"}
    assert len(list(SnapshotCollector(snapshot).collect())) == 7 + len(shown)


def test_two_in_one_process():
    """Two gateways in one process do not count for each other."""
    one, other = Metrics(), Metrics()
    count(one, record())
    assert "firstdraft_requests_total{mode=draft_refine,route=chat,status=2xx}" not in samples(other.render())


@pytest.mark.parametrize(("state", "up"), [("warm", 1), ("restarting", 0), ("off", 0)])
def test_snapshot(state, up):
    """Policy, store and edge are shown as they are at the scrape."""
    snapshot = Snapshot(
        version="0.1.0",
        policy="abc",
        policy_refused=True,
        store_up=False,
        edges=[
            EdgeSnapshot(model="m", state=state, figures={"waiting": 3, "decode_tokens": 7, "unknown": 1}),
            EdgeSnapshot(model="other", state="failed"),
        ],
    )
    found = samples(Metrics().render(snapshot))
    assert found["firstdraft_policy_info{version=abc}"] == 1
    assert found["firstdraft_policy_refused{}"] == 1
    assert found["firstdraft_store_up{}"] == 0
    assert found["firstdraft_edge_up{model=m}"] == up
    assert found["firstdraft_edge_up{model=other}"] == 0
    assert found[f"firstdraft_edge_info{{model=m,state={state}}}"] == 1
    assert found["firstdraft_edge_requests_waiting{model=m}"] == 3
    assert found["firstdraft_edge_decode_tokens_total{model=m}"] == 7
    assert "firstdraft_edge_requests_waiting{model=other}" not in found


_WORKER = """
import sys
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import RequestRecord
metrics = Metrics()
for _ in range(int(sys.argv[1])):
    done = RequestRecord(request_id="r", route="chat", mode="cloud_only", status=200, deployment="d", e2e_s=1.0)
    metrics.observe(done)
metrics.begin()
print(metrics.render().decode(), flush=True)
sys.stdin.read()
"""


def test_workers_count_together(tmp_path):
    """Whichever worker answers a scrape shows the counts of all, and of the dead, but nothing in flight at the dead."""
    with sharing(tmp_path) as variables:
        environ = {**os.environ, **variables}
        command = [sys.executable, "-c", _WORKER]
        with subprocess.Popen([*command, "2"], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
            first.communicate(timeout=60)
        forget_worker(tmp_path, first.pid)
        second = subprocess.run([*command, "3"], env=environ, input=b"", capture_output=True, check=True, timeout=60)
        found = samples(second.stdout)
        assert found["firstdraft_requests_total{mode=cloud_only,route=chat,status=2xx}"] == 5
        assert found["firstdraft_e2e_seconds_sum{deployment=d,route=chat}"] == 5.0
        assert found["firstdraft_requests_in_flight{}"] == 1
    assert not (tmp_path / "metrics").exists()
