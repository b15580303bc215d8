"""The score gate: a larger model reads the draft instead of writing an answer, and may let it stand.

One prefill over prompt and draft gives the log-probability of each of the draft's tokens under the larger model. The
draft is kept when a low quantile of these is at least the route's threshold: nothing in it surprises the larger model.
(Quantiles, because mean and sum are biased by length: Gupta et al., "Language Model Cascades", 2024.)

Reading costs something as well. With P prompt, D draft and O expected answer tokens, prices i (input), c (cached
input, which is what the prompt costs once more right after it was read), o (output), and p the share of drafts that
were kept lately (½ at first):

    refine at once     R  = P·i + O·o
    score first        S  = (P + D)·i + o + (1 − p)·(P·c + O·o)
    it pays            S < R

vLLM computes log-probabilities of a prompt anew, whatever it has in its cache; SGLang reads what stands before the
draft from it: there P costs c in S where the prompt is a conversation's next turn (it has an answer in it). Where
tokens cost nothing, seconds take their place: with t to the first token and u for each further one, as they are
observed, R = t + O·u, S = t + (1 − p)·(t + O·u). Where these are not known either, reading costs a tenth of writing.
"""

from __future__ import annotations

from gateway.backends.call import Call
from gateway.budgets.claim import Beside
from gateway.errors import BackendError, FirstdraftError
from gateway.inference.deployment import TOKENS_PER_PRICE, Deployment
from gateway.inference.usage import believable, input_tokens_bound, input_tokens_charged, input_tokens_estimate
from gateway.modes.draft import Draft
from gateway.modes.plan import Plan
from gateway.telemetry.record import AttemptRecord

READING = 0.1
"""Seconds to read a token over seconds to write one, where nothing is known; prices of providers say the same."""


def scorer_of(plan: Plan) -> Deployment | None:
    """The deployment that would give the final, if it gives scores as well."""
    drafter = "" if plan.draft is None else plan.draft.id
    first = next((found for found in plan.deployments if not found.is_edge and found.id != drafter), None)
    return first if first is not None and first.scoring is not None else None


async def keeps(plan: Plan, draft: Draft) -> bool:
    """Whether the larger model lets this whole draft stand. It never fails: without a score the draft is refined."""
    rule, scorer = plan.refine, scorer_of(plan)
    if rule is None or rule.quantile is None or scorer is None or not draft.is_an_answer:
        return False
    if not pays(plan, scorer, draft.tokens):
        plan.record.score = "no_gain"
        return False
    if not await plan.extend_hold(scorer, _beside(plan, scorer, draft.text)):
        plan.record.score = "over_budget"
        return False
    try:
        logprobs = await _score(plan, scorer, draft.text)
    except FirstdraftError:
        plan.record.score = "failed"
        plan.backends.kept.note(scorer.id, kept=False)  # a server that has no scores is not asked for them for long
        return False
    kept = bool(logprobs) and _quantile(logprobs, rule.quantile) >= rule.least
    plan.record.score = "kept" if kept else "refined"
    plan.backends.kept.note(scorer.id, kept=kept)
    return kept


def pays(plan: Plan, scorer: Deployment, draft_tokens: int) -> bool:
    """Scoring first is expected to cost less than having the larger model answer at once."""
    prompt = input_tokens_estimate(plan.request)
    predicted = None if plan.observed is None else plan.observed.predictions(prompt).get(scorer.id)
    answer = draft_tokens if predicted is None or predicted.output_tokens is None else predicted.output_tokens
    likely = plan.backends.kept.share(scorer.id)
    price = scorer.price
    at_once: float
    again: float
    first: float
    if price.input_nanousd or price.output_nanousd:
        read, written = price.input_nanousd, answer * price.output_nanousd
        at_once = prompt * read + written
        again = prompt * price.cached_input_nanousd + written
        is_cached = scorer.scoring is not None and scorer.scoring.api == "sglang" and _has_an_answer(plan)
        first = (
            prompt * (price.cached_input_nanousd if is_cached else read) + draft_tokens * read + price.output_nanousd
        )
    elif predicted is not None and predicted.per_token_s:
        at_once = again = predicted.first_token_s + answer * predicted.per_token_s
        first = predicted.first_token_s
    else:
        at_once = again = prompt * READING + answer
        first = (prompt + draft_tokens) * READING + 1
    return first + (1 - likely) * again < at_once


def _has_an_answer(plan: Plan) -> bool:
    return any(message.role == "assistant" for message in plan.request.messages)


def _beside(plan: Plan, scorer: Deployment, text: str) -> Beside:
    """The most that a score costs: a token for each byte, and the one that a prefill has to give."""
    read = _most_read(plan, scorer, text)
    cost = read * scorer.price.input_worst_nanousd + scorer.price.output_worst_nanousd
    return Beside(read + 1, -(-cost // TOKENS_PER_PRICE))


def _most_read(plan: Plan, scorer: Deployment, text: str) -> int:
    """The most tokens that prompt and draft can have."""
    return input_tokens_bound(plan.request, scorer.image_tokens) + len(text.encode("utf-8", "surrogatepass"))


async def _score(plan: Plan, scorer: Deployment, text: str) -> tuple[float, ...]:
    record = AttemptRecord(deployment=scorer.id, role="score")
    plan.record.attempts.append(record)
    call = Call(
        request=plan.request,
        deployment=scorer,
        max_tokens=1,
        tenant=plan.tenant,
        weight=plan.weight,
        record=record,
        deadline=plan.deadline,
        traceparent=plan.traceparent,
    )
    trial = plan.backends.health.begin(scorer)
    if trial is None:
        record.outcome = "paused"
        raise BackendError(f"{scorer.id} is left alone for now", deployment=scorer.id)
    record.outcome = "cancelled"
    try:
        logprobs = await plan.backends.score(call, text)
        record.outcome = "ok"
        trial.succeeded()
        return logprobs
    except FirstdraftError as error:
        record.outcome, record.status = error.code or error.type, error.status
        raise
    finally:
        # A score that fails says nothing of the deployment's answers: its breaker is not told.
        trial.given_up()
        _settle(plan, scorer, record, text)


def _settle(plan: Plan, scorer: Deployment, record: AttemptRecord, text: str) -> None:
    """What reading cost: as the backend says, as far as it can be true; else what was sent, where it may be read."""
    usage = record.usage
    if usage is not None:
        most = max(_most_read(plan, scorer, text), scorer.context_tokens or 0)
        usage = believable(usage, input_tokens=most, output_tokens=1)
        record.estimated = usage.estimated
        record.input_tokens, record.output_tokens = usage.input_tokens, usage.output_tokens
        record.cached_input_tokens = usage.cached_input_tokens
    elif record.connect_s is not None and record.outcome in {"cancelled", "backend_timeout", "backend_cut"}:
        record.estimated = True
        record.input_tokens = input_tokens_charged(plan.request, scorer.image_tokens) + len(text) // 3
    record.cost_nanousd = scorer.price.cost_nanousd(
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cached_input_tokens=record.cached_input_tokens,
    )


def _quantile(values: tuple[float, ...], share: float) -> float:
    """The value under which that share of them lies; the lower one of two."""
    return sorted(values)[int(share * (len(values) - 1))]
