"""A million rows, and a second million: built, read back as sessions, packed, and a run's second start.

    python benchmarks/data_scale.py [--rows 1000000 2000000] [--processes 2] [--folder FOLDER]

The corpus has the statistics of ProAssist's (``data_corpus.py``), without frames. Each part runs in a process of its
own; memory is the peak of that process plus the peak of its largest worker times their number. The last row continues
a line through the last two sizes to the 26 million rows of the real corpus; ``--rows 26000000`` measures them.
The stated simple way, for the first size: the rows in the Arrow cache of ``datasets``, every session held in memory and
packed when a run starts.

Exit codes: 0 done; 1 the two ways give different clips.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_corpus import write_corpus

CORPUS_ROWS = 26_000_000
MAX_SEQ_LEN = 2048


def peak_mb(workers: int) -> float:
    """Peak memory of this process, plus that of its largest worker times ``workers``, in megabytes."""
    of_worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if workers > 1 else 0
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + of_worker * workers) / 1024


def disk_mb(folder: Path) -> float:
    """The size of all files below ``folder``, in megabytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def data_arguments(folder: Path, processes: int) -> Any:
    """The settings of a run on the corpus of ``folder``."""
    from prospect_hf.data.arguments import DataArguments

    return DataArguments(
        name="proassist",
        root=str(folder / "corpus"),
        frames="rendered",
        cache_dir=str(folder / "cache"),
        processes=processes,
        max_seq_len=MAX_SEQ_LEN,
    )


def build(folder: Path, processes: int) -> None:
    """Labels to Parquet."""
    from prospect_hf.data.corpus import prepare_rows

    prepare_rows(data_arguments(folder, processes))


def read(folder: Path, processes: int) -> None:
    """Parquet to sessions that are read by position."""
    from prospect_hf.training.splits import load_splits

    load_splits(data_arguments(folder, processes))


def pack(folder: Path, processes: int) -> None:
    """Sessions to clips; the processor is a new small one, whose tokenizer is trained on 200 sessions."""
    from prospect_hf.data.clip_index import open_clips
    from prospect_hf.training.arguments import ModelArguments
    from prospect_hf.training.build import session_texts
    from prospect_hf.training.splits import load_splits
    from prospect_hf.training.tiny import tiny_processor

    splits = load_splits(data_arguments(folder, processes))
    processor = tiny_processor(session_texts(splits.train[:200]), ModelArguments())
    processor.save_pretrained(folder / "processor")
    with timed():
        clips = open_clips(splits.train, processor, MAX_SEQ_LEN, folder / "cache", processes)
    (folder / "clips.json").write_text(json.dumps([len(clips), sum(clips.lengths)]))


def start(folder: Path, processes: int) -> None:
    """A run that starts again: from the settings to the first batch."""
    from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments

    with timed():
        first_batch(folder, processes, ModelArguments(), DSTTrainingArguments(output_dir=str(folder / "run")))


def first_batch(folder: Path, processes: int, model: Any, args: Any) -> None:
    """What ``train`` does before its first step, with a processor from the disk."""
    from processing_dst_smolvlm import DSTSmolVLMProcessor
    from prospect_hf.data.clips import ClipCollator
    from prospect_hf.data.reader import FrameReader
    from prospect_hf.training.resume import run_record
    from prospect_hf.training.splits import load_splits
    from prospect_hf.training.stages import pack_clips

    data = data_arguments(folder, processes)
    splits = load_splits(data)
    run_record(model, data, args, splits)
    processor = DSTSmolVLMProcessor.from_pretrained(folder / "processor", trust_remote_code=False)
    clips = pack_clips(splits, processor, FrameReader(Path(str(data.root)), data.frames, processor), data, args).train
    longest = sorted(range(len(clips)), key=clips.clips.lengths.__getitem__)[-8:]
    ClipCollator(processor.tokenizer.pad_token_id)([clips[index] for index in longest])


def simple(folder: Path, processes: int) -> None:
    """The simple way: the Arrow cache of ``datasets``, all sessions in memory, clips by building their streams."""
    from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream
    from prospect_hf.data.session_rows import iter_sessions
    from prospect_hf.dataset.dst_frames import load_dst_frames

    rows = load_dst_frames("all", folder / "corpus", cache_dir=folder / "arrow", dst="files")
    sessions = list(iter_sessions(rows["train"]))
    processor = DSTSmolVLMProcessor.from_pretrained(folder / "processor", trust_remote_code=False)
    lengths = []
    for session in sessions:
        begin = frame = 0
        stream = Stream()
        processor.add_prompt(stream, session.goal, session.steps, session.states_at(0))
        while frame < len(session):
            length = len(stream.input_ids)
            processor.add_item(stream, session.item(frame))
            if len(stream.input_ids) > MAX_SEQ_LEN and frame > begin:
                lengths.append(length)
                begin, stream = frame, Stream()
                processor.add_prompt(stream, session.goal, session.steps, session.states_at(frame))
            else:
                frame += 1
        lengths.append(len(stream.input_ids))
    (folder / "simple.json").write_text(json.dumps([len(lengths), sum(lengths)]))


PARTS: dict[str, Callable[[Path, int], None]] = {
    "build": build,
    "read": read,
    "pack": pack,
    "start": start,
    "simple": simple,
}
_TIMED: list[float] = []


@contextmanager
def timed() -> Iterator[None]:
    """Take the time of the block alone, in place of the whole part's."""
    began = time.perf_counter()
    yield
    _TIMED.append(time.perf_counter() - began)


def run_part(name: str, folder: Path, processes: int) -> tuple[float, float]:
    """Seconds and peak megabytes of a part, in a process of its own."""
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder), "--processes", str(processes)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, megabytes = json.loads(told.splitlines()[-1])
    return seconds, megabytes


def measure(rows: int, folder: Path, processes: int) -> dict[str, tuple[float, float]]:
    """The figures of one size, printed as a row."""
    written = write_corpus(folder / "corpus", rows)
    found = {name: run_part(name, folder, processes) for name in ("build", "read", "pack", "start")}
    cells = [f"{written:,}"]
    cells += [f"{seconds:.1f} s, {megabytes:,.0f} MB" for seconds, megabytes in found.values()]
    parquet, kept = disk_mb(folder / "cache/rows"), disk_mb(folder / "cache") - disk_mb(folder / "cache/rows")
    print("|", " | ".join([*cells, f"{parquet:.0f} MB", f"{kept:.0f} MB"]), "|", flush=True)
    return {
        "rows": (written, 0.0),
        **found,
        "disk": (parquet + kept, 0.0),
    }


def extrapolated(one: dict[str, tuple[float, float]], two: dict[str, tuple[float, float]]) -> list[str]:
    """The cells of the line through two sizes, at the size of the corpus; memory is that of the second size or more."""
    ratio = (CORPUS_ROWS - two["rows"][0]) / (two["rows"][0] - one["rows"][0])

    def at_corpus(name: str, index: int) -> float:
        return two[name][index] + max(0.0, ratio * (two[name][index] - one[name][index]))

    cells = [f"{CORPUS_ROWS:,} (line)"]
    cells += [
        f"{at_corpus(name, 0):.0f} s, {at_corpus(name, 1):,.0f} MB" for name in ("build", "read", "pack", "start")
    ]
    return [*cells, f"{at_corpus('disk', 0):,.0f} MB in all", ""]


def main() -> int:
    """Print the table, or run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_000_000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the corpora are written (default: a temporary folder)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        began = time.perf_counter()
        PARTS[given.part](given.folder, given.processes)
        seconds = _TIMED[0] if _TIMED else time.perf_counter() - began
        print(json.dumps([seconds, peak_mb(given.processes)]))
        return 0
    home = given.folder or Path(tempfile.mkdtemp())
    print("| rows | build | read as sessions | pack | second start | Parquet | sessions and clips |")
    print("|---|---|---|---|---|---|---|")
    found = [measure(rows, home / str(rows), given.processes) for rows in given.rows]
    if len(found) > 1:
        print("|", " | ".join(extrapolated(found[-2], found[-1])), "|")
    first = home / str(given.rows[0])
    seconds, megabytes = run_part("simple", first, 1)
    print(
        f"\nThe simple way, {found[0]['rows'][0]:,} rows: {seconds:.1f} s, {megabytes:,.0f} MB of memory, "
        f"{disk_mb(first / 'arrow'):,.0f} MB on disk, at each start but for the building of the cache."
    )
    same = (first / "simple.json").read_text() == (first / "clips.json").read_text()
    if not same:
        print("error: the two ways give different clips.", file=sys.stderr)
    if given.folder is None:
        shutil.rmtree(home)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
