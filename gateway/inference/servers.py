"""What servers that speak OpenAI's chat API do in their own way: one table, a row for each server.

A policy picks a row with `server: NAME` on a backend, and may override each column with a key of its own. Without a
name, nothing is assumed, and what the client sent goes out as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

LimitField = Literal["max_tokens", "max_completion_tokens"]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    max_tokens_field: LimitField = "max_tokens"
    """How it calls the limit of an answer."""
    both_limits: bool = True
    """It knows the other name of that field too."""
    usage_option: bool = True
    """It takes `stream_options`. Where it is not known, a refusal is remembered."""
    developer_role: bool = True
    """It takes messages of the role `developer`; else they are sent as `system`, which they were called before."""


SERVERS: Mapping[str, Server] = MappingProxyType(
    {
        "openai": Server(max_tokens_field="max_completion_tokens", both_limits=False),
        "azure": Server(max_tokens_field="max_completion_tokens", both_limits=False),
        "vllm": Server(developer_role=False),
        "sglang": Server(developer_role=False),
        "tgi": Server(both_limits=False, developer_role=False),
        "llama-server": Server(developer_role=False),
        "ollama": Server(both_limits=False, developer_role=False),
        "mistral": Server(both_limits=False, usage_option=False, developer_role=False),
        "groq": Server(max_tokens_field="max_completion_tokens", developer_role=False),
        "openrouter": Server(both_limits=False, developer_role=False),
        "deepseek": Server(both_limits=False, developer_role=False),
        "together": Server(both_limits=False, developer_role=False),
        "gemini": Server(developer_role=False),
    }
)
"""Roles: what a server has no rule for is up to the model's chat template, and most templates refuse `developer`."""
UNKNOWN = Server()
