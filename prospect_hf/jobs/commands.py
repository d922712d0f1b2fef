"""The table of commands: what each is called, which settings it takes, which function carries it out."""

from __future__ import annotations

from prospect_hf.jobs.data_commands import (
    ANNOTATE,
    COMPARE_DST,
    DATASET,
    ENCODE,
    EXPORT,
    INSPECT,
    JOIN,
    SAMPLE,
    SIMULATE,
)
from prospect_hf.jobs.model_commands import COMPARE, DEMO, EVALUATE, MERGE, PLAN_MEMORY, REPORT, STREAM, TRAIN

COMMANDS = {
    command.name: command
    for command in (
        TRAIN,
        PLAN_MEMORY,
        EVALUATE,
        COMPARE,
        REPORT,
        STREAM,
        DEMO,
        MERGE,
        SIMULATE,
        SAMPLE,
        ANNOTATE,
        COMPARE_DST,
        DATASET,
        INSPECT,
        ENCODE,
        JOIN,
        EXPORT,
    )
}
