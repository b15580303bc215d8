"""A route's `cascade:` -> `CascadeRule`, and what does not go with it."""

from __future__ import annotations

from gateway.policy.compile_backends import Places
from gateway.policy.compiled import CascadeRule
from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes
from gateway.policy.schema import RouteSpec
from gateway.policy.yaml_file import Path


def cascade_rule(
    document: Document, mistakes: Mistakes, places: Places, path: Path, spec: RouteSpec
) -> CascadeRule | None:
    """The rule of the route at `path`; None where its mode is another, or something is wrong with it."""
    if spec.mode != "cascade":
        if spec.cascade is not None:
            message = f"mode {spec.mode} asks for no confidence; use `mode: cascade`, or remove this"
            mistakes.add(document.name_mark((*path, "cascade")), message)
        return None
    if not places.edge_named:
        mistakes.add(document.mark((*path, "mode")), "cascade needs an edge: add a backend with `type: edge`")
    if not spec.draft.allow:
        message = "in a cascade the edge answers first; remove `allow: false`, or use cloud_only"
        mistakes.add(document.mark((*path, "draft", "allow")), message)
    if spec.cascade is None:
        message = "`cascade` is missing: when the edge's answer stands, as in `cascade: {threshold: 0.8}`"
        mistakes.add(document.mark((*path, "mode")), message)
        return None
    return CascadeRule(
        threshold=spec.cascade.threshold,
        target_error=spec.cascade.target_error,
        within_s=spec.cascade.within,
        accepts_uncalibrated=spec.cascade.when_uncalibrated == "accept",
    )
