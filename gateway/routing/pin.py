"""Where a conversation stays: `pin: conversation` on a route.

Nothing is remembered. The conversation's beginning, which each of its requests brings along, is hashed with each
region, and within it with each deployment: the highest comes first ("rendezvous hashing": Thaler & Ravishankar, 1998).
All gateways come to the same order by themselves. While the first is not well its conversations go to the next in the
same region, each of the other conversations stays where it is; and they come back when it is well again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

from gateway.inference.deployment import Deployment


def pinned(
    deployments: Sequence[Deployment], beginning: int, *, fails: Collection[str], edge_last: bool
) -> tuple[Deployment, ...]:
    """`deployments` in the order of the conversation that begins so; those in `fails` last."""
    return tuple(
        sorted(
            deployments,
            key=lambda at: (
                at.id in fails,
                edge_last and at.is_edge,
                -_hash(at.backend.region, beginning),
                -_hash(at.id, beginning),
            ),
        )
    )


def _hash(name: str, beginning: int) -> int:
    """Of two names, either may be the higher with any beginning: a checksum would not do."""
    return int.from_bytes(blake2b(name.encode(), key=beginning.to_bytes(4, "big"), digest_size=8).digest())
