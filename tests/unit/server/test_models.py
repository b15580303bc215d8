import anthropic
import openai
import pytest

from tests.gateway_fixture import KEY, OTHER_KEY, policy_text

NARROW = """
constraints:
  - name: other-stays-here
    when: tenant.name == "other"
    require: {compliance: [no-egress]}"""


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url).replace("\nconstraints:", NARROW), edge=False)


async def test_a_tenant_sees_the_models_that_policy_lets_it_reach(gateway):
    """A model that constraints close to a tenant is not in its list, and is not found by its name."""
    acme = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    other = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=OTHER_KEY, max_retries=0)
    assert [model.id async for model in acme.models.list()] == ["large", "small"]
    assert [model.id async for model in other.models.list()] == ["small"]
    assert (await acme.models.retrieve("large")).id == "large"
    with pytest.raises(openai.NotFoundError):
        await other.models.retrieve("large")


async def test_anthropics_clients_get_their_own_shape(gateway):
    """The same URL answers in the schema of the client that asks, its errors too."""
    client = anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0)
    assert [(model.type, model.id) async for model in client.models.list()] == [("model", "large"), ("model", "small")]
    assert (await client.models.retrieve("small")).created_at.year > 2000
    with pytest.raises(anthropic.NotFoundError) as failure:
        await client.models.retrieve("huge")
    assert failure.value.type == "not_found_error"
