"""What a request asks of its budgets before it runs, and what is booked when it is over. Pure: the ledger acts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from gateway.budgets.claim import Beside, Charge, Claim, Hold
from gateway.budgets.claim import worst_case as worst_charge
from gateway.inference.deployment import TOKENS_PER_PRICE, Deployment
from gateway.inference.request import InferenceRequest
from gateway.inference.usage import Usage, input_tokens_bound
from gateway.policy.compiled import TenantPolicy
from gateway.routing.decision import Decision
from gateway.telemetry.record import RequestRecord


def worst_case(
    record: RequestRecord,
    request: InferenceRequest,
    tenant: TenantPolicy,
    deployments: tuple[Deployment, ...],
    beside: Beside | None = None,
) -> Claim:
    """The claim of a request that the first of `deployments` is asked to answer; the others may need more."""
    return Claim(
        id=record.request_id,
        tenant=tenant.tenant.name,
        feature=record.feature,
        key=record.key,
        limits=tenant.limits,
        rate=tenant.rate,
        input_tokens=input_tokens_bound(request, deployments[0].image_tokens),
        output_tokens=_wanted_tokens(request, deployments) * request.n + rejected_most(request),
        min_output_tokens=request.n + rejected_most(request),
        price=deployments[0].price,
        beside=beside,
        fail=tenant.when_store_is_gone,
    )


def draft_beside(request: InferenceRequest, decision: Decision) -> Beside | None:
    """The most that a draft may use which may become the answer, after a larger model was asked too; else None.

    A draft of the edge's that is only shown is never charged; one that is made elsewhere always is.
    """
    draft = decision.draft
    if draft is None or (draft.is_edge and decision.cascade is None and draft not in decision.deployments):
        return None
    most = (
        decision.draft_max_tokens if request.max_tokens is None else min(decision.draft_max_tokens, request.max_tokens)
    )
    claimed = input_tokens_bound(request)
    cost = claimed * draft.price.input_worst_nanousd + most * draft.price.output_worst_nanousd
    return Beside(claimed + most, -(-cost // TOKENS_PER_PRICE))


def rejected_most(request: InferenceRequest) -> int:
    """The most tokens of the client's prediction that may be rejected, and billed beside the answer's."""
    return request.prediction_bytes * request.n


def most_tokens(request: InferenceRequest, tenant: TenantPolicy, hold: Hold | None) -> int | None:
    """The most tokens that a choice of the answer may have: what was granted, where something counts its tokens."""
    is_counted = hold is not None and (hold.is_limited or (tenant.rate is not None and tenant.rate.tokens is not None))
    if hold is None or not is_counted:
        return request.max_tokens
    return (hold.output_tokens - rejected_most(request)) // request.n


class Promises:
    """Deployments that a hold was extended for and that have not begun yet: what is asked meanwhile counts them."""

    def __init__(self, record: RequestRecord) -> None:
        self._record = record
        self._at: dict[str, int] = {}
        """By deployment, how many tries there had been of it."""

    def beside(self, target: Deployment) -> list[str]:
        """Promise `target` its room, and give the ids of the others that were promised theirs."""
        self._at[target.id] = self._tries(target.id)
        return [name for name, tries in self._at.items() if name != target.id and tries == self._tries(name)]

    def kept(self, target: Deployment, is_within: bool) -> bool:  # noqa: FBT001 what the ledger said
        """Take the promise back, where there was no room; gives `is_within`."""
        if not is_within:
            self._at.pop(target.id, None)
        return is_within

    def _tries(self, name: str) -> int:
        return sum(attempt.deployment == name for attempt in self._record.attempts)


def needed(
    record: RequestRecord,
    hold: Hold,
    request: InferenceRequest,
    targets: Mapping[str, Deployment],
    target: Deployment,
    *,
    also: Beside | None = None,
    promised: Sequence[str] = (),
) -> Charge:
    """What a request may come to when `target` is tried as well: what was used, what is running, and its worst case.

    `also` is what the try may use beside its answer, `promised` the ids of deployments that begin at the same time.
    """
    besides = [beside for beside in (hold.claim.beside, also) if beside is not None]
    tokens, nanousd = sum(beside.tokens for beside in besides), sum(beside.nanousd for beside in besides)
    running = [target, *(targets[name] for name in promised if name in targets)]
    for attempt in record.attempts:
        if attempt.role == "draft":
            continue  # in `beside`, if it costs anything
        if attempt.outcome == "running" and attempt.deployment in targets:
            running.append(targets[attempt.deployment])
        else:
            tokens += attempt.input_tokens + attempt.output_tokens
            nanousd += attempt.cost_nanousd
    for deployment in running:
        input_tokens = input_tokens_bound(request, deployment.image_tokens)
        claim = msgspec.structs.replace(hold.claim, price=deployment.price, input_tokens=input_tokens, beside=None)
        worst = worst_charge(claim, hold.output_tokens)
        tokens += worst.tokens
        nanousd += worst.nanousd
    return msgspec.structs.replace(hold.reserved, tokens=tokens, nanousd=nanousd)


def again(claim: Claim, share: float, usage: Usage | None = None) -> Claim:
    """The claim of a request that gets an answer again, for `share` of its tokens; of what it used, where known."""
    input_tokens, output_tokens = claim.input_tokens, claim.output_tokens
    if usage is not None:
        input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    wanted = max(1, math.ceil(output_tokens * share))
    return msgspec.structs.replace(
        claim,
        id=f"{claim.id}-again",
        input_tokens=math.ceil(input_tokens * share),
        output_tokens=wanted,
        min_output_tokens=wanted,  # what is given again is given whole
        beside=None,
    )


def charge(record: RequestRecord, hold: Hold | None) -> None:
    """Add up what the attempts used; a draft of the edge's that was only shown costs nothing."""
    charged = [attempt for attempt in record.attempts if attempt.is_charged]
    record.input_tokens = sum(attempt.input_tokens for attempt in charged)
    record.output_tokens = sum(attempt.output_tokens for attempt in charged)
    record.cached_input_tokens = sum(attempt.cached_input_tokens for attempt in charged)
    record.cost_nanousd = sum(attempt.cost_nanousd for attempt in charged)
    record.estimated = any(attempt.estimated for attempt in charged)
    _book(record, hold)


def charge_again(record: RequestRecord, hold: Hold, share: float, usage: Usage, cost_nanousd: int) -> None:
    """Book `share` of what an answer used and cost when a deployment gave it."""
    record.input_tokens = math.ceil(usage.input_tokens * share)
    record.output_tokens = math.ceil(usage.output_tokens * share)
    record.cached_input_tokens = math.ceil(usage.cached_input_tokens * share)
    record.cost_nanousd = math.ceil(cost_nanousd * share)
    record.estimated = usage.estimated
    _book(record, hold)


def _book(record: RequestRecord, hold: Hold | None) -> None:
    if hold is None:
        return
    usage = Usage(
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cached_input_tokens=record.cached_input_tokens,
        estimated=record.estimated,
    )
    hold.charge(usage, record.cost_nanousd)


def _wanted_tokens(request: InferenceRequest, deployments: tuple[Deployment, ...]) -> int:
    """The most tokens a choice may have: the client's word, else what every backend may give.

    The edge shortens its answer by itself: its small limit must not cut a larger model's answer.
    """
    if request.max_tokens is not None:
        return request.max_tokens
    backends = [deployment for deployment in deployments if not deployment.is_edge] or deployments
    return min(deployment.max_output_tokens for deployment in backends)
