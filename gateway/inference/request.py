"""What a client asked for, in no schema's words."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from gateway.inference.conversation import Conversation

Surface = Literal["chat", "messages", "responses", "completions", "embeddings"]


class DraftWish(StrEnum):
    """How the client wants to see the draft (body field `draft`, header `x-firstdraft-draft`)."""

    OFF = "off"
    FRAMES = "frames"
    REASONING = "reasoning"


class Message(msgspec.Struct, frozen=True):
    """One message with its content parts flattened to text; images and audio are flags on the request."""

    role: str
    text: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling settings as the client gave them; None where it gave none."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    """With each token its log-probability and so many alternatives are told; None: nothing of the kind."""


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request for inference.

    `fields` keeps every field of the client's body byte for byte (but for the gateway's own, such as `draft`), so that
    a backend of the same schema gets what the gateway does not know.
    """

    surface: Surface
    model: str
    messages: tuple[Message, ...]
    fields: dict[str, msgspec.Raw]
    stream: bool = False
    include_usage: bool = False
    """The client asked for the usage chunk (`stream_options.include_usage`)."""
    max_tokens: int | None = None
    """Most tokens the answer may have, if the client said so."""
    max_tokens_field: str | None = None
    """The name of the field that said so (`max_tokens` or `max_completion_tokens`)."""
    n: int = 1
    sampling: Sampling = Sampling()
    tools: bool = False
    json_output: bool = False
    """A JSON object or schema is asked for."""
    json_schema: str = ""
    """The JSON schema of the answer, as text; empty where none is asked for, or another kind of shape."""
    images: int = 0
    audio: int = 0
    logprobs: bool = False
    draft: DraftWish | None = None
    """None: not said, the route's default holds."""
    metadata: dict[str, str] = {}
    prompt_bytes: int = 0
    """Bytes of everything that becomes input tokens: text, tool definitions, schemas; without image and audio data."""
    prediction: str = ""
    """The gateway's draft, as what the answer probably is; only for a deployment that takes it."""
    prediction_bytes: int = 0
    """Of what the client predicts: what of it is rejected is billed as output, beside the answer."""
    conversation: Conversation | None = None
    """The prompt in full. None on the surfaces that are read from `fields` where it is needed (chat)."""
    native_only: tuple[str, ...] = ()
    """Fields that change the answer and that only a backend of this surface's own schema has a word for."""
    sources: tuple[str, ...] = ()
    """Names of the documents whose passages the gateway added to the prompt; the answer tells them."""
    forwarded: dict[str, str] = {}
    """Headers of the client's that some backend of the policy is sent; each takes those that policy lists for it."""
    shows_reasoning: bool = False
    """The client asked to see what the model thinks; surfaces on which everybody sees it do not look here."""
