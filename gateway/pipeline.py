"""The story of one request, top to bottom.

labels and facts → decision → passages → cache → hold → mode → events back up → settled, cached, recorded. The order is
the product's hardest property (cache before budget, constraint before everything, settled whatever happens), so it
stands here and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import structlog

from gateway.admission import Promises, again, charge, charge_again, draft_beside, most_tokens, needed, worst_case
from gateway.backends.observed import Observed
from gateway.backends.pool import Backends
from gateway.budgets.claim import Beside, Hold
from gateway.budgets.ledger import Ledger
from gateway.budgets.read_on import ends_later
from gateway.cache.control import CacheControl
from gateway.cache.flights import Flights, Stored, Trip
from gateway.cache.prompts import Found, PromptCache
from gateway.classification import labels, language
from gateway.errors import BudgetSpent, RetrievalFailed
from gateway.exchange import Exchange, Repeatable
from gateway.inference.beginning import beginning_of
from gateway.inference.deployment import Deployment
from gateway.inference.events import (
    Delta,
    Emit,
    Event,
    Relayed,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.request import DraftWish
from gateway.inference.usage import Usage, input_tokens_estimate
from gateway.modes import run as modes
from gateway.modes.passing import Passing
from gateway.modes.plan import Plan
from gateway.policy.compiled import CompiledPolicy, Mode, TenantPolicy
from gateway.policy.facts import Facts
from gateway.policy.replay import Recorder
from gateway.retrieval.prompt import Passages, sources_header
from gateway.routing.decide import decide
from gateway.routing.decision import Decision
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.record import RequestRecord
from gateway.wire.context import takes_context

__all__ = ["Exchange", "Pipeline", "Repeatable"]


class Pipeline:
    """Serves requests with what lives as long as the process. One for all requests of a worker."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        cache: PromptCache,
        flights: Flights,
        backends: Backends,
        passages: Passages | None = None,
        finish: Callable[[RequestRecord], None],
        decisions: DecisionLog | None = None,
    ) -> None:
        """`finish` takes the records of answers that no request waits for."""
        self._ledger = ledger
        self._cache = cache
        self._flights = flights
        self._finish = finish
        self._backends = backends
        self._passages = passages
        self._decisions = decisions
        self._recorder: Recorder | None = None
        self._observed = Observed(time.monotonic)

    async def run(self, exchange: Exchange, emit: Emit) -> None:
        """Answer one request; its events go to `emit`.

        Raises:
            FirstdraftError: it could not be answered; what was held is settled all the same.
        """
        decision = self._decide(exchange)
        await self._add_passages(exchange, decision)
        key = self._cache_key(exchange, decision)
        if key is None:
            await self._answer(exchange, decision, emit)
        elif exchange.cache_control.no_cache:
            await self._answer(exchange, decision, emit, key)
        else:
            await self._answer_once(exchange, decision, emit, key)

    async def _add_passages(self, exchange: Exchange, decision: Decision) -> None:
        """Put what the route's store has about the question into the prompt: before the key and the hold."""
        rule, began = decision.retrieval, asyncio.get_running_loop().time()
        if rule is None or self._passages is None or not takes_context(exchange.request):
            if decision.no_retrieval:
                self._say_retrieval(exchange, "denied")
            return
        try:
            exchange.request, state = await self._passages.added_to(
                exchange.request,
                rule,
                store=exchange.policy.stores[rule.store],
                tenant=exchange.identity.tenant.name,
                labels=exchange.record.labels,
            )
        except RetrievalFailed as error:
            structlog.get_logger().warning("retrieval_failed", store=rule.store, reason=error.message)
            self._say_retrieval(exchange, "failed")
            if rule.when_fails == "reject":
                raise
        else:
            self._say_retrieval(exchange, state)
            exchange.record.retrieval_s = asyncio.get_running_loop().time() - began
            if sources := exchange.request.sources:
                exchange.headers["x-firstdraft-sources"] = sources_header(sources)

    @staticmethod
    def _say_retrieval(exchange: Exchange, state: str) -> None:
        exchange.record.retrieval = state
        exchange.headers["x-firstdraft-retrieval"] = state

    async def _answer(self, exchange: Exchange, decision: Decision, emit: Emit, key: str | None = None) -> Stored:
        """Have it answered, within the budgets. With a key, a complete answer is kept: done when the store has it."""
        passage = Passing(exchange.record, emit, self._cache.most_bytes if key is not None else 0)
        async with self._admitted(exchange, decision) as plan:
            await modes.run(plan, passage.pass_on)
        rule = decision.cache
        if key is None or rule is None or not passage.storable(decision):
            return None
        request, cost = exchange.request, exchange.record.cost_nanousd
        return self._cache.put(
            key, passage.events, rule, stream=request.stream, surface=request.surface, cost_nanousd=cost
        )

    def _decide(self, exchange: Exchange) -> Decision:
        record, request = exchange.record, exchange.request
        found = exchange.policy.tenants[exchange.identity.tenant.name].found_in(request)
        record.classified, record.classify_s, record.found = found.result, found.seconds, found.spans
        named = labels.gather(
            tenant=exchange.identity.tenant.labels,
            header=exchange.labels,
            metadata=request.metadata.get("labels", ""),
            found=found.labels,
        )
        record.labels = tuple(sorted(named))
        self._observed.expect(exchange.policy.expected)
        self._backends.health.know(exchange.policy.deployments)
        facts = self._facts(exchange, named)
        decision = decide(exchange.policy, facts)
        self._record(exchange.policy, facts)
        record.route, record.mode = decision.route, decision.mode.value
        record.policy, record.no_draft = decision.policy_version, decision.no_draft
        exchange.draft_wish = decision.draft_wish
        exchange.headers["x-firstdraft-policy"] = decision.policy_version
        if decision.route:
            exchange.headers["x-firstdraft-route"] = decision.route
        if decision.refusal is not None:
            raise decision.refusal
        exchange.headers["x-firstdraft-mode"] = decision.mode.value
        if decision.no_draft and (decision.draft_wish is not DraftWish.OFF or decision.cascade is not None):
            exchange.headers["x-firstdraft-no-draft"] = decision.no_draft
        return decision

    @property
    def observed(self) -> Observed:
        """How fast this worker sees each deployment."""
        return self._observed

    def _record(self, policy: CompiledPolicy, facts: Facts) -> None:
        """Keep the facts of a sample of decisions, so that another policy can be tried on them."""
        log = self._decisions
        if log is not None and log.wants_one():
            if self._recorder is None or self._recorder.policy is not policy:
                self._recorder = Recorder(policy)
            log.add(self._recorder.line(facts, int(time.time())))

    def _facts(self, exchange: Exchange, named: frozenset[str]) -> Facts:
        request, tenant = exchange.request, exchange.identity.tenant
        edge, edges = self._backends.edges.now(exchange.policy.edges)
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
            language=language.language_of(request) if exchange.policy.reads_language else "",
            metadata=request.metadata,
            headers=exchange.believed,
            hour=time.gmtime().tm_hour,
            budget_left=self._ledger.share_left(tenant.name, exchange.feature),
            unhealthy=self._backends.health.unhealthy(),
            edge_ready=edge.ready,
            edge_reason=edge.reason,
            edge_context_tokens=edge.context_tokens,
            edge_wait_s=edge.wait_s,
            edges=edges,
            draft=request.draft,
            predicted=self._observed.predictions(input_tokens_estimate(request)),
            draw=random.random(),  # noqa: S311 - which of two equals is asked is no secret
            prefix=beginning_of(request),
        )

    # --- cache ------------------------------------------------------------------------------------------------

    def _cache_key(self, exchange: Exchange, decision: Decision) -> str | None:
        request, rule = exchange.request, decision.cache
        cacheable = rule is not None and (rule.any_temperature or request.sampling.temperature == 0)
        # With several choices, one that was cut cannot be told from one that is whole.
        if not cacheable or exchange.cache_control.no_store or request.n > 1:
            self._say_cache(exchange, "bypass")
            return None
        self._say_cache(exchange, "miss")
        # Where an answer comes from is in the key with its region and terms, and so are the labels: an answer that was
        # made outside, or under fewer labels, is never found by a request that has to stay inside.
        places = exchange.policy.places
        return self._cache.key(
            request=request,
            tenant="" if rule is not None and rule.shared else exchange.identity.tenant.name,
            deployment_ids=tuple(sorted(places.get(name, name) for name in decision.may_answer())),
            policy_part=" ".join((decision.route, *exchange.record.labels)),
        )

    async def _answer_once(self, exchange: Exchange, decision: Decision, emit: Emit, key: str) -> None:
        """Give the answer that was kept, or the one that is on its way to another request, or fetch it for all."""
        stream, most_s = exchange.request.stream, exchange.cache_control.max_age_s
        trip = Trip(
            key=key,
            stream=stream,
            fly=lambda readers: self._fly(exchange, decision, readers, key),
            accepts=lambda found: most_s is None or found.age_s <= most_s,
            joining=lambda: self._joined(exchange, decision),
        )
        found = self._cache.get_local(key, stream=stream)
        if found is None or not trip.accepts(found):
            found = await self._flights.ride(trip, emit)
        if found is None:
            return
        if found.is_stale:
            renewed = self._renewing(exchange)
            await self._flights.refresh(trip.flown_by(lambda nobody: self._fly(renewed, decision, nobody, key)))
        await self._replay(exchange, decision, found, emit)
        if self._is_repeatable(exchange, decision, found):
            exchange.repeatable = Repeatable(
                exchange=exchange,
                decision=decision,
                key=key,
                found=found,
                decided_at=asyncio.get_running_loop().time(),
            )

    @staticmethod
    def _is_repeatable(exchange: Exchange, decision: Decision, found: Found) -> bool:
        return (
            decision.cache is not None
            and not decision.cache.charge
            and not found.is_stale
            and not exchange.record.retrieval
            and exchange.record.classified != "unclassified"  # the same text may be read in time the next time
            and exchange.cache_control == CacheControl()
            and exchange.draft_wish is DraftWish.OFF
        )

    def holds(self, was: Repeatable) -> bool:
        """Whether the same request under the same policy, at this moment, would be the same hit. Synchronous."""
        if self._cache.get_local(was.key, stream=was.exchange.request.stream) is not was.found or was.found.is_stale:
            return False
        now = asyncio.get_running_loop().time()
        if now - was.decided_at >= _DECIDED_FOR_S:
            exchange = was.exchange
            facts = self._facts(exchange, frozenset(exchange.record.labels))
            decision = decide(exchange.policy, facts)
            self._record(exchange.policy, facts)
            if not was.looks_like(decision):
                return False
            was.decided_at = now
        return True

    async def _replay(self, exchange: Exchange, decision: Decision, found: Found, emit: Emit) -> None:
        self._say_cache(exchange, "stale" if found.is_stale else "hit")
        exchange.headers["age"] = str(int(found.age_s))
        async with self._given_again(exchange, decision, found):
            exchange.record.final_ttft_s = asyncio.get_running_loop().time() - exchange.started
            passage = Passing(exchange.record, emit, 0)
            for event in found.events:
                await passage.pass_on(event)

    async def _fly(self, exchange: Exchange, decision: Decision, readers: Emit, key: str) -> Stored:
        """Fetch an answer for all who read along. It may outlive the request that asked first: it has its own record.

        While that request is there, its record says what the flight's does; once it has gone, the flight reports.
        """
        first, flown = exchange.record, exchange.record.copy()

        async def pass_on(event: Event) -> None:
            if first.deployment != flown.deployment:
                first.take(flown)  # before the headers are sent, which say where the answer comes from
            await readers(event)

        try:
            return await self._answer(replace(exchange, record=flown), decision, pass_on, key)
        finally:
            if first.e2e_s is None:
                first.take(flown)
            else:
                flown.e2e_s = asyncio.get_running_loop().time() - exchange.started
                self._finish(flown)

    @staticmethod
    def _renewing(exchange: Exchange) -> Exchange:
        """The same request once more, for nobody: an answer that was given stale is fetched anew."""
        record = exchange.record.copy()
        record.request_id, record.cache, record.status = f"req-{secrets.token_hex(12)}", "refresh", 200
        record.e2e_s = 0.0  # no request waits for it: the flight reports
        now = asyncio.get_running_loop().time()
        return replace(exchange, record=record, headers={}, started=now, traceparent=None)

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
                tenant = exchange.policy.tenants[exchange.identity.tenant.name]
                beside = draft_beside(exchange.request, decision)
                hold = await self._hold(stack, exchange, deployments, tenant, beside)
            except BudgetSpent:
                exchange.record.hold = "refused"
                if not decision.spent:
                    raise
                deployments, mode = decision.spent, decision.spent_mode
                hold = await self._hold_downgraded(stack, exchange, deployments)
                exchange.record.hold = "downgraded"
                exchange.record.mode = mode.value
                exchange.headers["x-firstdraft-mode"] = mode.value
                exchange.headers["x-firstdraft-budget"] = "downgraded"
            if hold is not None:
                exchange.headers.update(hold.headers)
                exchange.record.budget_warnings = len(hold.warned)
            plan = self._plan(exchange, decision, deployments, mode, hold)
            try:
                yield exchange.admitted(plan)
            finally:
                if ends_later(exchange.record, hold, plan.reading_on, charge=charge, end=self._ledger.end):
                    stack.pop_all()

    async def _hold_downgraded(
        self, stack: AsyncExitStack, exchange: Exchange, deployments: tuple[Deployment, ...]
    ) -> Hold | None:
        """Hold for what the route names for a spent budget.

        The edge's tokens count while there are any left; after that it serves on for nothing, as the route says, but
        never faster than the tenant's rate.
        """
        tenant = exchange.policy.tenants[exchange.identity.tenant.name]
        try:
            return await self._hold(stack, exchange, deployments, tenant)
        except BudgetSpent:
            if not all(deployment.is_edge for deployment in deployments):
                raise
            return await self._hold(stack, exchange, deployments, replace(tenant, limits=()))

    async def _hold(
        self,
        stack: AsyncExitStack,
        exchange: Exchange,
        deployments: tuple[Deployment, ...],
        tenant: TenantPolicy,
        beside: Beside | None = None,
    ) -> Hold | None:
        if not tenant.limits and tenant.rate is None:
            return None
        claim = worst_case(exchange.record, exchange.request, tenant, deployments, beside)
        hold = await stack.enter_async_context(self._ledger.hold(claim))
        exchange.record.held_tokens = claim.input_tokens + hold.output_tokens
        exchange.record.hold = "settled"
        return hold

    @asynccontextmanager
    async def _given_again(self, exchange: Exchange, decision: Decision, found: Found) -> AsyncIterator[None]:
        """Book an answer that is given again, as far as the route says that it costs something."""
        usage = found.entry.usage
        async with self._hold_again(exchange, decision, usage) as hold:
            yield
            if hold is not None and decision.cache is not None:
                charge_again(exchange.record, hold, decision.cache.charge, usage, found.entry.cost_nanousd)

    @asynccontextmanager
    async def _joined(self, exchange: Exchange, decision: Decision) -> AsyncIterator[Callable[[Event], None]]:
        """Book an answer that was fetched for another request; gives what its events are shown to."""
        self._say_cache(exchange, "coalesced")
        used = Usage()

        def look(event: Event) -> None:
            nonlocal used
            if exchange.record.final_ttft_s is None and isinstance(event, Relayed | Delta):
                exchange.record.final_ttft_s = asyncio.get_running_loop().time() - exchange.started
            if isinstance(event, UsageReported | WholeAnswer) and event.usage is not None:
                used = event.usage

        async with self._hold_again(exchange, decision, None) as hold:
            yield look
            if hold is not None and decision.cache is not None:
                price = decision.deployments[0].price
                cost = price.cost_nanousd(
                    input_tokens=used.input_tokens,
                    output_tokens=used.output_tokens,
                    cached_input_tokens=used.cached_input_tokens,
                )
                charge_again(exchange.record, hold, decision.cache.charge, used, cost)

    @asynccontextmanager
    async def _hold_again(
        self, exchange: Exchange, decision: Decision, usage: Usage | None
    ) -> AsyncIterator[Hold | None]:
        share = 0.0 if decision.cache is None else decision.cache.charge
        tenant = exchange.policy.tenants[exchange.identity.tenant.name]
        if not share or (not tenant.limits and tenant.rate is None):
            yield None
            return
        claim = worst_case(exchange.record, exchange.request, tenant, decision.deployments)
        async with self._ledger.hold(again(claim, share, usage)) as hold:
            exchange.headers.update(hold.headers)
            exchange.record.hold = "settled"
            yield hold

    def _plan(
        self,
        exchange: Exchange,
        decision: Decision,
        deployments: tuple[Deployment, ...],
        mode: Mode,
        hold: Hold | None,
    ) -> Plan:
        request, record = exchange.request, exchange.record
        targets, promises = {deployment.id: deployment for deployment in deployments}, Promises(record)

        async def extend_hold(target: Deployment, also: Beside | None = None) -> bool:
            if not hold:
                return True
            charge = needed(record, hold, request, targets, target, also=also, promised=promises.beside(target))
            return promises.kept(target, await self._ledger.extend(hold, charge))

        tenant = exchange.policy.tenants[exchange.identity.tenant.name]
        return Plan(
            request=request,
            mode=mode,
            deployments=deployments,
            draft=decision.draft,
            hedge=decision.hedge if mode is decision.mode else None,
            first_choices=decision.first_choices,
            cascade=decision.cascade,
            refine=decision.refine,
            compares_meaning=decision.compares_meaning,
            draft_max_tokens=decision.draft_max_tokens,
            max_tokens=most_tokens(request, tenant, hold),
            tenant=exchange.identity.tenant.name,
            weight=tenant.weight,
            traceparent=exchange.traceparent,
            backends=self._backends,
            observed=self._observed,
            record=record,
            extend_hold=extend_hold,
            started=exchange.started,
            deadline=asyncio.get_running_loop().time() + max(at.backend.timeouts.total_s for at in deployments),
            draft_within_s=decision.draft_within_s,
            isolated=not tenant.share_prefixes,
            background=exchange.background or record.cache == "refresh",
            headers=exchange.headers,
        )


_DECIDED_FOR_S = 0.05
"""So long a decision is taken for the next identical request's: no fact that it depends on changes faster."""
