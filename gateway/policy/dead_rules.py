"""Rules that can never do anything: unreachable routes and fallbacks, constraints that leave nothing.

What is dead for every tenant that there could be is a mistake; what is dead only because no tenant of the policy is of
that kind is a warning, for that tenant may come. Nothing is said where the search is not through.
"""

from __future__ import annotations

from gateway.policy.compiled import CompiledPolicy
from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes


def look_for_dead_rules(policy: CompiledPolicy, document: Document, mistakes: Mistakes) -> None:
    """Note what is dead in `policy`; places are those of `document`."""
