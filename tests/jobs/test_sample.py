"""The sample job: all videos of a folder, some of them bad, in parts and in processes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from frame_fixtures import counting_video
from video_fixtures import number_of

from prospect_hf.cli import main
from prospect_hf.frames.store import FrameStore
from prospect_hf.jobs import sample as job


def sample(folder: Path, *settings: str) -> int:
    return main(
        [
            "sample",
            f"sample.videos={folder / 'videos'}",
            f"sample.root={folder}",
            "sample.source=wtag",
            "sample.size=32",
            "sample.processes=1",
            *settings,
        ]
    )


def report(folder: Path, name: str = "sampled.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "processed_data/wtag" / name).read_text())
    return found


def stores(folder: Path) -> dict[str, list[int]]:
    found = sorted((folder / "processed_data/wtag/frames").iterdir())
    return {path.name: [number_of(picture) for picture in FrameStore(path)] for path in found}


def test_bad_videos_are_reported_and_the_others_sampled(tmp_path: Path, capsys: Any) -> None:
    counting_video(tmp_path / "videos/a.mp4", 4)
    (tmp_path / "videos/b.mp4").write_bytes(b"")
    (tmp_path / "videos/c.mkv").write_bytes(b"nonsense" * 99)
    (tmp_path / "videos/d.mp4").symlink_to("d.mp4")
    counting_video(tmp_path / "videos/deep/e.mp4", 2, first=5)
    assert sample(tmp_path) == 1
    told = capsys.readouterr()
    assert "Sampled 2 videos; 0 were sampled already, 3 cannot be read." in told.out
    assert "6 frames" in told.out and "a video has 2 to 4" in told.out
    for name in ("b.mp4", "c.mkv", "d.mp4"):
        assert sum(line.startswith("left out: ") and name in line for line in told.err.splitlines()) == 1
    assert stores(tmp_path) == {"a.arrow": [0, 1, 2, 3], "e.arrow": [5, 6]}
    found = report(tmp_path)
    assert {store: one["frames"] for store, one in found["videos"].items()} == {
        "frames/a.arrow": 4,
        "frames/e.arrow": 2,
    }
    assert sorted(found["failed"]) == ["frames/b.arrow", "frames/c.arrow", "frames/d.arrow"]
    # When the bad ones are mended, the next run does them alone.
    for name in ("b.mp4", "c.mkv", "d.mp4"):
        (tmp_path / "videos" / name).unlink()
        counting_video(tmp_path / "videos" / name, 2)
    assert sample(tmp_path) == 0
    assert "Sampled 3 videos; 2 were sampled already, 0 cannot be read." in capsys.readouterr().out
    assert len(report(tmp_path)["videos"]) == 5


def test_a_bad_video_ends_the_run_where_that_is_asked_for(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"")
    assert sample(tmp_path, "sample.on_error=raise") == 2
    assert "a.mp4: not a video" in capsys.readouterr().err
    assert not (tmp_path / "processed_data/wtag/sampled.json").exists()


def test_shards_are_the_whole(tmp_path: Path, capsys: Any) -> None:
    for name in "abcde":
        counting_video(tmp_path / "videos" / f"{name}.mp4", 2)
    counts = []
    for part in (1, 2, 3):
        assert sample(tmp_path, f"sample.shard={part}/3") == 0
        counts.append(len(report(tmp_path, f"sampled-{part}-of-3.json")["videos"]))
    assert counts == [2, 2, 1] and list(stores(tmp_path)) == [f"{name}.arrow" for name in "abcde"]
    assert sample(tmp_path, "sample.shard=9/9") == 0  # more parts than videos


@pytest.mark.slow
def test_several_processes_write_the_same(tmp_path: Path) -> None:
    for name in "abc":
        counting_video(tmp_path / "videos" / f"{name}.mp4", 4)
    assert sample(tmp_path, "sample.processes=2") == 0
    content = {path.name: path.read_bytes() for path in (tmp_path / "processed_data/wtag/frames").iterdir()}
    (tmp_path / "one").mkdir()
    (tmp_path / "one/videos").symlink_to(tmp_path / "videos")
    assert sample(tmp_path / "one") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "one/processed_data/wtag/frames").iterdir()} == content


def test_a_full_disk_ends_the_run(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counting_video(tmp_path / "videos/a.mp4", 2)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "a.arrow"))

    with monkeypatch.context() as patch:
        patch.setattr(job, "sample_into", full)
        assert sample(tmp_path) == 1
    assert "a.arrow: no space is left on the disk" in capsys.readouterr().err
    assert sample(tmp_path) == 0


@pytest.mark.parametrize(
    "setting, match",
    [
        ("sample.source=other", "sample.source must be one of"),
        ("sample.fps=0", "sample.fps=0 must be above 0"),
        ("sample.fps=.nan", "sample.fps=nan must be above 0"),
        ("sample.size=0", "sample.size=0 must be 16 to 4096"),
        ("sample.quality=96", "sample.quality=96 must be 1 to 95"),
        ("sample.max_frames=-1", "sample.max_frames=-1 must be"),
        ("sample.processes=0", "sample.processes=0 must be"),
        ("sample.fit=stretch", "sample.fit must be one of crop, pad"),
        ("sample.rotate=45", "sample.rotate=45 must be 0, 90, 180 or 270"),
        ("sample.on_error=ignore", "sample.on_error must be skip or raise"),
        ("sample.shard=0/3", "sample.shard=0/3 must be I/N"),
        ("sample.shard=4/3", "sample.shard=4/3 must be I/N"),
        ("sample.shard=half", "sample.shard=half must be I/N"),
        ("sample.root=null", "Give sample.videos=FOLDER of videos"),
        ("sample.videos=gone", "gone: no such folder"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, setting: str, match: str, capsys: Any) -> None:
    assert sample(tmp_path, setting) == 2
    told = capsys.readouterr().err
    assert match in told and told.count("\n") == 1


def test_headsets_that_lie_on_their_side_are_turned(tmp_path: Path) -> None:
    arguments = {"videos": "v", "root": "r"}
    assert job.SampleArguments(source="assembly101", **arguments).sampling().rotate == 90
    assert job.SampleArguments(source="assembly101", rotate=0, **arguments).sampling().rotate == 0
    assert job.SampleArguments(source="wtag", **arguments).sampling().rotate == 0


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    counting_video(tmp_path / "videos/a.mp4", 2)
    frames = tmp_path / "processed_data/wtag/frames"
    frames.mkdir(parents=True)
    old, new = frames / "a.arrow.1-0123abcd.partial", frames / "a.arrow.2-0123abcd.partial"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert sample(tmp_path) == 0
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("name", ["mixkit-hands-of-a-baker-kneading-a-dough-42467-medium"])
def test_a_real_clip(tmp_path: Path, shared_data: Path, name: str) -> None:
    (tmp_path / "videos").symlink_to(shared_data / "video")
    assert sample(tmp_path, "sample.size=384") == 0
    store = FrameStore(tmp_path / "processed_data/wtag/frames" / f"{name}.arrow")
    assert len(store) == 10 and store[0].size == (384, 384)
