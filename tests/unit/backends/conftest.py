"""A client of the scripted upstream."""

import pytest

from gateway.backends.openai import OpenAIBackend
from tests.unit.backends.asking import deployment_at
from tests.upstream.scripted import ScriptedUpstream


@pytest.fixture
async def scripted():
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def deployment(scripted):
    return deployment_at(scripted.base_url)


@pytest.fixture
async def client(deployment):
    backend = OpenAIBackend(deployment.backend)
    yield backend
    await backend.close()
