"""The trace of a stream: a JSON line for the header, one a frame while the stream runs, one when its video has ended.

A trace can be followed while it is written (``tail -f``) and has to survive a crash. So each line is written to the
file itself and flushed, without a temporary file; after a crash only the last line can be cut short.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from prospect_hf.checked_json import LARGEST
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import COMPLETED, NOT_STARTED
from tracking_dst_smolvlm import DEVIATIONS, Deviation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from streaming_dst_smolvlm import DSTStream

KIND = "dst_stream"
VERSION = 2
HEADER_KEYS: tuple[str, ...] = (
    "kind",
    "version",
    "goal",
    "plan",
    "fps",
    "speaking_threshold",
    "dst_update_threshold",
    "source",
    "model",
)
HEADER_KEYS += ("context", "reference")
EVENT_KEYS: tuple[str, ...] = (
    "frame",
    "time",
    "p_speak",
    "p_update",
    "text",
    "user_text",
    "transitions",
    "states",
    "probabilities",
)
EVENT_KEYS += ("rejected", "cache_length", "latency", "context", "deviations")
END_KEY = "ended"  # of the last line
# Probabilities may be computed in half precision.
SUM_TOLERANCE = 0.02


@dataclass(frozen=True)
class Trace:
    """A recorded stream.

    header: goal, plan (the steps' texts), fps, thresholds, source, model, context, reference; in the trace of a stream
        that was restored, ``continues`` names the trace beside it that holds the frames before.
    events: one a frame, in order and without a gap; the keys are those of the stream's event. Goal and plan of the
        header hold until an event's ``plan_change``, which has the new ones; older traces have no such key.
    truncated: the file's last line was cut short (a crash while it was written) and is not among the events.
    end: the deviations from the plan that the end of the video shows; None where the stream was stopped before it.
    """

    header: dict[str, Any]
    events: list[dict[str, Any]]
    truncated: bool = False
    end: list[dict[str, Any]] | None = None

    def plan_changes(self) -> list[tuple[int, dict[str, Any]]]:
        """(index of the event, its ``plan_change``) of each event before which the plan was changed."""
        return [(n, event["plan_change"]) for n, event in enumerate(self.events) if event.get("plan_change")]

    def plans(self) -> list[list[str]]:
        """``[events]``, the steps that each event's states are of; one list for all events of a plan."""
        plan, plans = list(self.header["plan"]), []
        for event in self.events:
            if event.get("plan_change"):
                plan = list(event["plan_change"]["plan"])
            plans.append(plan)
        return plans


def trace_header(
    stream: DSTStream,
    source: str,
    model: str,
    reference: Mapping[str, Any] | None = None,
    continues: str | None = None,
) -> dict[str, Any]:
    """The header of a trace of ``stream``, with the thresholds and the context strategy that the stream has now.

    Args:
        stream: that is followed.
        source: name of the video, camera or session.
        model: name of the model.
        reference: ``utterances`` [{frame, text}] and ``states`` [[frame, step, state]] of a labelled session.
        continues: file name of the trace that holds the frames before.
    """
    batch = stream.batch
    task, changed = batch.rows[0].task, batch.rows[0].plan_change
    return {
        "kind": KIND,
        "version": VERSION,
        "goal": task.goal,
        "plan": list(task.plan if changed is None else changed.before),  # a change is told by the next event
        "fps": batch.model.config.fps,
        "speaking_threshold": batch.speaking_threshold,
        "dst_update_threshold": batch.dst_update_threshold,
        "source": source,
        "model": model,
        "context": {**asdict(batch.context), "max_tokens": batch.max_tokens},
        "reference": reference,
        "continues": continues,
    }


def new_trace_path(folder: Path, first: int) -> Path:
    """Where the trace of a stream that begins with frame ``first`` is written: an earlier trace is never replaced."""
    stem = f"trace-{first}" if first else "trace"
    path, number = folder / f"{stem}.jsonl", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.jsonl"
    return path


class TraceWriter:
    """Writes a new trace to ``path``, event by event; a context manager.

    Every line is flushed, so that the trace of a running or stopped stream can be read.

    Raises:
        FileExistsError: there is a trace at ``path``; see ``new_trace_path``.
        DataError: a header or an event that ``read_trace`` would refuse; it is not written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._header = dict(header)
        _check_header(self._header, f"{path}: the header to be written")
        self._next_frame: int | None = None
        self._plan = list(self._header["plan"])
        self._file: TextIO | None = None

    def __enter__(self) -> TraceWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("x", encoding="utf-8", newline="\n")
        self._append(self._header, "the header")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, event: DataclassInstance) -> None:
        """Append one event (any dataclass with the keys of the stream's event)."""
        record = asdict(event)
        where = f"{self.path}: the event to be written"
        plan = _check_plan_change(record, self._plan, where)
        self._next_frame = _check_event(record, len(plan), self._next_frame, where) + 1
        self._plan = plan
        self._append(record, f"frame {record['frame']}")

    def end(self, deviations: Sequence[Deviation]) -> None:
        """Append the end of the video, with the deviations that it shows (``DSTStream.deviations_at_end``)."""
        record = {END_KEY: True, "deviations": [asdict(one) for one in deviations]}
        _check_deviations(record["deviations"], len(self._plan), f"{self.path}: the end to be written")
        self._append(record, "the end")

    def _append(self, record: dict[str, Any], what: str) -> None:
        if self._file is None:
            raise UsageError(f"{self.path}: the trace is not open; write to it inside `with TraceWriter(...)`.")
        try:
            line = json.dumps(record, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path}: {what} holds a value that JSON has no word for ({error}).") from error
        self._file.write(line + "\n")
        self._file.flush()


def read_stream(path: Path) -> Trace:
    """The trace at ``path`` with the frames before it, where it continues other traces.

    A stream that was killed and continued from its last snapshot has followed the frames since then twice; those of
    the later trace count.

    Returns:
        The frames of all of them, with the last one's header, but the goal and the plan that the first one begins with.

    Raises:
        DataError: a trace cannot be read, lacks frames that the later one continues, or ends with another plan.
    """
    last = trace = read_trace(path)
    events, seen = list(last.events), {path.name}
    while (name := trace.header.get("continues")) is not None:
        _require(name not in seen, f"{path}: line 1", "continues", f"is {name!r}, a trace that continues this one")
        seen.add(name)
        later, plan = events, list(trace.header["plan"])
        path = path.with_name(name)
        trace = read_trace(path)
        events = join_events(trace.events, later, path)
        if later:
            ended = Trace(trace.header, events[: -len(later)])
            where = f"{path}: frame {later[0]['frame'] - 1}"
            _require(ended.plans()[-1] == plan, where, "plan", "is not the plan that the stream was continued with")
    opened = {key: trace.header[key] for key in ("goal", "plan")}
    return Trace(last.header | opened, events, last.truncated, last.end)


def join_events(earlier: list[dict[str, Any]], later: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """The events of one stream: those of ``later``, before them those of the trace at ``path`` up to there.

    Raises:
        DataError: there are frames between the two that neither holds.
    """
    if not later:
        return earlier
    first = later[0]["frame"]
    kept = [event for event in earlier if event["frame"] < first]
    if not kept or kept[-1]["frame"] != first - 1:
        raise DataError(f"{path}: holds no frame {first - 1}, after which the stream was continued.")
    return kept + later


def read_trace(path: Path) -> Trace:
    """Read the trace at ``path``.

    A last line without a line break that is not complete JSON was cut short: it is left out, and ``truncated`` is set.

    Raises:
        DataError: anything else is wrong; the message names file, line and key.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such trace; give the JSON-lines file that a stream wrote.") from None
    except OSError as error:
        raise DataError(f"{path}: the trace cannot be read ({error.strerror}).") from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty; a trace begins with a header line.")
    lines = content.split(b"\n")
    header = _parse(lines[0], f"{path}: line 1")
    _check_header(header, f"{path}: line 1")
    events: list[dict[str, Any]] = []
    frame: int | None = None
    plan = list(header["plan"])
    end: list[dict[str, Any]] | None = None
    unfinished = len(lines) - 1  # after the last line break; empty in a complete file
    for index, line in enumerate(lines[1:], start=1):
        where = f"{path}: line {index + 1}"
        if index == unfinished:
            if not line.strip():
                break
            if not _complete(line):
                return Trace(header, events, truncated=True)
        if end is not None:
            raise DataError(f"{where}: a line after the end of the video; the trace was edited.")
        event = _parse(line, where)
        if END_KEY in event:
            _missing(event, ["deviations"], where)
            _check_deviations(event["deviations"], len(plan), where)
            end = list(event["deviations"])
            continue
        plan = _check_plan_change(event, plan, where)
        frame = _check_event(event, len(plan), frame, where) + 1
        events.append(event)
    return Trace(header, events, end=end)


def _complete(line: bytes) -> bool:
    try:
        _parse(line, "")
    except DataError:
        return False
    return True


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)  # accepts NaN; the checks refuse it and name its key
    except (ValueError, RecursionError) as error:  # broken JSON, no UTF-8, too many digits, or nested too deeply
        raise DataError(f"{where}: broken JSON ({error}); the trace was edited or is another kind of file.") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(record).__name__}.")
    return record


def _require(condition: bool, where: str, key: str, problem: str) -> None:
    if not condition:
        raise DataError(f"{where}: key '{key}' {problem}.")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _probability(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1 + 1e-6


def _state(value: Any) -> bool:
    return _whole(value) and NOT_STARTED <= value <= COMPLETED


def _sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _missing(record: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    absent = [key for key in keys if key not in record]
    if absent:
        raise DataError(f"{where}: missing key{'s' * (len(absent) > 1)} {', '.join(map(repr, absent))}.")


def _check_header(header: Mapping[str, Any], where: str) -> None:
    if header.get("kind") != KIND:
        raise DataError(f"{where}: key 'kind' is {header.get('kind')!r}, not {KIND!r}; this is no trace of a stream.")
    if header.get("version") != VERSION:
        raise DataError(
            f"{where}: key 'version' is {header.get('version')!r}, this package reads version {VERSION}; "
            "stream again, or use the package version that wrote it."
        )
    _missing(header, HEADER_KEYS, where)
    for key in ("goal", "source", "model"):
        _require(isinstance(header[key], str), where, key, "is not a string")
    earlier = header.get("continues")
    named = earlier is None or (isinstance(earlier, str) and Path(earlier).name == earlier != "")
    _require(named, where, "continues", f"is {earlier!r}, not the name of a trace in the same folder")
    plan, reference = header["plan"], header["reference"]
    _require(_sequence(plan) and all(isinstance(step, str) for step in plan), where, "plan", "is no list of strings")
    _require(_number(header["fps"]) and header["fps"] > 0, where, "fps", f"is {header['fps']!r}, not above 0")
    for key in ("speaking_threshold", "dst_update_threshold"):
        _require(_number(header[key]), where, key, f"is {header[key]!r}, not a finite number")
    _require(isinstance(header["context"], dict), where, "context", "is not an object")
    for key, value in header["context"].items():
        _require(not isinstance(value, float) or _number(value), where, f"context.{key}", f"is {value!r}")
    if reference is None:
        return
    _require(isinstance(reference, dict), where, "reference", "is neither null nor an object")
    _missing(reference, ["utterances", "states"], f"{where}, reference")
    for key in ("utterances", "states"):
        _require(_sequence(reference[key]), where, f"reference.{key}", "is not a list")
    for index, turn in enumerate(reference["utterances"]):
        fine = isinstance(turn, dict) and _whole(turn.get("frame")) and isinstance(turn.get("text"), str)
        _require(fine, where, f"reference.utterances[{index}]", f"is {turn!r}, not a frame and a text")
    for index, change in enumerate(reference["states"]):
        key = f"reference.states[{index}]"
        fine = _sequence(change) and len(change) == 3 and _whole(change[0]) and _whole(change[1]) and _state(change[2])
        _require(fine, where, key, f"is {change!r}, not [frame, step, state 0 to 2]")
        _require(change[1] < len(plan), where, key, f"names step {change[1]} of a plan of {len(plan)} steps")


def _check_deviations(deviations: Any, steps: int, where: str) -> None:
    _require(_sequence(deviations), where, "deviations", "is not a list")
    for index, one in enumerate(deviations):
        key = f"deviations[{index}]"
        fine = isinstance(one, dict) and one.get("kind") in DEVIATIONS and _whole(one.get("step")) and "other" in one
        fine = fine and (one["other"] is None or _whole(one["other"]))
        _require(fine, where, key, f"is {one!r}, not a kind ({', '.join(DEVIATIONS)}), a step and another or null")
        for step in (one["step"], one["other"]):
            _require(step is None or step < steps, where, key, f"names step {step} of a plan of {steps} steps")


def _check_plan_change(event: Mapping[str, Any], before: list[str], where: str) -> list[str]:
    """Refuse an event whose ``plan_change`` cannot be one of the plan ``before``; returns the plan from it on."""
    change = event.get("plan_change")
    if change is None:
        return before
    _require(isinstance(change, dict), where, "plan_change", "is neither null nor an object")
    _missing(change, ["before", "plan", "goal", "kept"], f"{where}, plan_change")
    plan, kept = change["plan"], change["kept"]
    fine = _sequence(change["before"]) and list(change["before"]) == before
    _require(fine, where, "plan_change.before", "is not the plan of the frame before")
    fine = _sequence(plan) and plan and all(isinstance(step, str) for step in plan)
    _require(fine, where, "plan_change.plan", "is no list of strings with at least one")
    _require(isinstance(change["goal"], str), where, "plan_change.goal", "is not a string")
    fine = _sequence(kept) and len(kept) == len(plan)
    _require(fine, where, "plan_change.kept", f"is no list of {len(plan)} entries, one a step")
    old = [place for place in kept if place is not None]
    fine = all(_whole(place) and place < len(before) for place in old) and len(set(old)) == len(old)
    _require(fine, where, "plan_change.kept", f"is {kept!r}, not different steps of the {len(before)} before, or null")
    return list(plan)


def _check_event(event: Mapping[str, Any], steps: int, expected: int | None, where: str) -> int:
    """Refuse an event with a missing or wrong value; returns its frame."""
    _missing(event, EVENT_KEYS, where)
    frame = event["frame"]
    _require(_whole(frame), where, "frame", f"is {frame!r}, not a frame index")
    _require(expected is None or frame == expected, where, "frame", f"is {frame}, but frame {expected} comes next")
    where = f"{where} (frame {frame})"
    _require(_number(event["time"]), where, "time", f"is {event['time']!r}, not a finite number of seconds")
    for key in ("p_speak", "p_update"):
        _require(_probability(event[key]), where, key, f"is {event[key]!r}, not a probability")
    _require(event["text"] is None or isinstance(event["text"], str), where, "text", "is neither null nor a string")
    _require(isinstance(event["user_text"], str), where, "user_text", "is not a string")
    for key in ("rejected", "cache_length"):
        _require(_whole(event[key]), where, key, f"is {event[key]!r}, not a count")
    for key in ("transitions", "states", "probabilities"):
        _require(_sequence(event[key]), where, key, "is not a list")
    for key in ("states", "probabilities"):
        found = len(event[key])
        _require(found == steps, where, key, f"has {found} entries, but the plan has {steps} steps")
    for step, state in enumerate(event["states"]):
        _require(_state(state), where, f"states[{step}]", f"is {state!r}, not a state 0 to 2")
    for step, row in enumerate(event["probabilities"]):
        fine = _sequence(row) and len(row) == 3 and all(map(_probability, row)) and abs(sum(row) - 1) < SUM_TOLERANCE
        _require(fine, where, f"probabilities[{step}]", f"is {row!r}, not three probabilities that sum to 1")
    for index, move in enumerate(event["transitions"]):
        key = f"transitions[{index}]"
        fine = isinstance(move, dict) and all(_whole(move.get(part)) for part in ("step", "before", "after"))
        _require(fine, where, key, f"is {move!r}, not a step, a state before and one after")
        _require(move["step"] < steps, where, key, f"names step {move['step']} of a plan of {steps} steps")
        _require(_state(move["before"]) and _state(move["after"]), where, key, f"is {move!r}; states are 0 to 2")
    _check_deviations(event["deviations"], steps, where)
    latency, context = event["latency"], event["context"]
    fine = isinstance(latency, dict) and all(_number(seconds) for seconds in latency.values())
    _require(fine, where, "latency", f"is {latency!r}, not finite seconds by part")
    if context is not None:
        _require(isinstance(context, dict), where, "context", "is neither null nor an object")
        _missing(context, ["strategy", "tokens_before", "tokens_after", "summary"], f"{where}, context")
        for key in ("strategy", "summary"):
            _require(isinstance(context[key], str), where, f"context.{key}", "is not a string")
        for key in ("tokens_before", "tokens_after"):
            _require(_whole(context[key]), where, f"context.{key}", f"is {context[key]!r}, not a count")
    return frame
