"""Errors in OpenAI's shape."""

import json

import pytest

from gateway.errors import BackendRefused, BudgetSpent, InternalError, InvalidRequest, UnknownModel
from gateway.wire.openai_chat import encode_error, refused_by_status


def test_error_has_openais_members():
    """An error of ours has message, type, param and code."""
    found = json.loads(encode_error(InvalidRequest("wrong", param="n"), "req-1"))
    assert found == {"error": {"message": "wrong", "type": "invalid_request_error", "param": "n", "code": None}}
    assert json.loads(encode_error(UnknownModel("no"), "req-1"))["error"]["code"] == "model_not_found"
    assert json.loads(encode_error(BudgetSpent("spent"), "req-1"))["error"]["type"] == "insufficient_quota"


def test_fault_of_ours_shows_only_the_request_id():
    """The text of an internal error is not for clients."""
    found = encode_error(InternalError("database password is x"), "req-1")
    assert b"password" not in found
    assert b"req-1" in found


def test_backends_error_passes_unchanged():
    """A backend's own error object reaches the client byte for byte."""
    body = b'{ "error": {"message": "x", "new": 1} }'
    assert encode_error(BackendRefused("x", status=400, body=body), "req-1") == body
    assert json.loads(encode_error(BackendRefused("said x", status=400), "r"))["error"]["message"] == "said x"


@pytest.mark.parametrize(
    ("body", "kept", "word"),
    [
        (b'{"error":{"message":"told so"}}', True, "told so"),
        (b'{"error":"told so"}', False, "told so"),
        (b'{"object":"error","message":"told so"}', False, "told so"),
        (b'{"detail":"x"}', False, "no error object"),
        (b"<html>", False, "no error object"),
        (b"", False, "no error object"),
        (b'{"error":{"message":"\xff"}}', False, "no error object"),
    ],
)
def test_refusal_keeps_only_an_error_object(body, kept, word):
    """Of a backend's error response, only OpenAI's error object is passed on; what it says stands in the message."""
    found = refused_by_status(body, status=400, deployment="cloud/m")
    assert found.body == (body if kept else None)
    assert word in found.message
    assert found.message.startswith("cloud/m answered with error 400")


def test_long_message_is_cut():
    """A backend cannot fill the log with its message."""
    body = json.dumps({"error": {"message": "x" * 50_000}}).encode()
    assert len(refused_by_status(body, status=400, deployment="d").message) < 600


@pytest.mark.parametrize(
    ("body", "retryable"), [(b"<html>", True), (b"", True), (b'{"error":{"message":"no"}}', False)]
)
def test_only_the_api_itself_can_say_that_a_request_is_wrong(body, retryable):
    """A 404 or 413 of something in front of the backend lets another deployment answer; the API's own does not."""
    assert refused_by_status(body, status=404, deployment="d").retryable is retryable
