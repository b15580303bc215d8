"""Every error that Firstdraft raises on purpose, in one tree.

    FirstdraftError
    ├── RequestError                     the client can mend it
    │   ├── InvalidRequest           400 a field is wrong; `param` names it
    │   │   └── FieldUnsupported     400 a deployment has no word for a field; another may have one
    │   ├── InvalidHTTP              ··· no HTTP, a head that is too long or too slow, an expectation that is not met
    │   ├── Unauthenticated          401 no key, or a wrong one
    │   ├── IdentityUnavailable      503 the keys of a token's issuer cannot be fetched now
    │   ├── PolicyDenied             403 constraints left no deployment
    │   ├── UnknownModel             404 no model of that name for this tenant
    │   ├── NotFound                 404 no such URL or object
    │   ├── MethodNotAllowed         405
    │   ├── Conflict                 409 a name that is taken, a change that another overtook
    │   ├── BodyTooLarge             413
    │   ├── UnsupportedEncoding      415 the body is packed in a way that is not known here
    │   └── LimitReached             429 what a tenant may use is used up
    │       ├── BudgetSpent          429 a token or money budget; waiting will not help soon
    │       └── RateLimited          429 too fast; `retry_after_s` says when
    ├── BackendError                     what answers for the model failed
    │   ├── BackendUnreachable       502 could not connect
    │   ├── BackendBusy              503 too many requests wait for it already
    │   ├── BackendTimeout           504 one of the deployment's time limits passed
    │   ├── BackendBroken            502 answered something that is not the protocol
    │   ├── BackendCut               502 ended before the answer was complete
    │   ├── BackendCredentials       502 did not accept the gateway's own key
    │   └── BackendRefused           ··· answered with an error of its own, status and body kept
    ├── EdgeError                        the llama.cpp process
    │   ├── EdgeUnavailable          503 not started, not warm, or restarting
    │   ├── EdgeOverloaded           503 its queue is full
    │   ├── EdgeCrashed              502 died while it was answering
    │   └── EdgeUnsuitable           400 cannot serve this request (too long, tools, images)
    ├── RetrievalFailed              503 the passages that a route asks for could not be fetched
    ├── NoDeployment                 503 allowed deployments exist, none can be used now
    ├── StoreError
    │   └── StoreUnavailable         503 Redis is slow or gone
    │       └── StoreRefused         503 it answered that it will not
    ├── ShuttingDown                 503 the gateway drains
    ├── ClientGone                   499 the client closed the connection; nobody is left to tell
    ├── InternalError                500 a fault of ours; its message is never shown
    ├── SettingsError                    a flag or environment variable is wrong (at start)
    └── PolicyError                      the policy folder has mistakes (at load)

Each class says its HTTP `status`, the `type` and `code` that OpenAI's error schema carries, whether another try
may succeed (`retryable`), and whether its message may be shown to a client (`safe`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar


class FirstdraftError(Exception):
    """Root of the tree. `message` says what happened, where, and what to do."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    retryable: bool = False
    safe: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error (`retry-after` in whole seconds, `x-should-retry`)."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after_s)))}


_LONGEST_DETAIL = 400


def _header_text(message: str) -> str:
    """What may stand in a quoted string of a header."""
    return "".join(sign if " " <= sign <= "~" and sign not in '"\\' else "'" for sign in message[:200])


# --- the client's ---------------------------------------------------------------------------------------------


class RequestError(FirstdraftError):
    """The request cannot be served as it stands."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(RequestError):
    """A field is missing, of the wrong type or out of range; `param` is its path."""


class FieldUnsupported(InvalidRequest):
    """A deployment's schema has no word for what a field asks for; another may have one, and nothing was sent yet."""

    code = "unsupported_parameter"


class InvalidHTTP(RequestError):
    """HTTP itself is wrong, before there is a request; `status` says in which way (400, 408, 417, 431)."""

    code = "invalid_http"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unauthenticated(RequestError):
    """No API key, or one that belongs to nobody."""

    status = 401
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP wants to be said with each 401; of a token that is no good, why."""
        why = ""
        if self.code == "invalid_token":
            why = f', error="invalid_token", error_description="{_header_text(self.message)}"'
        return {**super().headers, "www-authenticate": f'Bearer realm="firstdraft"{why}'}


class IdentityUnavailable(RequestError):
    """Whether a token is good cannot be told now: its issuer's keys cannot be fetched."""

    status = 503
    type = "server_error"
    code = "identity_unavailable"
    retryable = True


class PolicyDenied(RequestError):
    """Constraints removed every deployment; the message names them."""

    status = 403
    code = "policy_denied"


class UnknownModel(RequestError):
    """The policy has no model of that name that this tenant may use."""

    status = 404
    code = "model_not_found"


class NotFound(RequestError):
    """No such URL or object."""

    status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    """The URL exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class Conflict(RequestError):
    """What is asked for does not fit what is there: a name that is taken, a change that another overtook."""

    status = 409
    code = "conflict"


class BodyTooLarge(RequestError):
    """The request body is larger than the configured limit."""

    status = 413
    code = "request_too_large"


class UnsupportedEncoding(RequestError):
    """The body's `content-encoding` is not one that is unpacked here."""

    status = 415
    code = "unsupported_content_encoding"


class LimitReached(RequestError):
    """What a tenant may use is used up. `left` are the headers that say what is left, as answers have them.

    Where no wait would help, SDKs are told not to retry.
    """

    status = 429
    left: Mapping[str, str] = MappingProxyType({})

    @property
    def headers(self) -> dict[str, str]:
        again = super().headers or {"x-should-retry": "false"}
        return {**again, **self.left}


class BudgetSpent(LimitReached):
    """A budget is used up (`code: insufficient_quota`)."""

    type = "insufficient_quota"
    code = "insufficient_quota"


class RateLimited(LimitReached):
    """Requests or tokens come faster than the tenant's rate; without `retry_after_s` it is too large for it."""

    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retryable = True


# --- the backend's --------------------------------------------------------------------------------------------


class BackendError(FirstdraftError):
    """A deployment failed to answer. `deployment` is its id, for logs and messages."""

    status = 502
    type = "backend_error"
    code = "backend_error"

    def __init__(self, message: str, *, deployment: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.deployment = deployment

    @property
    def detail(self) -> str:
        """What operators are told, and clients are not: may name addresses; nothing of a prompt or an answer."""
        return self.message


class BackendUnreachable(BackendError):
    """No connection: refused, reset before a byte, DNS or TLS failure."""

    code = "backend_unreachable"
    retryable = True

    @property
    def detail(self) -> str:
        return self.message if self.__cause__ is None else f"{self.message}: {self.__cause__}"[:_LONGEST_DETAIL]


class BackendBusy(BackendError):
    """As many requests as may wait for a place do so already; `retry_after_s` says when it may be better."""

    status = 503
    code = "backend_busy"
    retryable = True


class BackendTimeout(BackendError):
    """Connect, first-token, idle or total limit passed; the message says which.

    `is_ours`: it was the gateway that had no place or no time left for this attempt; the backend did nothing wrong.
    """

    status = 504
    code = "backend_timeout"
    retryable = True

    def __init__(self, message: str, *, deployment: str = "", is_ours: bool = False) -> None:
        super().__init__(message, deployment=deployment)
        self.is_ours = is_ours


class BackendBroken(BackendError):
    """The answer is not what the protocol allows (HTML, bad JSON, wrong content type)."""

    code = "backend_invalid_response"
    retryable = True


class BackendCut(BackendError):
    """The answer ended before it was complete (no finish reason, connection lost)."""

    code = "backend_cut"
    retryable = True


class BackendCredentials(BackendError):
    """The backend did not accept the gateway's key (401, 403, 407): nothing that the client could mend."""

    code = "backend_credentials"
    retryable = True


class BackendRefused(BackendError):
    """The backend answered with an error status, or an error event inside a stream.

    `status` is the backend's (of an error event: 502). `body` is its error object's JSON text, passed on to a client
    that speaks the same schema; None when there was none that can be shown.
    """

    RETRYABLE_STATUS: ClassVar[frozenset[int]] = frozenset({408, 409, 424, 425, 429, 500, 502, 503, 504, 529})

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body: bytes | None = None,
        deployment: str = "",
        retry_after_s: float | None = None,
        passed_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, deployment=deployment, retry_after_s=retry_after_s)
        self.status = status
        self.body = body
        self.passed_headers = dict(passed_headers or {})
        self.retryable = status in self.RETRYABLE_STATUS

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, **self.passed_headers}

    @property
    def detail(self) -> str:
        return ""  # a backend's own words may repeat the prompt


# --- the edge's -----------------------------------------------------------------------------------------------


class EdgeError(FirstdraftError):
    """The llama.cpp process could not answer."""

    status = 503
    type = "edge_error"
    code = "edge_error"


class EdgeUnavailable(EdgeError):
    """The edge is not running, not warm yet, or restarting; the message says which."""

    code = "edge_unavailable"
    retryable = True


class EdgeOverloaded(EdgeError):
    """The edge's bounded queue is full."""

    code = "edge_overloaded"
    retryable = True


class EdgeCrashed(EdgeError):
    """The edge process died while it was answering this request."""

    status = 502
    code = "edge_crashed"
    retryable = True


class EdgeUnsuitable(EdgeError):
    """The edge cannot serve this request at all (longer than its context, for example); another deployment may."""

    status = 400
    type = "invalid_request_error"
    code = "edge_unsuitable"
    retryable = True


# --- the gateway's own ----------------------------------------------------------------------------------------


class NoDeployment(FirstdraftError):
    """Policy allows deployments, but none of them can be used right now."""

    status = 503
    code = "no_deployment"
    retryable = True


class RetrievalFailed(FirstdraftError):
    """A store of passages did not answer, or has no index."""

    status = 503
    code = "retrieval_failed"
    retryable = True


class StoreError(FirstdraftError):
    """Redis or Valkey."""

    status = 503
    code = "store_error"


class StoreUnavailable(StoreError):
    """The store did not answer in its time limit, or refused."""

    code = "store_unavailable"
    retryable = True


class StoreRefused(StoreUnavailable):
    """The store answered with an error: this command did nothing, others may be served."""


class ShuttingDown(FirstdraftError):
    """The gateway is draining and takes no new requests."""

    status = 503
    code = "shutting_down"
    retryable = True


class ClientGone(FirstdraftError):
    """The client closed its connection before the answer was complete. Ends up in the log, never on the wire."""

    status = 499
    code = "client_closed"


class InternalError(FirstdraftError):
    """A fault of ours. The client sees a general sentence and the request id, the log has the rest."""

    safe = False
    code = "internal_error"


class SettingsError(FirstdraftError):
    """A setting is wrong; the message names the flag or the environment variable."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake in a policy folder. `line` and `column` count from 1; 0 where the file as a whole is meant."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyError(FirstdraftError):
    """The policy folder cannot be used; `mistakes` holds all of them, in file order."""

    code = "policy_invalid"

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))
