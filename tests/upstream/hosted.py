"""Azure OpenAI, Bedrock and Vertex as their documentation has them: URLs, who may ask, and how answers are framed.

Each checks the request as the provider does: the key in its header and the version in the URL (Azure), the signature
over method, URL, headers and body (Bedrock, recomputed here with botocore), the bearer token that was given out for an
assertion signed with the service account's key (Vertex).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs

import jwt
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = "azure-key"
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token"
REGION = "eu-central-1"
TEXT = "Bonjour, je réponds 🙂."
ACCOUNT = "gateway@project.iam.gserviceaccount.com"
USAGE = {"input_tokens": 9, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5}
_AUDIENCE = "https://oauth2.googleapis.com/token"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/bedrock/aws4_request, SignedHeaders=([^,]+), Signature=(\w+)"
)


def event_message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of AWS's event stream."""
    packed = b"".join(
        bytes((len(name),)) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    body = prelude + struct.pack(">I", binascii.crc32(prelude)) + packed + payload
    return body + struct.pack(">I", binascii.crc32(body))


def bedrock_chunk(event: dict[str, Any]) -> bytes:
    """An event of Messages, as Bedrock wraps it."""
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    wrapped = {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abcdef"}
    return event_message(headers, json.dumps(wrapped).encode())


def bedrock_exception(kind: str, message: str) -> bytes:
    """An exception in a stream."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return event_message(headers, json.dumps({"message": message}).encode())


def message_events() -> list[dict[str, Any]]:
    """A streamed message."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    start = {key: value for key, value in USAGE.items() if key != "output_tokens"} | {"output_tokens": 0}
    pieces = re.findall(r"\s*\S+", TEXT)
    return [
        {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None, "usage": start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ],
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 5}},
    ]


def whole_message() -> dict[str, Any]:
    """The same in one piece."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude"}
    content = [{"type": "text", "text": TEXT}]
    return {**head, "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": USAGE}


@dataclass
class Hosted:
    """All three on one port."""

    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """Path with query, headers, body, of each request that was let in."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Access tokens that were given out, and until when they are good."""
    token_s: int = 3600
    exception: tuple[str, str] | None = None
    """What Bedrock's stream ends with after its first words."""
    corrupt: bool = False
    """A byte of Bedrock's stream is wrong."""
    url: str = ""

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/openai/v1/{kind:.*}", self._azure)
        app.router.add_post("/openai/deployments/{model}/{kind:.*}", self._azure)
        app.router.add_post("/model/{model}/{action}", self._bedrock)
        app.router.add_post("/v1/projects/p/locations/l/{rest:.*}", self._vertex)
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def service_account(self) -> dict[str, str]:
        """The file that Google gives to who holds the account."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        token_uri = f"{self.url}/token"
        names = {"type": "service_account", "project_id": "p", "private_key_id": "k1", "client_email": ACCOUNT}
        return {**names, "private_key": pem.decode(), "token_uri": token_uri, "client_id": "1"}

    def _note(self, request: web.Request, body: dict[str, Any]) -> None:
        self.requests.append((request.raw_path, {k.lower(): v for k, v in request.headers.items()}, body))

    # --- Azure --------------------------------------------------------------------------------------------------------

    async def _azure(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.headers.get("api-key") != KEY or "authorization" in request.headers:
            error = {"code": "401", "message": "Access denied due to invalid subscription key."}
            return web.json_response({"error": error}, status=401)
        classic = "model" in request.match_info
        if classic and "api-version" not in request.query:
            return web.json_response({"error": {"code": "404", "message": "Resource not found"}}, status=404)
        self._note(request, body)
        if "forbidden" in json.dumps(body):
            inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
            error = {"message": "The response was filtered", "type": None, "param": "prompt", "code": "content_filter"}
            return web.json_response({"error": {**error, "status": 400, "innererror": inner}}, status=400)
        return await (_chat_stream(request) if body.get("stream") else _chat_whole())

    # --- Vertex -------------------------------------------------------------------------------------------------------

    async def _token(self, request: web.Request) -> web.Response:
        form = parse_qs(await request.text())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        claims = jwt.decode(form["assertion"][0], self._key.public_key(), algorithms=["RS256"], audience=_AUDIENCE)
        assert claims["iss"] == ACCOUNT
        token = f"ya29.{len(self.tokens)}"
        self.tokens[token] = time.monotonic() + self.token_s
        return web.json_response({"access_token": token, "expires_in": self.token_s, "token_type": "Bearer"})

    async def _vertex(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0.0) < time.monotonic():
            error = {"code": 401, "message": "Request had invalid credentials.", "status": "UNAUTHENTICATED"}
            return web.json_response([{"error": error}], status=401)
        self._note(request, body)
        rest = request.match_info["rest"]
        if rest == "endpoints/openapi/chat/completions":
            return await (_chat_stream(request) if body.get("stream") else _chat_whole())
        if not rest.startswith("publishers/anthropic/models/") or body.get("anthropic_version") != "vertex-2023-10-16":
            error = {"code": 400, "message": f"no such thing: {rest}", "status": "INVALID_ARGUMENT"}
            return web.json_response({"error": error}, status=400)
        assert "model" not in body
        if not rest.endswith(":streamRawPredict"):
            return web.json_response(whole_message())
        assert body["stream"] is True
        events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in message_events()]
        return await _sent(request, "text/event-stream; charset=utf-8", events)

    # --- Bedrock ------------------------------------------------------------------------------------------------------

    async def _bedrock(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        if problem := self._signature_problem(request, data):
            return web.json_response(
                {"message": problem}, status=403, headers={"x-amzn-errortype": "InvalidSignatureException"}
            )
        body = json.loads(data)
        self._note(request, body)
        if body.get("anthropic_version") != "bedrock-2023-05-31" or {"model", "stream"} & body.keys():
            message = "Malformed input request, please reformat your input and try again."
            return web.json_response({"message": message}, status=400)
        if request.match_info["action"] == "invoke":
            return web.json_response(whole_message())
        events = [bedrock_chunk(event) for event in message_events()]
        if self.exception is not None:
            events = [*events[:3], bedrock_exception(*self.exception)]
        if self.corrupt:
            events[4] = events[4][:40] + bytes((events[4][40] ^ 1,)) + events[4][41:]
        return await _sent(request, "application/vnd.amazon.eventstream", events)

    @staticmethod
    def _signature_problem(request: web.Request, data: bytes) -> str:
        """What AWS would say of this request's signature; empty when it is right."""
        found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if found is None:
            return "The request has no signature."
        access_key, _, region, names, signature = found.groups()
        headers = {name: request.headers[name] for name in names.split(";") if name != "x-amz-date"}
        again = AWSRequest(method="POST", url=f"http://{request.host}{request.raw_path}", data=data, headers=headers)
        again.context["timestamp"] = request.headers["x-amz-date"]
        again.headers["X-Amz-Date"] = request.headers["x-amz-date"]
        signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, SESSION_TOKEN), "bedrock", region)
        expected = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
        right = (access_key, region, expected) == (ACCESS_KEY, REGION, signature)
        token = request.headers.get("x-amz-security-token") == SESSION_TOKEN
        return "" if right and token and "host" in names.split(";") else "The signature does not match."


async def _chat_whole() -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    filters = {"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return web.json_response({**head, "choices": [{**choice, **filters}], "prompt_filter_results": []})


async def _chat_stream(request: web.Request) -> web.StreamResponse:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    filters = {"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    first = {**head, "id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0, **filters}]}
    pieces = [
        {"index": 0, "delta": {"content": piece}, "finish_reason": None, **filters}
        for piece in re.findall(r"\s*\S+", TEXT)
    ]
    ending = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks = [first, *({**head, "choices": [choice]} for choice in (*pieces, ending))]
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    chunks.append({**head, "choices": [], "usage": usage})
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return await _sent(request, "text/event-stream", [*events, b"data: [DONE]\n\n"])


async def _sent(request: web.Request, kind: str, events: list[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    for event in events:
        for start in range(0, len(event), 50):  # never as whole events
            await response.write(event[start : start + 50])
    await response.write_eof()
    return response
