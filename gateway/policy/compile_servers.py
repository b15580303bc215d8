"""What kind of server a backend is: its row of the table, where it is by default, and what it lacks to be asked."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from gateway.inference.servers import SERVERS, UNKNOWN, Server
from gateway.policy.schema import BackendSpec

_ROWS = {"azure": "azure", "vertex": "gemini"}
"""Type of a backend -> its row where the policy names none."""
_COLUMNS = ("max_tokens_field", "both_limits", "usage_option", "developer_role")
_OF_CHAT = frozenset({"openai", "azure", "vertex"})
_KEYS = {
    "api_version": frozenset({"openai", "azure"}),
    "aws_region": frozenset({"bedrock"}),
    "project": frozenset({"vertex"}),
    "location": frozenset({"vertex"}),
    "forward_headers": _OF_CHAT | {"anthropic", "bedrock"},
    **dict.fromkeys(("server", *_COLUMNS), _OF_CHAT),
}
"""Key -> the types of backends that have it."""
_LIBRARIES = {"bedrock": "botocore", "vertex": "google.auth"}
AZURE_V1 = "/openai/v1"
"""The end of the base URL of Azure's newer API, which has the model in the body as OpenAI does."""


def server_of(spec: BackendSpec) -> Server:
    """The row that the policy names, with the columns that it overrides."""
    name = spec.server or _ROWS.get(spec.type, "")
    row = SERVERS.get(name, UNKNOWN)
    given = {column: value for column in _COLUMNS if (value := getattr(spec, column)) is not None}
    return Server(**{column: getattr(row, column) for column in _COLUMNS} | given)


def default_url(spec: BackendSpec) -> str | None:
    """Where such a backend is, unless `base_url` says so; None where nobody can know."""
    if spec.type == "bedrock" and spec.aws_region is not None:
        return f"https://bedrock-runtime.{spec.aws_region}.amazonaws.com"
    if spec.type == "vertex" and spec.location is not None:
        host = "" if spec.location == "global" else f"{spec.location}-"
        return f"https://{host}aiplatform.googleapis.com/v1/projects/{spec.project}/locations/{spec.location}"
    return None


def problems(spec: BackendSpec) -> Iterator[tuple[str, str]]:
    """What is wrong: the key, and a sentence about it."""
    for key, types in _KEYS.items():
        if getattr(spec, key) not in (None, []) and spec.type not in types:
            yield key, f"a backend of type {spec.type} has no `{key}`; remove it"
    if spec.type == "azure" and spec.base_url is not None:
        is_v1 = spec.base_url.rstrip("/").endswith(AZURE_V1)
        if not is_v1 and spec.api_version is None:
            yield "type", f"azure needs an `api_version`, as in 2024-10-21, or a `base_url` that ends with {AZURE_V1}"
    if spec.type == "bedrock" and spec.aws_region is None:
        yield "type", "`aws_region` is missing, as in eu-central-1: requests are signed for one region"
    if spec.type == "vertex" and spec.base_url is None and None in (spec.project, spec.location):
        yield "type", "`project` and `location` are missing, as in my-project and europe-west1"
    library = _LIBRARIES.get(spec.type)
    if library is not None and spec.api_key is None and not _is_installed(library):
        yield "type", f"what signs its requests is missing: pip install 'firstdraft[{spec.type}]', or give an `api_key`"


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # of the package that it is part of
        return False
