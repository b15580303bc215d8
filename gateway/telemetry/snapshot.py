"""What is true at the moment of a scrape: the policy, the store, the edge. Taken by the server, rendered here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSnapshot:
    """One edge: `figures` are the process's own by their names, empty where it gives none."""

    model: str
    state: str
    """`starting`, `warm`, `restarting` or `failed`; `off` without one."""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The gateway at one moment."""

    version: str
    """Of Firstdraft."""
    policy: str
    policy_refused: bool
    """The newest state of the policy folder has mistakes; an older one serves."""
    store_up: bool
    jobs_running: int = 0
    """Answers that are made to be fetched later, and pieces of batches that are in hand."""
    edges: Sequence[EdgeSnapshot] = ()
    loads: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """By backend with a limit, in the worker that answers: requests that may be there at once, that are, that wait."""


_MODEL = "model"
_LOADS = {
    "limit": "Requests that one worker sends there at once, at most.",
    "in_flight": "Requests of this worker that are there.",
    "waiting": "Requests of this worker that wait for a place there.",
}
_EDGE_GAUGES = {
    "waiting": ("requests_waiting", "Requests in the edge's queue."),
    "active": ("requests_active", "Requests that the edge decodes now."),
    "cells": ("kv_cells", "Tokens that the edge's KV cache can hold."),
    "cells_used": ("kv_cells_used", "Tokens that it holds, kept prefixes included."),
    "cells_active": ("kv_cells_active", "Of these, tokens of running requests."),
    "kept_prefixes": ("kept_prefixes", "Prompt prefixes kept for reuse."),
    "prefill_rate": ("prefill_tokens_per_second", "Prompt tokens read in a second, recent mean."),
    "rss_bytes": ("resident_memory_bytes", "Memory of the edge process."),
    "model_bytes": ("model_bytes", "Of this, the model's weights."),
    "kv_bytes": ("kv_bytes", "Of this, the KV cache."),
}
_EDGE_COUNTERS = {
    "requests": ("requests", "Requests that came to the edge."),
    "finished": ("requests_finished", "Requests that were answered."),
    "cancelled": ("requests_cancelled", "Requests that were cancelled."),
    "refused": ("requests_refused", "Requests that the edge's admission refused."),
    "preemptions": ("preemptions", "Requests that gave their place up for another."),
    "steps": ("steps", "Steps of decoding, each one batch."),
    "rows": ("step_tokens", "Tokens in all steps; by steps, the mean batch size."),
    "prefix_hits": ("prefix_hits", "Requests that found the beginning of their prompt in the prefix cache."),
    "prompt_tokens": ("prompt_tokens", "Tokens of all prompts."),
    "cached_tokens": ("cached_tokens", "Of these, tokens that the prefix cache had."),
    "prefill_tokens": ("prefill_tokens", "Prompt tokens that were read."),
    "prefill_s": ("prefill_seconds", "Time in which they were read."),
    "decode_tokens": ("decode_tokens", "Tokens that were produced."),
    "decode_s": ("decode_seconds", "Time in which they were produced."),
    "loop_s": ("loop_seconds", "Time beside the model: planning, sampling, text."),
    "queue_s": ("queue_seconds", "Time that requests waited for their turn."),
}


class SnapshotCollector(Collector):
    """Metrics of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        now = self._snapshot
        yield _labelled("firstdraft_info", "Version of Firstdraft.", "version", now.version)
        yield _labelled("firstdraft_policy_info", "Version of the policy that serves.", "version", now.policy)
        yield _gauge("firstdraft_policy_refused", "1 when the newest policy was refused.", now.policy_refused)
        yield _gauge("firstdraft_jobs_running", "Work in hand for which nobody waits.", now.jobs_running)
        yield _gauge("firstdraft_store_up", "1 when the store answers.", now.store_up)
        yield from _edges(now.edges or (EdgeSnapshot(model="", state="off"),))
        for place, (name, text) in enumerate(_LOADS.items() if now.loads else ()):
            family = GaugeMetricFamily(f"firstdraft_backend_{name}", text, labels=["backend"])
            for backend, load in now.loads.items():
                family.add_metric([backend], float(load[place]))
            yield family


def _edges(edges: Sequence[EdgeSnapshot]) -> Iterable[Metric]:
    up = GaugeMetricFamily("firstdraft_edge_up", "1 when the edge can draft.", labels=[_MODEL])
    info = GaugeMetricFamily("firstdraft_edge_info", "State of the edge.", labels=[_MODEL, "state"])
    for edge in edges:
        up.add_metric([edge.model], float(edge.state == "warm"))
        info.add_metric([edge.model, edge.state], 1.0)
    yield from (up, info)
    for kind, figures in ((GaugeMetricFamily, _EDGE_GAUGES), (CounterMetricFamily, _EDGE_COUNTERS)):
        for name, (metric, text) in figures.items():
            family = kind(f"firstdraft_edge_{metric}", text, labels=[_MODEL])
            for edge in edges:
                if name in edge.figures:
                    family.add_metric([edge.model], edge.figures[name])
            if family.samples:
                yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _labelled(name: str, text: str, label: str, value: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    family.add_metric([value], 1.0)
    return family
