"""From a folder to a policy, or to a list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.policy.compile import compile_policy
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.document import read_document
from gateway.policy.environment import Environment
from gateway.policy.mistakes import Mistakes


def load_policy(directory: Path, environ: Mapping[str, str]) -> CompiledPolicy:
    """Read, check and compile the policy in `directory`; `environ` is what `${NAME}` refers to.

    Raises:
        PolicyError: the folder cannot be used; it holds every mistake, with file, line and column.
    """
    mistakes = Mistakes()
    document = read_document(directory, mistakes)
    return compile_policy(document, Environment(environ, directory), mistakes)
