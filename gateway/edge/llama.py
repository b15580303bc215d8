"""llama.cpp's C interface, without the rest of llama-cpp-python.

The package's own start loads a chat server's worth of modules that nothing here uses, a database among them: 60 to
130 ms and 3 MB of each edge process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["llama_cpp"]

_PACKAGE = "llama_cpp"


def _alone(name: str) -> ModuleType:
    """This module of the package, without the package's `__init__`, which can still be loaded later."""
    if _PACKAGE in sys.modules:
        return importlib.import_module(name)
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{_PACKAGE} is not installed", name=_PACKAGE)
    package = ModuleType(_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = package
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[_PACKAGE]


if TYPE_CHECKING:
    from llama_cpp import llama_cpp
else:
    llama_cpp = _alone(f"{_PACKAGE}.llama_cpp")
