"""Specs of passage stores and of routes' retrieval -> `PassageStore` and `RetrievalRule`."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.inference.deployment import Secret
from gateway.policy.document import Document
from gateway.policy.environment import Environment
from gateway.policy.mistakes import Mistakes, suggestion
from gateway.policy.schema import RetrievalSpec, StoreSpec
from gateway.policy.validate import Specs
from gateway.policy.yaml_file import Path
from gateway.retrieval.rule import PassageStore, RetrievalRule

LOCAL_REGION = "local"
_NEEDS: dict[str, tuple[str, ...]] = {"files": (), "http": ("url", "id"), "qdrant": ("url", "id")}
_WITHOUT: dict[str, tuple[str, ...]] = {
    "files": ("url", "id", "api_key", "version", "text_field", "source_field"),
    "http": ("embeddings", "text_field", "source_field"),
    "qdrant": ("embeddings",),
}


class StoresCompiler:
    """Compiles all stores."""

    def __init__(self, document: Document, environment: Environment, mistakes: Mistakes) -> None:
        self._document = document
        self._environment = environment
        self._mistakes = mistakes

    def compile(self, specs: Specs) -> dict[str, PassageStore]:
        """All stores by name, without what is broken."""
        found = {}
        for name, spec in specs.stores.items():
            self._check(("stores", name), spec)
            found[name] = self._store(name, spec)
        return found

    def _store(self, name: str, spec: StoreSpec) -> PassageStore:
        path: Path = ("stores", name)
        url = self._text((*path, "url"), spec.url).rstrip("/")
        if spec.type != "files" and url and not _is_http(url):
            self._add((*path, "url"), "expected an http:// or https:// URL, as in https://api.example.com/v1")
        region = self._text((*path, "region"), spec.region)
        return PassageStore(
            name=name,
            type=spec.type,
            region=region or (LOCAL_REGION if spec.type == "files" else ""),
            compliance=frozenset(spec.compliance),
            tenants=frozenset(spec.tenants),
            url=url,
            id=self._text((*path, "id"), spec.id),
            api_key=self._secret((*path, "api_key"), spec.api_key),
            embeddings=spec.embeddings,
            text_field=spec.text_field,
            source_field=spec.source_field,
            version=self._text((*path, "version"), spec.version),
            timeout_s=spec.timeout,
            cache_s=spec.cache or 0.0,
        )

    def _check(self, path: Path, spec: StoreSpec) -> None:
        for key in _NEEDS[spec.type]:
            if getattr(spec, key) is None:
                self._add(path, f"`{key}` is missing: a store of type {spec.type} has one", key=True)
        for key in _WITHOUT[spec.type]:
            if key in spec.model_fields_set:
                self._add((*path, key), f"a store of type {spec.type} has no `{key}`; remove it", key=True)
        for index, tenant in enumerate(spec.tenants):
            if self._document.lacks("tenants", tenant):
                known = self._document.mappings["tenants"]
                self._add((*path, "tenants", index), f"there is no tenant `{tenant}`{suggestion(tenant, known)}")

    def _text(self, path: Path, written: str | None) -> str:
        try:
            return "" if written is None else self._environment.text(written)
        except ValueError as problem:
            self._add(path, str(problem))
            return ""

    def _secret(self, path: Path, written: str | None) -> Secret | None:
        try:
            return None if written is None else self._environment.secret(written)
        except ValueError as problem:
            self._add(path, str(problem))
            return None

    def _add(self, path: Path, message: str, *, key: bool = False) -> None:
        mark = self._document.name_mark(path) if key else self._document.mark(path)
        self._mistakes.add(mark, message)


def retrieval_rule(
    document: Document, mistakes: Mistakes, path: Path, spec: RetrievalSpec | None
) -> RetrievalRule | None:
    """A route's `retrieval:`, which stands at `path`."""
    if spec is None:
        return None
    if document.lacks("stores", spec.store):
        known = document.mappings["stores"]
        message = f"there is no store `{spec.store}`{suggestion(spec.store, known)}"
        mistakes.add(document.mark((*path, "store")), message)
    return RetrievalRule(
        store=spec.store, top_k=spec.top_k, max_tokens=spec.max_tokens, when_fails=spec.when_retrieval_fails
    )


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None and not parts.query
    except ValueError:
        return False
