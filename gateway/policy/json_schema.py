"""The JSON Schema of policy files, made from the models that check them: completion and checks in editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.policy.cases import SECTION, CaseSpec
from gateway.policy.document import LISTS, MAPPINGS
from gateway.policy.schema import (
    BackendSpec,
    ConstraintSpec,
    DeploymentSpec,
    InvariantSpec,
    RouteSpec,
    Spec,
    StoreSpec,
    TenantSpec,
    TrustedProxySpec,
)
from gateway.policy.schema_issuers import IssuerSpec

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ENTRIES: dict[str, type[Spec]] = {
    "backends": BackendSpec,
    "models": DeploymentSpec,
    "stores": StoreSpec,
    "tenants": TenantSpec,
    "constraints": ConstraintSpec,
    "routes": RouteSpec,
    "invariants": InvariantSpec,
    "trusted_proxies": TrustedProxySpec,
    "issuers": IssuerSpec,
}


def policy_schema() -> dict[str, Any]:
    """Of a file of the policy folder, which may hold any section."""
    schema = _schema("Firstdraft policy", list(_ENTRIES.values()))
    for section in (*MAPPINGS, *LISTS):
        entry: dict[str, Any] = {"$ref": f"#/$defs/{_ENTRIES[section].__name__}"}
        if section == "models":
            entry = {"type": "array", "items": entry, "minItems": 1}
        schema["properties"][section] = (
            {"type": ["object", "null"], "additionalProperties": entry}
            if section in MAPPINGS
            else {"type": ["array", "null"], "items": entry}
        )
    return schema


def cases_schema() -> dict[str, Any]:
    """Of a file in the folder's `tests`."""
    schema = _schema("Firstdraft policy cases", [CaseSpec])
    schema["properties"][SECTION] = {"type": "array", "items": {"$ref": f"#/$defs/{CaseSpec.__name__}"}}
    return {**schema, "required": [SECTION]}


def _schema(title: str, specs: list[type[Spec]]) -> dict[str, Any]:
    _, definitions = models_json_schema([(spec, "validation") for spec in specs])
    found = _tidied(definitions["$defs"])
    if "DeploymentSpec" in found:
        found["DeploymentSpec"]["properties"]["price"] = {"anyOf": [{"$ref": "#/$defs/PriceSpec"}, {"const": "free"}]}
    return {
        "$schema": _DIALECT,
        "title": title,
        "type": "object",
        "additionalProperties": False,
        "properties": {},
        "$defs": found,
    }


def _tidied(part: Any) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """Without null, which no key may have, and without what says nothing to an author."""
    if isinstance(part, list):
        return [_tidied(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _tidied(value) for key, value in part.items() if not _says_nothing(key, value)}
    choices = [choice for choice in kept.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del kept["anyOf"]
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else kept


def _says_nothing(key: str, value: object) -> bool:
    if key == "title":
        return isinstance(value, str)
    return key == "default" and not isinstance(value, bool | str)
