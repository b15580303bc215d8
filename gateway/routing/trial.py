"""The cases of a policy folder, put to `decide`: what came, where something else was expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

from gateway.policy.cases import Case, ExpectSpec
from gateway.policy.compiled import CompiledPolicy
from gateway.routing.decide import decide
from gateway.routing.decision import Decision
from gateway.routing.prove import reachable


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one case; `differences` is empty when it passed."""

    case: str
    file: str
    line: int
    differences: tuple[str, ...]


def run(policy: CompiledPolicy, cases: Sequence[Case]) -> list[Verdict]:
    """Put every case to `policy`."""
    return [
        Verdict(
            case=case.name,
            file=case.file,
            line=case.line,
            differences=tuple(_differences(case.expect, decide(policy, case.facts))),
        )
        for case in cases
    ]


def _differences(expect: ExpectSpec, decision: Decision) -> Iterator[str]:
    status = 0 if decision.refusal is None else decision.refusal.status
    expected_status = expect.refused
    if expected_status is None and status and _expects_an_answer(expect):
        expected_status = 0
    if expected_status is not None and status != expected_status:
        why = f": {decision.refusal.message}" if decision.refusal is not None else ""
        yield f"refused: expected {expected_status or 'no refusal'}, but got {status or 'none'}{why}"
    if expect.route is not None and decision.route != expect.route:
        yield f"route: expected {expect.route}, but got {decision.route or 'none'}"
    if expect.mode is not None and decision.mode.value != expect.mode:
        yield f"mode: expected {expect.mode}, but got {decision.mode.value}"
    yield from _places(expect, decision)
    yield from _draft(expect, decision)
    if expect.cached is not None and expect.cached != (decision.cache is not None):
        yield f"cached: expected {str(expect.cached).lower()}, but got {str(decision.cache is not None).lower()}"
    removers = {removal.by for removal in decision.removed if removal.is_constraint}
    for name in expect.removed_by:
        if name not in removers:
            yield f"removed_by: constraint {name} removed nothing"


def _expects_an_answer(expect: ExpectSpec) -> bool:
    return bool(expect.deployments or expect.first or expect.draft or expect.spent)


def _places(expect: ExpectSpec, decision: Decision) -> Iterator[str]:
    used = [deployment.id for deployment in decision.deployments]
    if expect.deployments is not None:
        yield from _compared("deployments", expect.deployments, used)
    if expect.first is not None and not (used and fnmatchcase(used[0], expect.first)):
        yield f"first: expected {expect.first}, but got {used[0] if used else 'none'}"
    for deployment, role in reachable(decision):
        for pattern in expect.never:
            if fnmatchcase(deployment.id, pattern):
                yield f"never: {deployment.id} is reached ({role})"
    if expect.spent is not None:
        yield from _compared("spent", expect.spent, [deployment.id for deployment in decision.spent])


def _compared(what: str, patterns: Sequence[str], used: Sequence[str]) -> Iterator[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in used):
            yield f"{what}: expected {pattern}, but got {', '.join(used) or 'none'}"
    for name in used:
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            yield f"{what}: {name} was not expected"


def _draft(expect: ExpectSpec, decision: Decision) -> Iterator[str]:
    if expect.draft is not None and expect.draft != (decision.draft is not None):
        got = decision.draft.id if decision.draft is not None else f"none ({decision.no_draft})"
        yield f"draft: expected {'one' if expect.draft else 'none'}, but got {got}"
    if expect.no_draft is not None and expect.no_draft != decision.no_draft:
        yield f"no_draft: expected {expect.no_draft}, but got {decision.no_draft or 'a draft'}"
