"""What happened, counted for Prometheus: one call a finished request, one rendering a scrape.

Labels are names that the policy gives (routes, deployments) or that the code fixes (modes, codes, verdicts), never what
a client sends; each metric holds a bounded number of label sets all the same. What is true at this moment (policy,
store, edge) is no counter: it comes as a `Snapshot` with each scrape.

With several workers, each counts in files of its own that all of them read: whichever worker answers a scrape, answers
for all (prometheus-client's multiprocess mode, switched on by `sharing`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.telemetry.record import AttemptRecord, RequestRecord
from gateway.telemetry.snapshot import Snapshot, SnapshotCollector
from gateway.telemetry.waste import waste

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""Stands for every label value beyond the bound."""

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus-client when it is imported: has to be in a worker's environment when it starts."""
_MOST_LABEL_SETS = 500
_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
_TPOT_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5)
_PHASE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)
PHASES = ("queue", "connect", "prefill", "decode", "whole", "network")
_PHASE_TIMES = attrgetter(*(f"{phase}_s" for phase in PHASES))
_CLASSIFY_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
_E2E_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_HEALTHY = frozenset({"closed", "half_open"})
_NANOUSD_PER_USD = 1_000_000_000

MetricT = TypeVar("MetricT", Counter, Histogram, Gauge)


class _Bound(Generic[MetricT]):
    """A metric with its children bound once per label set, up to a number of them."""

    def __init__(self, metric: MetricT, labels: int, most: int) -> None:
        self._metric: MetricT = metric
        self._rest = (OTHER,) * labels
        self._most = most
        self._children: dict[tuple[str, ...], MetricT] = {}

    def of(self, *values: str) -> MetricT:
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= self._most:
                values = self._rest
            child = self._metric.labels(*values)
            self._children[values] = child
        return child


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, *, most_label_sets: int = _MOST_LABEL_SETS) -> None:
        # `_created` would be a second series for each, which no dashboard reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._most = most_label_sets
        self._folder = os.environ.get(_FOLDER_VARIABLE)
        if self._folder is None:
            ProcessCollector(registry=self._registry)
        self._in_flight = Gauge(
            "firstdraft_requests_in_flight",
            "Requests that are being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._count_requests()
        self._count_answers()
        self._count_attempts()

    def _count_requests(self) -> None:
        self._requests = self._counter("requests", "Requests that are over.", ("route", "mode", "status"))
        self._errors = self._counter("errors", "Requests that ended with an error, by its code.", ("code",))
        self._holds = self._counter("budget_holds", "Reservations: settled, downgraded, refused.", ("route", "outcome"))
        self._jobs = self._counter(
            "jobs", "Answers made for nobody who waited, by kind and outcome.", ("job", "outcome")
        )
        self._warnings = self._counter(
            "budget_warnings", "Requests under a budget that is used up to its `warn_at`.", ("tenant",)
        )
        self._cache = self._counter("cache", "Look-ups in the prompt cache.", ("route", "result"))
        self._verdicts = self._counter("drafts", "Drafts by their verdict.", ("route", "verdict"))
        self._hedges = self._counter(
            "hedges",
            "Requests whose first deployment was late: a second one won, lost, or had no room.",
            ("route", "outcome"),
        )
        self._cascades = self._counter(
            "cascades", "Cascades: the edge's answer stands, or why not.", ("route", "outcome")
        )
        self._scores = self._counter(
            "scores", "Drafts that a larger model read: kept, refined, or why not.", ("route", "outcome")
        )
        self._classify = self._histogram(
            "classify", "What looking for personal data took, by what came of it.", ("result",), _CLASSIFY_BUCKETS
        )
        self._cache_work = self._counter("cache_work", "Look-ups and writes of the cache, by outcome.", ("what",))
        self._no_draft = self._counter("drafts_not_made", "Requests without a draft, by the reason.", ("reason",))

    def _count_answers(self) -> None:
        by = ("route", "deployment")
        self._draft_ttft = self._histogram("draft_ttft", "From arrival to the draft's first token.", by, _TTFT_BUCKETS)
        self._final_ttft = self._histogram("final_ttft", "From arrival to the final's first token.", by, _TTFT_BUCKETS)
        self._tpot = self._histogram("tpot", "Per output token of the final after its first.", by, _TPOT_BUCKETS)
        self._e2e = self._histogram("e2e", "From arrival to the last byte.", by, _E2E_BUCKETS)
        self._tokens = self._counter("tokens", "Tokens: input, cached_input, output, draft.", (*by, "kind"))
        self._cost = self._counter("cost_usd", "What answers cost, in US dollars.", by)

    def _count_attempts(self) -> None:
        self._attempts = self._counter("attempts", "Tries on a deployment.", ("deployment", "outcome"))
        self._phases = self._histogram(
            "attempt_phase",
            "Time of attempts by phase: queue, connect, prefill, decode; whole, where these cannot be told; network.",
            ("deployment", "at", "phase"),
            _PHASE_BUCKETS,
        )
        self._waste = self._counter(
            "tokens_thrown_away", "Tokens of useless drafts, of hedges that lost, of failures.", ("deployment", "why")
        )
        self._health_changes = self._counter(
            "health_changes", "Changes of deployments' health, by the new state.", ("deployment", "state")
        )
        self._unhealthy = _Bound(
            Gauge(
                "firstdraft_deployment_unhealthy",
                "1 while it is better not asked: it fails, is checked and down, or asked for time; of any worker.",
                ("deployment",),
                registry=self._registry,
                multiprocess_mode="livemax",
            ),
            1,
            self._most,
        )

    def health_changed(self, deployment: str, state: str) -> None:
        """A deployment is in another state now: `closed` is the healthy one."""
        self._health_changes.of(deployment, state).inc()
        self._unhealthy.of(deployment).set(state not in _HEALTHY)

    def count_cache(self, what: str) -> None:
        """Something happened in the prompt cache; `what` is one of its counts."""
        self._cache_work.of(what).inc()

    def begin(self) -> None:
        """A request has arrived; `end` is called when it is over."""
        self._in_flight.inc()

    def end(self) -> None:
        """A request that was announced by `begin` is over."""
        self._in_flight.dec()

    def observe(self, record: RequestRecord) -> None:
        """Count one request that is over."""
        route = record.route
        self._requests.of(route, record.mode, f"{record.status // 100}xx").inc()
        if record.error:
            self._errors.of(record.error).inc()
        if record.job:
            self._jobs.of(record.job, record.error or "ok").inc()
        if record.hold:
            self._holds.of(route, record.hold).inc()
        if record.budget_warnings:
            self._warnings.of(record.tenant).inc()
        if record.cache:
            self._cache.of(route, record.cache).inc()
        if record.classified and record.classify_s is not None:
            self._classify.of(record.classified).observe(record.classify_s)
        if record.no_draft:
            self._no_draft.of(record.no_draft).inc()
        if record.attempts:
            self._observe_attempts(record)
        if record.draft or record.cascade:
            self._observe_draft(record)
        if record.deployment:
            self._observe_answer(record)

    def _observe_attempts(self, record: RequestRecord) -> None:
        for attempt in record.attempts:
            self._observe_attempt(attempt, record.draft)
        if record.hedge:
            self._hedges.of(record.route, record.hedge).inc()
        if record.cascade:
            self._cascades.of(record.route, record.cascade).inc()

    def _observe_attempt(self, attempt: AttemptRecord, draft: str) -> None:
        name = attempt.deployment
        self._attempts.of(name, attempt.outcome).inc()
        for phase, seconds in zip(PHASES, _PHASE_TIMES(attempt), strict=True):
            if seconds is not None:
                self._phases.of(name, attempt.at, phase).observe(seconds)
        why, tokens = waste(attempt, draft)
        if tokens:
            self._waste.of(name, why).inc(tokens)

    def _observe_draft(self, record: RequestRecord) -> None:
        if record.cascade:
            self._cascades.of(record.route, record.cascade).inc()
        if record.score:
            self._scores.of(record.route, record.score).inc()
        if not record.draft:
            return
        self._verdicts.of(record.route, record.draft).inc()
        # A promoted draft has become the final: then the final's deployment is the one that drafted.
        drafter = next(
            (attempt.deployment for attempt in record.attempts if attempt.role == "draft"), record.deployment
        )
        if record.draft_ttft_s is not None:
            self._draft_ttft.of(record.route, drafter).observe(record.draft_ttft_s)
        if record.draft_tokens:
            self._tokens.of(record.route, drafter, "draft").inc(record.draft_tokens)

    def _observe_answer(self, record: RequestRecord) -> None:
        by = (record.route, record.deployment)
        if record.final_ttft_s is not None:
            self._final_ttft.of(*by).observe(record.final_ttft_s)
        if record.tpot_s is not None:
            self._tpot.of(*by).observe(record.tpot_s)
        if record.e2e_s is not None:
            self._e2e.of(*by).observe(record.e2e_s)
        if record.input_tokens:
            self._tokens.of(*by, "input").inc(record.input_tokens)
        if record.cached_input_tokens:
            self._tokens.of(*by, "cached_input").inc(record.cached_input_tokens)
        if record.output_tokens:
            self._tokens.of(*by, "output").inc(record.output_tokens)
        if record.cost_nanousd:
            self._cost.of(*by).inc(record.cost_nanousd / _NANOUSD_PER_USD)

    def render(self, snapshot: Snapshot | None = None) -> bytes:
        """Prometheus' text format (`CONTENT_TYPE`). Takes milliseconds, and reads files: not for the event loop."""
        now = CollectorRegistry()
        if snapshot is not None:
            now.register(SnapshotCollector(snapshot))
        if self._folder is None:
            return generate_latest(self._registry) + generate_latest(now)
        MultiProcessCollector(now, path=self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(now)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> _Bound[Counter]:
        metric = Counter(f"firstdraft_{name}", text, labels, registry=self._registry)
        return _Bound(metric, len(labels), self._most)

    def _histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> _Bound[Histogram]:
        metric = Histogram(f"firstdraft_{name}_seconds", text, labels, buckets=buckets, registry=self._registry)
        return _Bound(metric, len(labels), self._most)


@contextlib.contextmanager
def sharing(state: Path) -> Iterator[dict[str, str]]:
    """Have worker processes count together, in a folder under `state` that is empty now and gone afterwards.

    Yields the variables that each worker's environment needs. Called by the process that starts workers.
    """
    folder = state / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield {_FOLDER_VARIABLE: str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def forget_worker(state: Path, pid: int) -> None:
    """Take a worker that has ended out of the gauges; what it counted stays counted."""
    mark_process_dead(pid, path=str(state / "metrics"))  # type: ignore[no-untyped-call]
