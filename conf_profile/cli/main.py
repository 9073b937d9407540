"""`conf-profile`: the command line.

Every room brings its own commands, and pyproject.toml names them as entry points of the group `conf_profile.commands`:
one line adds a command, and this file knows none. A command's module imports nothing heavy until the command runs, so
that --help, which takes the texts from the commands themselves, is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata

import click

from conf_profile import __version__
from conf_profile.errors import ConfProfileError

DISTRIBUTION = "conf-profile"
GROUP = "conf_profile.commands"
_HELP_WIDTH = 80
"""Characters of a command's one line in the list."""


@cache
def entry_points() -> Mapping[str, metadata.EntryPoint]:
    """Where each command is, by its name. Of this distribution alone: reading all of an environment's takes longer."""
    return {found.name: found for found in metadata.distribution(DISTRIBUTION).entry_points.select(group=GROUP)}


class EntryPointGroup(click.Group):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = entry_points().get(cmd_name)
        if found is None:
            return None
        try:
            command: click.Command = found.load()
        except ModuleNotFoundError as error:
            room = found.module.partition(".")[0]
            if error.name != room:
                raise
            return _make_missing_command(cmd_name, room)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            rows.append((name, command.get_short_help_str(_HELP_WIDTH)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _make_missing_command(name: str, room: str) -> click.Command:
    """Stands for a command whose room is not part of this installation: images hold no benchmarks."""

    def refuse() -> None:
        raise ConfProfileError(
            f"`{name}` is not part of this installation, which has no {room}/: call it in a checkout of the project "
            "after `make environment`"
        )

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, context_settings=settings, callback=refuse, help="Not installed here.")


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
