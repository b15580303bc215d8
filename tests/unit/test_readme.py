"""The README says what is true: its tables are those of the code, its examples run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from gateway.classification.kinds import KINDS
from gateway.cli.main import firstdraft
from gateway.inference.servers import SERVERS
from gateway.policy.cases import read_cases
from gateway.policy.facts import VARIABLES, Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide
from gateway.routing.prove import prove
from gateway.routing.trial import run
from gateway.settings import POLICY_VARIABLES, SETTINGS
from gateway.wire.openai_chat import decode_request

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    """The fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(group, path=("firstdraft",)):
    """Every command that runs something, as typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


def settings_rows():
    """The settings table, as the README has to have it."""
    for setting in SETTINGS:
        flag = (
            f"`{setting.flag}`, `--no-{setting.name}`" if setting.is_switch else f"`{setting.flag} {setting.metavar}`"
        )
        yield f"| {flag} | `{setting.variable}` | {setting.default} | {setting.help} |"


def variable_rows():
    """The table of CEL variables, as the README has to have it."""
    for variable in VARIABLES:
        yield f"| `{variable.name}` | {variable.type} | {variable.meaning} |"


def kind_rows():
    """The table of what the classifier finds, as the README has to have it."""
    for facts in KINDS:
        labels = ", ".join(f"`{label}`" for label in facts.labels)
        yield f"| `{facts.kind}` | {labels} | {facts.means} |"


def server_rows():
    """The table of servers, as the README has to have it."""
    words = {True: "yes", False: "no"}
    for name, row in SERVERS.items():
        columns = " | ".join(words[column] for column in (row.both_limits, row.usage_option, row.developer_role))
        yield f"| `{name}` | `{row.max_tokens_field}` | {columns} |"


@pytest.mark.parametrize("rows", [server_rows, settings_rows, variable_rows, kind_rows])
def test_tables(rows):
    """The tables of servers, of settings, of CEL variables and of kinds of data are exactly what the code has."""
    expected = "\n".join(rows())
    assert expected in README, f"the table in README.md has to be:\n{expected}"


def test_every_command_is_there():
    """Every command stands in the README, and every `firstdraft …` in it is a command."""
    known = set(commands(firstdraft))
    for command in known:
        assert f"`{command}" in README, command
    for words in re.findall(r"firstdraft ((?:[a-z]+ ?){1,2})", README):
        typed = f"firstdraft {words.strip()}"
        assert any(typed.startswith(command) for command in known), typed


def test_every_variable_of_the_environment_is_there():
    """Every FIRSTDRAFT_ variable that the code, the policies or the build reads stands in the README."""
    known = {setting.variable for setting in SETTINGS} | POLICY_VARIABLES
    for folder in ("gateway", "policies", "deploy"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".yaml", ".sh"}:
                known |= set(re.findall(r"FIRSTDRAFT_[A-Z]+(?:_[A-Z]+)*", path.read_text()))
    missing = sorted(name for name in known if f"`{name}`" not in README)
    assert missing == []


def test_every_file_that_is_named_exists():
    """Links inside the repository lead somewhere, and `make` targets are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"\bmake (demo|test|stop|lint|types|imports|unit|format|lock)\b", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_room_map():
    """Every room of the house is on the map, and nothing else."""
    drawn = README.split("```\ngateway/\n")[1].split("```")[0]
    on_the_map = set(re.findall(r"\b([a-z]+)(?=/|\.py)", drawn))
    rooms = {path.stem for path in (ROOT / "gateway").iterdir() if path.is_dir() or path.suffix == ".py"}
    rooms = {room for room in rooms if not room.startswith("__")}
    with_code = {
        room for room in rooms if (ROOT / f"gateway/{room}.py").exists() or list((ROOT / "gateway" / room).glob("*.py"))
    }
    assert on_the_map == with_code


def test_policy_example(tmp_path):
    """The policy in the README loads, as a whole."""
    text, *_ = blocks("yaml")
    (tmp_path / "policy.yaml").write_text(text)
    policy = load_policy(tmp_path, {"GPU_EU_KEY": "k"})
    assert set(policy.models) == {"large", "small"}
    assert set(yaml.safe_load(text)) == {"backends", "models", "stores", "constraints", "routes", "tenants"}


def test_cascade_example(tmp_path):
    """The cascade in the README loads beside the example's policy, and decides."""
    (cascade,) = (text for text in blocks("yaml") if "mode: cascade" in text)
    (tmp_path / "first.yaml").write_text(cascade)
    (tmp_path / "policy.yaml").write_text(blocks("yaml")[0])
    policy = load_policy(tmp_path, {"GPU_EU_KEY": "k"})
    facts = Facts(tenant_name="acme", model="large", feature="questions", edge_ready=True)
    decision = decide(policy, facts)
    assert (decision.mode, decision.cascade.target_error, decision.draft_max_tokens) == ("cascade", 0.05, 128)


def test_invariant_and_case_examples(tmp_path):
    """The invariant and the case in the README hold for the policy that is shipped."""
    (invariants,) = (text for text in blocks("yaml") if "\ninvariants:" in text)
    (cases,) = (text for text in blocks("yaml") if "\ncases:" in text)
    shutil.copytree(ROOT / "policies", tmp_path / "policies", ignore=shutil.ignore_patterns("examples"))
    (tmp_path / "policies/invariants.yaml").write_text(invariants)
    (tmp_path / "policies/tests/first.yaml").write_text(cases)
    policy = load_policy(tmp_path / "policies", {})
    assert [outcome.verdict for outcome in prove(policy).outcomes] == ["holds"]
    (verdict,) = run(policy, read_cases(tmp_path / "policies", policy))
    assert verdict.differences == ()


def test_curl_example():
    """The body that the curl example sends is a request."""
    (text,) = blocks("sh")
    words = shlex.split(text.replace("\\\n", " "))
    request = decode_request(words[words.index("-d") + 1].encode())
    assert request.stream
    assert request.model == "large"
    assert json.loads(words[words.index("-d") + 1])["draft"] == "frames"


def test_javascript_example(tmp_path):
    """The JavaScript example is JavaScript."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    (text,) = blocks("js")
    script = tmp_path / "example.mjs"
    script.write_text(text)
    subprocess.run([node, "--check", script], check=True, timeout=60)
