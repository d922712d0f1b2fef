"""The help of a command with settings: every key with its type, its default and what it means."""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import Any

from prospect_hf.jobs.command_entry import Command
from prospect_hf.settings import choices_of, compose
from prospect_hf.settings_schema import Setting, read_settings


def settings_help(command: Command, program: str, width: int | None = None) -> str:
    """The text of ``--help``: summary, examples, and the settings group by group.

    Defaults are those of the command: what ``configs/<command>.yaml`` and the group files that it names set.
    """
    assert command.settings is not None
    width = min(width or shutil.get_terminal_size().columns, 120)
    defaults = compose(command.settings, command.groups, [])
    places = "".join(f"{name} " for name in command.place_names)
    parts = [
        f"usage: {program} {places}[GROUP=NAME ...] [GROUP.KEY=VALUE ...]",
        command.summary,
        examples(command, program),
    ]
    for group, path in command.groups.items():
        parts.append(_group_help(group, read_settings(path), defaults[group], width))
    parts.append(
        "In a shell, quote values with brackets or spaces: 'data.sources=[wtag,ego4d]'.\n"
        "Exit codes: 0 done; 1 stopped or failed; 2 the settings or the data cannot be used."
    )
    return "\n\n".join(parts)


def examples(command: Command, program: str) -> str:
    """The examples of a command as they are typed."""
    lines = [f"  # {purpose}\n  {program} {given}".rstrip() for purpose, given in command.examples]
    options = [f"  {option} VALUE is the same as {key}=VALUE." for option, key in command.options.items()]
    return "\n".join(["examples:", *lines, *options])


def _group_help(group: str, schema: dict[str, Setting], defaults: dict[str, Any], width: int) -> str:
    choices = choices_of(group)
    head = f"{group}" + (f" (a file of settings with {group}=NAME: {', '.join(choices)})" if choices else "")
    own = [setting for setting in schema.values() if not setting.inherited]
    inherited = [setting for setting in schema.values() if setting.inherited]
    lines = [textwrap.fill(head, width), *(_entry(group, setting, defaults, width) for setting in own)]
    if inherited:
        lines.append(f"  and every key of transformers.TrainingArguments ({len(inherited)}):")
        lines += [_entry(group, setting, defaults, width) for setting in inherited]
    return "\n".join(lines)


def _entry(group: str, setting: Setting, defaults: dict[str, Any], width: int) -> str:
    default = repr(defaults[setting.name]) if setting.name in defaults else setting.default
    head = f"  {group}.{setting.name} ({setting.type}, default {default})"
    text = textwrap.fill(_sentence(setting.help), width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"{head}\n{text}"


def _sentence(text: str) -> str:
    """The text as plain words; of a long one the first sentence."""
    plain = text.replace("``", "").replace("`", "")
    first = re.split(r"(?<=[.!?])\s", plain, maxsplit=1)[0]
    return plain if len(plain) <= 320 else first
