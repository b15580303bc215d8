"""All YAML files of a policy folder, merged into one document. Any file may hold any section."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from gateway.policy.mistakes import Mark, Mistakes, nearest, suggestion
from gateway.policy.yaml_file import MOST_BYTES, Path, Tree, read_tree

MAPPINGS = ("backends", "models", "stores", "tenants")
LISTS = ("constraints", "routes", "invariants", "trusted_proxies", "issuers")
SECTIONS = (*MAPPINGS, *LISTS)
CASES = "tests"
"""The folder inside a policy folder with its cases."""
EXAMPLES = "examples"
"""A folder inside it whose own folders are policies by themselves."""
MOST_FILES = 200
_MOST_ENTRIES = 2_000
"""Of its inner folders: so many are looked at."""
_DEEPEST = 4
_MAKE_ONE = "; `firstdraft init DIR` writes a first policy folder"


@dataclass(slots=True)
class Document:
    """The merged sections: mappings by name, lists in the order of file names, and where everything stands."""

    directory: FilePath
    mappings: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: {} for name in MAPPINGS})
    lists: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in LISTS})
    marks: dict[Path, Mark] = field(default_factory=dict)
    key_marks: dict[Path, Mark] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Sections of which something could not be read: a name that is not there is then nobody's mistake."""
    sources: dict[str, bytes] = field(default_factory=dict)
    """The files by name, as they were read."""
    digest: bytes = b""
    """SHA-256 over the names and contents of the files."""

    def mark(self, path: Path) -> Mark:
        """Where the value at `path` stands; the nearest place around it when there is none."""
        for end in range(len(path), 0, -1):
            found = self.marks.get(path[:end])
            if found is not None:
                return found
        return Mark(str(self.directory))

    def lacks(self, section: str, name: str) -> bool:
        """Nothing in the whole folder has this name."""
        return section not in self.broken and name not in self.mappings[section]

    def name_mark(self, path: Path) -> Mark:
        """Where the key of `path` stands; of a list's item, where the item begins."""
        return self.key_marks.get(path) or self.mark(path)


def policy_files(directory: FilePath) -> list[FilePath]:
    """The folder's own `*.yaml` and `*.yml`, by name, whatever they are; not hidden ones. Raises OSError."""
    return sorted(entry for entry in directory.iterdir() if is_policy_file(entry.name))


def is_policy_file(name: str) -> bool:
    """A file of this name is one of the policy's."""
    return name.lower().endswith((".yaml", ".yml")) and not name.startswith(".")


def _strays(directory: FilePath) -> list[FilePath]:
    """YAML files in folders below, where nobody reads them; those of `tests` are cases, `examples` is not looked at."""
    found, looked = [], 0
    for root, folders, files in os.walk(directory):
        inside = FilePath(root).relative_to(directory).parts
        is_read = inside in {(), (CASES,)}
        kept = (name for name in sorted(folders) if not name.startswith(".") and (inside or name != EXAMPLES))
        folders[:] = kept if len(inside) < _DEEPEST else []
        looked += len(files) + len(folders)
        if not is_read:
            found += [FilePath(root, name) for name in sorted(files) if is_policy_file(name)]
        if looked > _MOST_ENTRIES:
            break
    return found


def read_document(directory: FilePath, mistakes: Mistakes) -> Document:
    """Read and merge the folder; mistakes are noted, and what could be read is in the document."""
    document = Document(directory)
    try:
        files = policy_files(directory)
    except OSError as problem:
        reason = problem.strerror or "cannot be read"
        mistakes.add(Mark(str(directory)), f"no policy folder: {reason}{_MAKE_ONE}")
        document.broken.update(SECTIONS)
        return document
    if not files:
        document.broken.update(SECTIONS)
        mistakes.add(Mark(str(directory)), f"no *.yaml in this folder{_MAKE_ONE}")
    if len(files) > MOST_FILES:
        mistakes.add(Mark(str(directory)), f"more than {MOST_FILES} policy files")
    digest = hashlib.sha256()
    for file in files[:MOST_FILES]:
        data = document.sources[file.name] = _read(file, mistakes)
        digest.update(f"{file.name}\0{len(data)}\0".encode("utf-8", "surrogateescape") + data)
        tree = read_tree(str(file), data, mistakes)
        if tree is None:
            document.broken.update(SECTIONS)
        else:
            _merge(document, tree, mistakes)
    document.digest = digest.digest()
    for file in _strays(directory):
        mistakes.warn(Mark(str(file)), "this file is not read: a policy is what stands in its folder, not below it")
    return document


def _read(file: FilePath, mistakes: Mistakes) -> bytes:
    """The file's bytes. One that cannot be read, or says nothing, is a mistake: it may have held constraints."""
    try:
        if not file.is_file():
            what = "a link to nothing" if file.is_symlink() else "no regular file"
            mistakes.add(Mark(str(file)), f"cannot be read: it is {what}; remove it, or give it another ending")
            return b""
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as problem:
        mistakes.add(Mark(str(file)), f"cannot be read: {problem.strerror}")
        return b""
    if not data.strip():
        mistakes.add(Mark(str(file)), "the file is empty; remove it if that is meant: it may be half written")
    return data


def _merge(document: Document, tree: Tree, mistakes: Mistakes) -> None:
    if tree.value is None:
        return
    if not isinstance(tree.value, dict):
        document.broken.update(SECTIONS)
        mistakes.add(tree.marks[()], f"a policy file is a mapping with sections ({', '.join(SECTIONS)})")
        return
    for section, value in tree.value.items():
        if section in MAPPINGS:
            _merge_mapping(document, section, value, tree, mistakes)
        elif section in LISTS:
            _merge_list(document, section, value, tree, mistakes)
        else:
            document.broken.update(nearest(section, SECTIONS))
            mark = tree.key_marks[section,]
            mistakes.add(mark, f"unknown section `{section}`{suggestion(section, SECTIONS)}")


def _merge_mapping(document: Document, section: str, value: object, tree: Tree, mistakes: Mistakes) -> None:
    if value is None:
        _refuse_empty(document, section, tree, mistakes)
        return
    if not isinstance(value, dict):
        document.broken.add(section)
        mistakes.add(tree.marks[section,], f"`{section}` is a mapping from names to what they mean")
        return
    merged = document.mappings[section]
    named = frozenset(merged)
    for name in value:
        if name in named:
            first = document.key_marks[section, name]
            mistakes.add(tree.key_marks[section, name], f"`{name}` is named twice; first at {first.file}:{first.line}")
    merged.update({name: item for name, item in value.items() if name not in named})
    _take_marks(document, tree, section, without=named)


def _refuse_empty(document: Document, section: str, tree: Tree, mistakes: Mistakes) -> None:
    document.broken.add(section)
    mistakes.add(tree.marks[section,], f"`{section}` says nothing; remove it if that is meant: it may be half written")


def _merge_list(document: Document, section: str, value: object, tree: Tree, mistakes: Mistakes) -> None:
    if value is None:
        _refuse_empty(document, section, tree, mistakes)
        return
    if not isinstance(value, list):
        document.broken.add(section)
        mistakes.add(tree.marks[section,], f"`{section}` is a list: each entry begins with `- name: …`")
        return
    merged = document.lists[section]
    _take_marks(document, tree, section, shift=len(merged))
    merged.extend(value)


def _take_marks(
    document: Document, tree: Tree, section: str, *, shift: int = 0, without: frozenset[str] = frozenset()
) -> None:
    for theirs, ours in ((tree.marks, document.marks), (tree.key_marks, document.key_marks)):
        for path, mark in theirs.items():
            if len(path) < 2 or path[0] != section or path[1] in without:
                continue
            second = path[1] + shift if isinstance(path[1], int) else path[1]
            ours[section, second, *path[2:]] = mark
