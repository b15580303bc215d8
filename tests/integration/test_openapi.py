"""The document at `/openapi.json` against the OpenAPI meta-schema, the table of routes, and a running gateway."""

import asyncio
import json

import aiohttp
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode

from gateway.server.api.routes import ROUTES
from gateway.server.app import build_app
from gateway.server.openapi import document, path_of
from tests.gateway_fixture import policy_text

_EXAMPLES = 8
_REFUSED = [400, 401, 403, 404, 405, 413, 415, 429]
_CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": _REFUSED}}})


@pytest.fixture
async def gateway(start_gateway, upstream):
    claude = f"claude: {{type: anthropic, base_url: '{upstream.base_url}', api_key: '${{UPSTREAM_KEY}}', region: us}}"
    model = "claude: [{backend: claude, model: scripted, price: free, max_output_tokens: 1000}]"
    policy = policy_text(upstream.base_url, route="mode: cloud_only")
    policy = policy.replace("backends:", f"backends:\n  {claude}", 1).replace("models:", f"models:\n  {model}", 1)
    return await start_gateway(policy, edge=False, body_limit_bytes=1_000_000)


async def described(gateway):
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/openapi.json") as response:
        assert response.status == 200
        return await response.json()


async def test_the_document_is_valid(gateway):
    """It keeps OpenAPI 3.1's meta-schema, and every schema that it refers to is in it."""
    found = await described(gateway)
    assert found["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(found).validate()
    text = json.dumps(found)
    for name in found["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text, f"nothing refers to {name}"
    broken = {**found, "paths": {"/x": {"get": {"responses": 7}}}}
    with pytest.raises(Exception, match="responses"):
        schemathesis.openapi.from_dict(broken).validate()


async def test_every_route_is_in_it(gateway):
    """What the gateway serves is described, each with a sentence, and nothing else is."""
    found = await described(gateway)
    served = {
        (route.method, route.resource.canonical)
        for route in build_app(gateway.services).router.routes()
        if route.method != "HEAD"
    }
    table = {(route.method, path_of(route)) for route in ROUTES}
    listed = {(method.upper(), path) for path, item in found["paths"].items() for method in item}
    assert served == listed == table
    for item in found["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert "security" in operation or operation["tags"] == ["Operation"]


def test_it_is_made_of_the_types_that_read_bodies():
    """A limit in a codec is a limit in the document."""
    found = json.loads(document(ROUTES, title="Firstdraft", version="1", description=""))
    chat = found["components"]["schemas"]["ChatRequest"]["properties"]
    assert chat["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
    assert chat["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 128}


@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_the_gateway_keeps_it(gateway, mode):
    """What the document allows is taken, what it forbids is refused, and each answer is as described: never a 5xx."""
    found = await described(gateway)
    for name, schema in found["components"]["schemas"].items():
        if name.endswith("Request"):  # what only the running gateway knows: its models, and what it has kept
            if "model" in schema["properties"]:
                schema["properties"]["model"] = {
                    "const": "claude" if name in {"MessagesRequest", "CountRequest"} else "large"
                }
            for field in ("previous_response_id", "truncation", "background"):  # some values, or with others only
                schema["properties"].pop(field, None)
        if name == "UploadForm":  # no schema can say what its lines are
            line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}
            schema["properties"]["file"] = {"const": json.dumps(line)}
        if name in {
            "ResponseRequest",
            "ResponseFunction",
        }:  # no backend speaks this schema: what it has no word for is refused
            schema["additionalProperties"] = False
    schema = schemathesis.openapi.from_dict(found, config=_CONFIG)
    served = await asyncio.to_thread(_exercise, schema, gateway, mode)
    if mode is GenerationMode.POSITIVE:
        models = {f"POST /v1/{name}" for name in ("chat/completions", "completions", "messages", "responses")}
        assert models <= {operation for operation, status in served if status == 200}


def _exercise(schema, gateway, mode):
    """Send what hypothesis makes of the document; gives which operations answered with which status."""
    served = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=_EXAMPLES,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            case.body = _with_whole_numbers(case.body)
            response = case.call(base_url=gateway.url, headers=gateway.auth)
            # The key that this test sends is not the schema's own: whether one is asked for is tested elsewhere.
            case.validate_response(response, excluded_checks=[schemathesis.checks.ignored_auth])
            served.add((case.operation.label, response.status_code))

        try:
            holds()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # there is nothing in it that could be wrong
    return served


def _with_whole_numbers(value):
    """In JSON Schema 7.0 is an integer; the gateway wants it written as one, as everybody does."""
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**53 else value
    if isinstance(value, list):
        return [_with_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: _with_whole_numbers(item) for name, item in value.items()}
    return value
