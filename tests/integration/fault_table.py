"""What all cells saw, as the table that the README has."""

from __future__ import annotations

from collections.abc import Mapping

from tests.integration.fault_cells import MODES, Cell, Seen
from tests.upstream.faults import FAULTS

_SHORT = {"answered": "answer", "second": "2nd", "edge": "edge"}


def table(seen: Mapping[Cell, Seen]) -> str:
    """A row for each fault, a column for the modes that do the same in all rows."""
    columns = {mode: [_entry(seen, fault, mode) for fault in FAULTS] for mode in MODES}
    alike: dict[tuple[str, ...], list[str]] = {}
    for mode, column in columns.items():
        alike.setdefault(tuple(column), []).append(f"`{mode}`")
    lines = ["| the backend's fault | " + " | ".join(", ".join(names) for names in alike.values()) + " |"]
    lines.append("| --- |" + " --- |" * len(alike))
    lines += [f"| {fault} | " + " | ".join(row) + " |" for fault, *row in zip(FAULTS, *alike, strict=True)]
    return "\n".join(lines)


def _entry(seen: Mapping[Cell, Seen], fault: str, mode: object) -> str:
    """Alone, then beside a second deployment; plain, then streamed: each only where it differs."""
    alone, second = (_ways(seen, fault, mode, alone=alone) for alone in (True, False))
    return alone if alone == second else f"{alone} → {second}"


def _ways(seen: Mapping[Cell, Seen], fault: str, mode: object, *, alone: bool) -> str:
    plain, streamed = (
        str(next(found for cell, found in seen.items() if _is(cell, fault, mode, stream=stream, alone=alone)))
        for stream in (False, True)
    )
    plain, streamed = _SHORT.get(plain, plain), _SHORT.get(streamed, streamed)
    return plain if plain == streamed else f"{plain} / {streamed}"


def _is(cell: Cell, fault: str, mode: object, *, stream: bool, alone: bool) -> bool:
    of = (cell.fault, cell.mode, cell.stream, cell.alone, cell.surface, cell.native)
    return of == (fault, mode, stream, alone, "chat", False)
