"""What an inspection finds: which promise is broken, in which file, and where for the first time."""

from __future__ import annotations

from dataclasses import dataclass

# What every dataset in the published layout keeps, in the order in which it is checked.
PROMISES = {
    "files": "every file is there with the size and the SHA-256 that the manifest states, and no other Parquet file",
    "file_names": "files are named SPLIT-NUMBER-of-COUNT.parquet in the folder of their source, numbered without a gap",
    "card": "the card lists the configurations of the manifest",
    "report": "the report states the counts of the manifest",
    "readable": "every file can be read as Parquet",
    "schema": "every file has the columns of dst_frames, with their types, and declares them for datasets",
    "parquet_layout": "row groups are under 100 MB, and every column has a page index",
    "pictures": "where a file has a column of pictures, every row has one",
    "row_counts": "a file has as many rows and sessions as the manifest states",
    "label_balance": "the labels of a source and split are as often as the manifest states",
    "no_nulls": "no value is missing",
    "one_source": "rows are of the source of their file",
    "license": "the license is that of the source",
    "frames_file": "the frame file is a path inside of the folder of its source",
    "one_run_a_session": "the rows of a session are one run, in one file and one split",
    "recording_in_one_split": "a recording is in one split only",
    "session_constant": "plan, goal, video, frame rate and all else that describes a session are the same in its rows",
    "plan_shape": "a row has a plan, and one state before and one after the frame for each of its steps",
    "one_row_a_frame": "a session has one row a frame",
    "consecutive_frames": "the frames of a session follow each other without a gap",
    "timestamps": "timestamps rise and are (frame_index + 1) / fps",
    "frames_in_video": "frames, and so speech, lie inside the video",
    "speaking": "speaking is 1 with a response, -100 with a user text, else 0; -100 in a session without speech",
    "state_rule": "the state rule is reopen or monotone",
    "state_values": "a state is 0, 1 or 2, or -100 in a session without state labels",
    "unlabelled_sessions": "a session without state labels has none in all its rows",
    "first_states": "before the first frame of a session no step has started",
    "state_chain": "the states before a frame are those after the frame above it",
    "transition_values": "a transition starts or completes a step of the plan",
    "transitions_match_states": "the states before a frame and its transitions give the states after it",
    "legal_transitions": "a step starts and then completes; with the rule reopen it may start again",
    "dst_update": "dst_update is 1 exactly where there is a transition",
    "deviations": "deviations are those from the plan that the states of the session show",
    "sample": "the sample holds sessions of the dataset, unchanged",
}


@dataclass
class Broken:
    """A promise that one file breaks.

    Args:
        promise: a key of ``PROMISES``.
        file: relative to the dataset's folder.
        count: how often: rows, sessions or counts.
        session, frame: the first place in the file; "" and None where the whole file is meant.
        note: what was found, "" where the promise says it all.
    """

    promise: str
    file: str
    count: int
    session: str = ""
    frame: int | None = None
    note: str = ""

    @property
    def where(self) -> str:
        """The first place in the file."""
        place = [self.file, *([f"session {self.session}"] if self.session else [])]
        return ", ".join([*place, *([f"frame {self.frame}"] if self.frame is not None else [])])

    @property
    def what(self) -> str:
        """What was found, or the promise itself."""
        return self.note or f"not kept: {PROMISES[self.promise]}"

    def __str__(self) -> str:
        more = f" ({self.count:,} times in this file)" if self.count > 1 else ""
        return f"{self.promise}: {self.where}{more}: {self.what}."


class Findings:
    """Collects broken promises: the first place in each file, and how often."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Broken] = {}

    def add(
        self, promise: str, file: str, count: int = 1, session: str = "", frame: int | None = None, note: str = ""
    ) -> None:
        """``promise`` is broken ``count`` times in ``file``; of several calls, the first says where."""
        known = self._found.get((promise, file))
        if known is None:
            self._found[promise, file] = Broken(promise, file, count, session, frame, note)
        else:
            known.count += count

    @property
    def broken(self) -> list[Broken]:
        """In the order of ``PROMISES``, then of the files."""
        order = {promise: number for number, promise in enumerate(PROMISES)}
        return sorted(self._found.values(), key=lambda one: (order[one.promise], one.file))
