"""What another policy would change, for whom: recorded decisions made again under both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.mistakes import suggestion
from gateway.routing.decide import decide
from gateway.routing.decision import Decision


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The same change of as many requests, of one tenant and feature."""

    tenant: str
    feature: str
    model: str
    what: str
    """A field of the decision, such as `route`, `mode` or `deployments`; `refused` or `tenant`."""
    before: str
    after: str
    requests: int
    example: Facts


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All changes, those of most requests first."""

    requests: int
    """Decisions that were compared."""
    changed: int
    """Of these, how many are another under the new policy."""
    changes: tuple[Change, ...]


def compare(old: CompiledPolicy, new: CompiledPolicy, recorded: Iterable[Facts]) -> Comparison:
    """Decide each request under `old` and under `new`. A tenant has in each what that policy gives it."""
    counted: Counter[tuple[str, ...]] = Counter()
    examples: dict[tuple[str, ...], Facts] = {}
    requests = changed = 0
    for facts in recorded:
        requests += 1
        before, after = _outcome(old, facts), _outcome(new, facts)
        changed += before != after
        for what in before:
            if before[what] != after[what]:
                key = (facts.tenant_name, facts.feature, facts.model, what, before[what], after[what])
                counted[key] += 1
                examples.setdefault(key, facts)
    changes = [
        Change(
            tenant=key[0],
            feature=key[1],
            model=key[2],
            what=key[3],
            before=key[4],
            after=key[5],
            requests=number,
            example=examples[key],
        )
        for key, number in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]
    return Comparison(requests=requests, changed=changed, changes=tuple(changes))


def _outcome(policy: CompiledPolicy, facts: Facts) -> dict[str, str]:
    tenant = policy.tenants.get(facts.tenant_name)
    if tenant is None:
        gone = f"there is no tenant {facts.tenant_name}{suggestion(facts.tenant_name, policy.tenants)}"
        return {**dict.fromkeys(_FIELDS, ""), "refused": f"401: {gone}"}
    own = msgspec.structs.replace(facts, tenant_region=tenant.tenant.region, tenant_labels=tenant.tenant.labels)
    return _shown(decide(policy, own))


_FIELDS = (
    "route",
    "mode",
    "deployments",
    "draft",
    "hedge",
    "cascade",
    "refine",
    "spent",
    "retrieval",
    "cache",
    "refused",
)


def _shown(decision: Decision) -> dict[str, str]:
    cache, refusal = decision.cache, decision.refusal
    return {
        "route": decision.route,
        "mode": "" if refusal else decision.mode.value,
        "deployments": ", ".join(deployment.id for deployment in decision.deployments),
        "draft": decision.draft.id if decision.draft else f"none ({decision.no_draft})" * (refusal is None),
        "hedge": "" if decision.hedge is None else msgspec.json.encode(decision.hedge).decode(),
        "cascade": "" if decision.cascade is None else msgspec.json.encode(decision.cascade).decode(),
        "refine": "" if decision.refine is None else msgspec.json.encode(decision.refine).decode(),
        "spent": ", ".join(deployment.id for deployment in decision.spent),
        "retrieval": decision.no_retrieval or ("" if decision.retrieval is None else decision.retrieval.store),
        "cache": "" if cache is None else msgspec.json.encode(cache).decode(),
        "refused": "" if refusal is None else f"{refusal.status}: {refusal.code}",
    }
