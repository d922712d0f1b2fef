# PYTHON_ARGCOMPLETE_OK
"""The console command ``prospect``: ``prospect train model=tiny`` is ``python scripts/train.py model=tiny``.

Completion in bash and zsh: ``eval "$(register-python-argcomplete prospect)"``.
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from prospect_hf import __version__
from prospect_hf.jobs.command_entry import Command
from prospect_hf.jobs.commands import COMMANDS
from prospect_hf.settings import choices_of
from prospect_hf.settings_schema import read_settings


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: the command and its arguments; those of the process where not given.
        program: how the command was called where not as ``prospect COMMAND``, for help and messages.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        complete()
    if given[:1] == ["evaluate"] and given[1:2] in (["compare"], ["report"]):  # scripts/evaluate.py has all three
        program, given = f"{program or 'prospect evaluate'} {given[1]}", given[1:]
    name = given[0] if given else ""
    if name in COMMANDS:
        try:
            from prospect_hf.jobs.command import run_command  # here, so that Ctrl-C during the import is no traceback
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 1
        return run_command(COMMANDS[name], given[1:], program or f"prospect {name}")
    if name in ("-V", "--version"):
        print(f"prospect-hf {__version__}")
        return 0
    if name in ("", "-h", "--help", "help"):
        print(overview())
        return 0
    print(f"error: {name!r} is no command: known are {', '.join(COMMANDS)}; see prospect --help.", file=sys.stderr)
    return 2


def overview() -> str:
    """The commands, one line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name.ljust(width)}  {command.summary}" for command in COMMANDS.values()]
    return "\n".join(
        [
            "usage: prospect COMMAND ...",
            "",
            *lines,
            "",
            "prospect COMMAND --help shows its settings. From a checkout, python scripts/COMMAND.py is the same.",
        ]
    )


def complete() -> None:
    """Answer the shell's request for completions, if this is one; it does not return then."""
    import argcomplete

    parser = ArgumentParser("prospect")
    commands = parser.add_subparsers()
    for command in COMMANDS.values():
        of_command = commands.add_parser(command.name, help=command.summary, add_help=False)
        if command.arguments is not None:
            command.arguments(of_command)
            continue
        of_command.add_argument("--help", action="store_true", help="every setting")
        settings: Any = of_command.add_argument("settings", nargs="*", help=SUPPRESS)
        settings.completer = SettingsCompleter(command)
    argcomplete.autocomplete(parser)


class SettingsCompleter:
    """Completes ``group=NAME`` and ``group.key=`` of a command."""

    def __init__(self, command: Command) -> None:
        self.command = command

    def __call__(self, prefix: str, action: Action, parser: ArgumentParser, parsed_args: Namespace) -> list[str]:
        """The settings that begin with ``prefix``."""
        names = [f"{group}={choice}" for group in self.command.groups for choice in choices_of(group)]
        for group, path in self.command.groups.items():
            names += [f"{group}.{key}=" for key in read_settings(path)]
        return [name for name in names if name.startswith(prefix)]


if __name__ == "__main__":
    sys.exit(main())
