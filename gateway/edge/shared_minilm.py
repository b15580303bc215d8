"""One MiniLM for all of a worker that uses it: 90 MB, loaded with the first use, which may never come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, TypeVar

_THREADS = 2
"""So that a comparison is not behind all the texts of somebody's embeddings."""

_T = TypeVar("_T")


class SharedMiniLM:
    """The model, and the threads in which it works. Whoever makes it closes it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="minilm")
        self._loading = threading.Lock()
        self._model: Any = None  # of `minilm`, which is imported with the first use: numpy takes its time

    def loaded(self) -> Any:  # noqa: ANN401 see above
        """The model; not for the event loop. Raises SettingsError: the extra is not installed."""
        with self._loading:
            if self._model is None:
                self._model = import_module("gateway.edge.minilm").MiniLM()
            return self._model

    def run(self, function: Callable[..., _T], *args: object) -> asyncio.Future[_T]:
        """Call a function in a thread, when one is free."""
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def close(self) -> None:
        """End the threads, as soon as they have done what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
