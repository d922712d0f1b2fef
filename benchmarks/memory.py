"""Does the model remember, and does the tracked state carry over a full context? The table of the memory task.

    python benchmarks/memory.py FOLDER                               # seeds 0, 1, 2; goes on where it was stopped
    python benchmarks/memory.py FOLDER --seeds 0,1 --blind --processes 2
    python benchmarks/memory.py FOLDER --models outputs/tiny-memory  # trained folders; nothing is trained
    python benchmarks/memory.py FOLDER --table                       # of the seeds that are there; nothing is made
    python benchmarks/memory.py FOLDER --settings training.max_steps=300 data.late_start=0.5

For each seed, ``prospect train data=simulated_memory training=tiny_memory`` makes corpus and model, and one ``prospect
evaluate`` makes the rows: teacher-forced, the five context strategies, each frame from the last 1 and 8 frames alone,
and the baselines. A reader of single pictures that never errs stands beside them (``memory_pictures.py``). ``--blind``
trains a model on grey pictures too, for as long, and adds its row.

``none`` has no limit. The other strategies have a window of a quarter of the session. It is one limit for all sessions:
the mean, over the held-out sessions, of the tokens of the plan and a quarter of the tokens of frames and texts, plus
the room that a stream keeps free for the next frame and its texts. So in a mean session the plan and a quarter of what
was seen and said fit. The limit is higher only where the longest plan needs more, to be entered again at all.
``drop_middle`` keeps an eighth of that quarter; a summary takes at most 12 tokens.

A seed is one file, ``FOLDER/rows/SEED.json``. Exit codes: 0 all goals are met, 1 a goal is missed, 2 wrong input.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memory_pictures import perfect_reader
from one_sentence import exit_code

from context_dst_smolvlm import STRATEGIES
from decoding_dst_smolvlm import Decoding
from prospect_hf.checked_json import as_dict, get_dict, load_json
from prospect_hf.checkpoints import load_trained
from prospect_hf.cli import main as prospect
from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.corpus import data_of, load_corpus
from prospect_hf.evaluation.report.results import read_results
from prospect_hf.evaluation.stamp import model_revision, prediction_code_fingerprint
from prospect_hf.files import write_json
from prospect_hf.tables import table
from room_dst_smolvlm import summary_cost
from streaming_dst_smolvlm import StreamBatch, Task

TASK = ["data=simulated_memory", "training=tiny_memory"]
WINDOWS = (1, 8)
# The longest utterance, and the longest summary, in tokens.
WRITTEN, SUMMARY = 24, 12
# Row of the table -> run of the evaluation.
ROWS = {
    "teacher-forced": "offline",
    "no limit": "stream, none",
    **{f"a quarter, {name}": f"stream, {name}" for name in STRATEGIES if name != "none"},
    "frame alone": "control, window 1",
    "8 frames alone": "control, window 8",
    "blind": "control, blind",
    "schedule": "baseline, schedule",
    "silent": "baseline, silent",
}
# Column -> figure. The head is the model's answer on each frame; the table is what the stream tells its user.
COLUMNS = {
    "joint, head": "joint_state_accuracy",
    "joint, table": "table_joint_state_accuracy",
    "update F1": "dst_update_f1_1s",
    "speaking F1": "speaking_f1_1s",
    "transition F1": "table_transition_f1_1s",
    "exact match": "response_exact_match",
}
JOINT = "joint, head"
# No run: the best that can be done with single pictures, whoever reads them.
PICTURES = "pictures read perfectly"
MOST_MINUTES = 15.0

Figures = Mapping[str, Mapping[str, float | None]]


def window_of(model_folder: Path, cache_dir: Path) -> dict[str, float]:
    """The window of a quarter of the session, in tokens: ``max_tokens``, ``keep_tokens``, and what they follow from.

    ``session`` and ``plan`` are means over the held-out sessions, ``reserve`` is the largest room for one frame, and
    ``raised`` what the longest plan needs more than a mean one.
    """
    model, processor = load_trained(model_folder)
    data = data_of(model_folder, {"cache_dir": str(cache_dir)})
    args = EvaluateArguments(model=str(model_folder), baselines=False)
    sessions = load_corpus(args, data, processor).sessions
    tasks = [Task(one.steps, one.goal, say_states=one.labelled) for one in sessions]
    rows = StreamBatch(model, processor, tasks, decoding=Decoding(max_new_tokens=WRITTEN)).rows
    plans = [len(row.task.prompt(processor, row.first_states).input_ids) for row in rows]
    wholes, user = [], 0
    for session in sessions:
        items = [session.item(frame) for frame in range(len(session))]
        wholes.append(len(processor.build(session.goal, session.steps, session.states_at(0), items).input_ids))
        said = [item.user_text for item in items if item.user_text]
        user = max([user, *processor.turn_lengths("User", said)])
    reserve = max(row.coming(range(user)) for row in rows)
    quarter = statistics.mean((whole - plan) / 4 for whole, plan in zip(wholes, plans, strict=True))
    keep = max(round(quarter / 8), 1)
    # Beside the longest plan: a summary and how it is asked for, or the kept tokens, a frame and its state text.
    beside = max(summary_cost(processor, SUMMARY), keep + 1 + max(row.most[0] for row in rows))
    fits = math.ceil(statistics.mean(plans) + quarter)
    raised = max(max(plans) + beside + user - fits, 0)
    return {
        "max_tokens": fits + raised + reserve,
        "raised": raised,
        "keep_tokens": keep,
        "session": statistics.mean(wholes),
        "plan": statistics.mean(plans),
        "quarter": quarter,
        "reserve": reserve,
    }


def run(command: Sequence[str]) -> None:
    """Run a command of ``prospect`` in this process.

    Raises:
        UsageError: it failed; it has said why.
    """
    if prospect(list(command)):
        raise UsageError(f"prospect {command[0]} failed; the line before this one says why.")


def trained(folder: Path, seed: int, blind: bool, overrides: Sequence[str]) -> tuple[Path, float]:
    """The model of a seed, trained where it is missing, and the minutes that its training took."""
    output = folder / "models" / f"{seed}{'-blind' if blind else ''}"
    record = output.with_suffix(".json")
    settings = [*TASK, f"data.seed={seed}", f"training.seed={seed}", f"data.root={folder / f'corpus-{seed}'}"]
    settings += [f"data.cache_dir={folder / 'cache'}", *(["data.frames=blank"] if blind else []), *overrides]
    if not (record.is_file() and as_dict(load_json(record), str(record)).get("settings") == settings):
        started = time.perf_counter()
        run(["train", *settings, f"training.output_dir={output}"])
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, {"settings": settings, "minutes": (time.perf_counter() - started) / 60})
    return output, float(load_json(record)["minutes"])


def make_row(folder: Path, name: str, model: Path, blind: Path | None, minutes: float | None, processes: int) -> None:
    """Evaluate a model and write the file of its row, unless the file is about this model and this code."""
    path = folder / "rows" / f"{name}.json"
    facts = {"model": model_revision(model), "blind": None if blind is None else model_revision(blind)}
    facts["code"] = prediction_code_fingerprint()
    if path.is_file() and as_dict(load_json(path), str(path)).get("facts") == facts:
        return
    window = window_of(model, folder / "cache")
    output = folder / "evaluations" / name
    command = ["evaluate", f"evaluate.model={model}", f"evaluate.output_dir={output}", "evaluate.draws=0"]
    command += [f"evaluate.contexts=[{','.join(STRATEGIES)}]", f"evaluate.windows=[{','.join(map(str, WINDOWS))}]"]
    command += [f"context.max_tokens={window['max_tokens']}", f"context.keep_tokens={window['keep_tokens']}"]
    command += [f"context.summary_tokens={SUMMARY}", f"decoding.max_new_tokens={WRITTEN}"]
    command += [f"data.cache_dir={folder / 'cache'}", f"evaluate.processes={processes}"]
    run([*command, *([] if blind is None else [f"evaluate.blind={blind}"])])
    scores = {of["name"]: of["scores"]["all"] for of in read_results(output)["runs"]}
    figures = {
        row: {column: scores[of].get(figure, {}).get("value") for column, figure in COLUMNS.items()}
        for row, of in ROWS.items()
        if of in scores
    }
    root = Path(str(data_of(model, {"cache_dir": str(folder / "cache")}).root))
    figures[PICTURES] = {JOINT: perfect_reader(root)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"facts": facts, "figures": figures, "window": window, "minutes": minutes})


def read_row(path: Path) -> dict[str, Any]:
    """The file of a row.

    Raises:
        DataError: it is not one.
    """
    row = as_dict(load_json(path), str(path))
    figures = get_dict(row, "figures", str(path))
    values = [value for of_row in figures.values() for value in as_dict(of_row, f"{path}: figures").values()]
    values += [row.get("minutes"), *get_dict(row, "window", str(path)).values()]
    if {"no limit", "teacher-forced"} - set(figures) or any(
        value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))) for value in values
    ):
        raise DataError(f"{path} is not what this benchmark writes; remove it, and the row is made again.")
    return row


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds; a dash where the figure is undefined."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.3f}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.3f}"


def figure_table(rows: Sequence[Figures]) -> str:
    """Row by row, mean and spread over the seeds."""
    lines = [["", *COLUMNS]]
    for name in (*ROWS, PICTURES):
        of_seeds = [figures[name] for figures in rows if name in figures]
        if of_seeds:
            lines.append([name, *(spread([one.get(column) for one in of_seeds]) for column in COLUMNS)])
    return table(lines)


def goals(figures: Figures, minutes: float | None) -> dict[str, tuple[float | None, bool | None]]:
    """The figure of each goal in one seed, and whether it is met; None where it was not measured."""

    def of(row: str, column: str = JOINT) -> float:
        value = figures.get(row, {}).get(column)
        return math.nan if value is None else value

    full, table_kept = of("no limit"), of("a quarter, summarize_with_dst")
    found = {
        "frame alone, joint: at most 0.55": (of("frame alone"), -0.55),
        f"{PICTURES}, joint: at most 0.55": (of(PICTURES), -0.55),
        "no limit, joint: at least 0.93": (full, 0.93),
        "no limit, update F1: at least 0.93": (of("no limit", "update F1"), 0.93),
        "no limit, speaking F1: at least 0.90": (of("no limit", "speaking F1"), 0.90),
        f"minutes of training: at most {MOST_MINUTES:.0f}": (math.nan if minutes is None else minutes, -MOST_MINUTES),
        "a quarter with summarize_with_dst, joint below no limit: at most 0.01": (full - table_kept, -0.01),
        "a quarter with drop_all, joint below summarize_with_dst: at least 0.2": (
            table_kept - of("a quarter, drop_all"),
            0.2,
        ),
        "teacher-forced to free-running, joint apart: at most 0.02": (abs(of("teacher-forced") - full), -0.02),
    }
    # A negative bound is an upper one.
    return {
        goal: (None, None) if math.isnan(value) else (value, value >= bound if bound > 0 else value <= -bound)
        for goal, (value, bound) in found.items()
    }


def goal_table(checks: Sequence[Mapping[str, tuple[float | None, bool | None]]]) -> str:
    """Each goal with its figure over the seeds, and the number of seeds that meet it."""
    lines = [["goal", "mean and spread", "worst", "met by"]]
    for goal in checks[0]:
        known = [(value, met) for value, met in (check[goal] for check in checks) if value is not None]
        if not known:
            lines.append([goal, "not measured", "", ""])
            continue
        values = [value for value, _ in known]
        worst = max(values) if "at most" in goal else min(values)
        met = f"{sum(bool(met) for _, met in known)} of {len(known)}"
        lines.append([goal, spread(values), f"{worst:.3f}", met])
    return table(lines)


def report(folder: Path, names: Sequence[str]) -> bool:
    """Print the tables of the rows that are there; returns whether every goal is met in every seed.

    Raises:
        UsageError: no row is there.
        DataError: a file of a row is damaged.
    """
    paths = [path for name in names if (path := folder / "rows" / f"{name}.json").is_file()]
    if not paths:
        raise UsageError(f"{folder / 'rows'} holds none of {', '.join(names)}; run without --table first.")
    rows = [read_row(path) for path in paths]
    mean = {key: statistics.mean(row["window"][key] for row in rows) for key in rows[0]["window"]}
    print(
        f"\n{', '.join(path.stem for path in paths)}: mean ± standard deviation.\n"
        f"A session has {mean['session']:.0f} tokens, {mean['plan']:.0f} of them its plan.\n"
        f"The window of a quarter has {mean['max_tokens']:.0f}: the plan, {mean['quarter']:.0f} of frames and texts, "
        f"{mean['reserve']:.0f} for the next frame, {mean['raised']:.0f} more for the longest plan.\n"
    )
    print(figure_table([row["figures"] for row in rows]))
    checks = [goals(row["figures"], row["minutes"]) for row in rows]
    print(f"\n{goal_table(checks)}")
    return all(met for check in checks for _, met in check.values())


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: a value that cannot be used.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where corpora, models, evaluations and rows are kept")
    parser.add_argument(
        "--settings", nargs="+", default=[], metavar="KEY=VALUE", help="more settings of prospect train"
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds (default 0,1,2)")
    parser.add_argument("--models", nargs="+", type=Path, help="trained folders, in place of training")
    parser.add_argument("--blind", action="store_true", help="train a model on grey pictures too, for each seed")
    parser.add_argument("--processes", type=int, default=1, help="of the evaluation (default 1)")
    parser.add_argument("--table", action="store_true", help="only print the tables of the rows that are there")
    args = parser.parse_args(argv)
    seeds = args.seeds.split(",")
    if not all(seed.isascii() and seed.isdecimal() for seed in seeds) or len(set(map(int, seeds))) != len(seeds):
        raise UsageError(f"--seeds {args.seeds}: give whole numbers with commas between them, each once.")
    args.seeds = list(map(int, seeds))
    if args.processes < 1:
        raise UsageError(f"--processes {args.processes}: give 1 or more.")
    unset = [setting for setting in args.settings if "=" not in setting]
    if unset:
        raise UsageError(f"{unset[0]!r} is no setting: write KEY=VALUE.")
    if args.models:
        names = [path.absolute().name for path in args.models]
        if args.blind or args.settings:
            raise UsageError("--models takes models that are trained: leave out --blind and settings of training.")
        if len(set(names)) != len(names):
            raise UsageError("--models: two folders have one name, which their rows would share; rename one.")
        absent = [path for path in args.models if not (args.table or path.is_dir())]
        if absent:
            raise UsageError(f"--models {absent[0]}: no such folder.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Make the rows that are missing and print the tables."""
    args = parse(argv)
    folder = args.folder.resolve()
    names = [path.absolute().name for path in args.models] if args.models else [str(seed) for seed in args.seeds]
    if not args.table:
        for number, name in enumerate(names):
            if args.models:
                make_row(folder, name, args.models[number].resolve(), None, None, args.processes)
                continue
            seed = args.seeds[number]
            model, minutes = trained(folder, seed, False, args.settings)
            blind = trained(folder, seed, True, args.settings)[0] if args.blind else None
            make_row(folder, name, model, blind, minutes, args.processes)
    return 0 if report(folder, names) else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
