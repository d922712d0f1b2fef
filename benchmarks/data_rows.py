"""Labels to rows and rows to sessions, with arrays and with the stated simple way: a dictionary a frame.

    python benchmarks/data_rows.py

Sessions of 400 to 40,000 frames with a plan of 12 steps, talk on 7.5 % and state changes on about 2 % of the frames at
the shortest length. Median of 5 on one thread, both ways alternating; both must give equal rows and equal sessions. The
last two columns read a Parquet file as training does: texts become objects when a clip asks for them, or all at once.

Exit codes: 0 done, 1 the two ways differ.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from timing import median_seconds

from prospect_hf.data.session_rows import iter_sessions
from prospect_hf.data.session_store import read_shard
from prospect_hf.dataset.licenses import LICENSES
from prospect_hf.dataset.row_maker import FEATURES, SCHEMA, row_deviation, session_table
from prospect_hf.dataset.shards import PlannedShard, write_shard
from prospect_hf.sessions import DSTEvent, Session, Step, Turn, frames_file
from prospect_hf.timeline import build_timeline
from tracking_dst_smolvlm import session_deviations

SIZES = (400, 4_000, 40_000)
STEPS, REPEATS, FPS = 12, 5, 2.0


def session(frames: int, number: int = 0) -> Session:
    """A random session: steps follow each other, turns are spread evenly."""
    rng = np.random.default_rng(number)
    end = frames / FPS
    cuts = np.sort(rng.uniform(0.01 * end, 0.99 * end, 2 * STEPS))
    events = [DSTEvent(float(cuts[2 * k]), k, "start") for k in range(STEPS)]
    events += [DSTEvent(float(cuts[2 * k + 1]), k, "complete") for k in range(STEPS)]
    times = np.sort(rng.uniform(1, end - 1, int(frames * 0.075)))
    roles = ("user", "assistant")
    turns = [Turn(roles[rng.random() < 0.85], float(at), f"take part {rng.integers(100)} and turn it") for at in times]
    return Session(
        session_id=f"wtag.v{number}.talk_some_0",
        source="wtag",
        video_uid=f"v{number}",
        recording=f"v{number}",
        user_type="talk_some",
        goal="assemble the toy",
        steps=tuple(Step(f"S{k + 1}", f"attach part {k} to the base") for k in range(STEPS)),
        turns=tuple(turns),
        events=tuple(events),
        fps=FPS,
        first_frame=0,
        num_frames=frames,
        frames_file=frames_file("wtag", f"v{number}"),
        origin="benchmark",
    )


def rows_by_frame(one: Session) -> Iterator[dict[str, Any]]:
    """The simple way: a dictionary a frame."""
    timeline = build_timeline(one)
    deviations = session_deviations(timeline.states_after.tolist(), len(one.steps))
    for row in range(one.num_frames):
        turn = timeline.turns.get(row)
        said = turn is not None and turn.role == "assistant"
        yield {
            "source": one.source,
            "video_uid": one.video_uid,
            "session_id": one.session_id,
            "recording": one.recording,
            "user_type": one.user_type,
            "frame_index": row,
            "timestamp": (row + 1) / one.fps,
            "fps": one.fps,
            "frames_file": one.frames_file,
            "goal": one.goal,
            "steps": [step.text for step in one.steps],
            "user_text": turn.text if turn is not None and not said else "",
            "speaking": int(timeline.speaking[row]),
            "response": turn.text if turn is not None and said else "",
            "dst_update": int(timeline.dst_update[row]),
            "transitions": [{"step": e.step, "transition": e.transition} for e in timeline.events.get(row, ())],
            "states_before": timeline.states_before[row].tolist(),
            "states_after": timeline.states_after[row].tolist(),
            "deviations": [row_deviation(found) for at, found in deviations if at == row],
            "state_rule": one.state_rule,
            "mistake": "",
            "progress": turn.progress if turn is not None else "",
            "license": LICENSES[one.source],
        }


def table_by_frame(sessions: list[Session]) -> pa.Table:
    """The rows of ``sessions``, from dictionaries."""
    return pa.Table.from_pylist([row for one in sessions for row in rows_by_frame(one)], schema=SCHEMA)


def sessions_by_frame(table: pa.Table) -> list[dict[str, Any]]:
    """The simple way back: the rows as dictionaries, grouped by session."""
    found: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        of_session = found.setdefault(row["session_id"], {"speaking": [], "states_after": [], "items": {}})
        if row["user_text"] or row["response"] or row["transitions"]:
            of_session["items"][len(of_session["speaking"])] = (row["user_text"], row["response"])
        of_session["speaking"].append(row["speaking"])
        of_session["states_after"].append(row["states_after"])
    return [
        {**one, "speaking": np.array(one["speaking"]), "states_after": np.array(one["states_after"])}
        for one in found.values()
    ]


def main() -> int:
    """Print the table."""
    print(f"Python {platform.python_version()}, pyarrow {pa.__version__}\n")
    head = ["frames a session", "to rows: dictionaries", "to rows: arrays", "ratio"]
    head += ["to sessions: dictionaries", "to sessions: arrays", "ratio", "from Parquet", "with all texts"]
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|")
    for frames in SIZES:
        sessions = [session(frames, number) for number in range(max(1, 40_000 // frames))]
        count = sum(one.num_frames for one in sessions)
        table = pa.concat_tables([session_table(one) for one in sessions])
        rows = datasets.Dataset(table.replace_schema_metadata(FEATURES.arrow_schema.metadata))
        if not table_by_frame(sessions).equals(table):
            print(f"error: the two ways give different rows at {frames} frames.", file=sys.stderr)
            return 1
        for ours, theirs in zip(iter_sessions(rows), sessions_by_frame(table), strict=True):
            same = np.array_equal(ours.states_after, theirs["states_after"]) and set(ours.items) == set(theirs["items"])
            if not (same and np.array_equal(ours.speaking, theirs["speaking"])):
                print(f"error: the two ways give different sessions at {frames} frames.", file=sys.stderr)
                return 1
        slow, fast = median_seconds(
            REPEATS,
            lambda all_of=sessions: table_by_frame(all_of),
            lambda all_of=sessions: [session_table(one) for one in all_of],
        )
        with tempfile.TemporaryDirectory() as place:
            write_shard(PlannedShard("rows.parquet", "wtag", "train", tuple(sessions)), Path(place), None)
            path = Path(place) / "rows.parquet"
            slow_back, fast_back, parquet, texts = median_seconds(
                REPEATS,
                lambda rows_of=table: sessions_by_frame(rows_of),
                lambda rows_of=rows: list(iter_sessions(rows_of)),
                lambda file=path: sum(map(len, read_shard(file))),
                lambda file=path: sum(len(dict(one.items)) for one in read_shard(file)),
            )
        cells = [f"{frames:,}", *(f"{count / s:,.0f} rows/s" for s in (slow, fast)), f"{slow / fast:.0f} x"]
        cells += [*(f"{count / s:,.0f} rows/s" for s in (slow_back, fast_back)), f"{slow_back / fast_back:.0f} x"]
        cells += [f"{count / s:,.0f} rows/s" for s in (parquet, texts)]
        print("|", " | ".join(cells), "|", flush=True)
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.exit(main())
