"""`firstdraft policy explain`: the decision for one request, with its whole story."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.policy_folder import DEFAULT_FOLDER, FOLDER, FOLDER_VARIABLE, JSON, load

if TYPE_CHECKING:
    from gateway.classification.classifier import Found
    from gateway.inference.request import InferenceRequest
    from gateway.policy.compiled import CascadeRule, CompiledPolicy, RefineRule
    from gateway.policy.facts import Facts
    from gateway.routing.explain import Explanation

ALSO = ("images", "audio", "json", "logprobs")


@click.command()
@click.option("--tenant", help="Who asks. Default: the keyless tenant.")
@click.option("--feature", default="", help="The part of the tenant's product that asks.")
@click.option("--model", help="The model that the client names. Default: the policy's first.")
@click.option("--prompt", default="", help="The prompt: its length counts, and what the classifier finds in it.")
@click.option("--prompt-tokens", type=click.IntRange(min=0), help="Its length in tokens, instead of a prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The client's limit for the answer.")
@click.option("--label", "labels", multiple=True, help="A label of the request. May be repeated.")
@click.option("--language", default="", help="The prompt's language, where it is not to be told from the prompt.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="The client's metadata. May be repeated.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Set by a trusted proxy. Repeatable.")
@click.option("--draft", type=click.Choice(["off", "frames", "reasoning"]), help="The client's wish for a draft.")
@click.option("--stream", is_flag=True, help="A streamed answer is asked for.")
@click.option("--tools", is_flag=True, help="Tools are offered.")
@click.option("--with", "also", multiple=True, type=click.Choice(ALSO), help="What else it has. May be repeated.")
@click.option("--n", type=click.IntRange(min=1), default=1, show_default=True, help="Answers asked for.")
@click.option("--hour", type=click.IntRange(0, 23), help="Hour of the day in UTC. Default: now.")
@click.option("--budget-left", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Smallest share left.")
@click.option("--unhealthy", multiple=True, metavar="ID", help="A deployment that fails now. May be repeated.")
@click.option("--edge/--no-edge", default=True, show_default=True, help="The edge is ready.")
@click.option("--policies", type=FOLDER, default=DEFAULT_FOLDER, envvar=FOLDER_VARIABLE, metavar="DIR")
@JSON
def explain(
    *,
    tenant: str | None,
    feature: str,
    model: str | None,
    prompt: str,
    prompt_tokens: int | None,
    max_tokens: int | None,
    labels: tuple[str, ...],
    language: str,
    metadata: tuple[str, ...],
    headers: tuple[str, ...],
    draft: str | None,
    stream: bool,
    tools: bool,
    also: tuple[str, ...],
    n: int,
    hour: int | None,
    budget_left: float,
    unhealthy: tuple[str, ...],
    edge: bool,
    policies: Path,
    as_json: bool,
) -> None:
    """Show the decision for one request and, for each route, constraint and deployment, why or why not."""
    from gateway.inference.request import DraftWish
    from gateway.inference.usage import input_tokens_estimate
    from gateway.policy.facts import Facts

    loaded = load(policies)
    who = _tenant(loaded, tenant)
    request = _request(prompt, also)
    found = loaded.tenants[who].found_in(request)
    facts = Facts(
        tenant_name=who,
        tenant_region=loaded.tenants[who].tenant.region,
        tenant_labels=loaded.tenants[who].tenant.labels,
        feature=feature,
        model=model if model is not None else next(iter(loaded.models), ""),
        labels=_labels(loaded.tenants[who].tenant.labels, labels, _metadata(metadata), found.labels),
        prompt_tokens=input_tokens_estimate(request) if prompt_tokens is None else prompt_tokens,
        max_tokens=max_tokens,
        stream=stream,
        tools=tools,
        images="images" in also,
        audio="audio" in also,
        json_output="json" in also,
        logprobs="logprobs" in also,
        n=n,
        language=language or _language(loaded, request),
        metadata=_metadata(metadata),
        headers={name.lower(): value for name, value in _pairs("--header", headers).items()},
        hour=time.gmtime().tm_hour if hour is None else hour,
        budget_left=budget_left,
        unhealthy=_deployments(loaded, unhealthy),
        edge_ready=edge,
        edge_reason="" if edge else "said so on the command line",
        draft=None if draft is None else DraftWish(draft),
    )
    _show(loaded, facts, found, as_json=as_json)


def _show(loaded: CompiledPolicy, facts: Facts, found: Found, *, as_json: bool) -> None:
    from gateway.routing import explain as explaining

    explanation = explaining.explain(loaded, facts)
    if as_json:
        known = {"labels": sorted(facts.labels), "found": found.spans, "language": facts.language}
        click.echo(json.dumps({**explaining.as_json(explanation), **known}))
    else:
        _print(explanation, facts, found)


def _tenant(loaded: CompiledPolicy, name: str | None) -> str:
    from gateway.policy.mistakes import suggestion

    if name is None:
        if loaded.keyless_tenant is not None:
            return loaded.keyless_tenant
        raise click.UsageError(f"--tenant is missing: the policy has no keyless tenant{suggestion('', loaded.tenants)}")
    if name not in loaded.tenants:
        raise click.UsageError(f"--tenant: there is no tenant `{name}`{suggestion(name, loaded.tenants)}")
    return name


def _deployments(loaded: CompiledPolicy, ids: tuple[str, ...]) -> frozenset[str]:
    from gateway.policy.mistakes import suggestion

    for name in ids:
        if name not in loaded.deployments:
            raise click.UsageError(
                f"--unhealthy: there is no deployment `{name}`{suggestion(name, loaded.deployments)}"
            )
    return frozenset(ids)


def _metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    return _pairs("--metadata", pairs)


def _pairs(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option}: write NAME=VALUE, not `{pair}`")
        found[name] = value
    return found


def _labels(
    tenant: frozenset[str], named: tuple[str, ...], metadata: Mapping[str, str], found: frozenset[str]
) -> frozenset[str]:
    """All of the request's labels, gathered as the gateway gathers them."""
    from gateway.classification.labels import gather
    from gateway.errors import InvalidRequest

    try:
        return gather(tenant=tenant, header=",".join(named), metadata=metadata.get("labels", ""), found=found)
    except InvalidRequest as problem:
        raise click.UsageError(f"--label: {problem.message}") from None


def _language(loaded: CompiledPolicy, request: InferenceRequest) -> str:
    """The prompt's language, where the policy asks for it."""
    from gateway.classification.language import language_of

    return language_of(request) if loaded.reads_language else ""


def _request(prompt: str, also: tuple[str, ...]) -> InferenceRequest:
    """A chat with this one message, and images and audio beside it, as the gateway would have read it."""
    import msgspec

    from gateway.inference.request import InferenceRequest, Message

    text = prompt.encode("utf-8", "replace").decode()
    return InferenceRequest(
        surface="chat",
        model="",
        messages=(Message("user", text),),
        fields={"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": text}]))},
        images=int("images" in also),
        audio=int("audio" in also),
        prompt_bytes=len(text.encode()),
    )


def _print(explanation: Explanation, facts: Facts, found: Found) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(_headline(explanation, facts, found)))
    console.print()

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            made.add_column(column, overflow="fold")
        return made

    constraints = table("Constraints (all that match apply)", "name", "outcome", "when", "effect")
    for rule in explanation.constraints:
        constraints.add_row(Text(rule.name), rule.outcome, Text(rule.when or "always"), Text(rule.effect))
    routes = table("Routes (the first that matches decides)", "name", "outcome", "when", "effect")
    for rule in explanation.routes:
        routes.add_row(Text(rule.name), rule.outcome, Text(rule.when or "always"), Text(rule.effect))
    deployments = table("Deployments", "#", "id", "region", "compliance", "why")
    for story in explanation.deployments:
        place = str(story.place) if story.place else "-"
        terms = ", ".join(story.compliance)
        deployments.add_row(place, Text(story.id), Text(story.region), Text(terms), Text(story.why))
    stores = table("Stores of passages", "name", "region", "compliance", "why")
    for kept in explanation.stores:
        stores.add_row(Text(kept.name), Text(kept.region), Text(", ".join(kept.compliance)), Text(kept.why))
    for made in (constraints, routes, deployments, *([stores] if explanation.stores else [])):
        console.print(made)


def _headline(explanation: Explanation, facts: Facts, found: Found) -> str:
    decision = explanation.decision
    lines = [f"policy    {decision.policy_version}", f"request   tenant {facts.tenant_name}, model {facts.model}"]
    lines[1] += f", about {facts.prompt_tokens} prompt tokens"
    counted = ", ".join(f"{number} {kind}" for kind, number in sorted(found.spans.items()))
    lines.append(f"labels    {', '.join(sorted(facts.labels)) or 'none'}" + (f" (found: {counted})" if counted else ""))
    if decision.refusal is not None:
        return "\n".join([*lines, f"refused   {decision.refusal.status}: {decision.refusal.message}"])
    lines += [
        f"route     {decision.route}",
        f"mode      {decision.mode.value}",
        f"answer    {', then '.join(deployment.id for deployment in decision.deployments)}",
    ]
    if decision.draft is not None:
        lines.append(
            f"draft     {decision.draft.id}, up to {decision.draft_max_tokens} tokens, {decision.draft_wish.value}"
        )
    else:
        lines.append(f"draft     none: {decision.no_draft}")
    if decision.cascade is not None:
        lines.append(f"cascade   {_stands(decision.cascade)}")
    if decision.refine is not None:
        lines.append(f"refine    {_refines(decision.refine)}")
    if decision.hedge is not None:
        late = decision.hedge.after_s
        when = f"{late:g} s" if late is not None else f"{decision.hedge.share:.0%} of its answers so far"
        lines.append(f"hedge     the second, when the first takes longer than {when}")
    lines.append(f"spent     {', then '.join(deployment.id for deployment in decision.spent) or 'refused with 429'}")
    cache = decision.cache
    lines.append(f"cache     {'no' if cache is None else f'{cache.ttl_s:g} s'}")
    return "\n".join(lines)


def _stands(rule: CascadeRule) -> str:
    """When the edge's answer stands."""
    measure = (
        f"confidence from {rule.threshold:g} on"
        if rule.threshold is not None
        else f"at most {rule.target_error:.1%} not good"
    )
    within = "" if rule.within_s is None else f", done within {rule.within_s:g} s"
    uncalibrated = "stands" if rule.accepts_uncalibrated else "does not"
    return f"the draft stands: {measure}{within}; uncalibrated it {uncalibrated}"


def _refines(rule: RefineRule) -> str:
    """What is done with a draft before a larger model writes."""
    waits = f"the final waits {rule.wait_s:g} s for the draft" if rule.wait_s else "with the whole draft"
    if rule.quantile is None:
        return waits
    return f"{waits}; it is kept when its score's {rule.quantile:g} quantile is at least {rule.least:g}"
