"""What deployments and routes say about refining: `prediction`, `scoring`, `refine`."""

from __future__ import annotations

from importlib import import_module

from gateway.inference.deployment import Backend, Deployment, Scoring
from gateway.policy.compiled import RefineRule
from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes
from gateway.policy.schema import DeploymentSpec, RouteSpec
from gateway.policy.yaml_file import Path


def scoring_of(
    document: Document, mistakes: Mistakes, path: Path, spec: DeploymentSpec, backend: Backend
) -> Scoring | None:
    """How the deployment at `path` scores, after a look at what its backend can do."""
    for key, given in (("prediction", spec.prediction), ("scoring", spec.scoring is not None)):
        if given and backend.type != "openai":
            mistakes.add(document.name_mark((*path, key)), f"only backends of type openai have `{key}`; remove it")
    if spec.scoring is None:
        return None
    template = spec.scoring.chat_template
    if template is not None and (problem := _problem(template)):
        mistakes.add(document.mark((*path, "scoring", "chat_template")), f"`chat_template`: {problem}")
    return Scoring(api=spec.scoring.api, chat_template=template or "")


def _problem(template: str) -> str:
    """What is wrong with a template's source, empty when nothing is."""
    jinja = import_module("jinja2")  # takes long to load, and few policies have a template
    try:
        jinja.Environment(autoescape=False).parse(template)
    except jinja.TemplateSyntaxError as error:
        return f"{error.message} (line {error.lineno})"
    return ""


def refine_rule(
    document: Document, mistakes: Mistakes, path: Path, spec: RouteSpec, answering: tuple[Deployment, ...] | None
) -> RefineRule | None:
    """The rule of the route at `path`. `answering` may give its finals; None: whatever the client names."""
    if spec.refine is None:
        return None
    at = (*path, "refine")
    if spec.mode not in {"draft_refine", "cascade"}:
        mistakes.add(document.name_mark(at), f"mode {spec.mode} makes no draft to refine; remove this")
    if spec.mode == "cascade" and spec.refine.wait is not None:
        mistakes.add(document.name_mark((*at, "wait")), "in a cascade the draft is always waited for; remove this")
    score = spec.refine.score
    if score is not None and answering is not None and not any(found.scoring for found in answering):
        mistakes.add(document.name_mark((*at, "score")), "no deployment of this route's `models` has `scoring`")
    if spec.mode == "draft_refine" and spec.refine.wait is None:
        mistakes.add(document.mark(at), "`wait` is missing: how long the final waits for the whole draft, as in 500ms")
    return RefineRule(
        wait_s=spec.refine.wait or 0.0,
        quantile=None if score is None else score.quantile,
        least=0.0 if score is None else score.least,
    )
