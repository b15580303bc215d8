"""The policy folder that `firstdraft init` writes: small, commented, good for a first day."""

from __future__ import annotations

from importlib import resources


def files() -> dict[str, str]:
    """Name and text of each file, by name. The repository's `policies/` holds the same."""
    folder = resources.files("gateway.policy").joinpath("first_folder")
    texts = {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    return dict(sorted(texts.items()))
