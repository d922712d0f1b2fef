"""Sessions on disk: those of the rows, by position, without a split in memory; a damaged file is made again."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from model_fixtures import make_session
from stored_fixtures import assert_equal, published, stored
from worker_fixtures import as_a_worker_gets_it

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.data.session_store import SessionStore, open_sessions, read_shard, write_sessions
from prospect_hf.errors import DataError

SESSIONS = [make_session(seed, 3 + 5 * seed, 1 + seed % 4, labelled=seed != 2) for seed in range(7)]


def test_a_store_gives_the_sessions_back(tmp_path: Path) -> None:
    store = stored(SESSIONS, tmp_path)
    assert len(store) == 7
    for ours, theirs in zip(store, SESSIONS, strict=True):
        assert_equal(ours, theirs)
    assert_equal(store[-1], SESSIONS[-1])
    assert [one.session_id for one in store[2:5]] == [one.session_id for one in SESSIONS[2:5]]
    assert store.column("session_id") == [one.session_id for one in SESSIONS]
    for beyond in (7, -8):
        with pytest.raises(IndexError):
            store[beyond]


def test_files_are_one_sequence(tmp_path: Path) -> None:
    parts = [stored(SESSIONS[:3], tmp_path, "a"), stored([], tmp_path, "b"), stored(SESSIONS[3:], tmp_path, "c")]
    store = SessionStore([file for part in parts for file in part.files])
    assert store.sessions_by_file == [3, 0, 4]
    assert store.frames_by_file == [sum(map(len, SESSIONS[:3])), 0, sum(map(len, SESSIONS[3:]))]
    for ours, theirs in zip(store, SESSIONS, strict=True):
        assert_equal(ours, theirs)
    assert len(SessionStore([])) == 0 and SessionStore([]).column("hash") == []


def test_labels_are_views_of_the_file(tmp_path: Path) -> None:
    store = stored([make_session(0, 50_000, 20, turn_rate=0.0, event_rate=0.0)], tmp_path)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    session = store[0]
    assert session.states_after.shape == (50_000, 20) and not session.states_after.flags.writeable
    assert tracemalloc.get_traced_memory()[1] < 100_000 and pa.total_allocated_bytes() == before
    tracemalloc.stop()


def anonymous_bytes() -> int:
    """Memory of this process that is no mapped file."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


def test_a_split_is_not_held_in_memory(tmp_path: Path) -> None:
    """60 MB of labels are written and read; the memory does not grow with the number of sessions."""
    one = make_session(0, 40_000, 18, event_rate=0.01, turn_rate=0.02)

    def many() -> Iterator[SessionRows]:
        for number in range(40):
            yield SessionRows(**{**vars(one), "session_id": f"wtag.v{number}"})

    write_sessions(many(), tmp_path / "many.arrow")
    assert (tmp_path / "many.arrow").stat().st_size > 55e6
    store = SessionStore([tmp_path / "many.arrow"])
    before = anonymous_bytes()
    total = sum(int((session.states_after == 2).sum()) for session in store)
    assert total == 40 * int((one.states_after == 2).sum())
    assert anonymous_bytes() - before < 20e6
    # Worker processes get the paths, not the content.
    received, size = as_a_worker_gets_it(store)
    assert size < 1000
    assert_equal(received[39], store[39])


def test_shards_are_read_once_in_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = published([SESSIONS[:3], SESSIONS[3:5], SESSIONS[5:]], tmp_path / "rows")
    shards = [manifest.shards[number] for number in (2, 0, 1)]
    with caplog.at_level(logging.INFO):
        store = open_sessions(tmp_path / "rows", manifest, shards, tmp_path / "cache")
    assert "reading rows" in caplog.text
    for ours, theirs in zip(store, [*SESSIONS[5:], *SESSIONS[:5]], strict=True):
        assert_equal(ours, theirs)
    for shard in manifest.shards:
        (tmp_path / "rows" / shard.path).unlink()
    caplog.clear()
    again = open_sessions(tmp_path / "rows", manifest, shards, tmp_path / "cache")
    assert again.files == store.files and not caplog.records


def test_two_that_need_the_same_files_make_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = published([SESSIONS[:3], SESSIONS[3:]], tmp_path / "rows")
    made: list[Path] = []

    def recording(sessions: object, path: Path) -> None:
        made.append(path)
        write_sessions(sessions, path)  # type: ignore[arg-type]

    monkeypatch.setattr("prospect_hf.data.session_store.write_sessions", recording)
    with ThreadPoolExecutor(4) as pool:
        opened = [
            pool.submit(open_sessions, tmp_path / "rows", manifest, manifest.shards, tmp_path / "cache")
            for _ in range(4)
        ]
        assert {len(future.result()) for future in opened} == {7}
    assert len(made) == 2


@pytest.mark.parametrize("damage", ["cut off", "flipped", "empty", "no mark", "other mark"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    manifest = published([SESSIONS], tmp_path / "rows")
    (file,) = open_sessions(tmp_path / "rows", manifest, manifest.shards, tmp_path / "cache").files
    whole, mark = file.read_bytes(), file.with_name(file.name + ".sha256")
    file.unlink()  # a new inode: the mapped one must not change under this process
    if damage == "cut off":
        file.write_bytes(whole[:-5])
    elif damage == "flipped":
        file.write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.write_bytes(whole)
        mark.unlink() if damage == "no mark" else mark.write_text("0" * 64)
    with caplog.at_level(logging.WARNING):
        store = open_sessions(tmp_path / "rows", manifest, manifest.shards, tmp_path / "cache")
    assert ("is damaged" in caplog.text) == (damage != "no mark")
    assert file.read_bytes() == whole
    for ours, theirs in zip(store, SESSIONS, strict=True):
        assert_equal(ours, theirs)


def test_a_shard_of_another_content_is_refused(tmp_path: Path) -> None:
    manifest = published([SESSIONS], tmp_path / "rows")
    path = tmp_path / "rows" / manifest.shards[0].path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: its content is not what"):
        open_sessions(tmp_path / "rows", manifest, manifest.shards, tmp_path / "cache")
    path.unlink()
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: the file is missing"):
        open_sessions(tmp_path / "rows", manifest, manifest.shards, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_what_is_no_parquet_file_of_rows_is_named(tmp_path: Path) -> None:
    published([SESSIONS], tmp_path / "rows")
    (path,) = (tmp_path / "rows").rglob("*.parquet")
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"00001\.parquet: it cannot be read as Parquet"):
        list(read_shard(path))


def test_two_sessions_of_one_id_are_refused(tmp_path: Path) -> None:
    manifest = published([SESSIONS[:2], SESSIONS[1:3]], tmp_path / "rows")
    with pytest.raises(DataError, match=f"two sessions have the id {SESSIONS[1].session_id}"):
        open_sessions(tmp_path / "rows", manifest, manifest.shards, tmp_path / "cache")


def test_arrays_of_any_integer_type_are_stored(tmp_path: Path) -> None:
    session = make_session(1, 9, 2)
    wide = SessionRows(**{**vars(session), "states_after": session.states_after.astype(np.int64)})
    assert_equal(stored([wide], tmp_path)[0], session)
