"""Whether a model fits in the memory that there is for it."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from gateway.errors import EdgeUnavailable

BESIDE_BYTES = 80_000_000
"""What the process takes beside weights and KV cache: Python, numpy, llama.cpp's compute buffers."""


class Room:
    """`most_bytes` that weights, KV cache and all the rest may take; 0: what the machine has left."""

    def __init__(self, most_bytes: int = 0) -> None:
        self._most_bytes = most_bytes

    def check(self, model: str, weights_bytes: int, kv_bytes: int = 0, *, loaded: bool = False) -> None:
        """Raises EdgeUnavailable, with the figures, when it is not enough: the kernel would end somebody.

        `loaded`: the weights are in memory already.
        """
        need = weights_bytes + kv_bytes + BESIDE_BYTES
        left, whose = available_bytes() + loaded * weights_bytes, "of this machine's memory"
        if 0 < self._most_bytes < left:
            left, whose = self._most_bytes, "of --edge-memory-mb"
        if need > left:
            parts = f"weights {_mb(weights_bytes)}, KV cache {_mb(kv_bytes)}, and {_mb(BESIDE_BYTES)} beside"
            raise EdgeUnavailable(
                f"the model {model} does not fit: it needs {_mb(need)} ({parts}); {_mb(left)} {whose} are left for it"
            )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def available_bytes() -> int:
    """Memory that this process could still take: what the kernel can free, and no more than its control group may."""
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    left = int(found[1]) * 1024 if found else sys.maxsize
    try:
        group = Path("/sys/fs/cgroup")
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(left, int(most) - int(used))
    except (OSError, ValueError):  # no control groups, or no limit ("max")
        return left


def rss_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
