from __future__ import annotations

import hashlib
import re
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from gateway.cli.main import COMMANDS, firstdraft, main
from gateway.policy import starter


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(firstdraft, arguments, prog_name="firstdraft")


def test_help_of_the_group_is_that_of_its_commands():
    """The one line that stands for a command is the first line of its own help."""
    context = firstdraft.make_context("firstdraft", ["serve"])
    for name, (_, line) in COMMANDS.items():
        command = firstdraft.get_command(context, name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == line


def test_help_imports_no_command():
    """Help is fast because no command is imported for it, and none of what they stand on."""
    code = "import sys, gateway.cli.main as m\ntry: m.main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "Run the gateway." in done.stdout
    for module in ("aiohttp", "redis", "llama_cpp", "pydantic", "httpx", "rich", "structlog", "gateway.settings"):
        assert f"'{module}'" not in done.stdout


def test_unknown_command(run):
    """A command that does not exist is refused with exit status 2."""
    done = run("srve")
    assert done.exit_code == 2
    assert "No such command 'srve'" in done.output


def test_error_of_ours_has_no_traceback(capsys, tmp_path, monkeypatch):
    """A wrong setting ends the process with one line for each mistake, and status 1."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--port", "x"])
    error = capsys.readouterr().err
    assert caught.value.code == 1
    assert error.startswith("firstdraft: --port 'x' (or FIRSTDRAFT_PORT): has to be a whole number")
    assert "Traceback" not in error


def test_init(run, tmp_path):
    """`init` writes the starter policy and says what to do next."""
    done = run("init", "mine/policies")
    assert done.exit_code == 0
    written = tmp_path / "mine/policies"
    assert {str(path.relative_to(written)): path.read_text() for path in written.rglob("*.yaml")} == starter.files()
    assert "firstdraft serve --policies mine/policies" in done.output


def test_init_twice(run, tmp_path):
    """`init` overwrites nothing, and writes nothing beside what is there."""
    (tmp_path / "routes.yaml").write_text("mine")
    done = run("init", ".")
    assert done.exit_code == 1
    assert "routes.yaml already; nothing was written" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["routes.yaml"]


def test_init_where_it_cannot_write(run, tmp_path):
    """A folder that cannot be made is an error, not a traceback."""
    (tmp_path / "file").touch()
    done = run("init", "file/policies")
    assert done.exit_code == 1
    assert "cannot be written" in done.output


@pytest.mark.parametrize("name", ["prod", "on", "1.5", "a-b"])
def test_new_key(run, name):
    """The key alone goes to standard output; the YAML that is printed holds its hash and its name as text."""
    done = run("keys", "new", "acme", "--name", name)
    key = done.stdout.strip()
    assert re.fullmatch(r"fd-[A-Za-z0-9_-]{43}", key)
    written = yaml.safe_load(done.stderr.split("`tenants:`\n")[1])
    assert written == {"acme": {"keys": [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()}]}}


def test_two_keys_differ(run):
    """Each key is new."""
    assert run("keys", "new", "acme").stdout != run("keys", "new", "acme").stdout


@pytest.mark.parametrize("tenant", ["", "a b", "-x", "x" * 65, "é", "a:\n b"])
def test_key_for_no_name(run, tenant):
    """A tenant's name that policy would refuse is refused before a key is made."""
    done = run("keys", "new", "--", tenant)
    assert done.exit_code == 2
    assert "fd-" not in done.output
