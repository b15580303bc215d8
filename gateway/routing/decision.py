"""The outcome of policy for one request: immutable, with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.cache.rule import CacheRule
from gateway.errors import FirstdraftError
from gateway.inference.deployment import Deployment
from gateway.inference.request import DraftWish
from gateway.policy.compiled import CascadeRule, HedgeRule, Mode, RefineRule
from gateway.retrieval.rule import RetrievalRule

NoDraft = Literal[
    "",
    "not_asked",
    "tools",
    "json",
    "images",
    "audio",
    "n",
    "logprobs",
    "too_long",
    "route",
    "constraint",
    "edge_not_ready",
    "mode",
    "queue",
]


class Removal(msgspec.Struct, frozen=True):
    """A deployment that could have answered and may not."""

    deployment: str
    """Its id."""
    by: str
    """The constraint's name, or what the deployment lacks: `tools`, `images`, `audio`, `json`, `n`, `context`."""
    reason: str
    is_constraint: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is to be served. When `refusal` is set there is nothing to serve it with."""

    policy_version: str
    route: str = ""
    """Its name; empty when none matched."""
    mode: Mode = Mode.CLOUD_ONLY
    """The effective mode: the route's, or `edge_only` where only edge deployments are left."""
    deployments: tuple[Deployment, ...] = ()
    """All that may give the final, best first: those that the route prefers, then its fallback."""
    first_choices: int = 0
    """How many of them, from the front, are what the route prefers; all, when nothing that it prefers was left."""
    drafter: Deployment | None = None
    """What drafts on this route, if a draft is made."""
    draft: Deployment | None = None
    """It, when a draft is to be made."""
    draft_max_tokens: int = 0
    draft_within_s: float | None = None
    """A draft whose first token would come later than this, in seconds, is not begun: the final is expected by then."""
    no_draft: NoDraft = ""
    """Why no draft is made; empty when one is."""
    draft_wish: DraftWish = DraftWish.OFF
    """The client's wish, else the route's default."""
    spent: tuple[Deployment, ...] = ()
    """What to use when a budget is spent; empty: refuse. Never more than the constraints left."""
    spent_mode: Mode = Mode.EDGE_ONLY
    hedge: HedgeRule | None = None
    """When a second one of the first choices is asked beside the first."""
    cascade: CascadeRule | None = None
    """When the draft stands; None in all other modes."""
    compares_meaning: bool = False
    """The verdict looks at meanings, too."""
    refine: RefineRule | None = None
    """What is done with a draft before a larger model writes its own answer."""
    cache: CacheRule | None = None
    retrieval: RetrievalRule | None = None
    """Passages to be added; None: none, or `no_retrieval` says why not."""
    no_retrieval: str = ""
    """Why the route's passages may not be fetched for this request."""
    removed: Sequence[Removal] = ()
    reasons: tuple[str, ...] = ()
    refusal: FirstdraftError | None = None
    """Why the request cannot be served; `deployments` is empty then."""

    def may_answer(self) -> tuple[str, ...]:
        """What an answer's key says of where it comes from: the ids of all that may give it.

        In a cascade the edge is one of them, and the rule by which its answer stands belongs to it. It is none of them
        where the request may not go there; that it has no time, or is not ready, makes no other key.
        """
        ids = tuple(deployment.id for deployment in self.deployments)
        if self.cascade is None or self.drafter is None or self.no_draft not in {"", "queue", "edge_not_ready"}:
            return ids
        return (*ids, self.drafter.id, f"cascade {self.cascade} {self.refine}")
