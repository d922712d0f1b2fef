"""Shards are read session by session, wherever a batch ends; what cannot be read is one sentence."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_fixtures import publish, small_session

from prospect_hf.dataset import shard_reader
from prospect_hf.dataset.row_maker import session_table
from prospect_hf.dataset.shard_reader import shard_sessions
from prospect_hf.errors import DataError


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    manifest, _ = publish(folder, {("wtag", "train"): [small_session(uid=uid) for uid in ("v1", "v2", "v3")]})
    return folder / manifest.shards[0].path


@pytest.mark.parametrize("batch", [1, 7, 30, 45, 1000])
def test_a_session_is_whole_wherever_a_batch_ends(shard: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "BATCH_ROWS", batch)
    found = list(shard_sessions(shard))
    assert [len(table) for table in found] == [30, 30, 30]
    assert pa.concat_tables(found).to_pylist() == pq.read_table(shard).to_pylist()
    (first, *_) = shard_sessions(shard, ["frame_index", "session_id"])
    assert first.to_pylist() == session_table(small_session(uid="v1")).select(["frame_index", "session_id"]).to_pylist()


def test_what_cannot_be_read_is_one_sentence(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such shard"):
        list(shard_sessions(tmp_path / "nothing.parquet"))
    whole = shard.read_bytes()
    for name, content in (("empty", b""), ("cut", whole[: len(whole) // 2]), ("other", b"not Parquet" * 99)):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.parquet: not a readable shard"):
            list(shard_sessions(path))
    damaged = bytearray(whole)
    damaged[200:2000] = bytes(1800)
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(DataError, match="not a readable shard"):
        list(shard_sessions(tmp_path / "damaged.parquet"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "columns.parquet")
    with pytest.raises(DataError, match="no column 'source'"):
        list(shard_sessions(tmp_path / "columns.parquet"))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("goal", pa.nulls(90, pa.string()), "a row without a value in 'goal'"),
        ("states_after", pa.array([[0, None]] * 90, pa.list_(pa.int8())), "a row without a value in 'states_after'"),
        ("fps", pa.array([float("nan")] * 90, pa.float32()), "a row with fps outside of 0.001 to 120"),
        ("frame_index", pa.array([-1] * 90, pa.int32()), "a row with frame_index outside of 0 to"),
        ("fps", pa.array(["2"] * 90), "column 'fps' holds string and not float"),
        ("states_after", pa.array([1] * 90), "column 'states_after' holds int64 and not list"),
    ],
)
def test_a_column_of_another_kind_is_refused(
    shard: Path, tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    table = pq.read_table(shard)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        list(shard_sessions(tmp_path / "a.parquet"))
