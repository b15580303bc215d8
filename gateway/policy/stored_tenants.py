"""Tenants of the store -> `TenantPolicy`, by the same schema and the same compiler as those of the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from gateway.errors import PolicyError
from gateway.policy import values
from gateway.policy.compile_classification import with_classifiers
from gateway.policy.compile_tenants import TenantsCompiler
from gateway.policy.compiled import CompiledPolicy, TenantPolicy
from gateway.policy.document import Document
from gateway.policy.mistakes import Mark, Mistakes
from gateway.policy.schema import TenantSpec
from gateway.policy.validate import Check, Specs
from gateway.tenants.stored import StoredKey, StoredTenant
from gateway.tenants.tenant import KeyOwner


class Compiled(NamedTuple):
    """A tenant, and whose its keys are."""

    tenant: TenantPolicy
    keys: Mapping[str, KeyOwner]


def compile_stored(name: str, given: StoredTenant) -> Compiled:
    """The tenant of this name that `given` describes.

    Raises:
        PolicyError: something in it is wrong, each mistake with the words that a file's would have.
    """
    mistakes = Mistakes()
    document = Document(Path(name))
    place = Mark(name)
    try:
        values.plain_name(name)
    except ValueError as problem:
        mistakes.add(place, str(problem))
    # Numbers as a file's reader gives them: dollars are decimal, and never a float.
    spec = json.loads(json.dumps(given.spec), parse_float=Decimal)
    for key in ("keys", "keyless"):
        if key in spec:
            mistakes.add(place, f"`{key}` is not for tenants of the store: its keys are made one by one")
    spec["keys"] = [_key(key) for key in given.keys]
    checked = Check(document, mistakes).entry(("tenants", name), spec, TenantSpec)
    mistakes.raise_any()
    if checked is None:
        raise PolicyError(mistakes.found)
    compiler = TenantsCompiler(document, mistakes)
    found = compiler.compile(Specs(tenants={name: checked}))
    mistakes.raise_any()
    tenants = with_classifiers(found, {name: checked})
    return Compiled(tenants[name], compiler.keys)


def _key(key: StoredKey) -> dict[str, Any]:
    made: dict[str, Any] = {"name": key.name, "sha256": key.sha256}
    if key.not_after is not None:
        made["not_after"] = datetime.fromtimestamp(key.not_after, UTC).isoformat()
    return made


def merged(policy: CompiledPolicy, tenants: Mapping[str, Compiled]) -> tuple[CompiledPolicy, dict[str, str]]:
    """The policy with these tenants, too; and why those that it cannot have are left out, by name.

    What the files say comes first: a name or a key that stands in them is not the store's to give.
    """
    refused: dict[str, str] = {}
    all_tenants, all_keys = dict(policy.tenants), dict(policy.keys)
    for name, found in tenants.items():
        taken = [owner for digest in found.keys if (owner := all_keys.get(digest)) is not None]
        if name in policy.tenants:
            refused[name] = "the policy's files have a tenant of this name; give one of them another"
        elif taken:
            refused[name] = f"one of its keys is `{taken[0].name}` of tenant `{taken[0].tenant}`; a key belongs to one"
        else:
            all_tenants[name] = found.tenant
            all_keys.update(found.keys)
    return replace(policy, tenants=all_tenants, keys=all_keys), refused
