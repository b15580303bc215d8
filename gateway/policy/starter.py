"""The policy folder that `firstdraft init` writes: small, commented, good for a first day."""

from __future__ import annotations

from importlib import resources


def files() -> dict[str, str]:
    """Name and text of each file, by name, `tests/…` among them. The repository's `policies/` holds the same."""
    folder = resources.files("gateway.policy").joinpath("first_folder")
    found = [("", entry) for entry in folder.iterdir()]
    found += [("tests/", entry) for entry in folder.joinpath("tests").iterdir()]
    texts = {f"{where}{entry.name}": entry.read_text("utf-8") for where, entry in found if entry.name.endswith(".yaml")}
    return dict(sorted(texts.items()))
