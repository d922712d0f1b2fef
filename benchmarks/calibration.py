"""What choosing thresholds and a temperature buys: calibration error, and F1 within 1 s, for each way to choose.

    python benchmarks/calibration.py MODEL [data=NAME] [data.KEY=VALUE ...]

Thresholds and temperature of the trained model in MODEL are chosen on the validation split. The table has a row for
each way to choose: F1 within 1 s and calibration error on the validation clips (with the reference's texts), and F1
within 1 s of the held-out sessions, which the model follows by itself. The folder of the model is only read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from one_sentence import exit_code

from prospect_hf.checkpoints import load_trained
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_index import clips_of
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.reader import FrameReader
from prospect_hf.evaluation.free_running import follow
from prospect_hf.evaluation.score import score
from prospect_hf.jobs.command_entry import DATA
from prospect_hf.metrics.calibration import calibration_error
from prospect_hf.metrics.catalogue import CHOICE_TOLERANCE_S
from prospect_hf.metrics.decisions import best_threshold
from prospect_hf.settings import compose, parse
from prospect_hf.tables import table
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.calibration import calibrate
from prospect_hf.training.clip_metrics import DECISIONS, Decision
from prospect_hf.training.splits import load_splits
from prospect_hf.training.trainer import DSTTrainer

HEAD = [
    "thresholds",
    "speaking",
    "update",
    "validation: F1 speaking",
    "F1 update",
    "calibration error speaking",
    "calibration error update",
    "free run: F1 speaking",
    "F1 update",
    "joint state accuracy of the table",
]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("settings", nargs="*", metavar="data.KEY=VALUE")
    options = parser.parse_args()
    print(calibration_table(options.model, options.settings))
    return 0


def calibration_table(folder: Path, overrides: list[str]) -> str:
    """The table, as text."""
    model, processor = load_trained(folder)
    model.eval()
    config = model.config
    data = parse(DataArguments, compose("train", {"data": DATA}, overrides)["data"], "data")
    splits = load_splits(data)
    reader = FrameReader(Path(str(data.root)), data.frames, processor)
    validation = ClipDataset(clips_of(splits.validation, processor, data.max_seq_len), ClipInputs(processor, reader))
    split, held_out = splits.held_out

    def trainer(scaling: bool, output: str) -> DSTTrainer:
        args = DSTTrainingArguments(output_dir=output, temperature_scaling=scaling, disable_tqdm=True)
        collate = ClipCollator(processor.tokenizer.pad_token_id)
        return DSTTrainer(
            model=model, args=args, train_dataset=validation, eval_dataset=validation, data_collator=collate
        )

    def row(name: str) -> list[str]:
        decisions = {one: Decision(*runs.validation_rows(), one, config.fps) for one in DECISIONS}
        thresholds = (config.speaking_threshold, config.dst_update_threshold)
        ats = [decisions[one].sweep().at(at).f1 for one, at in zip(DECISIONS, thresholds, strict=True)]
        cells: list[float | None] = [*thresholds, *ats]
        cells += [calibration_error(decisions[one].reliability) for one in DECISIONS]
        made = follow(model, processor, reader, held_out)
        free = score(made, held_out, config.fps, thresholds)
        cells += [free[figure] for figure in ("speaking_f1_1s", "dst_update_f1_1s", "table_joint_state_accuracy")]
        return [name, *("undefined" if cell is None else f"{cell:.3f}" for cell in cells)]

    with tempfile.TemporaryDirectory() as output:
        runs = trainer(False, output)
        chosen = calibrate(runs)["calibration"]
        rows = [HEAD]
        config.speaking_threshold = config.dst_update_threshold = 0.5
        rows.append(row("one half"))
        on_frame = {one: Decision(*runs.validation_rows(), one, config.fps) for one in DECISIONS}
        config.speaking_threshold, config.dst_update_threshold = (
            best_threshold(on_frame[one].pooled(""), on_frame[one].pooled("_labels"))[0] for one in DECISIONS
        )
        rows.append(row("best F1 on the frame"))
        config.speaking_threshold, config.dst_update_threshold = (chosen[one]["threshold"] for one in DECISIONS)
        rows.append(row(f"best F1 within {CHOICE_TOLERANCE_S} s"))
        runs = trainer(True, output)
        scaled = calibrate(runs)["calibration"]
        rows.append(row("the same, after temperature scaling"))
    temperatures = ", ".join(f"{one} {scaled[one]['temperature']:.3f}" for one in DECISIONS)
    return f"{table(rows)}\nfree run: {len(held_out)} sessions ({split}); temperatures: {temperatures}"


if __name__ == "__main__":
    sys.exit(exit_code(main))
