"""What came of a task."""

from __future__ import annotations

import asyncio
from typing import Any


def error_of(task: asyncio.Future[Any]) -> BaseException | None:
    """What a task (or any future) that is over has raised; None where it has not, or was cancelled.

    To be asked of each that was cancelled: until then it keeps the frames that it was cancelled in, and these keep it.
    """
    try:
        return task.exception()
    except asyncio.CancelledError:
        return None
