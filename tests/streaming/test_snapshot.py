"""A stream that is saved and restored goes on as if it had never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_fixtures import make_session, new_model, picture, small_processor
from stream_fixtures import PLAN, assert_same_events, inputs_of, talkative_model

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.streaming import Context, Decoding, DSTStream, Tracking, restore_stream, save_stream

SESSION = make_session(5, 60, 3, turn_rate=0.4)
SESSION.items[0] = FrameItem({}, "where does the wheel")
# The user talks all the time, so that words wait whenever the context is emptied.
TALK = make_session(6, 40, 3, turn_rate=0.0)
TALK.items |= {frame: FrameItem({}, "where does the two") for frame in range(40)}


def new_stream(**options: Any) -> DSTStream:
    settings = {
        "context": Context("drop_middle", 330, 60),
        "tracking": Tracking(debounce=2),
        "decoding": Decoding(6, temperature=1.2, seed=3),
        **options,
    }
    return DSTStream(talkative_model(), small_processor(), PLAN, "the red wheel", [1, 0, 0], **settings)


@pytest.mark.parametrize("strategy", ["drop_middle", "summarize_with_dst", "summarize_and_drop"])
@pytest.mark.parametrize("source", ["head", "text"])
@pytest.mark.parametrize("session", [SESSION, TALK], ids=["some", "talk"])
def test_a_restored_stream_is_the_uninterrupted_one(
    strategy: str, source: str, session: SessionRows, tmp_path: Path
) -> None:
    """Stopped before every frame: before the first, on a frame with words, in and after an overflow."""
    options: dict[str, Any] = {
        "context": Context(strategy, 330, 60, 20),
        "tracking": Tracking(source=source, debounce=1 if source == "text" else 2),
        "dst_update_threshold": talkative_model().config.dst_update_threshold - 0.01,
    }
    stream = new_stream(**options)
    uninterrupted = list(stream.run(inputs_of(session)))
    assert any(event.text or event.user_text for event in uninterrupted) and any(
        event.context for event in uninterrupted
    )
    stream = new_stream(**options)
    for frame, item in enumerate(inputs_of(session)):
        save_stream(stream, tmp_path / "stream")
        stream = restore_stream(tmp_path / "stream", talkative_model(), small_processor())
        assert_same_events([stream.step(item.frame, item.user_text)], [uninterrupted[frame]], 0.0)
    assert {path.name for path in tmp_path.iterdir()} == {"stream"}
    assert {path.name for path in (tmp_path / "stream").iterdir()} == {"stream.json", "stream.safetensors"}


def test_a_stream_whose_plan_was_changed_is_restored(tmp_path: Path) -> None:
    """Saved before every frame around two changes: before the first frame, in mid-stream, to more steps and fewer."""
    plans = {0: ["now please", *PLAN], 7: [PLAN[2], PLAN[0]], 20: [*PLAN, "now please"]}
    stream, live = new_stream(), new_stream()
    for frame, item in enumerate(inputs_of(SESSION)[:32]):
        if frame in plans:
            stream.change_plan(plans[frame], f"goal {frame}")
            live.change_plan(plans[frame], f"goal {frame}")
        save_stream(stream, tmp_path / "stream")
        stream = restore_stream(tmp_path / "stream", talkative_model(), small_processor())
        ours, theirs = stream.step(item.frame, item.user_text), live.step(item.frame, item.user_text)
        assert_same_events([ours], [theirs], 0.0)
        assert ours.plan_change == theirs.plan_change and (ours.plan_change is not None) == (frame in plans)
        assert stream.batch.rows[0].head_length == live.batch.rows[0].head_length


def test_thresholds_are_restored_unless_others_are_given(tmp_path: Path) -> None:
    stream = new_stream(speaking_threshold=0.25, dst_update_threshold=0.75)
    save_stream(stream, tmp_path / "stream")
    for given, expected in (({}, (0.25, 0.75)), ({"speaking_threshold": 0.0}, (0.0, 0.75))):
        batch = restore_stream(tmp_path / "stream", talkative_model(), small_processor(), **given).batch
        assert (batch.speaking_threshold, batch.dst_update_threshold) == expected


def test_a_saved_stream_does_not_follow_the_live_one(tmp_path: Path) -> None:
    stream = new_stream()
    for frame in range(5):
        stream.step(picture("v", frame))
    save_stream(stream, tmp_path / "stream")
    live = [stream.step(picture("v", frame)) for frame in range(5, 12)]
    restored = restore_stream(tmp_path / "stream", talkative_model(), small_processor())
    assert_same_events([restored.step(picture("v", frame)) for frame in range(5, 12)], live, 0.0)


def test_a_stream_that_broke_off_in_a_frame_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    stream = new_stream()
    stream.step(picture("v", 0))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(stream.batch, "_forward", broken)
        stream.step(picture("v", 1))
    with pytest.raises(UsageError, match="middle of frame 1"):
        save_stream(stream, tmp_path / "stream")
    assert not (tmp_path / "stream").exists()


def test_what_cannot_be_restored(tmp_path: Path) -> None:
    folder = tmp_path / "stream"
    with pytest.raises(DataError, match="no stream can be read"):
        restore_stream(folder, talkative_model(), small_processor())
    stream = new_stream()
    stream.step(picture("v", 0))
    save_stream(stream, folder)
    other = new_model(seed=1)
    with pytest.raises(DataError, match="another model"):
        restore_stream(folder, other, small_processor())
    facts = json.loads((folder / "stream.json").read_text())
    for version in (2, 99):  # the one before plans could change, and one to come
        (folder / "stream.json").write_text(json.dumps(facts | {"version": version}))
        with pytest.raises(DataError, match="version"):
            restore_stream(folder, talkative_model(), small_processor())
    (folder / "stream.json").write_text("{")
    with pytest.raises(DataError, match="no stream can be read"):
        restore_stream(folder, talkative_model(), small_processor())
    (folder / "stream.json").write_text(json.dumps(facts))
    (folder / "stream.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no stream can be read"):
        restore_stream(folder, talkative_model(), small_processor())
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="holds no stream"):
        save_stream(stream, tmp_path / "other")


@pytest.mark.parametrize("name", ["stream.json", "stream.safetensors"])
def test_a_changed_or_damaged_file_is_not_restored(name: str, tmp_path: Path) -> None:
    stream = new_stream()
    stream.step(picture("v", 0))
    save_stream(stream, tmp_path / "stream")
    path = tmp_path / "stream" / name
    if name == "stream.json":
        path.write_text(path.read_text().replace('"frame": 0', '"frame": 1'))
    else:
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or changed after it was saved"):
        restore_stream(tmp_path / "stream", talkative_model(), small_processor())
