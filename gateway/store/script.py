"""Lua that runs in the server as one step: nothing else happens between its first command and its last.

Old and new gateways may run side by side: a script is known by the hash of its text, so that each gateway runs its own
version. What they share is the data, whose shape has a number in its keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Final

from gateway.store.line import Argument, pack

RUN: Final = "\x00run"
"""As an argument: stands for the name of the process that runs the script (16 bytes of its run id)."""

_FLAGS = "#!lua flags=allow-oom\n"
"""A full memory must stop caches from growing, not budgets from being settled. Needs Valkey, or Redis 7."""
_MOST_HEADS = 10_000


class Script:
    """One script's text, and the SHA-1 by which the server knows it."""

    __slots__ = ("_heads", "name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = _FLAGS + text
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self._heads: dict[tuple[object, int, bytes], bytes] = {}

    @classmethod
    def read(cls, package: str, name: str, *files: str) -> Script:
        """Join the package's Lua `files`, in that order: what they share comes first, as local functions."""
        folder = resources.files(package)
        return cls(name, "\n".join((folder / file).read_text(encoding="utf-8") for file in files))

    def packed(self, keys: Sequence[str], args: Sequence[Argument], run: bytes, *, by_text: bool = False) -> bytes:
        """The call as it is sent: by its hash, or with its whole text."""
        if by_text:
            return self.words(keys, args, run)
        first = run if args and args[0] is RUN else b""
        head = self._heads.get((keys, len(args), first)) if type(keys) is tuple else None
        if head is None:
            head = self._head(keys, len(args), first)
        words = [_encoded(argument, run) for argument in (args[1:] if first else args)]
        return head + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])

    def words(self, keys: Sequence[str], args: Sequence[Argument], run: bytes) -> bytes:
        """The call with the script's whole text: any server runs it."""
        words = (*(_encoded(key, run) for key in keys), *(_encoded(argument, run) for argument in args))
        return pack("EVAL", self.text, len(keys), *words)

    def _head(self, keys: Sequence[str], arguments: int, first: bytes) -> bytes:
        """All before the arguments, and the process where it is the first; the same for each call with these keys."""
        encoded = tuple(_encoded(key, b"") for key in keys)
        packed = pack("EVALSHA", self.sha, len(keys), *encoded, *((first,) if first else ()))
        head = b"*%d\r\n" % (3 + len(keys) + arguments) + packed.split(b"\r\n", 1)[1]
        if type(keys) is tuple:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[keys, arguments, first] = head
        return head


def _encoded(word: Argument, run: bytes) -> bytes:
    if type(word) is bytes:
        return word
    if type(word) is int:
        return b"%d" % word
    return run if word is RUN else str(word).encode("utf-8", "surrogatepass")
