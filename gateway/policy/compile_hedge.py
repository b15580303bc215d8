"""A route's `hedge:` -> `HedgeRule`, and what does not go with it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import HedgeRule
from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes
from gateway.policy.schema import HedgeSpec, RouteSpec
from gateway.policy.yaml_file import Path

_MODES = frozenset({"hedge", "draft_refine"})
_USUAL = 0.95
_AT_ONCE = 2


def hedge_rule(
    document: Document, mistakes: Mistakes, path: Path, spec: RouteSpec, primary: Sequence[Deployment]
) -> HedgeRule | None:
    """When a second deployment is asked on this route; None: never. `primary` are those of its `models`."""
    if spec.mode not in _MODES:
        if spec.hedge is not None:
            message = f"mode {spec.mode} asks one deployment at a time; use `mode: hedge`, or remove this"
            mistakes.add(document.name_mark((*path, "hedge")), message)
        return None
    if spec.hedge is None and spec.mode != "hedge":
        return None
    if primary and sum(not deployment.is_edge for deployment in primary) < _AT_ONCE:
        message = "hedging needs two deployments in `models`, beside the edge: fallback is not asked meanwhile"
        mistakes.add(document.mark((*path, "models")), message)
    said = spec.hedge or HedgeSpec()
    by_time = said.after < 0
    return HedgeRule(
        after_s=-said.after if by_time else None, share=_USUAL if by_time else said.after, extra=said.extra
    )
