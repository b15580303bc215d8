"""Loading as the gateway does it: a policy that breaks one of its invariants is not loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway.errors import PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.load import load_policy
from gateway.routing.prove import broken, not_proved, prove

MOST_CHOICES_AT_LOAD = 50_000
"""At most some two seconds of search; what is not through by then is a warning, and `policy prove` searches longer."""


def load_proven(directory: Path, environ: Mapping[str, str]) -> CompiledPolicy:
    """As `load_policy`, with all invariants checked.

    Raises:
        PolicyError: the folder cannot be used, or the policy breaks an invariant.
    """
    policy = load_policy(directory, environ)
    if not policy.invariants:
        return policy
    proof = prove(policy, most_choices=MOST_CHOICES_AT_LOAD)
    mistakes = broken(policy, proof)
    if mistakes:
        raise PolicyError(mistakes)
    return replace(policy, warnings=tuple(sorted((*policy.warnings, *not_proved(policy, proof)))))
