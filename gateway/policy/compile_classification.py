"""What tenants want found in the text of their requests -> their classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.classification.classifier import DEFAULT_LIMIT_S, Classifier, Recognizer
from gateway.classification.kinds import ALL_KINDS, Kind
from gateway.policy.compiled import TenantPolicy
from gateway.policy.schema import TenantSpec


def with_classifiers(tenants: Mapping[str, TenantPolicy], specs: Mapping[str, TenantSpec]) -> dict[str, TenantPolicy]:
    """The tenants with a classifier each."""
    return {name: replace(tenant, classifier=_classifier(specs[name])) for name, tenant in tenants.items()}


def _classifier(spec: TenantSpec) -> Classifier:
    if not spec.dictionary and not spec.classification.model_fields_set:
        return _PLAIN
    words: dict[str, list[str]] = {}
    for entry in spec.dictionary:
        words.setdefault(entry.label, []).extend(entry.words)
    kinds, limit = spec.classification.kinds, spec.classification.limit
    return Classifier(
        _RECOGNIZER,
        kinds=ALL_KINDS if kinds is None else frozenset(Kind(kind) for kind in kinds),
        dictionary=words,
        limit_s=DEFAULT_LIMIT_S if limit is None else limit,
    )


_RECOGNIZER = Recognizer()
"""One for all tenants of files and store: it knows nothing of any, and is compiled at its first use."""
_PLAIN = Classifier(_RECOGNIZER)
