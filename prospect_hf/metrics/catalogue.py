"""The figures of an evaluation: label, group, unit, and whether higher is better. Tables, reports and cards read it."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCES_S = (0, 1, 2, 5)
# The tolerance that thresholds are chosen at and that a task score uses, in seconds.
CHOICE_TOLERANCE_S = 1
# The aspects that a judge marks from 1 to 5.
MARKS = ("correctness", "promptness", "efficiency", "overall")
WITHIN = "Texts within 1 s, silence where missed"
PAIRS = "Texts of matched pairs"


@dataclass(frozen=True)
class Figure:
    """How a figure is shown.

    Args:
        label: in a table.
        group: the heading under which it is listed.
        unit: "" for a share of 0 to 1.
        higher_is_better: None where neither direction is better.
        digits: after the point.
    """

    label: str
    group: str
    unit: str = ""
    higher_is_better: bool | None = True
    digits: int = 3


def _decision(key: str, label: str) -> dict[str, Figure]:
    group = "Decisions"
    return {
        f"{key}_precision": Figure(f"{label}, precision", group),
        f"{key}_recall": Figure(f"{label}, recall", group),
        f"{key}_f1": Figure(f"{label}, F1 on the frame", group),
        f"{key}_f1_1s": Figure(f"{label}, F1 within 1 s", group),
        f"{key}_balanced_accuracy": Figure(f"{label}, balanced accuracy", group),
        f"{key}_average_precision": Figure(f"{label}, average precision", group),
        f"{key}_best_f1": Figure(f"{label}, F1 at the best threshold", group),
        f"{key}_best_threshold": Figure(f"{label}, best threshold", group, higher_is_better=None),
        f"{key}_calibration_error": Figure(f"{label}, expected calibration error", group, higher_is_better=False),
    }


def _states(key: str, label: str) -> dict[str, Figure]:
    group = "States"
    return {
        f"{key}joint_state_accuracy": Figure(f"{label}, joint accuracy", group),
        f"{key}joint_state_accuracy_at_updates": Figure(f"{label}, joint accuracy at updates", group),
        f"{key}step_accuracy": Figure(f"{label}, step accuracy", group),
        f"{key}state_macro_f1": Figure(f"{label}, macro-F1", group),
    }


def _transitions(key: str, of: str) -> dict[str, Figure]:
    group = f"Transitions of the {of}"
    return {
        **{
            f"{key}transition_{name}_{second}s": Figure(f"{label} within {second} s", group)
            for second in TOLERANCES_S
            for name, label in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F1"))
        },
        f"{key}transition_delay_s": Figure("Mean delay (late is positive)", group, "s", None, 2),
        f"{key}transition_abs_delay_s": Figure("Mean distance", group, "s", False, 2),
    }


CHUNKS = "Chunks of 8 s"

FIGURES: dict[str, Figure] = {
    **_decision("speaking", "Speaking"),
    **_decision("dst_update", "DST update"),
    "chunk_macro_f1": Figure("Macro-F1, with and without speech", CHUNKS),
    "chunk_f1": Figure("F1 of chunks with speech", CHUNKS),
    "chunk_precision": Figure("Precision of chunks with speech", CHUNKS),
    "chunk_recall": Figure("Recall of chunks with speech", CHUNKS),
    **_states("", "State head"),
    **_states("table_", "Tracked table"),
    "illegal_transitions_per_hour": Figure("Illegal transitions of the head", "States", "per hour", False, 2),
    "rejected_per_hour": Figure("Proposals that the table refused", "States", "per hour", False, 2),
    **_transitions("table_", "table"),
    **_transitions("", "head"),
    "deviation_precision_2s": Figure("Precision within 2 s", "Deviations from the plan"),
    "deviation_recall_2s": Figure("Recall within 2 s", "Deviations from the plan"),
    "deviation_f1_2s": Figure("F1 within 2 s", "Deviations from the plan"),
    "matching_precision": Figure("Precision", "Stream matching"),
    "matching_recall": Figure("Recall", "Stream matching"),
    "matching_f1": Figure("F1", "Stream matching"),
    "matching_jaccard": Figure("Jaccard", "Stream matching"),
    "matching_missing_rate": Figure("Missing rate", "Stream matching", "", False),
    "matching_redundant_rate": Figure("Redundant rate", "Stream matching", "", False),
    "matching_time_diff_s": Figure("Distance of matched pairs", "Stream matching", "s", False, 2),
    "matching_pairs": Figure("Matched pairs", "Stream matching", "pairs", None, 0),
    "response_exact_match": Figure("Exact match", WITHIN),
    "response_bleu": Figure("BLEU", WITHIN, "0-100", True, 1),
    "text_exact_match": Figure("Exact match", PAIRS),
    "names_right_part": Figure("Names the right part", PAIRS),
    "text_bleu1": Figure("BLEU-1 (sacrebleu)", PAIRS, "0-100", True, 1),
    "text_bleu2": Figure("BLEU-2 (sacrebleu)", PAIRS, "0-100", True, 1),
    "text_bleu3": Figure("BLEU-3 (sacrebleu)", PAIRS, "0-100", True, 1),
    "text_bleu4": Figure("BLEU-4 (sacrebleu)", PAIRS, "0-100", True, 1),
    "text_rouge_l": Figure("ROUGE-L (rouge-score, stemmed)", PAIRS),
    "text_meteor": Figure("METEOR (nltk, exact and stem)", PAIRS),
    "text_cider_d": Figure("CIDEr-D", PAIRS, "0-10", True, 2),
    "text_similarity": Figure("Embedding similarity", PAIRS),
    "distinct_1": Figure("Distinct-1", "All predicted utterances", "", None),
    "distinct_2": Figure("Distinct-2", "All predicted utterances", "", None),
    "perplexity": Figure("Perplexity of responses", "Language model", "", False, 2),
    "token_accuracy": Figure("Token accuracy of responses", "Language model"),
    "state_perplexity": Figure("Perplexity of state texts", "Language model", "", False, 2),
    "state_token_accuracy": Figure("Token accuracy of state texts", "Language model"),
    "forced_time_diff_s": Figure("Time difference", "Language model", "s", False, 2),
    "forced_silent_rate": Figure("Turns at which the speaking head stays silent", "Language model", "", False),
    "fluency": Figure("Fluency", "Language model"),
    "judge_correctness": Figure("Correctness", "Judge", "1-5", True, 2),
    "judge_promptness": Figure("Promptness", "Judge", "1-5", True, 2),
    "judge_efficiency": Figure("Efficiency", "Judge", "1-5", True, 2),
    "judge_overall": Figure("Overall", "Judge", "1-5", True, 2),
    "judge_exact": Figure("Pairs of votes that are equal", "Judge"),
    "judge_within_one": Figure("Pairs of votes at most 1 apart", "Judge"),
    **{
        f"judge_alpha_{mark}": Figure(f"Agreement on {mark} (Krippendorff's alpha)", "Judge", "", True, 2)
        for mark in MARKS
    },
}
