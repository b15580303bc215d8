"""`firstdraft policy prove`, `test`, `diff`, `schema` and `rollback`: output and exit status, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.policy import policy
from gateway.policy.facts import Facts
from gateway.policy.history import MOST_KEPT, PolicyHistory
from gateway.policy.load import load_policy
from gateway.policy.replay import Recorder
from gateway.telemetry.decision_log import DecisionLog, files
from tests.policy_folder import ENVIRON, FILES, write_folder

HOLDS = "invariants: [{name: health, when: '\"health\" in request.labels', require: {compliance: [no-egress]}}]"
BROKEN = 'invariants: [{name: eu, when: tenant.region == "eu", require: {region: [eu-*, local]}}]'
CASES = """\
cases:
  - name: typing
    given: {tenant: acme, feature: autocomplete}
    expect: {route: autocomplete, deployments: [edge/*]}
  - name: wrong
    given: {tenant: acme}
    expect: {route: batch, refused: 403}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The test folder."""
    return write_folder(tmp_path / "policies", invariants=HOLDS)


def run(*arguments: object):
    """Run `firstdraft policy` with the variables that the test folder names."""
    return CliRunner().invoke(policy, [str(argument) for argument in arguments], env=ENVIRON)


def test_prove_says_what_holds_and_over_how_much(folder: Path):
    """Exit status 0 when all invariants hold, with the number of classes; 1 when one is broken, with a replay."""
    held = run("prove", folder)
    assert held.exit_code == 0
    assert "1 of 1 invariants hold, over" in held.output
    found = json.loads(run("prove", folder, "--json").output)
    assert (found["ok"], found["invariants"][0]["verdict"]) == (True, "holds")
    assert found["classes"] > 10
    (folder / "invariants.yaml").write_text(BROKEN)
    broken = run("prove", folder)
    assert broken.exit_code == 1
    assert "replay: firstdraft policy explain --tenant acme" in broken.output
    leak = json.loads(run("prove", folder, "--json").output)["invariants"][0]["leak"]
    assert leak["deployment"] == "openai-us/gpt-4.1"
    replayed = run("explain", *leak["explain"], "--json", "--policies", folder)
    assert leak["deployment"] in json.loads(replayed.output)["deployments"]


def test_check_reports_a_broken_invariant_where_it_stands(folder: Path):
    """What the gateway would refuse, `check` refuses."""
    (folder / "invariants.yaml").write_text(BROKEN)
    found = json.loads(run("check", folder, "--json").stdout)
    assert [(Path(each["file"]).name, each["line"], each["column"]) for each in found["mistakes"]] == [
        ("invariants.yaml", 1, 21)
    ]


def test_check_warns_and_with_strict_refuses(folder: Path):
    """A warning leaves the exit status alone, `--strict` does not."""
    (folder / "constraints.yaml").write_text(FILES["constraints.yaml"].replace("eu-*, local]", "eu-*, locl]"))
    warned = run("check", folder)
    assert warned.exit_code == 0
    assert "constraints.yaml:4:30: no backend is in `locl`; did you mean `local`? (warning)" in warned.stderr
    assert json.loads(run("check", folder, "--json").stdout)["warnings"][0]["column"] == 30
    assert run("check", folder, "--strict").exit_code == 1


def test_cases_are_run_and_what_differs_is_told(folder: Path):
    """Exit status 1 with what was expected and what came; cases that cannot be read are mistakes like others."""
    assert run("test", folder).output == "0 of 0 cases pass\n"
    (folder / "tests").mkdir()
    (folder / "tests/a.yaml").write_text(CASES)
    told = run("test", folder)
    assert told.exit_code == 1
    assert "a.yaml:5: wrong" in told.output
    assert "route: expected batch, but got chat" in told.output
    assert "1 of 2 cases pass" in told.output
    rows = json.loads(run("test", folder, "--json").output)["cases"]
    assert [bool(row["differences"]) for row in rows] == [False, True]
    (folder / "tests/a.yaml").write_text(
        CASES.replace("route: batch", "rout: batch").replace("tenant: acme}", "tenant: amce}")
    )
    broken = run("test", folder)
    assert broken.exit_code == 1
    assert "did you mean `route`?" in broken.output
    (folder / "tests/a.yaml").write_text(CASES.replace("acme", "amce").replace("[edge/*]", "[egde/*]"))
    assert "did you mean `acme`?" in run("test", folder).output
    assert "there is no deployment `egde/*`" in run("test", folder).output


def test_diff_lists_what_changes_for_whom(folder: Path, tmp_path: Path):
    """Recorded requests are counted by what would change; a line that is cut is left out."""
    loaded = load_policy(folder, ENVIRON)
    recorder, recorded = Recorder(loaded), tmp_path / "recorded.jsonl"
    facts = [
        Facts(tenant_name="acme", tenant_region="eu", feature=feature, model="large", edge_ready=True)
        for feature in ("chat", "chat", "batch", "autocomplete")
    ]
    recorded.write_bytes(b"\n".join([*(recorder.line(one, at=1) for one in facts), b'{"at": 1, "pol']))
    other = write_folder(
        tmp_path / "other", routes=FILES["routes.yaml"].replace("cache: {ttl: 1h}", "cache: {ttl: 2h}")
    )
    told = run("diff", folder, other, "--recorded", recorded, "--json")
    found = json.loads(told.output)
    assert told.exit_code == 1
    assert (found["requests"], found["changed"]) == (4, 2)
    assert [(change["feature"], change["what"], change["requests"]) for change in found["changes"]] == [
        ("chat", "cache", 2)
    ]
    assert "2 of 4 recorded requests" in run("diff", folder, other, "--recorded", recorded).output
    assert run("diff", folder, folder, "--recorded", recorded).exit_code == 0
    assert "nothing is recorded" in run("diff", folder, folder, "--state", tmp_path / "none").output


def test_recorded_facts_hold_no_metadata_that_no_condition_asks_for(tmp_path: Path):
    """What a client puts into its metadata is its own, unless policy decides by it."""
    routes = FILES["routes.yaml"].replace('request.feature == "batch"', "has(request.metadata.kind) && request.stream")
    recorder = Recorder(load_policy(write_folder(tmp_path / "p", routes=routes), ENVIRON))
    line = recorder.line(Facts(tenant_name="acme", model="large", metadata={"kind": "a", "user": "jo@corp.com"}), at=1)
    assert b'"kind":"a"' in line
    assert b"corp.com" not in line


def test_decision_log_is_bounded_and_rotates(tmp_path: Path):
    """Two files, each of about the size that was set; a share of nothing records nothing."""
    log = DecisionLog(tmp_path, 1.0, most_bytes=1_000)
    for _ in range(20):
        assert log.wants_one()
        log.add(b"x" * 200)
        log.write()
    current, before = files(tmp_path)
    assert before.stat().st_size <= 1_300
    assert current.stat().st_size <= 1_300
    assert current.stat().st_mode & 0o077 == 0
    assert not DecisionLog(tmp_path, 0.0).wants_one()


def test_history_keeps_a_few_versions_and_restores_whole_folders(tmp_path: Path):
    """Files that the kept version did not have go; what is replaced is kept as well."""
    history, folder = PolicyHistory(tmp_path / "state"), tmp_path / "policies"
    history.keep("one", {"a.yaml": b"1", "b.yaml": b"2"})
    history.keep("one", {"a.yaml": b"1", "b.yaml": b"2"})
    assert [kept.version for kept in history.kept()] == ["one"]
    folder.mkdir()
    (folder / "a.yaml").write_text("broken")
    (folder / "c.yaml").write_text("new")
    replaced = history.restore(history.kept()[0], folder)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"a.yaml": "1", "b.yaml": "2"}
    assert (replaced / "c.yaml").read_text() == "new"
    for number in range(MOST_KEPT + 5):
        history.keep(f"v{number}", {"a.yaml": str(number).encode()})
    versions = [kept.version for kept in history.kept()]
    assert versions[0] == f"v{MOST_KEPT + 4}"
    assert len(versions) == MOST_KEPT


def test_schema_accepts_what_loading_accepts(folder: Path):
    """The schema names every section and every key, requires what is required, and has prices of both kinds."""
    schema = json.loads(run("schema").output)
    assert set(schema["properties"]) >= {"backends", "models", "tenants", "constraints", "routes", "invariants"}
    route = schema["$defs"]["RouteSpec"]
    assert set(route["required"]) == {"name", "mode"}
    assert route["additionalProperties"] is False
    assert route["properties"]["mode"]["enum"][0] == "edge_only"
    assert {"const": "free"} in schema["$defs"]["DeploymentSpec"]["properties"]["price"]["anyOf"]
    assert "null" not in json.dumps(schema["$defs"])
    cases = json.loads(run("schema", "--cases", "--json").output)
    assert cases["required"] == ["cases"]
    assert "removed_by" in cases["$defs"]["ExpectSpec"]["properties"]
