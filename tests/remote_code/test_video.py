"""The sampler: at each k / fps the picture that is on show then, and a broken video says where it broke."""

from __future__ import annotations

import http.server
import os
import random
import shutil
import threading
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("av", reason="PyAV is not installed")
import av
from video_fixtures import brute_force, number_of, numbered, write_clip, write_sound

import container_dst_smolvlm
import video_dst_smolvlm
from video_dst_smolvlm import DAMAGED_IN_A_ROW, VideoFrame, on_show, sample_video

TENTH = Fraction(1, 10)
EACH_ITS_OWN = {"g": "1", "bf": "0"}  # every picture decodes without another


def seen(frames: Iterator[VideoFrame]) -> list[tuple[float, int]]:
    return [(frame.time, number_of(frame.picture)) for frame in frames]


def until_error(frames: Iterator[VideoFrame], match: str) -> list[tuple[float, int]]:
    """What came before the error."""
    found = []
    with pytest.raises(ValueError, match=match):
        for frame in frames:
            found.append((frame.time, number_of(frame.picture)))
    return found


# --- the rule, without a video


@settings(deadline=None, max_examples=300)
@given(
    origin=st.fractions(-5, 5, max_denominator=1000),
    gaps=st.lists(st.fractions(0, 3, max_denominator=90), max_size=30),
    duration=st.fractions(0, 2, max_denominator=90),
    fps=st.sampled_from([0.5, 1.0, 2.0, 2.5, 10.0, 29.97]),
)
def test_the_picture_on_show_is_the_last_that_has_started(
    origin: Fraction, gaps: list[Fraction], duration: Fraction, fps: float
) -> None:
    starts = [origin]
    for gap in gaps:
        starts.append(starts[-1] + gap)
    found = list(on_show([(start, duration, number) for number, start in enumerate(starts)], fps))
    assert [index for index, _ in found] == list(range(len(found))) and found
    end = float(starts[-1] - origin + duration)
    assert len(found) == 1 or (len(found) - 1) / fps + 1e-6 < end
    assert len(found) / fps + 1e-6 >= end
    for index, number in found:
        assert number == max(n for n, start in enumerate(starts) if float(start - origin) <= index / fps + 1e-6)


def test_an_error_comes_after_what_was_on_show_until_then() -> None:
    def pictures() -> Iterator[tuple[float, float, str]]:
        yield 0.0, 1.0, "a"
        yield 1.0, 1.0, "b"
        raise ValueError("broken")

    frames = on_show(pictures(), 2.0)
    assert [next(frames) for _ in range(4)] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
    with pytest.raises(ValueError, match="broken"):
        next(frames)
    assert list(on_show([], 2.0)) == []


# --- real files


@pytest.mark.parametrize("fps", [2.0, 3.0, 10.0, 25.0])
def test_a_clip_of_five_seconds(tmp_path: Path, fps: float) -> None:
    path = write_clip(tmp_path / "v.mp4", range(50), TENTH, rate=10)
    frames = seen(sample_video(path, fps))
    assert frames == [(k / fps, int(k / fps * 10 + 1e-6)) for k in range(round(5 * fps))]


@pytest.mark.parametrize("fps", [1.0, 2.0, 7.3, 30.0, 60.0])
def test_2997_does_not_drift(tmp_path: Path, fps: float) -> None:
    rate = Fraction(30000, 1001)
    path = write_clip(tmp_path / "v.mp4", range(240), 1 / rate, rate=rate)
    frames = seen(sample_video(path, fps))
    assert frames == brute_force(path, fps)
    assert frames == [(k / fps, int(k / fps * rate + 1e-4)) for k in range(len(frames))]
    assert len(frames) == int(np.ceil(240 / float(rate) * fps))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.ts", "v.mov"])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_pictures_that_are_stored_out_of_order(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, range(60), Fraction(1, 25), rate=25, codec=codec, options={"bf": "2"})
    frames = seen(sample_video(path, 10.0))
    assert frames == [(k / 10, int(k * 2.5)) for k in range(24)]
    if name != "v.avi":  # has no presentation times to compare with
        assert frames == brute_force(path, 10.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_variable_frame_rates_and_gaps(tmp_path: Path, seed: int, name: str) -> None:
    chosen = random.Random(seed)
    ticks = [0]
    for _ in range(60):
        ticks.append(ticks[-1] + chosen.choice([7, 33, 40, 41, 250, 1900]))
    path = write_clip(tmp_path / name, ticks, Fraction(1, 1000), rate=1000)
    for fps in (2.0, 12.5):
        frames = seen(sample_video(path, fps))
        assert frames == brute_force(path, fps)
        for time, number in frames[: int(ticks[-1] / 1000 * fps)]:
            assert number == max(n for n, tick in enumerate(ticks) if tick <= time * 1000 + 1e-3)


def test_time_zero_is_the_first_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.ts", range(75, 105), TENTH, rate=10)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 7
    assert seen(sample_video(path, 2.0)) == [(k / 2, k * 5) for k in range(6)]


def test_a_repeated_picture_is_converted_once(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", range(2), Fraction(1), rate=1)
    pictures = [frame.picture for frame in sample_video(path, 4.0)]
    assert len(pictures) == 8 and len({id(picture) for picture in pictures}) == 2


def test_pictures_are_rgb_and_upright(tmp_path: Path) -> None:
    """A display matrix that turns by 90 degrees counter-clockwise brings the right-hand side to the top."""
    picture = Image.new("RGB", (64, 32), (250, 0, 0))
    picture.paste((0, 0, 250), (32, 0, 64, 32))
    for rotation, size, top in ((0, (64, 32), None), (90, (32, 64), "blue"), (-90, (32, 64), "red")):
        path = write_clip(tmp_path / "v.mp4", range(4), TENTH, rate=10, rotation=rotation, pictures=[picture] * 4)
        found = next(sample_video(path)).picture
        assert found.size == size and found.mode == "RGB"
        red, _, blue = found.getpixel((4, 4))
        assert (blue > 200 > 60 > red) if top == "blue" else (red > 200 > 60 > blue)


def test_a_single_picture_is_one_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", [0], TENTH, rate=10)
    assert seen(sample_video(path)) == [(0.0, 0)]


def test_names_that_ffmpeg_takes_for_something_else(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", range(5), TENTH, rate=10)
    for name in ("http:x %03d.mp4", "concat:a|b.mp4", "-.mp4"):
        shutil.copy(path, tmp_path / name)
        assert seen(sample_video(tmp_path / name)) == [(0.0, 0)]
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        assert seen(sample_video("concat:a|b.mp4")) == [(0.0, 0)]
    finally:
        os.chdir(here)


@pytest.mark.parametrize("name", ["baker-kneading-a-dough-42467", "pastry-chef-cutting-a-loaf-into-slices-43015"])
def test_real_clips(shared_data: Path, name: str) -> None:
    paths = list((shared_data / "video").glob(f"*{name}*.gif"))
    if not paths:
        pytest.skip(f"no clip {name} in {shared_data / 'video'}")
    with Image.open(paths[0]) as gif:
        length = gif.n_frames / 10  # every picture lasts 0.1 s
        frames = list(sample_video(paths[0], 2.0))
        assert [frame.time for frame in frames] == [k / 2 for k in range(int(length * 2))]
        for frame in frames:
            gif.seek(round(frame.time * 10))
            ours, theirs = np.asarray(frame.picture, int), np.asarray(gif.convert("RGB"), int)
            assert np.abs(ours - theirs).mean() < 1


# --- what cannot be read


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "garbage.mp4").write_bytes(random.Random(0).randbytes(5000))
    (tmp_path / "text.txt").write_text("hello world\n" * 100)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        write_sound(container, 1)
    for name, match in (
        ("nothing.mp4", "nothing.mp4: no such video file"),
        ("empty.mp4", "empty.mp4: not a video"),
        ("garbage.mp4", "garbage.mp4: not a video"),
        ("text.txt", "text.txt: no video stream"),
        ("sound.mp4", "sound.mp4: no video stream"),
        (".", "cannot be opened"),
    ):
        assert until_error(sample_video(tmp_path / name), match) == []
    with pytest.raises(ValueError, match="cannot be opened"):
        next(sample_video("x", format="no-such-format"))


def test_a_file_that_names_other_files_is_refused(tmp_path: Path) -> None:
    """A playlist that somebody uploads must not show another file of this machine."""
    secret = write_clip(tmp_path / "secret.ts", range(4), Fraction(1, 10))
    assert len(list(sample_video(secret))) == 1
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    lists = {
        "upload.mp4": "ffconcat version 1.0\nfile secret.ts\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "near.m3u8": hls.format("secret.ts"),
        "far.m3u8": hls.format(secret),
        "there.m3u8": hls.format("http://127.0.0.1:9/x.ts"),
        "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match="lists of files are not opened: give the video itself"):
            list(sample_video(tmp_path / name))
    for number in range(2):
        numbered(number).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match="lists of files are not opened"):
        list(sample_video(tmp_path / "%d.png"))


def test_only_addresses_of_the_network_are_opened(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", range(4), Fraction(1, 10))
    wrappers = ("file://", "cache:file://", "concat:file://", "subfile,,start,0,end,0,,:file://", "async:file://")
    for source in (*(f"{wrapper}{clip}" for wrapper in wrappers), "tcp://127.0.0.1:9", "pipe://0", "data://a/b,c"):
        with pytest.raises(ValueError, match="only http, https, rtsp, rtsps addresses are opened"):
            list(sample_video(source))


def test_what_lies_at_an_address_names_no_file_of_this_machine(tmp_path: Path) -> None:
    """A playlist on a server: its pictures come from servers, never from this disk."""
    clip = write_clip(tmp_path / "clip.ts", range(4), Fraction(1, 10))
    (tmp_path / "site").mkdir()
    shutil.copy(clip, tmp_path / "site")
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    (tmp_path / "site" / "good.m3u8").write_text(hls.format("clip.ts"))
    (tmp_path / "site" / "bad.m3u8").write_text(hls.format(f"file://{clip}"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(tmp_path / "site"))

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert len(list(sample_video(f"{address}/good.m3u8"))) == 1
        with pytest.raises(ValueError, match=r"bad\.m3u8: "):
            list(sample_video(f"{address}/bad.m3u8"))
        server.shutdown()


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        write_sound(container, 1)
        frame = av.VideoFrame.from_image(numbered(3))
        frame.pts, frame.time_base = 0, Fraction(1)
        container.mux(stream.encode(frame) + stream.encode())
    with av.open(str(tmp_path / "song.m4a")) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(ValueError, match=r"song\.m4a: no video stream"):
        next(sample_video(tmp_path / "song.m4a"))


def test_a_video_without_pictures(tmp_path: Path) -> None:
    for name, match in (("v.mkv", "cut off before its header"), ("v.mp4", "no video stream")):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.start_encoding()
        assert until_error(sample_video(tmp_path / name), match) == []
    path = write_clip(tmp_path / "w.mp4", range(5), TENTH, rate=10, options=EACH_ITS_OWN)
    damage(path, [0, 1, 2, 3, 4])
    with pytest.warns(UserWarning, match="damaged pictures up to 0.00 s"):
        assert until_error(sample_video(path), "holds no picture that can be decoded") == []


def test_pictures_without_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.h264", range(10), TENTH, rate=10)
    with pytest.raises(ValueError, match=r"v\.h264: the picture after 0\.00 s has no presentation time"):
        next(sample_video(path))


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_fps_must_be_a_rate(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be"):
        next(sample_video(tmp_path / "v.mp4", fps))


def test_without_pyav_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_dst_smolvlm, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        next(sample_video("v.mp4"))


@pytest.mark.parametrize(
    "name, first, codec, container_options, match",
    [
        ("v.mp4", 0, "libx264", {"movflags": "faststart"}, "breaks off in the middle of a picture at {}"),
        ("v.mkv", 0, "libx264", {}, r"ends at {}, but its header says 5\.00 s"),
        ("v.mkv", 75, "libx264", {}, r"ends at {}, but its header says 5\.00 s"),
        ("v.avi", 0, "mpeg4", {}, "breaks off in the middle of a picture at {}"),
    ],
)
def test_a_file_that_was_cut_off(
    tmp_path: Path, name: str, first: int, codec: str, container_options: dict[str, str], match: str
) -> None:
    """Every sound picture comes first; the numbers of the whole file's pictures tell that none is missing."""
    noise = np.random.default_rng(0)
    pictures = []
    for number in range(50):
        picture = np.asarray(numbered(number)) ^ noise.integers(0, 60, (64, 64, 3), np.uint8)
        pictures.append(Image.fromarray(picture.astype(np.uint8)))
    path = write_clip(
        tmp_path / name,
        range(first, first + 50),
        TENTH,
        rate=10,
        codec=codec,
        options={"g": "1", "qmin": "5", "qmax": "5"} if codec == "mpeg4" else {},
        container_options=container_options,
        pictures=pictures,
    )
    whole = seen(sample_video(path, 10.0))
    assert whole == [(k / 10, k) for k in range(50)]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the picture that was cut in two is counted too
        found = until_error(sample_video(path, 10.0), match.format(r"\d\.\d\d s"))
        until_error(sample_video(path, 10.0), match.format(rf"{len(found) / 10:.2f} s"))
    assert found == whole[: len(found)] and 15 <= len(found) <= 35


def test_a_file_cut_between_two_pictures_says_so(tmp_path: Path) -> None:
    """The header of an MP4 is at the front with faststart; the cut is where the last third's packets begin."""
    path = write_clip(
        tmp_path / "v.mp4", range(50), TENTH, rate=10, container_options={"movflags": "faststart"}, options={"bf": "0"}
    )
    with av.open(str(path)) as container:
        starts = {round(packet.pts * packet.time_base * 10): packet.pos for packet in container.demux() if packet.size}
    path.write_bytes(path.read_bytes()[: starts[35]])
    found = until_error(sample_video(path, 10.0), r"ends at 3\.50 s, but its header says 5\.00 s")
    assert found == [(k / 10, k) for k in range(35)]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_sound_that_goes_on_longer_is_no_cut(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, range(2), TENTH, rate=10, sound=True)
    assert seen(sample_video(path, 10.0)) == [(0.0, 0), (0.1, 1)]


@pytest.mark.parametrize("hidden", [20, 25])
def test_a_clip_that_was_trimmed_without_encoding_is_no_cut(tmp_path: Path, hidden: int) -> None:
    """The pictures before its start are in the file and hidden by an edit list, as phones do it."""
    path = write_clip(tmp_path / "v.mp4", range(60), TENTH, rate=10, options={"g": "10"})
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "w.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts -= round(hidden * TENTH / packet.time_base)
                packet.dts -= round(hidden * TENTH / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    assert seen(sample_video(tmp_path / "w.mp4", 10.0)) == [(k / 10, hidden + k) for k in range(60 - hidden)]


def damage(path: Path, numbers: list[int]) -> None:
    """Overwrite the packets of these pictures (stored in order) with something that no decoder takes."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        at, size = packets[number]
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)


@pytest.mark.parametrize("numbers", [[7, 8], [0], [20, 30, 31], [44]])
def test_damaged_pictures_are_bridged_and_counted(tmp_path: Path, numbers: list[int]) -> None:
    path = write_clip(tmp_path / "v.mp4", range(50), TENTH, rate=10, options=EACH_ITS_OWN)
    damage(path, numbers)
    with pytest.warns(UserWarning, match=rf"v\.mp4: {len(numbers)} damaged pictures") as caught:
        found = seen(sample_video(path, 10.0))
    assert len(caught) == 1
    sound = [number for number in range(50) if number not in numbers]
    times = range(sound[0], sound[-1] + 1)
    assert found == [((t - sound[0]) / 10, max(number for number in sound if number <= t)) for t in times]


def test_too_many_damaged_pictures_are_an_error(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mp4", range(DAMAGED_IN_A_ROW + 20), TENTH, rate=10, options=EACH_ITS_OWN)
    damage(path, list(range(5, 5 + DAMAGED_IN_A_ROW)))
    with pytest.warns(UserWarning, match=f"{DAMAGED_IN_A_ROW} damaged"):
        assert len(seen(sample_video(path, 10.0))) == DAMAGED_IN_A_ROW + 20
    damage(path, [6 + DAMAGED_IN_A_ROW])  # one more, but not in the same row
    with pytest.warns(UserWarning, match=f"{DAMAGED_IN_A_ROW + 1} damaged"):
        assert len(seen(sample_video(path, 10.0))) == DAMAGED_IN_A_ROW + 20
    damage(path, [5 + DAMAGED_IN_A_ROW])
    with pytest.warns(UserWarning):
        found = until_error(
            sample_video(path, 10.0), rf"{DAMAGED_IN_A_ROW + 1} damaged pictures in a row after 0\.50 s"
        )
    assert found == [(k / 10, k) for k in range(5)]
    damage(path, list(range(DAMAGED_IN_A_ROW + 20)))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"damaged pictures in a row after 0\.00 s"):
        next(sample_video(path))


def test_pictures_that_come_too_late_are_left_out(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mkv", range(12), TENTH, rate=10, codec="mjpeg")
    ticks = [0, 1, 2, 3, 1, 2, 4, 5, 6, 7, 8, 9]
    with av.open(str(path)) as source, av.open(str(tmp_path / "w.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for number, (tick, packet) in enumerate(zip(ticks, packets, strict=True)):
            packet.pts, packet.dts, packet.stream = tick * 100, number - 50, stream
            target.mux(packet)
    with pytest.warns(UserWarning, match=r"w\.mkv: 2 damaged"):
        found = seen(sample_video(tmp_path / "w.mkv", 10.0))
    assert found == [(k / 10, k if k < 4 else k + 2) for k in range(10)]


def test_an_empty_packet_does_not_end_the_video(tmp_path: Path) -> None:
    """A decoder takes an empty packet for the end; here an MP4's size table gives picture 10's bytes to picture 9."""
    path = write_clip(tmp_path / "v.mp4", range(20), TENTH, rate=10, codec="mjpeg")
    data = bytearray(path.read_bytes())
    table = data.index(b"stsz") + 16  # version and flags, one size for all, count
    nine, ten = table + 9 * 4, table + 10 * 4
    total = int.from_bytes(data[nine:ten], "big") + int.from_bytes(data[ten : ten + 4], "big")
    data[nine : ten + 4] = total.to_bytes(4, "big") + bytes(4)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert [packet.size for packet in container.demux(video=0)].count(0) == 2  # it and the last one
    found = seen(sample_video(path, 10.0))
    assert found == [(k / 10, 9 if k == 10 else k) for k in range(20)]


def test_the_file_is_closed(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts open files in /proc")
    path = write_clip(tmp_path / "v.mp4", range(50), TENTH, rate=10)

    def still_open() -> bool:
        links = (fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
        return any(os.path.realpath(link) == str(path.resolve()) for link in links)

    frames = sample_video(path)
    next(frames)
    assert still_open()
    frames.close()
    assert not still_open()
    assert len(list(sample_video(path))) == 10 and not still_open()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="not a video, or cut off"):
        next(sample_video(path))
    assert not still_open()


# --- over the network


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a file named ``stalled`` never comes."""

    waiting = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith("stalled.mp4"):
            Files.waiting.wait(20)
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture()
def server(tmp_path: Path) -> Iterator[str]:
    Files.waiting.clear()

    def handler(*args: object) -> Files:
        return Files(*args, directory=str(tmp_path))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        Files.waiting.set()
        httpd.shutdown()
        thread.join()


def test_urls(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "v.mp4", range(50), TENTH, rate=10, container_options={"movflags": "faststart"})
    assert seen(sample_video(f"{server}/v.mp4", 2.0)) == [(k / 2, k * 5) for k in range(10)]
    with pytest.raises(ValueError, match=r"nothing\.mp4: cannot be opened as a video \(.*404"):
        next(sample_video(f"{server}/nothing.mp4"))
    monkeypatch.setattr(container_dst_smolvlm, "SILENCE_S", 0.3)
    with pytest.raises(ValueError, match=r"stalled\.mp4: cannot be opened as a video \(no data for 0\.3 s\)"):
        next(sample_video(f"{server}/stalled.mp4"))


def test_a_title_in_another_encoding_is_no_reason_to_refuse_a_video(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "CafXXX"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(20):
            picture = np.full((64, 64, 3), 9 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"CafXXX", "Caf\u00e9\u00e9\u00e9".encode("latin-1")))
    assert len(list(sample_video(path, 2.0))) == 4


# --- files whose clock starts again, and streams that are joined on the way


def joined(tmp_path: Path, name: str, codec: str, *lengths: int) -> Path:
    """Clips of numbered pictures, each with its own clock, put one behind the other byte by byte."""
    content, first = b"", 0
    for length in lengths:
        pictures = [numbered(number) for number in range(first, first + length)]
        clip = write_clip(tmp_path / f"part.{name}", range(length), TENTH, rate=10, codec=codec, pictures=pictures)
        content += clip.read_bytes()
        first += length
    (tmp_path / f"joined.{name}").write_bytes(content)
    return tmp_path / f"joined.{name}"


@pytest.mark.parametrize("lengths", [(30, 20), (20, 30), (4, 3, 6), (25, 25, 25)])
@pytest.mark.parametrize(("name", "codec"), [("ts", "libx264"), ("ts", "mpeg4"), ("vob", "mpeg2video")])
def test_joined_files_follow_one_after_another(tmp_path: Path, name: str, codec: str, lengths: tuple[int, ...]) -> None:
    path = joined(tmp_path, name, codec, *lengths)
    with pytest.warns(UserWarning, match=f"clock starts again {len(lengths) - 1} times") as caught:
        assert seen(sample_video(path, 10.0)) == [(k / 10, k) for k in range(sum(lengths))]
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("name", "codec"),
    [("mp4", "libx264"), ("mov", "mpeg4"), ("flv", "libx264"), ("asf", "mpeg4"), ("nut", "mpeg4"), ("ivf", "libvpx"),
     ("mkv", "libx264"), ("webm", "libvpx")],
)  # fmt: skip
def test_joined_files_of_which_only_the_first_can_be_read_are_refused(tmp_path: Path, name: str, codec: str) -> None:
    assert len(seen(sample_video(joined(tmp_path, name, codec, 9), 10.0))) == 9
    with pytest.raises(ValueError, match="holds several files one behind the other"):
        next(sample_video(joined(tmp_path, name, codec, 9, 9)))


@pytest.mark.parametrize("options", [{}, {"mpegts_pmt_start_pid": "0x1100"}, {"mpegts_service_id": "7"}])
def test_a_part_in_another_stream_is_not_lost(tmp_path: Path, options: dict[str, str]) -> None:
    """A transport stream of another sender has other ids, which FFmpeg takes for one more stream or programme."""
    first = write_clip(tmp_path / "a.ts", range(30), TENTH, rate=10).read_bytes()
    options = {"mpegts_start_pid": "0x200", **options}
    second = write_clip(tmp_path / "b.ts", range(20), TENTH, rate=10, container_options=options).read_bytes()
    (tmp_path / "v.ts").write_bytes(first + second)
    found = until_error(sample_video(tmp_path / "v.ts", 10.0), r"v\.ts: goes on in another stream")
    assert found == [(k / 10, k) for k in range(len(found))] and len(found) >= 25
    # Two programmes at a time are no joined files: the first one is followed.
    with av.open(str(tmp_path / "w.ts"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10, width=64, height=64) for _ in range(2)]
        for number in range(20):
            for index, stream in enumerate(streams):
                frame = av.VideoFrame.from_image(numbered(number + 100 * index))
                frame.pts, frame.time_base = number, TENTH
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    assert seen(sample_video(tmp_path / "w.ts", 10.0)) == [(k / 10, k) for k in range(20)]


def test_the_clock_of_a_transport_stream_runs_over(tmp_path: Path) -> None:
    """It has 33 bits of 1/90000 s: 26.5 hours."""
    path = write_clip(tmp_path / "v.ts", range(954415, 954465), TENTH, rate=10)
    assert seen(sample_video(path, 10.0)) == [(k / 10, k) for k in range(50)]


def test_a_jump_of_a_transport_streams_clock_is_no_gap(tmp_path: Path) -> None:
    ticks = [*range(20), *range(5000, 5020)]
    options = {"g": "20", "keyint_min": "20", "bf": "0"}
    path = write_clip(tmp_path / "v.ts", ticks, TENTH, rate=10, options=options)
    with pytest.warns(UserWarning, match="clock starts again 1 times"):
        assert seen(sample_video(path, 10.0)) == [(k / 10, k) for k in range(40)]


def test_times_that_are_hours_apart_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.mkv", [0, 1, 2, 10**7], TENTH, rate=10)
    found = until_error(
        sample_video(path, 10.0), r"picture after 0\.\d+ s comes at 1000000\.00 s; its times are broken"
    )
    assert [number for _, number in found] == [0, 1, 2]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize("open_gop", [False, True])
def test_a_stream_joined_before_a_key_frame_begins_with_it(tmp_path: Path, codec: str, open_gop: bool) -> None:
    """With open groups some pictures behind the key frame are shown before it, and lean on what was not received."""
    options = {"g": "150", "keyint_min": "150", "sc_threshold": "0" if codec == "libx264" else "1000000000", "bf": "2"}
    options |= {"x264-params": f"open-gop={int(open_gop)}"} if codec == "libx264" else {}
    if not open_gop and codec != "libx264":
        options["flags"] = "+cgop"
    pictures = [numbered(number // 2) for number in range(400)]
    path = write_clip(
        tmp_path / "v.ts", range(400), Fraction(1, 25), rate=25, codec=codec, options=options, pictures=pictures
    )
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [packet for packet in packets if packet.is_keyframe]
    begin = packets[20].pos // 188 * 188
    whole = path.read_bytes()
    tables = whole[: 3 * 188]  # a receiver hears them all the time
    path.write_bytes(tables + whole[begin:])
    first = round((keys[1].pts - packets[0].pts) * packets[0].time_base * 25)
    with pytest.warns(UserWarning, match=r"before its first key frame; the 1\d\d pictures until then"):
        found = seen(sample_video(path, 25.0))
    assert [number for _, number in found] == [number // 2 for number in range(first, 400)]
    assert found[0][0] == 0.0


def test_a_video_without_a_key_frame_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "v.ts", range(40), TENTH, rate=10, codec="mpeg2video", options={"g": "300"})
    with av.open(str(path)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.size][1]
    content = path.read_bytes()
    path.write_bytes(content[: 3 * 188] + content[second // 188 * 188 :])
    with pytest.raises(ValueError, match="holds no picture that can be decoded; none of its pictures is a key frame"):
        next(sample_video(path))


def test_a_video_of_an_unknown_coding_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", range(4), Fraction(1, 2), rate=2, codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZ%9"))
    with pytest.raises(ValueError, match="in a coding that FFmpeg does not know; convert the video"):
        list(sample_video(path))
