"""`conf-profile`: the command line. Commands import what they need when they run, so that --help is quick."""

from __future__ import annotations

import importlib
import sys

import click

from conf_profile import __version__
from conf_profile.errors import ConfProfileError

COMMANDS = {
    "run": ("pipelines.commands.run", "run", "Run the whole pipeline on this machine."),
    "config": ("conf_profile.cli.config", "config", "Print the configuration as it is resolved."),
    "data": ("conf_profile.cli.data", "data", "Generate, fetch or check a data set."),
    "compile": (
        "pipelines.commands.compile",
        "compile_pipeline",
        "Compile the pipeline to YAML for a cluster.",
    ),
    "submit": ("pipelines.commands.submit", "submit", "Run the pipeline on a KFP backend, now or on a schedule."),
    "runs": ("pipelines.commands.runs", "runs", "Look at runs on a KFP backend, and stop one."),
    "models": ("conf_profile.cli.models", "models", "List, show and roll back models in the registry."),
    "rollout": ("conf_profile.cli.rollout", "rollout", "Put a version into service on a cluster."),
    "serve": ("serving.commands.serve", "serve", "Serve the champion on this machine."),
    "profile": ("serving.commands.serve", "profile", "Ask a running server for one user's profile."),
    "backfill": ("serving.commands.backfill", "backfill", "Profile all users of a run offline."),
    "erase": ("feature_repo.commands", "erase", "Erase one user from all that runs have kept."),
    "retention": ("conf_profile.cli.retention", "retention", "Let users' rows in the object store expire."),
    "experiment": ("benchmarks.evidence.command", "experiment", "Compare variants of the method over seeds."),
    "report": ("conf_profile.cli.report", "report", "Show a finished run's summary again."),
}


class LazyGroup(click.Group):
    """Knows the commands' names and one-line helps, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="conf-profile")
def cli() -> None:
    """Label-free user profiling with confidence that can be trusted."""


def main() -> None:
    """Entry point: a ConfProfileError is printed without a traceback, and the exit status is 2."""
    try:
        cli(standalone_mode=True)
    except ConfProfileError as error:
        click.echo(f"conf-profile: {error}", err=True)
        sys.exit(2)
