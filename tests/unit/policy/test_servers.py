"""Kinds of backends and servers in a policy: rows, overrides, where hosts are, and what is refused."""

import pytest

from gateway.errors import PolicyError
from gateway.inference.servers import SERVERS
from gateway.policy import compile_servers
from gateway.policy.load import load_policy

POLICY = """
backends:
  b: {{{backend}, region: eu}}
models:
  m: [{{backend: b, model: x, price: free}}]
routes: [{{name: all, mode: cloud_only}}]
tenants:
  t: {{keyless: true}}
"""


def backend(tmp_path, written, **environ):
    (tmp_path / "policy.yaml").write_text(POLICY.format(backend=written))
    return load_policy(tmp_path, environ).backends["b"]


def mistakes(tmp_path, written):
    with pytest.raises(PolicyError) as caught:
        backend(tmp_path, written)
    return [mistake.message for mistake in caught.value.mistakes]


@pytest.mark.parametrize("name", SERVERS)
def test_a_row_is_taken_and_its_columns_overridden(tmp_path, name):
    """`server` picks a row of the table; a key of its own overrides one column of it."""
    url = "type: openai, base_url: 'http://x/v1'"
    assert backend(tmp_path, f"{url}, server: {name}").server == SERVERS[name]
    changed = backend(tmp_path, f"{url}, server: {name}, developer_role: true, usage_option: false").server
    assert (changed.developer_role, changed.usage_option) == (True, False)
    assert changed.max_tokens_field == SERVERS[name].max_tokens_field


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("type: bedrock, aws_region: eu-central-1", "https://bedrock-runtime.eu-central-1.amazonaws.com"),
        (
            "type: vertex, project: p, location: europe-west1",
            "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1",
        ),
        (
            "type: vertex, project: p, location: global",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global",
        ),
    ],
)
def test_hosts_are_where_they_are_unless_policy_says_so(tmp_path, written, url):
    """Bedrock and Vertex need no URL: region, project and location say it."""
    assert backend(tmp_path, written).base_url == url
    assert backend(tmp_path, f"{written}, base_url: 'https://proxy.example/x'").base_url == "https://proxy.example/x"


def test_a_version_may_look_like_a_date(tmp_path):
    """YAML takes 2024-10-21 for a date; it is meant as the version that it names."""
    written = "type: azure, base_url: 'https://r.openai.azure.com', api_version: 2024-10-21"
    assert backend(tmp_path, written).api_version == "2024-10-21"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("type: azure, base_url: 'https://r.openai.azure.com'", "api_version"),
        ("type: bedrock", "aws_region"),
        ("type: vertex, project: p", "location"),
        ("type: anthropic, base_url: 'http://x', server: vllm", "has no `server`"),
        ("type: openai, base_url: 'http://x', aws_region: eu-west-1", "has no `aws_region`"),
        ("type: openai, base_url: 'http://x', server: vlm", "did you mean `vllm`"),
        ("type: openai, base_url: 'http://x', forward_headers: [authorization]", "never"),
        ("type: openai, base_url: 'http://x', forward_headers: [Transfer-Encoding]", "never forwarded"),
        ("type: openai, base_url: 'http://x', forward_headers: [x-amz-security-token]", "never forwarded"),
        ("type: openai, base_url: 'http://x', forward_headers: [x-firstdraft-labels]", "never forwarded"),
    ],
)
def test_mistakes_are_told(tmp_path, written, words):
    """What a backend lacks, or cannot have, is a mistake at load with its name."""
    assert words in " ".join(mistakes(tmp_path, written))


@pytest.mark.parametrize(
    ("written", "extra"),
    [("type: bedrock, aws_region: eu-west-1", "bedrock"), ("type: vertex, project: p, location: global", "vertex")],
)
def test_a_missing_extra_is_told_at_load(tmp_path, monkeypatch, written, extra):
    """Without the library that signs, the policy is refused, and says what to install; with a key it is not needed."""
    monkeypatch.setattr(compile_servers, "find_spec", lambda _: None)
    assert f"pip install 'firstdraft[{extra}]'" in " ".join(mistakes(tmp_path, written))
    assert backend(tmp_path, written + ", api_key: '${KEY}'", KEY="k").api_key is not None
