"""A whole gateway in this process, through the same runner as in production, on real sockets."""

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from gateway.policy.history import PolicyHistory
from gateway.policy.store import PolicyStore
from gateway.routing.proven import load_proven
from gateway.server.run import bind, bind_admin, listening
from gateway.services import Machine, Services
from gateway.settings import Settings
from tests.upstream.scripted import ScriptedUpstream

KEY = "fd-acme-key-for-tests-0000000000000000000000000"
OTHER_KEY = "fd-other-key-for-tests-000000000000000000000000"


def policy_text(upstream_url: str, *, route: str = "", budgets: str = "", second_url: str = "") -> str:
    """One policy file: an edge, one or two scripted backends, tenants `acme` and `other`.

    `route` replaces the default route's lines, `budgets` is put under tenant `acme`.
    """
    route = route or "mode: cloud_only\n    models: [large]"
    second = f"second: {{type: openai, base_url: '{second_url}', api_key: '${{UPSTREAM_KEY}}', region: us}}"
    second_model = "- {backend: second, model: scripted-2, price: {input: 1, output: 2}}"
    return f"""
backends:
  edge: {{type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}}
  cloud:
    type: openai
    base_url: {upstream_url}
    api_key: ${{UPSTREAM_KEY}}
    region: eu-west
    compliance: [gdpr]
    timeouts: {{connect: 1s, first_token: 5s, idle: 5s, total: 30s}}
  {second if second_url else ""}
models:
  large:
    - {{backend: cloud, model: scripted, price: {{input: 1, output: 2}}, max_output_tokens: 1000}}
    {second_model if second_url else ""}
  small:
    - {{backend: edge}}
constraints:
  - name: health-data-never-leaves
    when: '"health" in request.labels'
    require: {{compliance: [no-egress]}}
routes:
  - name: autocomplete
    when: request.feature == "autocomplete"
    mode: edge_only
  - name: small
    when: request.model == "small"
    mode: edge_only
    models: [small]
  - name: chat
    {route}
tenants:
  acme:
    region: eu
    keys: [{{name: prod, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]
    {budgets}
  other:
    keys: [{{name: prod, sha256: {hashlib.sha256(OTHER_KEY.encode()).hexdigest()}}}]
"""


@dataclass
class RunningGateway:
    """Where it listens, and its insides to look at afterwards."""

    url: str
    services: Services
    policies: object
    admin_url: str | None = None

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {KEY}"}


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def start_gateway(request, valkey_url, store, tmp_path):
    """A function that starts a gateway with a policy text, an edge if it is to have one; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            policy: str,
            *,
            edge: bool = True,
            edge_at: Path | None = None,
            store_url: str = valkey_url,
            environ: Mapping[str, str] = MappingProxyType({}),
            **changes,
        ) -> RunningGateway:
            folder = tmp_path / f"policies-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            (folder / "policy.yaml").write_text(policy)
            given = {"policies": folder, "state": tmp_path / "state", "port": 0, "edge": edge, "drain_s": 2.0}
            given["store_timeout_s"] = 2.0  # a busy test machine is not what is tested
            settings = Settings(**(given | changes))
            shared = None if edge_at or not edge else request.getfixturevalue("edge_socket")
            machine = Machine(store_url=store_url, edge_socket=str(edge_at or shared) if edge else None)
            history = PolicyHistory(settings.state)
            watched = PolicyStore(
                folder, {"UPSTREAM_KEY": "sk-upstream", **environ}, poll_s=0.2, load=load_proven, history=history
            )
            policies = await stack.enter_async_context(watched)
            listener = bind(settings)
            admin = None if settings.admin_port is None else bind_admin(settings)
            found = await stack.enter_async_context(
                listening(settings, machine, policies, listener, asyncio.Event(), admin=admin)
            )
            if edge:
                await _warm(found.services)
            return RunningGateway(found.url, found.services, folder, found.admin_url)

        yield start


async def _warm(services: Services) -> None:
    async with asyncio.timeout(60):
        await services.edge.until_warm()
