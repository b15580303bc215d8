"""Refine by copy: a draft goes along as OpenAI's `prediction`, so that a larger model need only correct it.

What of a prediction is not in the answer is billed as output (`rejected_prediction_tokens`). So it is in the hold, with
a token for each of its bytes, and where the budget has no room for it the larger model is asked without.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import msgspec

from gateway.budgets.claim import Beside
from gateway.inference.deployment import TOKENS_PER_PRICE, Deployment
from gateway.inference.request import InferenceRequest
from gateway.modes.plan import Plan

_SURFACES = frozenset({"chat", "messages", "responses"})


async def with_copy(plan: Plan, text: str) -> Plan:
    """The plan in which `text` is given to those deployments that take it; the same plan where none does."""
    taking = [found for found in plan.deployments if predicting(plan.request, found, text) is not plan.request]
    if not taking:
        return plan
    most = len(text.encode("utf-8", "surrogatepass"))
    dearest = max(found.price.output_worst_nanousd for found in taking)
    beside = Beside(most, -(-most * dearest // TOKENS_PER_PRICE))
    if not await plan.extend_hold(taking[0], beside):
        return plan
    return replace(plan, copy=text, extend_hold=partial(plan.extend_hold, also=beside))


def predicting(request: InferenceRequest, deployment: Deployment, text: str) -> InferenceRequest:
    """The request with `text` as what is predicted; the request itself where `deployment` could not take it.

    OpenAI refuses a prediction beside several answers, log-probabilities, penalties, tools and audio. A client's own
    prediction is left as it is.
    """
    sampling = request.sampling
    if (
        not text
        or not deployment.prediction
        or request.surface not in _SURFACES
        or request.prediction_bytes
        or request.native_only
        or request.n > 1
        or request.tools
        or request.audio
        or request.logprobs
        or (sampling.presence_penalty or 0) > 0
        or (sampling.frequency_penalty or 0) > 0
    ):
        return request
    size = len(text.encode("utf-8", "surrogatepass"))
    return msgspec.structs.replace(request, prediction=text, prediction_bytes=size)
