"""What all commands share: help, logging, errors as one sentence, exit codes, Ctrl-C and SIGTERM.

Exit codes: 0 done; 1 stopped, or broken off by the machine (no memory, a full disk); 2 the settings or the data cannot
be used. An error that no rule below knows is a fault of this package and keeps its traceback.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from prospect_hf import __version__
from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer
from prospect_hf.jobs.command_entry import Command
from prospect_hf.jobs.help import examples, settings_help
from prospect_hf.jobs.system_errors import system_sentence
from prospect_hf.machine import first_process, process_number, processes
from prospect_hf.settings import compose, parse
from prospect_hf.terminal import VisibleFormatter, complain, format_warning, visible

# Where the classes of errors are defined that say in one sentence what cannot be used.
REFUSALS = ("prospect_hf.errors", "context_dst_smolvlm", "events_dst_smolvlm")
# Libraries whose errors are about what they were given: a broken video, picture, weights file, table or settings file.
LIBRARIES = {
    "av": "video",
    "PIL": "picture",
    "safetensors": "safetensors file",
    "safetensors_rust": "safetensors file",
    "pyarrow": "Arrow file",
    "hydra": "settings",
    "omegaconf": "settings",
    "yaml": "YAML file",
    "huggingface_hub": "Hugging Face Hub",
    "httpx": "network",
    "datasets": "data set",
    "gradio": "demo",
}
# Modules of transformers that check a run's arguments, some of them only when the run begins.
ARGUMENT_CHECKS = (
    "transformers.training_args",
    "transformers.trainer",
    "transformers.optimization",
    "transformers.integrations",
    "torch.utils.data",
    "torch.optim",
)
NOISY = (
    *("httpx", "httpx2", "accelerate", "bitsandbytes", "datasets", "hydra", "openai", "sentence_transformers", "absl"),
    "torch",
)


class OneSentenceParser(ArgumentParser):
    """A parser whose errors are sentences for ``run_command`` to print."""

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError`` in place of printing the usage and leaving the process."""
        hint = ""
        if message.startswith("unrecognized arguments"):
            hint = "; settings are written GROUP.KEY=VALUE"
        raise UsageError(f"{message}{hint}; see {self.prog} --help.")


def make_parser(command: Command, program: str) -> ArgumentParser:
    """The parser of a command line, without its program's name.

    Args:
        program: how the command is called, ``prospect train`` or ``python scripts/train.py``.
    """
    parser = OneSentenceParser(
        program,
        description=command.summary,
        epilog=examples(command, program),
        formatter_class=RawDescriptionHelpFormatter,
        add_help=command.arguments is not None,
    )
    parser.add_argument("--version", action="version", version=f"prospect-hf {__version__}")
    if command.arguments is not None:
        command.arguments(parser)
        return parser
    parser.add_argument("-h", "--help", action="store_true", help="show every setting and leave")
    for option, key in command.options.items():
        parser.add_argument(option, dest=key, metavar="VALUE", help=f"the same as {key}=VALUE")
    words = ", ".join([*command.place_names, "GROUP=NAME or GROUP.KEY=VALUE"])
    parser.add_argument("settings", nargs="*", metavar=words)
    return parser


def run_command(command: Command, argv: Sequence[str], program: str) -> int:
    """Carry out a command line and return its exit code.

    Args:
        argv: without the program's name.
        program: how the command is called, for help and messages.
    """
    _prepare_output()
    with _output_of_one_process():
        return _run_command(command, argv, program)


@contextmanager
def _output_of_one_process() -> Iterator[None]:
    """Of the processes that ``torchrun`` started, the first prints; from the others come errors alone."""
    if first_process():
        yield
        return
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        log.setLevel(level)


def _run_command(command: Command, argv: Sequence[str], program: str) -> int:
    try:
        if processes() > 1 and not command.distributed:
            raise UsageError(f"{command.name} runs in one process: start it without torchrun.")
        with _sigterm_as_interrupt():
            try:
                parsed = make_parser(command, program).parse_args(list(argv))
            except SystemExit as leaving:  # --version, or --help of a command without settings
                return int(leaving.code or 0)
            if command.settings is not None and parsed.help:
                print(settings_help(command, program))
                return 0
            return _run(command, parsed, program)
    except KeyboardInterrupt:
        if first_process():
            print(command.stopped, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the output is gone (`| head`); what Python would flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if processes() > 1 and _is_of_a_lost_process(error):
            if process_number() <= 1:  # one of many says so: the first process, or the second where the first is lost
                complain("error: another process of this run has ended: it was killed, or its own message says why.")
            return 1
        found = sentence(error)
        if found is None:
            raise
        complain(f"error{'' if first_process() else f' of process {process_number()}'}: {found[0]}")
        return found[1]


def _run(command: Command, parsed: Namespace, program: str) -> int:
    inputs: dict[str, Any]
    if command.settings is None:
        inputs = vars(parsed)
    else:
        composed = compose(command.settings, command.groups, given_settings(command, parsed))
        # In the order of the table: settings that need no heavy import are checked first.
        inputs = {name: composed[name] for name in command.raw}
        for name, path in command.groups.items():
            if name not in command.raw:
                inputs[name] = parse(_load(path), composed[name], name)
    if command.told_command:
        inputs["command"] = [program, *given_settings(command, parsed)]
    job = _load(command.run)
    _quiet_libraries()
    with _lock(command, inputs):
        return int(job(**inputs) or 0)


def given_settings(command: Command, parsed: Namespace) -> list[str]:
    """What the command line sets, each as GROUP.KEY=VALUE or GROUP=NAME.

    Raises:
        UsageError: more arguments without ``=`` than keys that they can stand for.
    """
    options = [f"{key}={vars(parsed)[key]}" for key in command.options.values() if vars(parsed)[key] is not None]
    if not command.places:
        return [*options, *parsed.settings]
    found = [one for one in parsed.settings if "=" not in one]
    if len(found) > len(command.places):
        names = command.place_names
        wanted = f"one {names[0]}" if len(names) == 1 else " and ".join(names)
        raise UsageError(f"give {wanted}, not {', '.join(found)}; settings are written GROUP.KEY=VALUE.")
    places = [f"{key}={one}" for key, one in zip(command.places, found, strict=False)]
    return [*options, *places, *(one for one in parsed.settings if "=" in one)]


def _lock(command: Command, inputs: Mapping[str, Any]) -> AbstractContextManager[None]:
    """The lock on the folder that the job writes to; of several processes of one run, the first takes it."""
    if command.writes is None or not first_process():
        return nullcontext()
    return sole_writer(Path(str(inputs[command.writes].output_dir)))


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def _prepare_output() -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        if vars(sys)[name] is None:  # closed: the next file that is opened would get its number, and its output
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            # A console that cannot show a character shows its code: no run ends because of an arrow in a plan.
            output.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    warnings.formatwarning = format_warning
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Where it is installed, accelerate imports it, and on a machine without a GPU it says so on the standard output.
    logging.getLogger("DeepSpeed").addFilter(_not_of_the_accelerator)


def _not_of_the_accelerator(record: logging.LogRecord) -> bool:
    """Leave out the message that DeepSpeed, which sets its logger's level itself, runs on a CPU."""
    return record.module != "real_accelerator"


def _quiet_libraries() -> None:
    """Leave the terminal to this package's own progress and messages."""
    if "transformers" in sys.modules:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    if "datasets" in sys.modules:
        import datasets

        datasets.disable_progress_bars()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A scheduler's SIGTERM stops a run as Ctrl-C does: what is finished is kept, and worker processes end."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def sentence(error: BaseException) -> tuple[str, int] | None:
    """The sentence that is printed for an error, and the exit code; None for a fault of this package."""
    text = visible(str(error)) or type(error).__name__
    if any(kind.__module__ in REFUSALS for kind in type(error).__mro__):
        return text, 2
    of_system = system_sentence(error)
    if of_system is not None:
        return of_system
    top = type(error).__module__.partition(".")[0]
    if top in LIBRARIES:
        return f"{LIBRARIES[top]}: {text}", 2
    if type(error).__name__ == "RunOutOfMemory":  # the training job's, which has a plan
        return f"out of memory: {text}.", 1
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"out of memory ({text}): lower the batch size or the length of a clip.", 1
    if isinstance(error, FloatingPointError):  # the trainer's: a loss that is not finite
        return text, 1
    if isinstance(error, OSError):
        return text, 2
    if isinstance(error, (ValueError, ImportError, RuntimeError)) and _raised_in(error).startswith(ARGUMENT_CHECKS):
        return f"training: {text}", 2
    if isinstance(error, ImportError) and error.name is not None and not error.name.startswith("prospect_hf"):
        return f"the package {error.name} cannot be imported ({text}): install it.", 2
    return None


def _is_of_a_lost_process(error: BaseException) -> bool:
    """Whether an exchange with another process broke off; gloo tells it in the text of a plain RuntimeError."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return "DistError" in kinds or ("RuntimeError" in kinds and "gloo" in str(error))


def _raised_in(error: BaseException) -> str:
    """The module whose code raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
