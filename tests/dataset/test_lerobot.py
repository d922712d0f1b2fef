"""The export to LeRobot: its schema, and every state, transition and word of the rows read back from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_fixtures import publish, small_session

from prospect_hf.dataset import lerobot
from prospect_hf.dataset.lerobot import Exported, export_lerobot
from prospect_hf.dataset.lerobot_language import NOTHING, memory_states, memory_text, persistent_column
from prospect_hf.dataset.row_maker import session_table
from prospect_hf.dataset.shard_reader import shard_sessions
from prospect_hf.errors import DataError, UsageError
from prospect_hf.hub.front_matter import read_card
from prospect_hf.sessions import DSTEvent, Session, Step

# As lerobot 0.6 has them: lerobot.datasets.language and lerobot.utils.constants.DEFAULT_FEATURES.
PERSISTENT = ["role", "content", "style", "timestamp", "camera", "tool_calls"]
EVENT = ["role", "content", "style", "camera", "tool_calls"]
PERSISTENT_STYLES, EVENT_STYLES = {"subtask", "plan", "memory"}, {"interjection", None}
DEFAULT_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def active_at(time: float, rows: list[dict[str, Any]], style: str) -> dict[str, Any]:
    """LeRobot's rule: of the rows of a style, the last whose time has come."""
    return max(
        (row for row in rows if row["style"] == style and row["timestamp"] <= time), key=lambda r: r["timestamp"]
    )


def exported_episodes(folder: Path) -> list[pa.Table]:
    """The frames of each episode."""
    files = sorted(folder.glob("data/*/*.parquet"))
    return [
        pq.ParquetFile(file).read_row_group(group)
        for file in files
        for group in range(pq.ParquetFile(file).num_row_groups)
    ]


def assert_same(session: pa.Table, episode: pa.Table) -> None:
    """Every state, transition and word of a session's rows stands in its episode, on its frame."""
    persistent = episode["language_persistent"].to_pylist()
    steps = session["steps"][0].as_py()
    labelled = session["states_after"][0].as_py()[0] >= 0
    for row, frame, rows in zip(session.to_pylist(), episode.to_pylist(), persistent, strict=True):
        assert rows == persistent[0]
        assert frame["timestamp"] == pytest.approx(row["timestamp"] - 1 / row["fps"] - persistent_start(session))
        assert frame["video_frame_index"] == row["frame_index"]
        assert active_at(frame["timestamp"], rows, "plan")["content"].count("\n") == len(steps) - 1
        if labelled:
            states = memory_states(active_at(frame["timestamp"], rows, "memory")["content"], len(steps))
            assert states == row["states_after"]
            doing = [" ".join(step.split()) for step, state in zip(steps, states, strict=True) if state == 1]
            assert active_at(frame["timestamp"], rows, "subtask")["content"] == ("; ".join(doing) or NOTHING)
        calls = [json.loads(call)["function"] for one in frame["language_events"] for call in one["tool_calls"] or ()]
        assert [
            {"step": call["arguments"]["step"] - 1, "transition": call["arguments"]["transition"]}
            for call in calls
            if call["name"] == "update_step"
        ] == row["transitions"]
        assert "".join(call["arguments"]["text"] for call in calls if call["name"] == "say") == row["response"]
        said = [one["content"] for one in frame["language_events"] if one["style"] == "interjection"]
        assert "".join(said) == row["user_text"]
        assert {one["style"] for one in rows} <= PERSISTENT_STYLES
        assert {one["style"] for one in frame["language_events"]} <= EVENT_STYLES
        assert all(one["camera"] is None for one in [*rows, *frame["language_events"]])


def persistent_start(session: pa.Table) -> float:
    """The second of the video at which the episode begins."""
    return float(session["frame_index"][0].as_py() / session["fps"][0].as_py())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("exported")
    sessions = {
        ("wtag", "train"): [small_session(uid="v1"), small_session(uid="v2", first_frame=3, goal="Make soup")],
        ("ego4d", "train"): [small_session("ego4d", "v3", events=None)],
        ("ego4d", "test"): [small_session("ego4d", "v4")],
    }
    publish(root / "rows", sessions)
    found = export_lerobot(root / "rows", root / "out", progress=False)
    assert found == Exported(episodes=4, frames=117, progress=4, mistakes=8)
    return root / "rows", root / "out"


def test_the_files_that_lerobot_opens(exported: tuple[Path, Path]) -> None:
    _, out = exported
    info = json.loads((out / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 2 and info["splits"] == {"train": "0:3", "test": "3:4"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 117, 2)
    types = {name: feature["dtype"] for name, feature in info["features"].items()}
    assert types == {
        **DEFAULT_FEATURES,
        "video_frame_index": "int64",
        "language_persistent": "language",
        "language_events": "language",
    }
    assert [tool["function"]["name"] for tool in info["tools"]] == ["say", "update_step"]
    tasks = pd.read_parquet(out / "meta/tasks.parquet")
    assert tasks["task_index"].to_dict() == {"Make tea": 0, "Make soup": 1}
    stats = json.loads((out / "meta/stats.json").read_text())
    frames = pa.concat_tables(exported_episodes(out))
    for name, figures in stats.items():
        values = frames[name].to_numpy()
        assert figures["count"] == [117] and figures["mean"][0] == pytest.approx(values.mean())
        assert figures["std"][0] == pytest.approx(values.std()) and figures["max"] == [values.max()]


def test_the_schema_is_that_of_lerobot(exported: tuple[Path, Path]) -> None:
    schema = exported_episodes(exported[1])[0].schema
    for name, names in (("language_persistent", PERSISTENT), ("language_events", EVENT)):
        row = schema.field(name).type.value_type
        assert [field.name for field in row] == names
        assert row.field("tool_calls").type == pa.list_(pa.json_()) and row.field("role").type == pa.string()
    assert schema.field("language_persistent").type.value_type.field("timestamp").type == pa.float32()
    for name, dtype in DEFAULT_FEATURES.items():
        assert schema.field(name).type == pa.type_for_alias(dtype)


def test_it_loads_with_lerobots_features(exported: tuple[Path, Path], tmp_path: Path) -> None:
    if not hasattr(datasets, "Json"):
        pytest.skip("this datasets has no feature Json")
    row = {name: datasets.Value("string") for name in ("role", "content", "style", "camera")}
    calls = {"tool_calls": datasets.List(datasets.Json())}
    features = {name: datasets.Value(dtype) for name, dtype in DEFAULT_FEATURES.items()}
    features |= {"video_frame_index": datasets.Value("int64")}
    features |= {"language_persistent": datasets.List({**row, "timestamp": datasets.Value("float32"), **calls})}
    features |= {"language_events": datasets.List({**row, **calls})}
    files = [str(file) for file in sorted(exported[1].glob("data/*/*.parquet"))]
    loaded = datasets.Dataset.from_parquet(files, features=datasets.Features(features), cache_dir=str(tmp_path))
    assert len(loaded) == 117
    assert loaded[4]["language_events"][0]["tool_calls"][0]["function"] == {
        "name": "say",
        "arguments": {"text": "Fill the kettle."},
    }


def test_each_episode_is_found_by_its_entry(exported: tuple[Path, Path]) -> None:
    rows, out = exported
    entries = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    episodes = exported_episodes(out)
    assert [entry["video_uid"] for entry in entries] == ["v1", "v2", "v3", "v4"]
    index = np.concatenate([episode["index"].to_numpy() for episode in episodes])
    assert (index == np.arange(117)).all()
    for entry, episode in zip(entries, episodes, strict=True):
        assert episode["episode_index"].unique().to_pylist() == [entry["episode_index"]]
        assert episode["index"][0].as_py() == entry["dataset_from_index"]
        assert episode["index"][-1].as_py() + 1 == entry["dataset_to_index"] and len(episode) == entry["length"]
        file = out / f"data/chunk-{entry['data/chunk_index']:03d}/file-{entry['data/file_index']:03d}.parquet"
        assert entry["episode_index"] in pq.read_table(file)["episode_index"].to_pylist()
        (shard,) = rows.glob(f"data/{entry['source']}/{'test' if entry['video_uid'] == 'v4' else 'train'}-*.parquet")
        (session,) = [one for one in shard_sessions(shard) if one["session_id"][0].as_py() == entry["session_id"]]
        assert_same(session, episode)
        assert entry["license"] == session["license"][0].as_py()


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """A session with steps that overlap, repeat, and start or complete on the same frame."""
    steps = draw(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4))
    events = []
    for step in range(len(steps)):
        times = sorted(draw(st.sets(st.integers(0, 60), max_size=5)))
        events += [DSTEvent(time / 4, step, "complete" if number % 2 else "start") for number, time in enumerate(times)]
    named = tuple(Step(f"S{number}", step) for number, step in enumerate(steps, start=1))
    return small_session(steps=named, events=tuple(events), first_frame=draw(st.integers(0, 5)))


@settings(max_examples=25)
@given(session=sessions())
def test_states_read_back_are_those_of_the_rows(tmp_path_factory: pytest.TempPathFactory, session: Session) -> None:
    root = tmp_path_factory.mktemp("export")
    manifest, _ = publish(root / "rows", {("wtag", "train"): [session]})
    export_lerobot(root / "rows", root / "out", progress=False)
    (rows,) = shard_sessions(root / "rows" / manifest.shards[0].path)
    (episode,) = exported_episodes(root / "out")
    assert_same(rows, episode)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=15))
def test_a_memory_tells_every_state(states: list[int]) -> None:
    assert memory_states(memory_text(states), len(states)) == states


@pytest.mark.parametrize("memory", ["", "Completed: 4.", "Completed: 0.", "Done: 1.", "Completed: one.", "Completed"])
def test_another_text_is_no_memory(memory: str) -> None:
    with pytest.raises(DataError, match="is no memory of 3 steps"):
        memory_states(memory, 3)


def test_files_are_cut_and_chunks_are_filled(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot, "FILE_BYTES", 1)
    monkeypatch.setattr(lerobot, "CHUNK_FILES", 3)
    export_lerobot(exported[0], tmp_path / "out", progress=False)
    files = [str(file.relative_to(tmp_path / "out/data")) for file in sorted((tmp_path / "out/data").glob("*/*"))]
    assert files == [
        *("chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-000/file-002.parquet"),
        "chunk-001/file-000.parquet",
    ]
    assert pa.concat_tables(exported_episodes(tmp_path / "out")).equals(
        pa.concat_tables(exported_episodes(exported[1]))
    )


def test_some_sources_and_the_card(exported: tuple[Path, Path], tmp_path: Path) -> None:
    export_lerobot(exported[0], tmp_path / "out", sources=["ego4d"], progress=False)
    head, body = read_card(tmp_path / "out/README.md")
    assert head["license"] == "mit" and head["tags"][0] == "LeRobot" and "2 episodes" in body
    export_lerobot(exported[0], tmp_path / "out", sources=["wtag"], progress=False)  # takes its place
    assert json.loads((tmp_path / "out/meta/dst_frames.json").read_text())["sources"] == ["wtag"]


def test_what_cannot_be_exported(exported: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source holoassist; it has ego4d, wtag"):
        export_lerobot(exported[0], tmp_path / "out", sources=["holoassist"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something else than an export"):
        export_lerobot(exported[0], tmp_path / "other")
    with pytest.raises(UsageError, match="holds something else than an export"):
        export_lerobot(exported[0], exported[0])
    publish(tmp_path / "mixed", {("wtag", "train"): [small_session(), small_session(uid="v2", fps=4.0)]})
    with pytest.raises(UsageError, match=r"v2.* has 4 frames a second and those before it 2"):
        export_lerobot(tmp_path / "mixed", tmp_path / "out", progress=False)
    publish(tmp_path / "odd", {("wtag", "train"): [small_session(fps=2.5)]})
    with pytest.raises(UsageError, match="takes whole numbers only"):
        export_lerobot(tmp_path / "odd", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_states_that_are_not_those_of_the_plan_are_refused() -> None:
    table = session_table(small_session())
    short = table.set_column(table.schema.get_field_index("steps"), "steps", pa.array([["one step"]] * len(table)))
    with pytest.raises(
        DataError, match=r"session wtag\.v1\.talk_some_0: rows without one state for each"
    ):
        persistent_column(short, np.arange(len(table), dtype=np.float32))
