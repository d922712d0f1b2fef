"""Frame stores: frames come back by absolute index, and a bad file is named."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from prospect_hf.errors import DataError
from prospect_hf.frames.arrow_stream import END_MARK
from prospect_hf.frames.opened import count_frames
from prospect_hf.frames.store import ROWS_PER_BATCH, FrameStore, write_frames


def jpeg(level: int, size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (level, level, level)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_BATCH, 2 * ROWS_PER_BATCH + 3])
def test_frames_come_back_by_absolute_index(tmp_path: Path, count: int) -> None:
    path = tmp_path / "v.arrow"
    assert write_frames(path, (jpeg(index) for index in range(count))) == count
    store = FrameStore(path)
    assert len(store) == count and list(tmp_path.iterdir()) == [path]
    for index in range(count):
        assert store[index].mode == "RGB" and abs(int(np.asarray(store[index]).mean()) - index) <= 2


def test_a_store_reads_on_after_it_was_opened(tmp_path: Path) -> None:
    """The file is mapped, not read: many stores are open at once and each still answers."""
    for index in range(30):
        write_frames(tmp_path / f"{index}.arrow", [jpeg(100 + index)])
    stores = [FrameStore(tmp_path / f"{index}.arrow") for index in range(30)]
    for index, store in enumerate(stores):
        assert abs(int(np.asarray(store[0]).mean()) - 100 - index) <= 2


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(1)])

    def broken() -> Iterator[bytes]:
        yield jpeg(2)
        raise RuntimeError("camera gone")

    with pytest.raises(RuntimeError, match="camera"):
        write_frames(path, broken())
    assert len(FrameStore(path)) == 1


def test_a_file_without_a_frame_of_that_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(1)] * 3)
    for index in (3, -1):
        with pytest.raises(DataError, match=r"v\.arrow.*0 to 2"):
            FrameStore(path)[index]


def test_files_that_are_no_frame_stores_are_named(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    with pytest.raises(DataError, match=r"v\.arrow"):
        FrameStore(path)
    for content in (b"", b"not arrow at all, but long enough to be read as a header"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"v\.arrow"):
            FrameStore(path)
    write_frames(path, [jpeg(1)] * 200)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"v\.arrow"):
        FrameStore(path)
    write_strings(path, "picture", ["x"])
    with pytest.raises(DataError, match="no column 'frame'"):
        FrameStore(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("&&&", id="no base64"),
        pytest.param(None, id="null"),
        pytest.param(base64.b64encode(b"no picture").decode(), id="no picture"),
        pytest.param(base64.b64encode(jpeg(9, 64)[:-200]).decode(), id="cut off in the header"),
        pytest.param(base64.b64encode(jpeg(9, 64)[:-20]).decode(), id="cut off in the picture"),
    ],
)
def test_a_row_that_is_no_picture_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "v.arrow"
    write_strings(path, "frame", [content])
    with pytest.raises(DataError, match="frame 0 is not"):
        FrameStore(path)[0]


def write_strings(path: Path, column: str, values: list[str | None]) -> None:
    schema = pa.schema([(column, pa.string())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(values, pa.string())], schema=schema))


# -- damaged files ----------------------------------------------------------------------------------------------------


def offsets_place(path: Path) -> int:
    """Where the first batch's offsets begin in the file: 0, then the length of the first frame."""
    first = len(base64.b64encode(jpeg(0)))
    place = path.read_bytes().find(np.array([0, first], "<i4").tobytes())
    assert place > 0
    return place


@pytest.mark.parametrize("wrong", [-1, 2**31 - 1, 10**6, 3])
def test_wrong_offsets_are_an_error_and_not_the_end_of_the_process(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(0)] * 5)
    content, place = bytearray(path.read_bytes()), offsets_place(path) + 8
    content[place : place + 4] = np.array([wrong], "<i4").tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"v\.arrow: not an Arrow stream of frames"):
        FrameStore(path)


@pytest.mark.parametrize("wrong", [-1, 2**31 - 1])
def test_frames_are_counted_without_their_pictures(tmp_path: Path, wrong: int) -> None:
    """152 GB of frame files are counted in seconds; what is damaged inside is told by whoever reads it."""
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(0)] * (ROWS_PER_BATCH + 5))
    content, place = bytearray(path.read_bytes()), offsets_place(path) + 8
    content[place : place + 4] = np.array([wrong], "<i4").tobytes()
    path.write_bytes(content)
    assert count_frames(path) == ROWS_PER_BATCH + 5
    with pytest.raises(DataError, match="not an Arrow stream of frames"):
        FrameStore(path)
    path.write_bytes(bytes(content).removesuffix(END_MARK))
    with pytest.raises(DataError, match="has no end mark"):
        count_frames(path)
    path.write_bytes(b"no stream")
    with pytest.raises(DataError, match="not an Arrow stream of frames"):
        count_frames(path)


def test_a_file_that_was_cut_between_two_batches_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(0)] * (3 * ROWS_PER_BATCH))
    content = path.read_bytes()
    assert content.endswith(END_MARK)
    path.write_bytes(content.removesuffix(END_MARK))
    with pytest.raises(DataError, match="has no end mark"):
        FrameStore(path)
    path.write_bytes(content)
    assert len(FrameStore(path)) == 3 * ROWS_PER_BATCH


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(0)] * (2 * ROWS_PER_BATCH))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"v\.arrow: "):
        FrameStore(path)


def test_a_file_is_validated_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    write_frames(path, [jpeg(0)] * 5)
    FrameStore(path)
    content, place = bytearray(path.read_bytes()), offsets_place(path) + 8
    content[place : place + 4] = np.array([10**6], "<i4").tobytes()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="not an Arrow stream"):
        FrameStore(path)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.arrow"
    table = pa.table({"frame": [1, 2]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="the column 'frame' holds int64"):
        FrameStore(path)
