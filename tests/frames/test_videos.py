"""Which frame file a video belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.videos import find_videos
from prospect_hf.sessions import frames_file


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "source, video, uid",
    [
        ("epickitchens", "EK55/videos/train/P01/P01_01.MP4", "P01_01"),
        ("egoexolearn", "a1b2.mp4", "a1b2"),
        ("ego4d", "v2/grp-12-ab.mp4", "grp-12-ab"),
        ("ego4d", "12-ab.mp4", "grp-12-ab"),
        ("holoassist", "R007-7July-DSLR/Export_py/Video_pitchshift.mp4", "R007-7July-DSLR"),
        ("wtag", "T12/Video/Video.mpeg", "T12"),
        ("wtag", "T12.mp4", "T12"),
        (
            "assembly101",
            "nusar-2021_a_1__2/HMC_84355350_mono10bit.mp4",
            "assembly_nusar-2021_a_1__2__HMC_84355350_mono10bit",
        ),
        ("assembly101", "nusar-2021_a/C10095_rgb.mp4", "disassembly_nusar-2021_a__C10095_rgb"),
        ("assembly101", "assembly_nusar-2021_a__C10095_rgb.mp4", "assembly_nusar-2021_a__C10095_rgb"),
    ],
)
def test_the_frame_file_is_the_one_of_the_labels(tmp_path: Path, source: str, video: str, uid: str) -> None:
    (task,) = find_videos(touch(tmp_path, video), source)
    assert task.store == frames_file(source, uid) and task.videos == (tmp_path / video,)


def test_videos_below_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a/c.GIF", "a/.hidden.mp4", ".trash/d.mp4", "notes.txt", "a/x.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)  # a loop
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    outside = touch(tmp_path.parent / f"{tmp_path.name}-other", "e.mkv")
    (tmp_path / "linked").symlink_to(outside, target_is_directory=True)
    found = find_videos(tmp_path, "wtag")
    assert [task.store for task in found] == [f"frames/{name}.arrow" for name in ("b", "c", "e", "loop")]


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/v.mp4", "b/v.mkv")
    with pytest.raises(DataError, match=r"b/v\.mkv: .*a/v\.mp4 has the same name.*frames/v\.arrow; give their uids"):
        find_videos(tmp_path, "wtag")


def test_no_videos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone: no such folder"):
        find_videos(tmp_path / "gone", "wtag")
    with pytest.raises(UsageError, match=r"no video below this folder \(\.mp4, "):
        find_videos(touch(tmp_path, "a.txt"), "wtag")


def test_names_from_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a/v.mp4", "b/v.mp4", "c.mp4")
    names = tmp_path / "names.csv"
    names.write_text("\ufeffuid,note,video\ngrp-one,x,b/v.mp4\ntwo,,c.mp4\ngrp-one,,a/v.mp4\n", encoding="utf-8")
    one, two = find_videos(tmp_path, "ego4d", names)
    assert (one.store, one.videos) == ("frames/one.arrow", (tmp_path / "b/v.mp4", tmp_path / "a/v.mp4"))
    assert (two.store, two.videos) == ("frames/two.arrow", (tmp_path / "c.mp4",))


@pytest.mark.parametrize(
    "text, match",
    [
        ("", r"the columns are None; the first line must name video and uid"),
        ("video;uid\nc.mp4;x\n", r"the first line must name video and uid"),
        ("video,uid\n", r"no video below this folder"),
        ("video,uid\nc.mp4\n", r"line 2: 'video' and 'uid' must both be given"),
        ("video,uid\n,x\n", r"line 2: 'video' and 'uid' must both be given"),
        ("video,uid\ngone.mp4,x\n", r"line 2: .*gone\.mp4: no such file"),
        ("video,uid\n../c.mp4,x\n", r"line 2: '\.\./c\.mp4' is no path below"),
        ("video,uid\n/etc/passwd,x\n", r"line 2: '/etc/passwd' is no path below"),
        ("video,uid\nc.mp4,../x\n", r"line 2: uid is '\.\./x'; it must be a valid file name"),
        ("video,uid\nc.mp4,x\nc.mp4,y\n", r"line 3: 'c\.mp4' stands on line 2 too"),
        ('video,uid\n"c.mp4,x\n', r"not a csv file"),
        (b"video,uid\n\xff\xfe.mp4,x\n", r"not a csv file in UTF-8"),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, text: str | bytes, match: str) -> None:
    touch(tmp_path, "c.mp4")
    names = tmp_path / "names.csv"
    names.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((DataError, UsageError), match=match):
        find_videos(tmp_path, "wtag", names)


def test_a_missing_names_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sample\.names=.*gone\.csv: cannot be read \(No such file"):
        find_videos(tmp_path, "wtag", tmp_path / "gone.csv")
