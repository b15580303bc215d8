"""OpenAI's files and batches: what clients send, the lines in a file, and the objects that they get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.errors import InvalidRequest
from gateway.wire.fields import typed
from gateway.wire.json_body import read_object

_ENCODER = msgspec.json.Encoder()
LEAST_LIFE_S, LONGEST_LIFE_S = 3_600, 2_592_000
"""Of a file whose client says how long it is to be kept."""
UnixTime = Annotated[int, Meta(ge=0)]

BatchStatus = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]
_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]


class BatchRequest(msgspec.Struct):
    """What a client wants done, by when."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=200)]
    endpoint: Endpoint
    completion_window: Annotated[
        str, Meta(pattern="^([1-9][0-9]{0,2}m|([1-9]|[1-9][0-9]|1[0-5][0-9]|16[0-8])h|[1-7]d)$")
    ]
    """`24h`, or another time in minutes, hours or days, seven days at most."""
    metadata: Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None = None


class UploadForm(msgspec.Struct, forbid_unknown_fields=True):
    """A file of requests, one a line, and what it is for."""

    file: str
    purpose: Literal["batch"]
    anchor: Literal["created_at"] = msgspec.field(name="expires_after[anchor]", default="created_at")
    seconds: Annotated[int, Meta(ge=LEAST_LIFE_S, le=LONGEST_LIFE_S)] = msgspec.field(
        name="expires_after[seconds]", default=604_800
    )


class BatchLine(msgspec.Struct):
    """One line of an input file."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Endpoint
    body: msgspec.Raw


class FileObject(msgspec.Struct, kw_only=True):
    """A file, without its content."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: UnixTime
    expires_at: UnixTime
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class RequestCounts(msgspec.Struct):
    """How far a batch is, in lines."""

    total: int
    completed: int
    failed: int


class BatchObject(msgspec.Struct, kw_only=True):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: dict[str, Any] | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: UnixTime
    in_progress_at: UnixTime | None = None
    expires_at: UnixTime
    finalizing_at: UnixTime | None = None
    completed_at: UnixTime | None = None
    failed_at: UnixTime | None = None
    expired_at: UnixTime | None = None
    cancelling_at: UnixTime | None = None
    cancelled_at: UnixTime | None = None
    request_counts: RequestCounts
    metadata: dict[str, str] | None = None


class FilePage(msgspec.Struct):
    """Files, the newest first unless `order` says otherwise."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchPage(msgspec.Struct):
    """Batches, the newest first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


_LINE = msgspec.json.Decoder(BatchLine)


def decode_batch(body: bytes) -> BatchRequest:
    """The batch in a client's body.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    return typed(read_object(body), BatchRequest)


def window_s(text: str) -> int:
    """A completion window, in seconds."""
    return int(text[:-1]) * {"m": 60, "h": 3_600, "d": 86_400}[text[-1]]


def decode_line(line: bytes, number: int) -> BatchLine:
    """One line of an input file; `number` counts from 1.

    Raises:
        InvalidRequest: it is not one, and why.
    """
    try:
        return _LINE.decode(line)
    except UnicodeDecodeError:
        raise InvalidRequest(f"Line {number}: not valid UTF-8.", param="file", code="invalid_jsonl") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"Line {number}: {error}.", param="file", code="invalid_jsonl") from None


def times_of(at: Mapping[str, int]) -> dict[str, int]:
    """The members of a batch that say when it came into a state."""
    return {f"{state}_at": at[state] for state in _TIMES if state in at}


def encode_page(objects: Iterable[FileObject | BatchObject], *, has_more: bool) -> bytes:
    """A page of a list."""
    data = list(objects)
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return _ENCODER.encode(
        {"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": has_more}
    )


def encode_object(found: FileObject | BatchObject) -> bytes:
    """A file or a batch."""
    return _ENCODER.encode(found)


def encode_file_deleted(file_id: str) -> bytes:
    """The answer to a deletion."""
    return _ENCODER.encode({"id": file_id, "object": "file", "deleted": True})


def encode_result(*, line_id: str, custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """What came of a line, as a line of the results, or of the errors."""
    response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(body)}
    return _ENCODER.encode({"id": line_id, "custom_id": custom_id, "response": response, "error": None}) + b"\n"


def encode_not_done(*, line_id: str, custom_id: str, code: str, message: str) -> bytes:
    """A line that was not answered at all, as a line of the errors."""
    error = {"code": code, "message": message}
    return _ENCODER.encode({"id": line_id, "custom_id": custom_id, "response": None, "error": error}) + b"\n"
