"""`tests/*.yaml` of a policy folder: given these facts, expect this decision. Read and checked like the policy."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path as FilePath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.inference.request import DraftWish
from gateway.policy import values
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.document import CASES, Document, policy_files
from gateway.policy.facts import Facts
from gateway.policy.mistakes import Mark, Mistakes, suggestion
from gateway.policy.schema import Spec
from gateway.policy.schema_values import Count, Flag, Name, PlainName, Text
from gateway.policy.validate import Check
from gateway.policy.yaml_file import MOST_BYTES, Path, Tree, read_tree

SECTION = "cases"


def _from_zero(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= values.MOST_COUNT:
        raise ValueError("expected a whole number from 0")
    return value


def _hour(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 23:
        raise ValueError("expected an hour from 0 to 23, in UTC")
    return value


def _share(value: object) -> float:
    share = values.weight(value)
    if share > 1:
        raise ValueError("expected a share from 0 to 1")
    return share


def _refused(value: object) -> int:
    if value is False:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise ValueError("expected the status, as in 403, or false")
    return value


def _off(value: object) -> object:
    # As in `draft.default`: YAML 1.1 takes a plain `off` for a boolean.
    return str(value) if isinstance(value, str) else value


class GivenSpec(Spec):
    """The facts of a request. What is left out is as in an ordinary one, on an edge that is ready."""

    tenant: PlainName | None = None
    feature: PlainName | None = None
    model: Name | None = None
    labels: list[PlainName] = Field(default_factory=list)
    prompt_tokens: Annotated[int, BeforeValidator(_from_zero)] = 100
    max_tokens: Count | None = None
    stream: Flag = False
    tools: Flag = False
    images: Flag = False
    audio: Flag = False
    json_output: Flag = False
    logprobs: Flag = False
    n: Count = 1
    language: Text | None = None
    metadata: dict[str, Text] = Field(default_factory=dict)
    headers: dict[str, Text] = Field(default_factory=dict)
    hour: Annotated[int, BeforeValidator(_hour)] = 12
    budget_left: Annotated[float, BeforeValidator(_share)] = 1.0
    unhealthy: list[Text] = Field(default_factory=list)
    edge_ready: Flag = True
    draft: Annotated[Literal["off", "frames", "reasoning"] | None, BeforeValidator(_off)] = None


class ExpectSpec(Spec):
    """What the decision has to be, as far as it is said. Deployments are ids, or patterns such as `cloud/*`."""

    route: PlainName | None = None
    mode: Literal["edge_only", "cloud_only", "cascade", "draft_refine", "hedge"] | None = None
    deployments: list[Text] | None = None
    first: Text | None = None
    never: list[Text] = Field(default_factory=list)
    draft: Flag | None = None
    no_draft: Text | None = None
    spent: list[Text] | None = None
    cached: Flag | None = None
    refused: Annotated[int | None, BeforeValidator(_refused)] = None
    removed_by: list[PlainName] = Field(default_factory=list)


class CaseSpec(Spec):
    """One case."""

    name: Text
    given: GivenSpec = GivenSpec()
    expect: ExpectSpec


@dataclass(frozen=True, slots=True)
class Case:
    """A case that can be run, and where it stands."""

    name: str
    file: str
    line: int
    facts: Facts
    expect: ExpectSpec


def read_cases(directory: FilePath, policy: CompiledPolicy) -> list[Case]:
    """The cases in `directory`'s `tests` folder; none when there is no such folder.

    Raises:
        PolicyError: some cannot be used, or speak of what `policy` does not have.
    """
    mistakes = Mistakes()
    document = Document(directory, lists={SECTION: []})
    folder = directory / CASES
    for file in policy_files(folder) if folder.is_dir() else []:
        with file.open("rb") as opened:
            tree = read_tree(str(file), opened.read(MOST_BYTES + 1), mistakes)
        if tree is not None:
            _merge(document, tree, str(file), mistakes)
    found = []
    for path, spec in Check(document, mistakes).listed(SECTION, CaseSpec):
        facts = _Facts(document, mistakes, policy, path).of(spec.given)
        _check_expectation(document, mistakes, policy, path, spec.expect)
        mark = document.mark((*path, "name"))
        if facts is not None:
            found.append(Case(spec.name, mark.file, mark.line, facts, spec.expect))
    mistakes.raise_any()
    return found


def _merge(document: Document, tree: Tree, file: str, mistakes: Mistakes) -> None:
    if tree.value is None:
        return
    if not isinstance(tree.value, dict) or not isinstance(tree.value.get(SECTION), list):
        mistakes.add(tree.marks.get((), Mark(file, 1, 1)), "a file of cases begins with `cases:`, which is a list")
        return
    for section in tree.value:
        if section != SECTION:
            mistakes.add(tree.key_marks[section,], f"unknown section `{section}`; a file of cases has only `cases`")
    shift = len(document.lists[SECTION])
    for theirs, ours in ((tree.marks, document.marks), (tree.key_marks, document.key_marks)):
        for place, mark in theirs.items():
            if len(place) > 1 and place[0] == SECTION and isinstance(place[1], int):
                ours[SECTION, place[1] + shift, *place[2:]] = mark
    document.lists[SECTION].extend(tree.value[SECTION])


class _Facts:
    """Names in `given` against those of the policy."""

    def __init__(self, document: Document, mistakes: Mistakes, policy: CompiledPolicy, path: Path) -> None:
        self._document = document
        self._mistakes = mistakes
        self._policy = policy
        self._path = path

    def of(self, given: GivenSpec) -> Facts | None:
        policy = self._policy
        name = given.tenant or policy.keyless_tenant or next(iter(policy.tenants), "")
        tenant = policy.tenants.get(name)
        if tenant is None:
            self._add("tenant", f"there is no tenant `{name}`{suggestion(name, policy.tenants)}")
        for place, deployment in enumerate(given.unhealthy):
            if not any(fnmatchcase(known, deployment) for known in policy.deployments):
                near = suggestion(deployment, policy.deployments)
                self._add("unhealthy", f"there is no deployment `{deployment}`{near}", place)
        if tenant is None:
            return None
        return Facts(
            tenant_name=name,
            tenant_region=tenant.tenant.region,
            tenant_labels=tenant.tenant.labels,
            feature=given.feature or "",
            model=given.model or next(iter(policy.models), ""),
            labels=frozenset(given.labels),
            unhealthy=frozenset(
                known for known in policy.deployments if any(fnmatchcase(known, some) for some in given.unhealthy)
            ),
            language=given.language or "",
            draft=None if given.draft is None else DraftWish(given.draft),
            **{key: getattr(given, key) for key in _AS_THEY_ARE},
        )

    def _add(self, key: str, message: str, *place: int) -> None:
        self._mistakes.add(self._document.mark((*self._path, "given", key, *place)), f"`{key}`: {message}")


_AS_THEY_ARE = (
    *("prompt_tokens", "max_tokens", "stream", "tools", "images", "audio", "json_output", "logprobs", "n"),
    *("metadata", "headers", "hour", "budget_left", "edge_ready"),
)


def _check_expectation(
    document: Document, mistakes: Mistakes, policy: CompiledPolicy, path: Path, expect: ExpectSpec
) -> None:
    """A name that the policy does not have would make a case that says nothing, or never passes."""
    routes = {route.name for route in policy.routes}
    if expect.route is not None and expect.route not in routes:
        mark = document.mark((*path, "expect", "route"))
        mistakes.add(mark, f"`route`: there is no route `{expect.route}`{suggestion(expect.route, routes)}")
    constraints = {constraint.name for constraint in policy.constraints}
    for place, name in enumerate(expect.removed_by):
        if name not in constraints:
            mark = document.mark((*path, "expect", "removed_by", place))
            mistakes.add(mark, f"`removed_by`: there is no constraint `{name}`{suggestion(name, constraints)}")
    patterns = (("deployments", expect.deployments or []), ("never", expect.never), ("spent", expect.spent or []))
    for key, named in (*patterns, ("first", [expect.first] if expect.first else [])):
        for place, pattern in enumerate(named):
            if not any(fnmatchcase(known, pattern) for known in policy.deployments):
                mark = document.mark((*path, "expect", key, place))
                near = suggestion(pattern, policy.deployments)
                mistakes.add(mark, f"`{key}`: there is no deployment `{pattern}`{near}")
