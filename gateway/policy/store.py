"""The policy in force: watched on disk, compiled in full in a thread, and swapped in between two requests.

A folder that cannot be used is refused: what was in force stays so, and `refused` says why until the folder is right.
The only file of this room that may use an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from gateway.errors import PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.document import policy_files
from gateway.policy.history import PolicyHistory
from gateway.policy.load import load_policy

_log = structlog.stdlib.get_logger()

_LOOKS_BETWEEN_RETRIES = 10
_QUIET_S = 0.05
"""So long nothing may change before a change is read."""
_MOST_LOOKS_AT_A_CHANGE = 20

Loader = Callable[[Path, Mapping[str, str]], CompiledPolicy]
Complete = Callable[[CompiledPolicy], CompiledPolicy]
Signature = tuple[tuple[str, int, int, int], ...]
"""Of each file: its name, when it changed (ns), its size and its inode."""


class PolicyStore:
    """Holds the current policy and replaces it when the folder changes.

    `current` is one immutable object: a request takes it once and is served by it to its end.
    """

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        poll_s: float = 1.0,
        *,
        load: Loader = load_policy,
        history: PolicyHistory | None = None,
    ) -> None:
        self._directory = directory
        self._environ = dict(environ)
        self._poll_s = poll_s
        self._load = load
        self._history = history
        self._loaded: CompiledPolicy | None = None
        self._current: CompiledPolicy | None = None
        self._complete: Complete = _as_it_is
        self._swapping = asyncio.Lock()
        self._refused: str | None = None
        self._seen: Signature = ()
        self._looks_since_refused = 0
        self._watch: asyncio.Task[None] | None = None

    @property
    def current(self) -> CompiledPolicy:
        """The policy in force. Only inside the context manager."""
        if self._current is None:
            raise RuntimeError("the policy store was not entered")
        return self._current

    @property
    def refused(self) -> str | None:
        """Why the folder as it is now was refused, one mistake a line; None when it is in force."""
        return self._refused

    async def __aenter__(self) -> Self:
        """Load the policy and begin to watch.

        Raises:
            PolicyError: the folder cannot be used.
        """
        self._seen = await asyncio.to_thread(self._signature)
        self._loaded = self._current = await asyncio.to_thread(self._load, self._directory, self._environ)
        await self._keep(self._current)
        self._watch = asyncio.create_task(self._follow(), name="policy watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    async def reload_if_changed(self) -> bool:
        """Look at the folder now. True when it had changed, be the new policy in force or refused."""
        signature = await asyncio.to_thread(self._signature)
        if signature == self._seen and not self._is_retry_due():
            return False
        signature = await self._settled(signature)
        # Noted before loading: a file that changes while it is read changes the signature once more.
        self._seen = signature
        try:
            policy = await asyncio.to_thread(self._load, self._directory, self._environ)
        except PolicyError as problem:
            self._refuse(problem)
            return True
        async with self._swapping:
            completed = await asyncio.to_thread(self._complete, policy)
            before, self._loaded, self._current, self._refused = self.current, policy, completed, None
        if (policy.version, policy.backends) != (before.version, before.backends):
            _log.info("policy changed", version=policy.version, before=before.version, **policy.counts)
            await self._keep(policy)
        return True

    async def complete(self, complete: Complete) -> None:
        """Have `complete`, which knows what is not in the folder, make what comes into force of each policy.

        Called again when it knows more: the policy in force is then completed anew. It runs in a thread.
        """
        async with self._swapping:
            self._complete = complete
            if self._loaded is not None:
                self._current = await asyncio.to_thread(complete, self._loaded)

    async def _keep(self, policy: CompiledPolicy) -> None:
        """Keep what came into force for a rollback, and log what its author should look at."""
        for warning in policy.warnings:
            _log.warning("policy warning", version=policy.version, warning=str(warning))
        if self._history is not None:
            try:
                await asyncio.to_thread(self._history.keep, policy.version, policy.sources)
            except OSError as problem:
                _log.warning("policy not kept for a rollback", version=policy.version, reason=problem.strerror)

    async def _settled(self, signature: Signature) -> Signature:
        """Wait until nobody writes any more: several files that are edited together are one change."""
        for _ in range(_MOST_LOOKS_AT_A_CHANGE):
            await asyncio.sleep(min(_QUIET_S, self._poll_s))
            before, signature = signature, await asyncio.to_thread(self._signature)
            if signature == before:
                break
        return signature

    def _refuse(self, problem: PolicyError) -> None:
        if self._refused != problem.message:
            first, number = str(problem.mistakes[0]), len(problem.mistakes)
            _log.error("policy refused", version=self.current.version, mistakes=number, first=first)
        self._refused = problem.message

    def _is_retry_due(self) -> bool:
        """A refused folder may become right without a change in it: a key's file appears, a mount comes back."""
        if self._refused is None:
            return False
        self._looks_since_refused = (self._looks_since_refused + 1) % _LOOKS_BETWEEN_RETRIES
        return self._looks_since_refused == 0

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.reload_if_changed()
            except Exception:  # noqa: BLE001 - see below; what it was is logged with its traceback
                # Whatever goes wrong with one look, the policy in force keeps serving and the next look comes.
                _log.exception("policy watch failed", version=self.current.version)

    def _signature(self) -> Signature:
        try:
            files = policy_files(self._directory)
        except OSError:
            files = []
        watched = () if self._current is None else sorted(self._current.watched)
        return tuple(line for file in (*files, *watched) for line in _state_of(file))


def _state_of(file: Path) -> Signature:
    try:
        state = file.stat()
    except OSError:
        return ()
    return ((str(file), state.st_mtime_ns, state.st_size, state.st_ino),)


def _as_it_is(policy: CompiledPolicy) -> CompiledPolicy:
    return policy
