"""`firstdraft`: the group of all commands. A command's module is imported when that command is asked for."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import cast

import click

from gateway.errors import FirstdraftError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("gateway.cli.serve:serve", "Run the gateway."),
    "init": ("gateway.cli.init:init", "Write a first policy folder, with comments."),
    "ask": ("gateway.cli.ask:ask", "Ask a running gateway, and watch the draft become the final."),
    "status": ("gateway.cli.status:status", "Say whether a running gateway is ready, and what it waits for."),
    "doctor": ("gateway.cli.doctor:doctor", "Say which phase is slow, where, and what to do about it."),
    "keys": ("gateway.cli.keys:keys", "API keys of tenants."),
    "budget": ("gateway.cli.budget:budget", "What tenants have spent, and counters made anew."),
    "bench": ("gateway.cli.bench:bench", "Measure a running gateway with your own questions."),
    "edge": ("gateway.cli.edge:edge", "The draft model: its formats, the fastest here, and how sure it is."),
    "retrieval": ("gateway.cli.retrieval:retrieval", "Documents that answers are drawn from."),
    "policy": ("gateway.cli.policy:policy", "Check policies, and explain what they decide."),
}
"""Where each command is, and its one line in the help (a test compares it with the command's own)."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, and shows its help without importing any of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 as above
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "serve":
            gc.disable()  # what imports make lives on: looking for garbage meanwhile takes a tenth of the start
            _load_structlog_alone()
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(None, "--version", package_name="firstdraft", message="firstdraft %(version)s")
def firstdraft() -> None:
    """Firstdraft: an LLM gateway that shows a draft at once and the final when it is there.

    First steps: `firstdraft init policies`, then `firstdraft serve`, then `firstdraft ask "Why is the sky blue?"`.
    """


def _load_structlog_alone() -> None:
    """Load structlog without rich, which it takes for the colours of its tracebacks: a tenth of the gateway's start."""
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = cast("ModuleType", None)  # `import rich` raises ImportError, as where it is not installed
        try:
            importlib.import_module("structlog")
        finally:
            del sys.modules["rich"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. An error that we know is printed without a traceback; exit status 1."""
    try:
        firstdraft.main(arguments, prog_name="firstdraft")
    except FirstdraftError as error:
        click.echo(f"firstdraft: {error.message}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
