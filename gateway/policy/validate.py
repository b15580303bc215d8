"""A document against the schema: typed specs of all entries that are right, and a mistake for whatever is not.

Each entry is checked by itself, so that one mistake does not hide the others, and entries that refer to a broken one
are not blamed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.policy import values
from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes, suggestion
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
from gateway.policy.yaml_file import Path

_EXPECTED = {"list_type": "a list, as in `[a, b]`", "model_type": "a mapping", "dict_type": "a mapping"}

SpecType = TypeVar("SpecType", bound=Spec)


@dataclass(slots=True)
class Specs:
    """The entries that are right, with their paths in the document; lists keep their order."""

    backends: dict[str, BackendSpec] = field(default_factory=dict)
    models: dict[str, list[tuple[Path, DeploymentSpec]]] = field(default_factory=dict)
    stores: dict[str, StoreSpec] = field(default_factory=dict)
    tenants: dict[str, TenantSpec] = field(default_factory=dict)
    constraints: list[tuple[Path, ConstraintSpec]] = field(default_factory=list)
    routes: list[tuple[Path, RouteSpec]] = field(default_factory=list)
    invariants: list[tuple[Path, InvariantSpec]] = field(default_factory=list)
    trusted_proxies: list[tuple[Path, TrustedProxySpec]] = field(default_factory=list)
    issuers: list[tuple[Path, IssuerSpec]] = field(default_factory=list)


def validate(document: Document, mistakes: Mistakes) -> Specs:
    """Check every entry of `document`."""
    check = Check(document, mistakes)
    specs = Specs()
    specs.backends = check.named("backends", BackendSpec, values.plain_name)
    specs.stores = check.named("stores", StoreSpec, values.plain_name)
    specs.tenants = check.named("tenants", TenantSpec, values.plain_name)
    specs.constraints = check.listed("constraints", ConstraintSpec)
    specs.routes = check.listed("routes", RouteSpec)
    specs.invariants = check.listed("invariants", InvariantSpec)
    specs.trusted_proxies = check.listed("trusted_proxies", TrustedProxySpec)
    specs.issuers = check.listed("issuers", IssuerSpec)
    for name, entries in document.mappings["models"].items():
        path: Path = ("models", name)
        check.name(path, name, values.name)
        if not isinstance(entries, list) or not entries:
            mark = document.name_mark(path)
            mistakes.add(mark, "a model is a list of deployments: `- {backend: NAME, model: NAME, price: …}`")
            continue
        found = ((*path, index) for index in range(len(entries)))
        checked = [(at, check.entry(at, entry, DeploymentSpec)) for at, entry in zip(found, entries, strict=True)]
        specs.models[name] = [(at, spec) for at, spec in checked if spec is not None]
    return specs


class Check:
    """Checks entries of a document against specs; mistakes are noted."""

    def __init__(self, document: Document, mistakes: Mistakes) -> None:
        self._document = document
        self._mistakes = mistakes

    def named(self, section: str, spec_type: type[SpecType], read_name: Callable[[object], str]) -> dict[str, SpecType]:
        """The entries of a section of names that are right."""
        found = {}
        for name, entry in self._document.mappings[section].items():
            self.name((section, name), name, read_name)
            spec = self.entry((section, name), entry, spec_type)
            if spec is not None:
                found[name] = spec
        return found

    def listed(self, section: str, spec_type: type[SpecType]) -> list[tuple[Path, SpecType]]:
        """The entries of a section that is a list, with their paths, that are right."""
        found: list[tuple[Path, SpecType]] = []
        for index, entry in enumerate(self._document.lists[section]):
            spec = self.entry((section, index), entry, spec_type)
            if spec is not None:
                found.append(((section, index), spec))
        return found

    def name(self, path: Path, name: str, read_name: Callable[[object], str]) -> None:
        try:
            read_name(name)
        except ValueError as problem:
            self._mistakes.add(self._document.name_mark(path), str(problem))

    def entry(self, path: Path, entry: object, spec_type: type[SpecType]) -> SpecType | None:
        try:
            return spec_type.model_validate(entry)
        except ValidationError as problem:
            for detail in problem.errors(include_url=False):
                self._note(path, spec_type, detail)
            return None

    def _note(self, path: Path, spec_type: type[Spec], detail: ErrorDetails) -> None:
        place = path + tuple(detail["loc"])
        kind = detail["type"]
        key = str(place[-1])
        if kind == "extra_forbidden":
            known = _keys_at(spec_type, detail["loc"][:-1])
            self._mistakes.add(self._document.name_mark(place), f"unknown key `{key}`{suggestion(key, known)}")
        elif kind == "missing":
            self._mistakes.add(self._document.name_mark(place[:-1]), f"`{key}` is missing{_of(place[:-1])}")
        else:
            self._mistakes.add(self._document.mark(place), _words(detail))


def _of(path: Path) -> str:
    name = path[-1]
    return f" in `{name}`" if isinstance(name, str) else f" in this entry of `{path[-2]}`"


def _words(detail: ErrorDetails) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    key = f"`{detail['loc'][-1]}`: " if detail["loc"] and isinstance(detail["loc"][-1], str) else ""
    if kind == "value_error":
        return key + str(context["error"])
    if kind == "literal_error":
        expected = str(context["expected"])
        names = [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")]
        shown = f"`{given}`" if isinstance(given, str) else values.kind_of(given)
        near = suggestion(given, names) if isinstance(given, str) else f"; write one of {', '.join(names)}"
        return f"{key}{shown} is not known here{near}"
    expected = _EXPECTED.get(kind, "")
    if expected:
        return f"{key}expected {expected}, not {values.kind_of(given)}"
    return f"{key}{detail['msg']}"


def _keys_at(spec_type: type[BaseModel], location: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that the spec at `location` inside `spec_type` has."""
    current = spec_type
    for step in location:
        if isinstance(step, int):
            continue
        inner = _spec_in(current.model_fields[step].annotation)
        if inner is None:
            return ()
        current = inner
    return current.model_fields


def _spec_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _spec_in(argument)
        if found is not None:
            return found
    return None
