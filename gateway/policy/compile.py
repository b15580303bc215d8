"""A checked document -> a `CompiledPolicy`. Cross-references, conditions and masks are settled here, once.

The types of a compiled policy stand in `compiled` and can be imported from here as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from gateway.inference.deployment import Deployment
from gateway.policy.compile_backends import PlacesCompiler
from gateway.policy.compile_classification import with_classifiers
from gateway.policy.compile_issuers import compile_issuers
from gateway.policy.compile_rules import RulesCompiler
from gateway.policy.compile_stores import StoresCompiler
from gateway.policy.compile_tenants import TenantsCompiler
from gateway.policy.compiled import CompiledPolicy, Constraint, DraftRule, Mode, Route, TenantPolicy, lacking
from gateway.policy.conditions import Conditions
from gateway.policy.dead_rules import look_at_literals, look_for_dead_rules
from gateway.policy.document import Document
from gateway.policy.environment import Environment
from gateway.policy.mistakes import Mistakes
from gateway.policy.pools import courses_of
from gateway.policy.validate import validate

__all__ = ["CompiledPolicy", "Constraint", "DraftRule", "Mode", "Route", "TenantPolicy", "compile_policy"]

_VERSION_LENGTH = 12


def compile_policy(document: Document, environment: Environment, mistakes: Mistakes) -> CompiledPolicy:
    """Compile `document`.

    Raises:
        PolicyError: it has mistakes, those noted before included.
    """
    specs = validate(document, mistakes)
    places = PlacesCompiler(document, environment, mistakes).compile(specs)
    rules = RulesCompiler(document, places, mistakes)
    constraints, routes, invariants = rules.constraints(specs), rules.routes(specs), rules.invariants(specs)
    stores = StoresCompiler(document, environment, mistakes).compile(specs)
    tenants = TenantsCompiler(document, mistakes)
    tenant_policies = tenants.compile(specs)
    mistakes.raise_any()
    policy = CompiledPolicy(
        version=_version(document, environment),
        backends=places.backends,
        deployments=places.deployments,
        models=places.models,
        routes=routes,
        constraints=constraints,
        conditions=Conditions(rules.compiler, rules.conditions),
        invariants=invariants,
        trusted_proxies=rules.trusted_proxies(specs),
        stores=stores,
        tenants=with_classifiers(tenant_policies, specs.tenants),
        keys=tenants.keys,
        issuers=compile_issuers(specs, document, mistakes),
        keyless_tenant=tenants.keyless,
        edge=places.edge,
        edges=tuple(places.edges.values()),
        positions={name: position for position, name in enumerate(places.deployments)},
        expected=places.expected,
        lacking=lacking(places.deployments.values()),
        places={name: _place(deployment) for name, deployment in places.deployments.items()},
        watched=frozenset(environment.files),
        sources=document.sources,
    )
    look_at_literals(policy, document, mistakes)
    mistakes.raise_any()
    look_for_dead_rules(policy, document, mistakes)
    mistakes.raise_any()
    return replace(policy, warnings=tuple(sorted(mistakes.warnings)), courses=courses_of(policy))


def _place(deployment: Deployment) -> str:
    """A backend that moves, or loses a term, is another place, as is one that is asked otherwise.

    What it answered before is not given again.
    """
    backend = deployment.backend
    drops = sorted(f"-{name}" for name in deployment.drop)
    return " ".join((deployment.id, backend.base_url, backend.region, *sorted(backend.compliance), *drops))


def _version(document: Document, environment: Environment) -> str:
    """Of the files and of what their variables stood for; secrets are left out, so that no hash of one is shown."""
    digest = hashlib.sha256(document.digest)
    for reference, value in sorted(environment.expanded.items()):
        digest.update(f"{reference}\0{value}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:_VERSION_LENGTH]
