"""Embeddings beside the gateway: all-MiniLM-L6-v2 in a thread of this worker, for data that may not leave.

One request at a time, in the order of `places`, a few texts at once: so a client that leaves is noticed between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.backends.call import Call
from gateway.backends.places import Load, Places
from gateway.edge.shared_minilm import SharedMiniLM
from gateway.errors import BackendTimeout, FieldUnsupported
from gateway.inference.deployment import Backend
from gateway.inference.events import Emit
from gateway.inference.usage import input_tokens_estimate
from gateway.wire.openai_embeddings import encode_vectors, wanted_of

_AT_ONCE = 4


class MiniLMBackend:
    """Asks the worker's model, which it has no part in closing."""

    def __init__(self, backend: Backend, minilm: SharedMiniLM) -> None:
        self.active = 0
        """Calls that run now."""
        self._places = Places(1, backend.queue, backend=backend.name)
        self._minilm = minilm

    async def answer(self, call: Call, emit: Emit) -> None:
        """Emit one `WholeAnswer`.

        Raises:
            BackendBusy: too many wait already.
            BackendTimeout: it took longer than the backend's `total`, or than the request may.
            FieldUnsupported: it asks for something else than embeddings, for other dimensions, or for a longer text
                than the model was made for.
        """
        wanted = wanted_of(call.request, call.deployment.id)
        seconds = min(call.deployment.backend.timeouts.total_s, call.deadline - asyncio.get_running_loop().time())
        self.active += 1
        try:
            async with asyncio.timeout(seconds):
                tokens = input_tokens_estimate(call.request)
                async with self._places.take(call.tenant, weight=call.weight, input_tokens=tokens) as place:
                    rows, used = await self._embed(call, wanted.texts)
                    place.used(input_tokens=used, output_tokens=0)
        except TimeoutError:
            name = call.deployment.id
            raise BackendTimeout(f"{name} did not complete the answer within {seconds:g} s", deployment=name) from None
        finally:
            self.active -= 1
        await emit(encode_vectors(rows, wanted, model=call.deployment.model, tokens=used))

    async def _embed(self, call: Call, texts: Sequence[str]) -> tuple[list[bytes], int]:
        loop = asyncio.get_running_loop()
        began, rows, used = loop.time(), list[bytes](), 0
        call.record.connect_s = 0.0
        for start in range(0, len(texts), _AT_ONCE):
            part = texts[start : start + _AT_ONCE]
            some, tokens = await self._minilm.run(self._vectors, call.deployment.id, part, start)
            rows += some
            used += tokens
        call.record.prefill_s = loop.time() - began
        return rows, used

    def _vectors(self, deployment: str, texts: Sequence[str], first: int) -> tuple[list[bytes], int]:
        """In the thread: float32 in bytes for each text, and how many tokens they have."""
        model = self._minilm.loaded()
        read = [model.read(text) for text in texts]
        for index, (tokens, is_whole) in enumerate(read, first):
            if not is_whole:
                field = f"input[{index}]"
                message = f"'{field}' is longer than the {len(tokens)} tokens that {deployment} reads; split it."
                raise FieldUnsupported(message, param=field)
        vectors = model.vectors([tokens for tokens, _ in read])
        return [row.tobytes() for row in vectors], sum(len(tokens) for tokens, _ in read)

    @property
    def load(self) -> Load:
        """How full it is."""
        return self._places.load

    async def close(self) -> None:
        """Nothing of it is its own."""

    async def retire(self) -> None:
        """Calls that run go on."""
