"""An entry of the table of commands, and where the settings are defined that several commands share.

Data alone: help and completion read it, and nothing that it names is imported before a command runs.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """A command of ``prospect``, and of the script of the same name.

    Args:
        name: ``prospect NAME``.
        summary: one sentence.
        examples: (what it does, the arguments to give).
        run: ``module:function`` that carries it out. It gets the settings of each group as a keyword argument, or the
            parsed arguments of ``arguments``; it may return an exit code.
        settings: the file of defaults, ``configs/<settings>.yaml``; None for a command without settings.
        groups: the dataclass of each settings group, ``module:Class``, in the order in which they are checked: those
            whose module imports transformers last.
        raw: groups that are handed on as a mapping, because the job completes them before they are parsed.
        writes: the group whose ``output_dir`` the job writes to; one run at a time may do so.
        options: options that stand for a key, ``--clip`` -> ``simulate.clip``.
        places: the keys that arguments without ``=`` stand for, ``outputs/dst_frames`` -> ``inspect.dataset``.
        arguments: adds positional arguments and options; for a command without settings.
        stopped: what a stopped run leaves, and how it is continued.
        told_command: the job gets ``command``, the program and the settings given to it, for its own record.
        distributed: several processes may run it together, started by torchrun or accelerate launch.
    """

    name: str
    summary: str
    examples: Sequence[tuple[str, str]]
    run: str
    settings: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    raw: Sequence[str] = ()
    writes: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    places: Sequence[str] = ()
    arguments: Callable[[ArgumentParser], None] | None = None
    stopped: str = "stopped"
    told_command: bool = False
    distributed: bool = False

    @property
    def place_names(self) -> list[str]:
        """What help calls the arguments of ``places``."""
        return [key.rpartition(".")[2].upper() for key in self.places]


MODEL, DATA = "prospect_hf.training.arguments:ModelArguments", "prospect_hf.data.arguments:DataArguments"
CONTEXT, TRACKING = "context_dst_smolvlm:Context", "tracking_dst_smolvlm:Tracking"
DECODING = "decoding_dst_smolvlm:Decoding"
TRAINING = "prospect_hf.training.arguments:DSTTrainingArguments"
