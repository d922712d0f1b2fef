"""The simulator: its labels are where its pictures change, and nowhere but in its pictures are its answers."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import threading
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer
from prospect_hf.frames.store import FrameStore
from prospect_hf.simulator import (
    FLAVOURS,
    Episode,
    SceneConfig,
    corpus_is_current,
    encode_jpeg,
    render,
    simulate,
    write_corpus,
)
from prospect_hf.simulator.corpus import ensure_corpus
from prospect_hf.simulator.flavours import COLOURS, SHAPES
from prospect_hf.simulator.scene import UNITS, Point, seconds

SOURCES = tuple(FLAVOURS)
# Every rare thing made common, the camera fixed and the light even.
BUSY = SceneConfig(
    steps=(3, 5), distractors=(1, 3), p_mistake=0.6, p_reopen=0.6, p_truncated=0.2, jitter=0, lighting=0, noise=0
)


def episodes(count: int, split: str = "train", scene: SceneConfig | None = None) -> list[Episode]:
    return [simulate(SOURCES[i % len(SOURCES)], 7, split, i, scene) for i in range(count)]


def label_frame(time: float, fps: int = 2) -> int:
    """The label rule of the project, restated."""
    return math.floor(time * fps) - 1


def patch(picture: npt.NDArray[np.float32], at: Point, radius: float) -> npt.NDArray[np.float32]:
    """The square of pixels within ``radius`` units of ``at``."""
    scale = picture.shape[0] / UNITS
    x0, x1 = (round(max(0.0, at[0] + side * radius) * scale) for side in (-1, 1))
    y0, y1 = (round(max(0.0, at[1] + side * radius) * scale) for side in (-1, 1))
    return picture[y0:y1, x0:x1]


def arrays(episode: Episode) -> list[npt.NDArray[np.float32]]:
    return [np.asarray(picture, dtype=np.float32) for picture in render(episode)]


def has_bolt(picture: npt.NDArray[np.float32], at: Point) -> bool:
    """White, which nothing else on a board is, right in the middle of a slot."""
    return bool((patch(picture, at, 2.6).min(-1) > 190).sum() >= 4)


def test_the_same_seed_gives_the_same_recording_and_another_seed_another() -> None:
    first, again, other = (simulate("wtag", seed, "train", 4) for seed in (7, 7, 8))
    assert first == again
    assert [encode_jpeg(p) for p in render(first)] == [encode_jpeg(p) for p in render(again)]
    assert first.parts != other.parts


def test_times_map_back_to_the_frame_in_which_the_thing_is_first_seen() -> None:
    for episode in episodes(120, scene=SceneConfig(p_mistake=0.5, p_reopen=0.5, p_truncated=0.5)):
        count = len(episode.frames)
        states = [0] * episode.num_steps
        for frame in range(count):
            for event in episode.events:
                if label_frame(seconds(event.frame)) == frame:
                    states[event.step] = 1 if event.transition == "start" else 2
            assert tuple(states) == episode.visible_states(frame), (episode.source, episode.index, frame)
        assert all(0 <= event.frame < count for event in episode.events)
        # Turn after turn by the label rule: nobody is moved off the frame that shows what is said.
        earliest = 0
        for turn in episode.turns:
            assert max(label_frame(seconds(turn.frame)), earliest) == turn.frame < count
            earliest = turn.frame + 1


def test_starts_and_completions_alternate_for_each_step() -> None:
    reopened = 0
    for episode in episodes(120):
        for step in range(episode.num_steps):
            transitions = [event.transition for event in episode.events if event.step == step]
            assert transitions == list(itertools.islice(itertools.cycle(("start", "complete")), len(transitions)))
            reopened += transitions.count("start") > 1
        assert [s for s, _, _ in episode.spans()] == [e.step for e in episode.events if e.transition == "start"]
    assert reopened > 10


def test_an_event_changes_the_picture_where_it_happens() -> None:
    for episode in episodes(12, scene=BUSY):
        pictures = arrays(episode)
        for event in episode.events:
            part = episode.parts[event.step]
            before, after = pictures[event.frame - 1], pictures[event.frame]
            assert part.slot is not None
            fresh = episode.visible_states(event.frame - 1)[event.step] == 0
            at = part.home if fresh else part.slot
            change = np.abs(patch(after, at, 4) - patch(before, at, 4)).mean()
            assert change > 12, (episode.source, episode.index, event, change)
            # A completion shows its bolt at once, a loosening shows that it is gone.
            if not fresh:
                assert has_bolt(after, part.slot) == (event.transition == "complete")
                assert has_bolt(before, part.slot) == (event.transition == "start")


def test_a_slot_shows_the_bolt_just_while_its_step_is_completed() -> None:
    seen = Counter[bool]()
    for episode in episodes(12, scene=BUSY):
        for frame, picture in enumerate(arrays(episode)):
            hand = episode.frames[frame].hand
            for step, state in enumerate(episode.visible_states(frame)):
                slot = episode.parts[step].slot
                assert slot is not None
                if hand is not None and _distance_to_arm(slot, hand, episode.arm_base) < 8:
                    continue
                if any(pose.where == "held" and math.dist(pose.at, slot) < 10 for pose in episode.frames[frame].poses):
                    continue
                assert has_bolt(picture, slot) == (state == 2), (episode.source, episode.index, frame, step)
                seen[state == 2] += 1
    assert min(seen.values()) > 300


def test_a_loose_part_is_askew_and_a_fast_one_is_square_in_its_slot() -> None:
    for episode in episodes(30, scene=BUSY):
        for state in episode.frames:
            for part, pose in zip(episode.parts, state.poses, strict=True):
                if pose.where == "loose":
                    assert abs(pose.angle) >= 18
                if pose.where == "fast":
                    assert pose.angle == 0 and pose.at == part.slot


def test_colours_and_shapes_can_be_told_apart_in_the_tray() -> None:
    scene = SceneConfig(jitter=0, lighting=0, noise=0)
    looks: dict[tuple[str, str], list[npt.NDArray[np.float32]]] = defaultdict(list)
    for index in range(60):
        episode = simulate("assembly101", 7, "train", index, scene)
        first = np.asarray(render(replace(episode, frames=episode.frames[:1]))[0], dtype=np.float32)
        for part in episode.parts:
            x, y = (round(c) for c in part.home)
            looks[part.colour, part.shape].append(first[max(y - 5, 0) : y + 5, x - 5 : x + 5])
    mean = {look: np.mean([v for v in views if v.shape == (10, 10, 3)], axis=0) for look, views in looks.items()}
    assert len(mean) == len(COLOURS) * len(SHAPES)
    for one, other in itertools.combinations(mean, 2):
        assert np.abs(mean[one] - mean[other]).mean() > 8, (one, other)


def _distance_to_arm(point: Point, hand: Point, base: Point) -> float:
    along = np.array(base) - np.array(hand)
    share = np.clip(np.dot(np.array(point) - np.array(hand), along) / np.dot(along, along), 0, 1)
    return float(np.linalg.norm(np.array(point) - np.array(hand) - share * along))


def test_neither_place_nor_look_says_anything_about_the_plan() -> None:
    steps = [(step, part) for e in episodes(300) for step, part in enumerate(e.parts[: e.num_steps])]
    order = [step for step, _ in steps]
    colours, shapes = list(COLOURS), list(SHAPES)
    for other in (
        [part.slot_index for _, part in steps],
        [part.home[0] for _, part in steps],
        [part.home[1] for _, part in steps],
        [colours.index(part.colour) for _, part in steps],
        [shapes.index(part.shape) for _, part in steps],
    ):
        assert abs(np.corrcoef(np.array(order, float), np.array(other, float))[0, 1]) < 0.1


def test_who_sees_nothing_does_not_know_the_state() -> None:
    table: defaultdict[tuple[int, int], Counter[tuple[int, ...]]] = defaultdict(Counter)
    for episode in episodes(60):
        for frame in range(len(episode.frames)):
            table[episode.num_steps, frame][episode.visible_states(frame)] += 1
    right = frames = 0
    for episode in episodes(60, split="val"):
        for frame in range(len(episode.frames)):
            known = table.get((episode.num_steps, frame))
            guess = known.most_common(1)[0][0] if known else (2,) * episode.num_steps
            right += guess == episode.visible_states(frame)
            frames += 1
    print(f"blind joint state accuracy {right / frames:.3f} over {frames} frames")
    assert right / frames < 0.35


def test_what_is_said_follows_from_what_is_seen() -> None:
    for episode in episodes(120, scene=SceneConfig(p_mistake=0.5, p_reopen=0.5)):
        flavour, names = episode.flavour, [part.name for part in episode.parts[: episode.num_steps]]
        assert len({part.name for part in episode.parts}) == len(episode.parts)
        said = {turn.frame: turn for turn in episode.turns}
        for event in episode.events:
            turn = said.get(event.frame)
            states = episode.visible_states(event.frame)
            left = [name for name, state in zip(names, states, strict=True) if state != 2]
            following = flavour.instruction(left[0]) if left else None
            if event.transition == "complete":
                assert turn is not None and turn.content == flavour.completion(names[event.step], following)
            elif turn is not None:
                assert turn.content == flavour.loosening(names[event.step])
        for turn in episode.turns:
            assert len(turn.content.split()) <= 12
            states = episode.visible_states(turn.frame)
            if turn.role == "user":
                assert said[turn.frame + 1].labels.startswith("responsive|") and turn.labels == turn.progress == ""
            else:
                assert turn.progress == flavour.progress(names, states)
            if "responsive|info_sharing" in turn.labels:
                asked = said[turn.frame - 1].content
                answer = flavour.answer_next if asked == flavour.question_next() else flavour.answer_done
                assert turn.content == answer(names, states)
            if "correction" in turn.labels:
                held = [
                    p
                    for p, pose in zip(episode.parts, episode.frames[turn.frame].poses, strict=True)
                    if pose.where == "held"
                ]
                assert [p.slot for p in held] == [None] and held[0].name in turn.content
        questions = sum(turn.role == "user" for turn in episode.turns)
        assert questions <= {"no_talk": 0, "talk_some": 2, "talk_more": 4}[episode.user_type]
        # Without a user, the assistant opens when the hand comes into view.
        if episode.user_type == "no_talk":
            opening = episode.turns[0].frame
            assert [state.hand is None for state in episode.frames[: opening + 1]] == [True] * opening + [False]


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_corpus_has_the_format_of_real_ones(tmp_path: Path) -> None:
    recordings = {"train": 3, "val": 2}
    scene = SceneConfig(p_reopen=0.5, p_truncated=0.5)
    report = write_corpus(tmp_path / "a", SOURCES, recordings, 7, scene, views=2, progress=False)
    keys = {"video_uid", "inferred_goal", "inferred_knowledge", "video_labels", "conversations", "parsed_video_anns"}
    shown: defaultdict[str, set[str]] = defaultdict(set)
    for source, split in itertools.product(SOURCES, recordings):
        folder = tmp_path / "a" / "processed_data" / source
        records = json.loads((folder / "generated_dialogs" / f"{split}_filtered.json").read_text())
        counts = report.counts[source][split]
        assert len(records) == counts.videos == 2 * counts.recordings == 2 * recordings[split]
        frames = 0
        for number, record in enumerate(records):
            uid = record["video_uid"]
            assert set(record) == {*keys, "dst"}
            notes = record["parsed_video_anns"]
            assert notes["video_uid"] == uid and notes["fps"] == 2
            # The frame file's name, by the rule of each source.
            name = {"ego4d": uid.removeprefix("grp-"), "assembly101": uid.split("_", 1)[-1]}.get(source, uid)
            store = FrameStore(folder / "frames" / f"{name}.arrow")
            frames += len(store)
            assert store[0].size == (48, 48) and len(store) == notes["duration"] * 2
            lines = record["inferred_knowledge"].split("\n")
            plan = {f"S{k}": line.split(". ", 1)[1] for k, line in enumerate(lines[1:], start=1)}
            assert [line.split(".")[0] for line in lines[1:]] == [str(k) for k in range(1, len(lines))]
            assert all(span["name"] == plan[span["id"]] and span["type"] == "step" for span in record["dst"])
            assert all(span["end_ts"] is None or span["start_ts"] < span["end_ts"] for span in record["dst"])
            assert len(notes["all_step_descriptions"].split("\n")) == len(record["dst"]) == notes["num_steps"]
            (conversation,) = record["conversations"]
            assert conversation["user_type"] == ("no_talk", "talk_some", "talk_more")[number // 2 % 3]
            assert all(0 < turn["time"] <= notes["duration"] for turn in conversation["conversation"])
            assert all(("progress" in t) == (t["role"] == "assistant") for t in conversation["conversation"])
            shown[json.dumps([record["conversations"], record["dst"]])].add(f"{split} {uid[:-3]}")
        assert frames == counts.frames
        # Two views of a recording: one dialogue, two sets of pictures.
        first, second = records[0], records[1]
        assert first["conversations"] == second["conversations"] and first["video_uid"] != second["video_uid"]
    assert all(len(uids) == 1 for uids in shown.values()), "a recording lies in two places"

    write_corpus(tmp_path / "b", SOURCES[:1], {"train": 5}, 7, scene, views=2, progress=False)
    ours, more = digest(tmp_path / "a"), digest(tmp_path / "b")
    shared = [path for path in ours if path in more and path.endswith(".arrow")]
    assert len(shared) == 6 and all(ours[path] == more[path] for path in shared)


def test_the_second_view_is_mirrored() -> None:
    episode = simulate("egoexolearn", 7, "train", 0, SceneConfig(jitter=0, lighting=0, noise=0))
    first, second = render(episode, 0)[0], render(episode, 1)[0]
    # The first frame shows no hand, and a hand's colour is all that these two cameras do not share.
    mirrored = np.asarray(second)[:, ::-1].astype(int)
    assert np.abs(np.asarray(first).astype(int) - mirrored).max() == 0
    assert np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).mean() > 5


def test_a_finished_corpus_is_known_by_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SceneConfig(steps=(1, 2))
    assert not corpus_is_current(tmp_path, ["wtag"], {"train": 1}, 7, scene)
    write_corpus(tmp_path, ["wtag"], {"train": 1}, 7, scene, progress=False)
    assert corpus_is_current(tmp_path, ["wtag"], {"train": 1}, 7, scene)
    assert not corpus_is_current(tmp_path, ["wtag"], {"train": 2}, 7, scene)
    assert not corpus_is_current(tmp_path, ["wtag"], {"train": 1}, 8, scene)
    assert not corpus_is_current(tmp_path, ["wtag"], {"train": 1}, 7, SceneConfig(steps=(1, 3)))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("prospect_hf.simulator.corpus.write_frames", fail)
    with pytest.raises(OSError, match="disk full"):
        write_corpus(tmp_path, ["wtag"], {"train": 1}, 7, scene, progress=False)
    assert not corpus_is_current(tmp_path, ["wtag"], {"train": 1}, 7, scene)


def test_many_processes_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SceneConfig(steps=(1, 1), distractors=(0, 0), image_size=16, supersample=1)
    for name, threshold in (("pool", 1), ("alone", 1000)):
        monkeypatch.setattr("prospect_hf.simulator.corpus.POOL_PAYS_FROM", threshold)
        write_corpus(tmp_path / name, ["ego4d", "wtag"], {"train": 3}, 7, scene, progress=False)
    assert digest(tmp_path / "pool") == digest(tmp_path / "alone")


def test_a_real_corpus_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "processed_data" / "wtag" / "generated_dialogs" / "train_filtered.json"
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    with pytest.raises(UsageError, match="did not write"):
        write_corpus(tmp_path, ["wtag"], {"train": 1}, 7, SceneConfig(), progress=False)
    assert path.read_text() == "[]"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"p_mistake": 1.5}, "p_mistake"),
        ({"steps": (0, 3)}, "steps"),
        ({"idle": (4, 2)}, "idle"),
        ({"jitter": -1}, "jitter"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(changed: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        SceneConfig(**changed)  # type: ignore[arg-type]


def test_unknown_names_and_empty_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown"):
        simulate("youcook", 7, "train", 0)
    for sources, recordings in ((["youcook"], {"train": 1}), (["wtag"], {"train": 0}), (["wtag"], {"dev": 1})):
        with pytest.raises(UsageError):
            write_corpus(tmp_path, sources, recordings, 7, SceneConfig(), progress=False)


def test_two_corpora_are_not_mixed_in_one_folder(tmp_path: Path) -> None:
    """While one is written another is refused; who needs a corpus waits for it, and writes it where it is another."""
    root = tmp_path / "corpus"
    waiting = threading.Thread(target=ensure_corpus, args=(root, ["wtag"], {"test": 1}, 0, SceneConfig()))
    with sole_writer(root):
        with pytest.raises(UsageError, match=r"another run is writing to .*corpus"):
            write_corpus(root, ["wtag"], {"test": 1}, 1, SceneConfig(), progress=False)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and not root.exists()
    waiting.join(30)
    assert corpus_is_current(root, ["wtag"], {"test": 1}, 0, SceneConfig())
    written = (root / "simulator.json").stat().st_mtime_ns
    ensure_corpus(root, ["wtag"], {"test": 1}, 0, SceneConfig())
    assert (root / "simulator.json").stat().st_mtime_ns == written
