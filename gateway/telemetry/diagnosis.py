"""Which phase is slow, where, and what to do about it: from the metrics of a gateway, as it gives them. Pure.

The time of an answer is the sum of what its attempts went through: waiting for a place (queue), getting a connection
(connect), until the first token (prefill, in which a round trip of the network is contained), and the rest (decode).
Of an answer that is not streamed only the whole is known. For the edge the edge process measures them. The slow phase
of a deployment is the one that takes most of that time. What the first token took beyond its attempt's own phases is
the gateway's: other attempts before it, budgets, retrieval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.parser import text_string_to_metric_families

Phase = Literal["queue", "connect", "network", "prefill", "decode", "whole"]
Place = Literal["edge", "backend"]
Labels = Mapping[str, str]

PHASES: tuple[Phase, ...] = ("queue", "connect", "network", "prefill", "decode", "whole")
_FEWEST = 5
"""Attempts under which nothing is said of a deployment."""
_SHARE = 0.2
"""What is less than this part of something is not worth a sentence."""
_SLOW_GATEWAY_S = 0.05
_OK = frozenset({"ok", "lost", "cancelled", "paused", "over_budget"})

ADVICE: Mapping[tuple[Place, Phase], str] = {
    ("edge", "queue"): "drafts wait for the draft model: give it more --edge-threads, or shorten drafts "
    "(`draft: {max_tokens}`), or let only features draft that show it",
    ("edge", "prefill"): "the draft model reads long prompts: put what all requests share first, so that its prefix is "
    "kept; take fewer passages (`top_k`); measure formats with `firstdraft edge tune`",
    ("edge", "decode"): "the draft model writes slowly: measure formats with `firstdraft edge tune`, shorten drafts "
    "(`draft: {max_tokens}`), give it more --edge-threads",
    ("backend", "queue"): "requests wait for a place: raise `concurrency` (or `auto`), or add a deployment",
    ("backend", "connect"): "connections are made while requests wait: `warm_connections`, and look at DNS and TLS",
    ("backend", "network"): "the way to the backend is long: a deployment in a region nearer by, first in `models`",
    ("backend", "prefill"): "the backend reads prompts slowly, or lets them wait: `affinity: prefix`, shorter prompts, "
    "`optimize: {latency: 1}` over several deployments, `mode: hedge`, more capacity there",
    (
        "backend",
        "whole",
    ): "these answers are not streamed, so that reading and writing cannot be told apart: stream, "
    "or look at the backend's own figures; a faster deployment first (`optimize: {latency: 1}`)",
    ("backend", "decode"): "the backend writes slowly: a faster deployment first (`optimize: {latency: 1}`), a smaller "
    "`max_output_tokens`, less load on it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a deployment's attempts went through, in seconds."""

    name: str
    place: Place
    attempts: int
    failed: Mapping[str, int]
    """By code."""
    mean_s: Mapping[Phase, float]
    p95_s: Mapping[Phase, float]
    unhealthy: bool = False

    @property
    def answer_s(self) -> float:
        """Of an answer, on average."""
        return sum(seconds for phase, seconds in self.mean_s.items() if phase != "network")

    @property
    def slow(self) -> tuple[Phase, float]:
        """The phase that takes most of it, and its part of the whole, 0..1. The network's part is not the backend's."""
        network_s = self.mean_s.get("network", 0.0)
        spent = {phase: seconds - (network_s if phase == "prefill" else 0.0) for phase, seconds in self.mean_s.items()}
        phase = max(spent, key=spent.__getitem__)
        return phase, spent[phase] / self.answer_s if self.answer_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found; `findings` in the order of their weight."""

    deployments: tuple[Deployment, ...]
    findings: tuple[str, ...] = ()
    first_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """`draft` and `final`: p50 and p95 of the time to their first token."""


class Scrape:
    """One reading of `/metrics`; `since` another one, only what happened between the two."""

    def __init__(self, text: str, since: Scrape | None = None) -> None:
        self._samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                value = sample.value
                if since is not None and family.type in {"counter", "histogram"}:
                    value -= since.sum(sample.name, **sample.labels)
                self._samples.setdefault(sample.name, []).append((sample.labels, value))

    def of(self, name: str, **wanted: str) -> list[tuple[Labels, float]]:
        """The samples of that name that have these labels."""
        return [
            (labels, value)
            for labels, value in self._samples.get(name, [])
            if all(labels.get(key) == one for key, one in wanted.items())
        ]

    def sum(self, name: str, **wanted: str) -> float:
        return sum(value for _, value in self.of(name, **wanted))

    def quantile(self, name: str, share: float, **wanted: str) -> float | None:
        """Of a histogram, read off its buckets: the upper bound of the one that it falls into; None: it is empty."""
        counts: dict[float, float] = {}
        for labels, value in self.of(f"{name}_bucket", **wanted):
            bound = float(labels["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        total = counts.get(float("inf"), 0.0)
        if not total:
            return None
        bounds = sorted(counts)
        finite = [bound for bound in bounds if bound != float("inf")]
        return next((bound for bound in finite if counts[bound] >= share * total), finite[-1])


def diagnose(now: Scrape) -> Diagnosis:
    """Say what is slow, what fails, and what is thrown away."""
    names = sorted({labels["deployment"] for labels, _ in now.of("firstdraft_attempts_total")})
    found = tuple(_deployment(now, name) for name in names)
    busy = [one for one in found if one.attempts >= _FEWEST]
    first_s = {
        kind: (p50, now.quantile(f"firstdraft_{kind}_ttft_seconds", 0.95) or p50)
        for kind in ("draft", "final")
        if (p50 := now.quantile(f"firstdraft_{kind}_ttft_seconds", 0.5)) is not None
    }
    findings = [*_broken(now), *_failing(found), *_slow(busy), *_gateway(now, busy), *_wasted(now)]
    return Diagnosis(deployments=found, findings=tuple(findings), first_s=first_s)


def _deployment(now: Scrape, name: str) -> Deployment:
    outcomes = {labels["outcome"]: int(value) for labels, value in now.of("firstdraft_attempts_total", deployment=name)}
    phases, mean_s, p95_s = "firstdraft_attempt_phase_seconds", dict[Phase, float](), dict[Phase, float]()
    for phase in PHASES:
        count = now.sum(f"{phases}_count", deployment=name, phase=phase)
        if count:
            mean_s[phase] = now.sum(f"{phases}_sum", deployment=name, phase=phase) / count
            p95_s[phase] = now.quantile(phases, 0.95, deployment=name, phase=phase) or 0.0
    is_edge = bool(now.of(f"{phases}_count", deployment=name, at="edge"))
    return Deployment(
        name=name,
        place="edge" if is_edge else "backend",
        attempts=sum(outcomes.values()),
        failed={code: count for code, count in outcomes.items() if code not in _OK and count},
        mean_s=mean_s,
        p95_s=p95_s,
        unhealthy=now.sum("firstdraft_deployment_unhealthy", deployment=name) > 0,
    )


def _broken(now: Scrape) -> Iterable[str]:
    if not now.sum("firstdraft_store_up"):
        yield "The store does not answer: budgets and cache are without it. Look at its process and its address."
    if now.sum("firstdraft_policy_refused"):
        yield "The newest policy was refused, an older one serves: `firstdraft policy status` says why."
    for labels, _ in now.of("firstdraft_edge_info"):
        if labels["state"] not in {"warm", "off"}:
            yield f"The draft model is {labels['state']}: it makes no drafts. `firstdraft status` says why."


def _failing(found: Iterable[Deployment]) -> Iterable[str]:
    for one in found:
        failed = sum(one.failed.values())
        if one.unhealthy:
            yield f"{one.name} fails now, and is asked last: `firstdraft status` says why."
        if failed and failed >= _SHARE * one.attempts:
            code = max(one.failed, key=one.failed.__getitem__)
            yield f"{one.name} failed in {failed} of {one.attempts} attempts, mostly with {code}."


def _slow(busy: Iterable[Deployment]) -> Iterable[str]:
    """The slow phase of each place, where most time was spent."""
    for place in ("backend", "edge"):
        here = [one for one in busy if one.place == place and one.answer_s]
        if not here:
            continue
        worst = max(here, key=lambda one: one.answer_s * one.attempts)
        phase, share = worst.slow
        yield (
            f"Slow phase: {phase} at the {place} ({worst.name}): {share:.0%} of an answer's {_time(worst.answer_s)} "
            f"on average, p95 {_time(worst.p95_s[phase])}. What helps: {ADVICE[place, phase]}."
        )


def _gateway(now: Scrape, busy: Iterable[Deployment]) -> Iterable[str]:
    """What the first token took beyond the phases of the attempt that gave it."""
    for one in busy:
        if one.place == "edge":
            continue
        count = now.sum("firstdraft_final_ttft_seconds_count", deployment=one.name)
        if not count:
            continue
        first_s = now.sum("firstdraft_final_ttft_seconds_sum", deployment=one.name) / count
        own_s = sum(one.mean_s.get(phase, 0.0) for phase in ("queue", "connect", "prefill"))
        beyond_s = first_s - own_s
        if beyond_s > max(_SLOW_GATEWAY_S, _SHARE * first_s):
            yield (
                f"Before {one.name} is asked, {_time(beyond_s)} of a first token's {_time(first_s)} go by in the "
                "gateway: failed attempts before it, a slow store, retrieval, or too little CPU (`--workers`)."
            )


def _wasted(now: Scrape) -> Iterable[str]:
    used = now.sum("firstdraft_tokens_total", kind="input") + now.sum("firstdraft_tokens_total", kind="output")
    for why, advice in (
        ("hedge", "a smaller `extra`, or a later `after`"),
        ("failed", "look at what fails above"),
    ):
        wasted = now.sum("firstdraft_tokens_thrown_away_total", why=why)
        if wasted > _SHARE * used > 0:
            yield f"{wasted:,.0f} tokens were thrown away ({why}), beside {used:,.0f} that were used: {advice}."
    drafts = now.sum("firstdraft_drafts_total")
    dropped = now.sum("firstdraft_drafts_total", verdict="dropped")
    if drafts >= _FEWEST and dropped > drafts / 2:
        yield (
            f"{dropped:,.0f} of {drafts:,.0f} drafts came too late or not at all: shorter drafts, or "
            "`objectives: {final_first_token}`, so that none is begun that cannot be in time."
        )


def _time(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
