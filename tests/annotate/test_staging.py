"""The staged lines of a run survive being killed at any byte, and damage costs the damaged lines alone."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mutations import mutate_bytes

from prospect_hf.annotate.corpus import Key
from prospect_hf.annotate.records import Failure, LabelRecord, Provenance
from prospect_hf.annotate.staging import Staging, staged_lines
from prospect_hf.labels.spans import Span


def made(number: int) -> LabelRecord | Failure:
    """Something that was made of video ``number``; every third one failed."""
    uid, source = f"vidéo {number}\u2028", Provenance("words", "1")
    if number % 3 == 2:
        return Failure("wtag", "train", uid, "no line\nat all", ("{}", "two\nlines"), source)
    return LabelRecord("wtag", "train", uid, ("Boil.", "Pour."), (Span(0, 1.5, None),), (0.25,), 0.5, source)


def stage(path: Path, numbers: range) -> list[tuple[Key, LabelRecord | Failure]]:
    added = [(Key("wtag", "train", made(number).video_uid), made(number)) for number in numbers]
    with Staging(path) as staging:
        for key, one in added:
            staging.add(key, "inputs", one)
    return added


def content(path: Path) -> dict[Key, LabelRecord | Failure]:
    with Staging(path) as staging:
        return {key: staging.read(place) for key, place in staging.index.items()}


def test_what_is_added_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "staged.jsonl"
    added = stage(path, range(7))
    assert list(content(path).items()) == added
    assert [one.failed for one in staged_lines(path)[0].values()] == [isinstance(one, Failure) for _, one in added]
    # The last line of a video counts.
    other = replace(made(0), video_uid=added[2][0].uid)
    with Staging(path) as staging:
        staging.add(added[2][0], "other inputs", other)
    assert content(path)[added[2][0]] == other
    assert staged_lines(path)[0][added[2][0]].inputs == "other inputs"
    assert staged_lines(tmp_path / "none")[0] == {} and not (tmp_path / "none").exists()


def test_a_line_that_was_cut_off_is_removed_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    added = stage(whole, range(3))
    data = whole.read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    path = tmp_path / "staged.jsonl"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        there = sum(end <= cut for end in ends)
        assert staged_lines(path)[0].keys() == {key for key, _ in added[:there]}
        if cut % 50 == 0 or cut in ends:  # each end waits for the disk
            stage(path, range(there, 3))
            assert path.read_bytes() == data


@pytest.mark.parametrize(
    "line",
    [b"", b"\0" * 99, b"\xff", b"7", b"{}", b'{"key": 1}', b'{"key": ["a", "b"], "inputs": "x", "record": {}}'],
)
def test_a_damaged_line_is_told_and_passed_over(tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "staged.jsonl"
    added = stage(path, range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + lines[2])
    with caplog.at_level(logging.WARNING):
        assert list(content(path).items()) == [added[0], added[2]]
    assert "1 lines are damaged; their videos are labelled again" in caplog.text
    stage(path, range(1, 2))
    assert content(path) == dict(added)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ('"confidence": 0.5', '"confidence": 7'),
        ('"confidences": [0.25]', '"confidences": [-0.25]'),
        ('"video_uid": "vidéo', '"video_uid": "video'),
        ('"split": "train"', '"split": "test"'),
        ('"source": "wtag"', '"source": "ego4d"'),
    ],
)
def test_damage_that_leaves_json_is_damage_too(tmp_path: Path, was: str, now: str) -> None:
    path = tmp_path / "staged.jsonl"
    added = stage(path, range(3))
    lines = path.read_text(encoding="utf-8").split("\n")
    assert was in lines[1]
    lines[1] = lines[1].replace(was, now)
    path.write_text("\n".join(lines), encoding="utf-8")
    assert list(content(path).items()) == [added[0], added[2]]


def test_random_damage_never_gives_another_record(tmp_path: Path) -> None:
    path = tmp_path / "staged.jsonl"
    added = dict(stage(path, range(6)))
    data = path.read_bytes()
    for seed in range(60):
        path.write_bytes(mutate_bytes(data, random.Random(seed)))
        for one in content(path).values():
            assert isinstance(one, Failure) or one.spans  # whatever it is, it is whole
    path.write_bytes(data)
    assert content(path) == added


def test_a_disk_that_is_full_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file that takes ten bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 10

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            self.room -= len(data[: self.room])
            return int(self.file.write(data[:10]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    path = tmp_path / "staged.jsonl"
    with Staging(path) as staging:
        staging._file = Full(staging._file)  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space") as raised:
            staging.add(Key("wtag", "train", "v"), "x", made(0))
        assert raised.value.filename == str(path) and not staging.index
    assert path.stat().st_size == 10
    stage(path, range(1))
    assert len(path.read_bytes().splitlines()) == 1 and json.loads(path.read_bytes())
