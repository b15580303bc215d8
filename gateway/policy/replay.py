"""Facts as one line of JSON and back, so that a decision can be made again: recorded decisions, and their replay.

Of metadata and headers only what some condition of the policy asks for is written; a prompt is never part of facts.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.space import entry_aspect
from gateway.policy.syntax import walk


class Recorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision: what it was made from, and under which policy."""

    at: int
    """Unix time, in seconds."""
    policy: str
    facts: Facts


class Recorder:
    """Encodes facts for one policy; knows which metadata its conditions ask for."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.policy = policy
        asked = {entry_aspect(part) for tree in policy.conditions.trees for part in walk(tree)}
        parts = [aspect.partition(" ") for aspect in asked if aspect]
        self._metadata = {key for container, _, key in parts if container == "request.metadata"}
        self._headers = {key for container, _, key in parts if container == "request.headers"}

    def line(self, facts: Facts, at: int) -> bytes:
        """The line, without its end."""
        slim = msgspec.structs.replace(
            facts,
            metadata={key: value for key, value in facts.metadata.items() if key in self._metadata},
            headers={key: value for key, value in facts.headers.items() if key in self._headers},
        )
        return msgspec.json.encode(Recorded(at=at, policy=self.policy.version, facts=slim))


def read(lines: Iterable[bytes]) -> list[Recorded]:
    """The decisions that can be read; a line that is cut or foreign is left out."""
    found = []
    decoder = msgspec.json.Decoder(Recorded)
    for line in lines:
        try:
            found.append(decoder.decode(line))
        except msgspec.MsgspecError:
            continue
    return found
