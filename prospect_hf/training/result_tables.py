"""The tables that a training run prints: label balance at the start, results at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prospect_hf.tables import table

FREE_RUN = (
    ("joint state accuracy (all steps right, all frames)", "joint_state_accuracy"),
    ("  of the tracked table", "table_joint_state_accuracy"),
    ("speaking F1, within 1 s", "speaking_f1_1s"),
    ("DST-update F1, within 1 s", "dst_update_f1_1s"),
    ("transition F1 (right step and state), within 1 s", "table_transition_f1_1s"),
    ("response exact match", "response_exact_match"),
    ("response BLEU", "response_bleu"),
)


def balance_table(balance: Mapping[str, Mapping[str, int]]) -> str:
    """Rows and label balance of each source, form and split."""
    head = ["rows of", "videos", "sessions", "frames", "speak", "update", "not started", "in progress", "completed"]
    rows = [head]
    for name, count in balance.items():
        states = [count[f"states_{state}"] for state in ("not_started", "in_progress", "completed")]
        update = f"{count['dst_update_1']}" if count["dst_update_1"] + count["dst_update_0"] else "no labels"
        rows.append(
            [
                name,
                f"{count['videos']}",
                f"{count['sessions']}",
                f"{count['rows']}",
                f"{count['speaking_1']} ({100 * count['speaking_1'] / count['rows']:.1f} %)",
                update,
                *(f"{100 * state / max(sum(states), 1):.1f} %" for state in states),
            ]
        )
    return table(rows)


def result_table(results: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Metrics of the free run on held-out sessions, beside those of the majority baseline.

    Args:
        machine: what the run was made on (``prospect_hf.machine.machine``); figures depend on it.
    """
    look = ""
    if "look_seconds" in results:
        earlier = results.get("look_earlier_parts")
        begin = f" from step {earlier[-1]['until_step']}" if earlier else ""
        look = f"{results['look_seconds']:.0f} s of looking{begin}, then "
    begin = f"from step {results['earlier_parts'][-1]['until_step']} to " if "earlier_parts" in results else ""
    stages = f"{look}{begin}{results['steps']} steps in {results['train_seconds']:.0f} s"
    lines = [f"\ntrained {stages} ({results['seconds']:.0f} s in all) on {machine_text(machine)}"]
    if "free_run" not in results and "free_run_held_out" in results:
        lines.append(
            "Of the sources that the model learned from there are no test sessions; results.json has the others'."
        )
    elif "free_run" in results:
        free, majority = results["free_run"], results["majority"]
        unseen = results.get("free_run_held_out")
        rows = [
            [f"{free['split']}: {free['sessions']} sessions, no reference text or timing given", "model", "majority"]
        ]
        if unseen is not None:
            rows[0] += [f"held out: {', '.join(unseen['sources'])} ({unseen['sessions']} sessions)"]
        for label, key in FREE_RUN:
            if key in free:
                row = [label, _shown(free[key]), _shown(majority[key]) if key in majority else ""]
                rows.append(row if unseen is None else [*row, _shown(unseen[key]) if key in unseen else ""])
        lines.append(table(rows))
    else:
        lines.append("There are no held-out sessions: nothing was evaluated.")
    return "\n".join(lines)


def machine_text(machine: Mapping[str, Any]) -> str:
    """``AMD EPYC 7B13 (AVX2), 2 threads``, with accelerator and processes where there are any."""
    place = machine["accelerator"] or f"{machine['processor']} ({machine['vector_units']})"
    processes = f", {machine['processes']} processes" if machine["processes"] > 1 else ""
    return f"{place}, {machine['threads']} thread{'' if machine['threads'] == 1 else 's'}{processes}"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
