"""`firstdraft policy schema`: for completion and checks in editors."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--cases", is_flag=True, help="The schema of tests/*.yaml instead.")
@click.option("--json", "as_json", is_flag=True, help="In one line.")
def schema(*, cases: bool, as_json: bool) -> None:
    """Print the JSON Schema of policy files.

    Save it beside them, and name it in their first line: `# yaml-language-server: $schema=policy.schema.json`.
    """
    from gateway.policy.json_schema import cases_schema, policy_schema

    found = cases_schema() if cases else policy_schema()
    click.echo(json.dumps(found) if as_json else json.dumps(found, indent=2))
