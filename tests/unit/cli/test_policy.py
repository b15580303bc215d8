"""`firstdraft policy`: what it prints, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.policy import policy
from gateway.policy.facts import VARIABLES
from tests.policy_folder import ENVIRON, FILES, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The test folder."""
    return write_folder(tmp_path / "policies")


def run(*arguments: object, environ: dict[str, str] | None = None):
    """Run `firstdraft policy` with the variables that the test folder names."""
    return CliRunner().invoke(policy, [str(argument) for argument in arguments], env=environ or ENVIRON)


def test_check_of_a_right_folder_prints_version_and_counts(folder: Path):
    """Exit status 0, and one line."""
    result = run("check", folder)
    assert result.exit_code == 0
    assert "3 backends" in result.output
    whole = json.loads(run("check", folder, "--json").output)
    assert whole["ok"] is True
    assert whole["routes"] == 3
    assert whole["version"] in result.output


def test_check_of_a_broken_folder_prints_every_mistake(folder: Path):
    """Exit status 1, and each mistake with its place, as text and as JSON."""
    (folder / "routes.yaml").write_text("routes: [{name: a, mode: clod_only}, {name: a, when: x, mode: edge_only}]")
    result = run("check", folder)
    assert result.exit_code == 1
    assert "routes.yaml:1:26: `mode`: `clod_only` is not known here; did you mean `cloud_only`?" in result.stderr
    assert "2 mistakes" in result.stderr
    found = json.loads(run("check", folder, "--json").stdout)
    assert found["ok"] is False
    assert [(mistake["line"], mistake["column"]) for mistake in found["mistakes"]] == [(1, 26), (1, 54)]


def test_check_needs_the_variables_that_the_policy_names(folder: Path):
    """An unset variable is a mistake, and the key itself is never printed."""
    result = run("check", folder, environ={"US_URL": ENVIRON["US_URL"]})
    assert result.exit_code == 1
    assert "GPU_KEY is not set" in result.stderr
    assert "gpu-secret-value" not in run("check", folder).output


def test_variables_lists_every_variable_of_the_language():
    """The table that is printed is the one that expressions are checked against."""
    listed = json.loads(run("variables", "--json").output)
    assert list(listed) == [variable.name for variable in VARIABLES]
    assert all(name in run("variables").output for name in listed)


def test_folder_can_be_given_by_the_environment(folder: Path):
    """`FIRSTDRAFT_POLICIES` stands in for the folder, as it does for `serve`."""
    assert run("check", environ={**ENVIRON, "FIRSTDRAFT_POLICIES": str(folder)}).exit_code == 0


def test_explain_shows_the_decision_and_its_story(folder: Path):
    """The route, the mode, the deployments in order, and who removed the others."""
    result = run("explain", "--policies", folder, "--tenant", "acme", "--label", "personal", "--prompt", "hello")
    assert result.exit_code == 0
    for words in ("route     chat", "mode      draft_refine", "eu-stays", "Constraints", "Routes", "Deployments"):
        assert words in result.output


def test_explain_as_json_has_the_same(folder: Path):
    """Every option reaches the facts."""
    arguments = ["explain", "--policies", folder, "--json", "--tenant", "acme", "--model", "large", "--draft", "frames"]
    served = json.loads(run(*arguments, "--stream", "--prompt-tokens", "10").output)
    assert served["draft"] == "edge/smollm2-135m-instruct"
    assert served["first_choices"] == 2
    assert json.loads(run(*arguments, "--no-edge").output)["no_draft"] == "edge_not_ready"
    assert json.loads(run(*arguments, "--tools").output)["no_draft"] == "tools"
    assert json.loads(run(*arguments, "--with", "images").output)["no_draft"] == "images"
    assert json.loads(run(*arguments, "--feature", "autocomplete").output)["route"] == "autocomplete"
    assert (
        json.loads(run(*arguments, "--unhealthy", "openai-us/gpt-4.1").output)["deployments"][-1] == "openai-us/gpt-4.1"
    )
    denied = json.loads(run(*arguments, "--label", "health", "--tools").output)
    assert denied["refusal"]["status"] == 403


def test_explain_without_a_tenant_takes_the_keyless_one(folder: Path):
    """Who asks without a key is who `--tenant` stands for by default; a wrong name gets a suggestion."""
    assert "tenant guest" in run("explain", "--policies", folder).output
    wrong = run("explain", "--policies", folder, "--tenant", "amce")
    assert wrong.exit_code == 2
    assert "did you mean `acme`?" in wrong.output
    (folder / "tenants.yaml").write_text(FILES["tenants.yaml"].replace("keyless: true", "region: us"))
    assert "--tenant is missing" in run("explain", "--policies", folder).output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--metadata", "x"], "NAME=VALUE"),
        (["--unhealthy", "gpu"], "no deployment `gpu`"),
        (["--hour", "24"], "0<=x<=23"),
    ],
)
def test_explain_refuses_what_cannot_be_meant(folder: Path, arguments: list[str], says: str):
    """A wrong option is an error with exit status 2."""
    result = run("explain", "--policies", folder, *arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_explain_of_a_broken_folder_prints_the_mistakes(folder: Path):
    """A policy that cannot be used explains nothing."""
    (folder / "more.yaml").write_text("rutes: []")
    result = run("explain", "--policies", folder)
    assert result.exit_code == 1
    assert "did you mean `routes`?" in result.output
