"""The memory plan: what a training setting takes on a GPU, and how long an epoch is, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prospect_hf.data.arguments import DataArguments
from prospect_hf.progress import Progress
from prospect_hf.settings import parse
from prospect_hf.tables import table
from prospect_hf.terminal import say
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.memory.arguments import PlanArguments
from prospect_hf.training.memory.plan import Plan, make_plan, with_largest
from prospect_hf.training.memory.planned import planned_arguments, planned_corpus, planned_setting, planned_size
from prospect_hf.training.memory.shapes import PUBLISHED, planned_config
from prospect_hf.training.memory.tables import TABLE_TOKENS, facts_table, notes, parts_table, sizes_rows


def run(plan: PlanArguments, model: ModelArguments, data: Mapping[str, Any], training: Mapping[str, Any]) -> int:
    """Print the plan; 1 where the setting does not fit.

    Args:
        plan: the GPU, and what clips look like.
        model: whose sizes are planned for.
        data: the length of a clip, and what an epoch reads; the corpus itself is not opened.
        training: as for training on a GPU; this machine needs none.

    Raises:
        UsageError: settings that cannot be used, or a model whose sizes are not known without a download.
        DataError: the manifest of data.rows cannot be read.
    """
    # No corpus is read, so none has to be there.
    arguments = parse(DataArguments, {**data, "root": data.get("root") or "."}, "data")
    args = planned_arguments(training)
    corpus = planned_corpus(arguments, plan)
    config = planned_config(model)
    setting, size = planned_setting(config, model, arguments, args), planned_size(config, arguments, args, plan)
    made: Plan = with_largest(make_plan(setting, size, plan.memory_bytes, plan.allowance_bytes))
    say(parts_table(made) + "\n")
    say(facts_table(made, plan, corpus) + "\n")
    for note in notes(made, plan):
        say(note)
    if plan.table:
        rows = []
        with Progress(len(PUBLISHED) * len(TABLE_TOKENS) + 1, "planning", "row") as bar:
            for row in sizes_rows(made):
                rows.append(row)
                bar.update()
        say("\n" + table(rows))
    return 0 if made.fits else 1
