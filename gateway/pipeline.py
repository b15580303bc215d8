"""The story of one request, top to bottom.

labels and facts → decision → cache → hold → mode → events back up → settled, cached, recorded. The order is the
product's hardest property (cache before budget, constraint before everything, settled whatever happens), so it stands
here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from gateway.backends.pool import Backends
from gateway.budgets.claim import Claim, Hold
from gateway.budgets.ledger import Ledger
from gateway.cache.control import CacheControl
from gateway.cache.prompts import PromptCache
from gateway.classification import labels
from gateway.edge.client import EdgeClient
from gateway.errors import BudgetSpent
from gateway.inference.deployment import Deployment, Price
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftText,
    Emit,
    Event,
    Finished,
    Idle,
    Relayed,
    TextDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.inference.usage import Usage, input_tokens_bound, input_tokens_estimate
from gateway.modes import run as modes
from gateway.modes.plan import Plan
from gateway.policy.compiled import CompiledPolicy, Mode
from gateway.policy.facts import Facts
from gateway.routing.decide import decide
from gateway.routing.decision import Decision
from gateway.telemetry.record import RequestRecord
from gateway.tenants.tenant import Identity

_STORABLE_FINISH = frozenset({"stop", "tool_calls", "function_call"})
"""An answer that was cut by its length may have been cut by a budget: it is not the answer to this prompt."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request on its way through; `headers` are its response headers, whole before the first event."""

    request: InferenceRequest
    identity: Identity
    policy: CompiledPolicy
    record: RequestRecord
    started: float
    """`loop.time()` at arrival, in seconds."""
    feature: str = ""
    labels: str = ""
    """What the client named in `x-firstdraft-labels`."""
    cache_control: CacheControl = field(default_factory=CacheControl)
    traceparent: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    draft_wish: DraftWish = DraftWish.OFF
    """How the draft is shown: the client's wish, else the route's; known once the decision is."""


class Pipeline:
    """Serves requests with what lives as long as the process. One for all requests of a worker."""

    def __init__(self, *, ledger: Ledger, cache: PromptCache, backends: Backends, edge: EdgeClient | None) -> None:
        self._ledger = ledger
        self._cache = cache
        self._backends = backends
        self._edge = edge

    async def run(self, exchange: Exchange, emit: Emit) -> None:
        """Answer one request; its events go to `emit`.

        Raises:
            FirstdraftError: it could not be answered; what was held is settled all the same.
        """
        decision = self._decide(exchange)
        key = self._cache_key(exchange, decision)
        if key is not None and await self._replay(exchange, key, emit):
            return
        passage = _Passage(exchange.record, emit, self._cache.most_bytes if key is not None else 0)
        async with self._admitted(exchange, decision) as plan:
            await modes.run(plan, passage.pass_on)
        if key is not None and decision.cache is not None and passage.storable(decision):
            await self._cache.put(key, passage.events, decision.cache)

    def _decide(self, exchange: Exchange) -> Decision:
        record, request = exchange.record, exchange.request
        named = labels.gather(
            tenant=exchange.identity.tenant.labels,
            header=exchange.labels,
            metadata=request.metadata.get("labels", ""),
        )
        record.labels = tuple(sorted(named))
        decision = decide(exchange.policy, self._facts(exchange, named))
        record.route, record.mode = decision.route, decision.mode.value
        record.policy, record.no_draft = decision.policy_version, decision.no_draft
        exchange.draft_wish = decision.draft_wish
        exchange.headers["x-firstdraft-policy"] = decision.policy_version
        if decision.route:
            exchange.headers["x-firstdraft-route"] = decision.route
        if decision.refusal is not None:
            raise decision.refusal
        exchange.headers["x-firstdraft-mode"] = decision.mode.value
        if decision.no_draft and decision.draft_wish is not DraftWish.OFF:
            exchange.headers["x-firstdraft-no-draft"] = decision.no_draft
        return decision

    def _facts(self, exchange: Exchange, named: frozenset[str]) -> Facts:
        request, tenant = exchange.request, exchange.identity.tenant
        edge = None if self._edge is None else self._edge.status
        return Facts(
            tenant_name=tenant.name,
            tenant_region=tenant.region,
            tenant_labels=tenant.labels,
            feature=exchange.feature,
            model=request.model,
            labels=named,
            prompt_tokens=input_tokens_estimate(request),
            max_tokens=request.max_tokens,
            stream=request.stream,
            tools=request.tools,
            images=request.images > 0,
            audio=request.audio > 0,
            json_output=request.json_output,
            logprobs=request.logprobs,
            n=request.n,
            language="",
            metadata=request.metadata,
            hour=time.gmtime().tm_hour,
            budget_left=self._ledger.share_left(tenant.name),
            unhealthy=frozenset(),
            edge_ready=edge is not None and edge.state == "warm",
            edge_reason="the edge is switched off" if edge is None else edge.reason or edge.state,
            edge_context_tokens=0 if edge is None else edge.n_ctx,
            draft=request.draft,
        )

    # --- cache ------------------------------------------------------------------------------------------------

    def _cache_key(self, exchange: Exchange, decision: Decision) -> str | None:
        request, rule = exchange.request, decision.cache
        cacheable = rule is not None and (rule.any_temperature or request.sampling.temperature == 0)
        if not cacheable or exchange.cache_control.no_store:
            self._say_cache(exchange, "bypass")
            return None
        return self._cache.key(
            request=request,
            tenant="" if rule is not None and rule.shared else exchange.identity.tenant.name,
            deployment_ids=tuple(sorted(deployment.id for deployment in decision.deployments)),
            policy_part=decision.route,
        )

    async def _replay(self, exchange: Exchange, key: str, emit: Emit) -> bool:
        control = exchange.cache_control
        found = None if control.no_cache else await self._cache.get(key)
        if found is None or (control.max_age_s is not None and found[1] > control.max_age_s):
            self._say_cache(exchange, "miss")
            return False
        events, age_s = found
        self._say_cache(exchange, "hit")
        exchange.headers["age"] = str(int(age_s))
        exchange.record.final_ttft_s = asyncio.get_running_loop().time() - exchange.started
        passage = _Passage(exchange.record, emit, 0)
        for event in events:
            await passage.pass_on(event)
        return True

    @staticmethod
    def _say_cache(exchange: Exchange, state: str) -> None:
        exchange.record.cache = state
        exchange.headers["x-firstdraft-cache"] = state

    # --- budget -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _admitted(self, exchange: Exchange, decision: Decision) -> AsyncIterator[Plan]:
        """Hold the worst case, give out the plan that fits in it, and charge what was used, whatever happens."""
        async with AsyncExitStack() as stack:
            deployments, mode, hold = decision.deployments, decision.mode, None
            try:
                hold = await self._hold(stack, exchange, deployments)
            except BudgetSpent:
                exchange.record.hold = "refused"
                if not decision.spent:
                    raise
                deployments, mode = decision.spent, decision.spent_mode
                if not all(deployment.is_edge for deployment in deployments):
                    hold = await self._hold(stack, exchange, deployments)
                exchange.record.hold = "downgraded"
                exchange.record.mode = mode.value
                exchange.headers["x-firstdraft-mode"] = mode.value
                exchange.headers["x-firstdraft-budget"] = "downgraded"
            if hold is not None:
                exchange.headers.update(hold.headers)
            try:
                yield self._plan(exchange, decision, deployments, mode, hold)
            finally:
                _charge(exchange.record, hold)

    async def _hold(
        self, stack: AsyncExitStack, exchange: Exchange, deployments: tuple[Deployment, ...]
    ) -> Hold | None:
        tenant = exchange.policy.tenants[exchange.identity.tenant.name]
        if not tenant.limits and tenant.rate is None:
            return None
        request = exchange.request
        claim = Claim(
            id=exchange.record.request_id,
            tenant=exchange.identity.tenant.name,
            feature=exchange.feature,
            limits=tenant.limits,
            rate=tenant.rate,
            input_tokens=input_tokens_bound(request),
            output_tokens=_wanted_tokens(request, deployments) * request.n,
            min_output_tokens=request.n,
            price=_dearest(deployments),
            fail=tenant.when_store_is_gone,
        )
        hold = await stack.enter_async_context(self._ledger.hold(claim))
        exchange.record.held_tokens = claim.input_tokens + hold.output_tokens
        exchange.record.hold = "settled"
        return hold

    def _plan(
        self,
        exchange: Exchange,
        decision: Decision,
        deployments: tuple[Deployment, ...],
        mode: Mode,
        hold: Hold | None,
    ) -> Plan:
        request = exchange.request
        clamped = hold is not None and exchange.policy.tenants[exchange.identity.tenant.name].limits
        total_s = max(deployment.backend.timeouts.total_s for deployment in deployments)
        return Plan(
            request=request,
            mode=mode,
            deployments=deployments,
            draft=decision.draft,
            draft_max_tokens=decision.draft_max_tokens,
            max_tokens=hold.output_tokens // request.n if hold is not None and clamped else request.max_tokens,
            tenant=exchange.identity.tenant.name,
            traceparent=exchange.traceparent,
            backends=self._backends,
            record=exchange.record,
            started=exchange.started,
            deadline=asyncio.get_running_loop().time() + total_s,
        )


def _wanted_tokens(request: InferenceRequest, deployments: tuple[Deployment, ...]) -> int:
    """The most tokens a choice may have: the client's word, else what every backend may give.

    The edge shortens its answer by itself: its small limit must not cut a larger model's answer.
    """
    if request.max_tokens is not None:
        return request.max_tokens
    backends = [deployment for deployment in deployments if not deployment.is_edge] or deployments
    return min(deployment.max_output_tokens for deployment in backends)


def _dearest(deployments: tuple[Deployment, ...]) -> Price:
    """The worst case over all that may answer, so that a failover never costs more than was held."""
    prices = [deployment.price for deployment in deployments]
    return Price(
        input_nanousd=max(max(price.input_nanousd, price.cached_input_nanousd) for price in prices),
        output_nanousd=max(price.output_nanousd for price in prices),
        cached_input_nanousd=max(price.cached_input_nanousd for price in prices),
    )


def _charge(record: RequestRecord, hold: Hold | None) -> None:
    """Add up what the attempts used; a draft that was only shown costs nothing."""
    finals = [attempt for attempt in record.attempts if attempt.role == "final"]
    record.input_tokens = sum(attempt.input_tokens for attempt in finals)
    record.output_tokens = sum(attempt.output_tokens for attempt in finals)
    record.cached_input_tokens = sum(attempt.cached_input_tokens for attempt in finals)
    record.cost_nanousd = sum(attempt.cost_nanousd for attempt in finals)
    record.estimated = any(attempt.estimated for attempt in finals)
    if hold is not None:
        usage = Usage(
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
            cached_input_tokens=record.cached_input_tokens,
            estimated=record.estimated,
        )
        hold.charge(usage, record.cost_nanousd)


class _Passage:
    """Where all events pass on their way up: notes how the answer ended, and keeps it for the cache."""

    def __init__(self, record: RequestRecord, emit: Emit, most_bytes: int) -> None:
        self.events: list[Event] = []
        self._record = record
        self._emit = emit
        self._bytes_left = most_bytes

    async def pass_on(self, event: Event) -> None:
        match event:
            case Relayed():
                if event.finish_reason is not None:
                    self._record.finish_reason = event.finish_reason
                self._keep(event, len(event.data))
            case TextDelta():
                self._keep(event, len(event.text))
            case Finished():
                self._record.finish_reason = event.reason
                self._keep(event, 1)
            case WholeAnswer():
                self._record.finish_reason = event.finish_reason
                self._keep(event, len(event.body))
            case UsageReported():
                self._keep(event, len(event.data))
            case DraftText() | DraftCompleted() | DraftJudged() | Idle():
                pass
        await self._emit(event)

    def storable(self, decision: Decision) -> bool:
        """The answer is whole, was not too large to keep, and came from where the route wanted it."""
        first_choice = {deployment.id for deployment in decision.deployments[: decision.first_choices]}
        return (
            bool(self.events)
            and self._record.finish_reason in _STORABLE_FINISH
            and self._record.deployment in first_choice
        )

    def _keep(self, event: Event, size: int) -> None:
        if self._bytes_left <= 0:
            return
        self._bytes_left -= size
        if self._bytes_left > 0:
            self.events.append(event)
        else:
            self.events.clear()
