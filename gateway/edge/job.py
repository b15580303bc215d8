"""One request inside the edge process, as the scheduler knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.edge.protocol import Priority

NO_SEQUENCE = -1


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prepared request: its tokens, and the grammar (GBNF) that its answer is held to; empty: none."""

    tokens: list[int]
    grammar: str = ""


@dataclass(slots=True, eq=False)
class Job:
    """A list of tokens that grows, and how many of them the KV cache holds.

    `tokens` are the prompt's and, after them, the answer's; `computed` of them are in the cache under `sequence`. A job
    that lost its cells (see `scheduler`) has `computed` set back: its tokens are read again, like a prompt.
    """

    key: tuple[int, int]
    """Whose it is, and its number there."""
    tokens: list[int]
    max_tokens: int
    tenant: str = ""
    priority: Priority = "interactive"
    domain: str = ""
    """Prefixes are shared between jobs of one domain only."""
    arrived_s: float = 0.0
    prompt_tokens: int = field(init=False)
    sequence: int = NO_SEQUENCE
    computed: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were there when it first began."""
    begun_s: float | None = None
    first_token_s: float | None = None

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def produced(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def pending(self) -> int:
        """Tokens that are to be decoded before the next can be sampled: 1 while it produces."""
        return len(self.tokens) - self.computed

    @property
    def most_tokens(self) -> int:
        """Tokens that it can have in the end."""
        return self.prompt_tokens + self.max_tokens
