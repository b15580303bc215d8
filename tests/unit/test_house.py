"""The rules of the house that no other tool checks: sizes, names, descriptions, tasks and their owners."""

from __future__ import annotations

import ast
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATEWAY = ROOT / "gateway"
SOURCES = sorted(GATEWAY.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
ROOMS = sorted({path.parent for path in SOURCES})

MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 60
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "base"}

TASK_OWNERS = {
    "gateway/backends/leftovers.py": "answers read on when their client has left; the backends' context ends them",
    "gateway/budgets/ledger.py": "renewer, settler and reaper; the ledger's context ends them and settles what is open",
    "gateway/cache/flights.py": "flights, and their publishers; ended when nobody reads, at the latest by the context",
    "gateway/cache/prompts.py": "the writer of answers; the cache's context lets it finish, then ends it",
    "gateway/edge/client.py": "the connection to the edge process; the client's context ends it",
    "gateway/edge/group.py": "the start of further edges, one after the other; the group's context ends it",
    "gateway/edge/supervisor.py": "the watch over the edge process; the supervisor's context ends it",
    "gateway/jobs/later.py": "answers that are fetched later, and the keepers of their leases; the context ends them",
    "gateway/jobs/worker.py": "pieces of batches, who takes them, renews leases; its context gives back and ends all",
    "gateway/modes/draft_refine.py": "the draft beside the final; the mode awaits or cancels it before it returns",
    "gateway/modes/hedge.py": "one or two attempts that race; the mode awaits or cancels both before it returns",
    "gateway/policy/store.py": "the watch over the folder; the store's context ends it",
    "gateway/server/app.py": "comments in silent streams; the application's clean-up ends it",
    "gateway/server/run.py": "two waits raced against each other while draining; both are cancelled and awaited",
    "gateway/server/tls.py": "the watch over the certificate; its context ends it",
    "gateway/server/workers.py": "two waits raced against each other; both are cancelled and awaited at once",
    "gateway/services.py": "closing backends that policy dropped; the services' context ends it",
    "gateway/tenants/issuer_keys.py": "a fetch of an issuer's keys; `Tokens` ends it",
    "gateway/store/link.py": "the connection and the probe of a server that failed; the store's context ends both",
    "gateway/store/servers.py": "finding a Cluster's nodes, and following them; the store's context ends both",
    "gateway/store/embedded.py": "the watch over the embedded store; its context ends it",
}
"""Who may start a task outside a TaskGroup, and what becomes of it."""


@pytest.fixture(scope="module", autouse=True)
def no_garbage():
    """No finalizer of others runs while a file is parsed: a traceback parses, too, and Python 3.11 then loses count."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def relative(path):
    return path.relative_to(ROOT).as_posix()


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parsed(path):
    return ast.parse(path.read_text(), filename=str(path))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_sizes(path):
    """A file has at most 500 lines, a function at most 60: beyond that it is two things."""
    assert len(path.read_text().splitlines()) <= MOST_LINES
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(parsed(path))}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_module_has_a_description(path):
    """Each module begins with what it is."""
    assert ast.get_docstring(parsed(path))


def test_names():
    """No module and no room is named for nothing in particular."""
    names = {part for path in SOURCES for part in path.relative_to(GATEWAY).with_suffix("").parts}
    assert names & NO_NAMES == set()


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_room_has_a_description_and_nothing_else(room):
    """A room's `__init__` says what the room is, and does nothing: importing one module imports no other."""
    body = parsed(room / "__init__.py").body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)
    assert len(body[0].value.value.strip().splitlines()[0]) > 20


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_happens_at_import(path):
    """At its top level a module defines: no loops, no `with`, no bare calls, no state that functions change."""
    for node in parsed(path).body:
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try | ast.Delete), f"line {node.lineno}"
        assert not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)), f"line {node.lineno}"
    changed = [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.Global)]
    assert changed == []


def task_makers(tree):
    """The calls that make a task outside a TaskGroup."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            of_asyncio = isinstance(owner, ast.Name) and owner.id == "asyncio"
            of_a_loop = "loop" in ast.unparse(owner)
            if node.func.attr in {"create_task", "ensure_future"} and (of_asyncio or of_a_loop):
                yield node


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_tasks_have_owners(path):
    """A task outside a TaskGroup is made only by an owner that is known to end it, and is never dropped."""
    tree = parsed(path)
    made = list(task_makers(tree))
    assert not made or relative(path) in TASK_OWNERS, f"a task without an owner at line {made[0].lineno}"
    dropped = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Expr) and node.value in made]
    assert dropped == []


def test_owners_of_tasks_exist():
    """The list of owners holds nobody who makes no tasks."""
    idle = [name for name in TASK_OWNERS if not list(task_makers(parsed(ROOT / name)))]
    assert idle == []


def test_tests_mirror_the_rooms():
    """Each folder of unit tests is a room, and each room has unit tests."""
    folders = {path.name for path in (ROOT / "tests/unit").iterdir() if list(path.glob("test_*.py"))}
    rooms = {room.name for room in ROOMS if room.parent == GATEWAY}
    assert folders <= rooms
    assert rooms - folders <= {"inference"}, "rooms without unit tests"  # plain data, tested through all others


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=relative)
def test_tests_say_their_rule(path):
    """Each test's docstring is the rule that it holds."""
    silent = [
        node.name for node in functions(parsed(path)) if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_exceptions_have_reasons():
    """Each `noqa` names its rule and its reason, each `type: ignore` its code; so does each rule that is off."""
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{relative(path)}:{number}"
            if "# noqa" in line:
                assert re.search(r"# noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* +\W?\s*\w.{5,}", line), where
            if "type: ignore" in line:
                assert re.search(r"type: ignore\[[a-z-]+", line), where
    rules = (ROOT / "pyproject.toml").read_text().split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.flake8")[0]
    for line in rules.splitlines():
        if re.match(r'\s+"[A-Z]+\d*",', line):
            assert re.search(r'", +# \S.{5,}', line), f"pyproject.toml: no reason beside {line.strip()}"


@pytest.mark.parametrize(
    ("where", "line", "contract"),
    [
        ("gateway/inference/usage.py", "from gateway.wire import sse", "One way down, once up"),
        ("gateway/budgets/limit.py", "from gateway.tenants import tenant", "One way down, once up"),
        ("gateway/newroom/__init__.py", "", "One way down, once up"),
        ("gateway/policy/facts.py", "import asyncio", "Pure rooms reach"),
        ("gateway/routing/decide.py", "from gateway.store import client", "Pure rooms reach"),
        ("gateway/policy/facts.py", "from gateway.policy import store", "Only what runs may import"),
    ],
)
def test_contracts_see_a_breach(tmp_path, where, line, contract):
    """The import contracts are no decoration: a copy of the house with one wrong import breaks the right one."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for path in SOURCES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    target = tmp_path / where
    target.parent.mkdir(exist_ok=True)
    with target.open("a") as file:
        file.write(f"\n{line}\n")
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"{contract}.* BROKEN", done.stdout), done.stdout
