"""What is known of one request when it is over: becomes one log line and the metrics."""

from __future__ import annotations

from copy import copy
from operator import attrgetter
from typing import Any

import msgspec

from gateway.inference.usage import Usage


class AttemptRecord(msgspec.Struct, kw_only=True):
    """One try on one deployment. Times are seconds; None where the phase was not reached."""

    deployment: str
    at: str = "backend"
    """Or `edge`."""
    role: str = "final"
    """`final`; `draft`; `score`: a larger model read a draft (`modes.score`)."""
    is_charged: bool = True
    """Its tokens count: not those of a draft of the edge's that is only shown."""
    outcome: str = "running"
    """`ok`, `cancelled`, `lost` (another one answered first), `over_budget` or `paused` (not asked), or the code of the
    error."""
    detail: str | None = None
    """Of a backend's failure, what went wrong: for operators, because it may name addresses."""
    status: int | None = None
    queue_s: float | None = None
    connect_s: float | None = None
    """Until a connection could be used (0 when one was warm)."""
    prefill_s: float | None = None
    """From the request being sent (edge: measured there) to the first token."""
    decode_s: float | None = None
    """From the first token to the last."""
    whole_s: float | None = None
    """From the request being sent to the last byte, of an answer that comes at once."""
    network_s: float | None = None
    """A round trip on the connection, as the kernel measures it; a part of the prefill."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    estimated: bool = False
    """The tokens were counted by the gateway: the backend gave no usage."""
    cost_nanousd: int = 0
    usage: Usage | None = None
    """What the deployment itself has counted so far; the tokens above are made from it when the attempt is over."""
    logprobs: list[float] = []
    """Of the edge's tokens, in order; not logged."""
    margins: list[float] = []
    """By how much each one's likeliest token exceeded the second, 0..1; not logged."""
    features: tuple[float, ...] | None = None
    """Of a whole draft, as `modes.confidence` has them: what the edge is calibrated from."""


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request from its first byte in to its last byte out. Times are seconds since its arrival."""

    request_id: str
    method: str = ""
    path: str = ""
    client: str = ""
    """The address that asked; of a proxy's client, where the proxy is trusted."""
    surface: str = ""
    job: str = ""
    """`async`, `background` or `batch` where it was answered after, or without, a request of its own."""
    tenant: str = ""
    key: str = ""
    feature: str = ""
    model: str = ""
    stream: bool = False
    route: str = ""
    mode: str = ""
    policy: str = ""
    labels: tuple[str, ...] = ()
    classified: str = ""
    """What the classifier came to: `clean`, `found` or `unclassified`; empty where it looks for nothing."""
    classify_s: float | None = None
    """What it took."""
    found: dict[str, int] = {}
    """How many it found of each kind."""
    deployment: str = ""
    """The deployment that gave the final."""
    attempts: list[AttemptRecord] = []
    dropped: str = ""
    """Fields of the request that this deployment was not sent, as policy says."""
    hedge: str = ""
    """`won` or `lost`: a second deployment was asked, and what became of it; `no_room`: the budget of extra requests
    was used up; empty where the first was in time, or there was none to ask."""
    cache: str = ""
    """`hit`, `stale`, `coalesced`, `miss`, `bypass`, or empty where the request never came so far; `refresh`: nobody
    waited for this answer."""
    retrieval: str = ""
    """`hit` (found before), `searched`, `none`, `failed`, `denied`, or empty where no passages were asked for."""
    retrieval_s: float | None = None
    draft: str = ""
    """The verdict, or empty where there was no draft."""
    no_draft: str = ""
    """Why no draft was made."""
    similarity: float | None = None
    confidence: float | None = None
    """Of a whole draft, 0..1; None where the edge's model is not calibrated."""
    cascade: str = ""
    """In mode cascade: `stands`, or why the larger model was asked (`modes.cascade`)."""
    score: str = ""
    """What a larger model's score did with the draft: `kept`, `refined`, or why there was none (`modes.score`)."""
    status: int = 0
    error: str = ""
    """The code of the error, empty when there was none; `client_closed` when the client left."""
    finish_reason: str = ""
    draft_ttft_s: float | None = None
    final_ttft_s: float | None = None
    e2e_s: float | None = None
    tpot_s: float | None = None
    """Seconds per output token of the final after its first."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    draft_tokens: int = 0
    estimated: bool = False
    cost_nanousd: int = 0
    held_tokens: int = 0
    budget_warnings: int = 0
    """Budgets of which more is used than the tenant wants unsaid."""
    hold: str = ""
    """`settled`, `downgraded`, `refused`, or empty where no budget applies."""

    def copy(self) -> RequestRecord:
        """The same so far; what happens from now on is written into one of them only."""
        same = copy(self)
        same.attempts = list(self.attempts)
        return same

    def take(self, other: RequestRecord) -> None:
        """Take over how the request was answered; what the request itself is and how it ended stays."""
        for name in _ANSWER:
            setattr(self, name, getattr(other, name))

    def take_decision(self, other: RequestRecord) -> None:
        """Take over what was decided for it."""
        for name in _DECISION:
            setattr(self, name, getattr(other, name))

    def told_to_tenant(self) -> dict[str, Any]:
        """The same as `fields`, without what only operators may know."""
        line = self.fields()
        for attempt in line.get("attempts", ()):
            attempt.pop("detail", None)
        return line

    def fields(self) -> dict[str, Any]:
        """The log line's fields: all that is set, nothing that is empty."""
        # Empty texts, lists and None are not equal to 0, counts and flags are: 0 says something.
        line = {name: value for name, value in zip(_NAMES, _VALUES(self), strict=True) if value or value == 0}
        for name in _TIMES.intersection(line):
            line[name] = round(line[name], 6)
        if self.attempts:
            line["attempts"] = [_attempt_fields(attempt) for attempt in self.attempts]
        return line


_NAMES = RequestRecord.__struct_fields__
_VALUES = attrgetter(*_NAMES)
_TIMES = frozenset(name for name, type_ in RequestRecord.__annotations__.items() if "float" in type_)
_ANSWER: tuple[str, ...] = (
    *_NAMES[_NAMES.index("deployment") : _NAMES.index("cache")],
    *_NAMES[_NAMES.index("draft") : _NAMES.index("status")],
    *_NAMES[_NAMES.index("finish_reason") : _NAMES.index("e2e_s")],
    *_NAMES[_NAMES.index("tpot_s") :],
    "mode",
)


_DECISION = _NAMES[_NAMES.index("feature") : _NAMES.index("deployment")]


def _attempt_fields(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name in attempt.__struct_fields__
        if name not in {"logprobs", "margins", "usage", "is_charged"} and (value := getattr(attempt, name)) is not None
    }
