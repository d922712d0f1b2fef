"""How a build goes on after it was stopped, and that nothing of an unfinished one is seen or kept by mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from built_fixtures import built_in, hashes, shown

from prospect_hf.dataset import build, build_state
from prospect_hf.dataset.layout import Manifest, check_files, load_manifest
from prospect_hf.errors import UsageError

# Going on


class Stopped(Exception):
    """Takes the place of a power cut."""


def stop_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> list[str]:
    """Stop a build when it has finished ``shards`` files; the list gets the paths that are written from now on."""
    written: list[str] = []
    write = build_state.write_shard

    def counted(planned: Any, *given: Any) -> Any:
        if len(written) == shards:
            raise Stopped
        done = write(planned, *given)
        written.append(planned.path)
        return done

    monkeypatch.setattr(build_state, "write_shard", counted)
    return written


def test_a_stopped_build_shows_nothing_and_goes_on(
    built: tuple[Path, Manifest], small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = built
    with monkeypatch.context() as patch:
        first = stop_after(patch, 3)
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", small_corpus)
    assert shown(tmp_path / "rows") == set()
    with pytest.raises(UsageError, match="no finished dataset"):
        load_manifest(tmp_path / "rows")
    with monkeypatch.context() as patch:
        second = stop_after(patch, 1000)
        assert built_in(tmp_path / "rows", small_corpus) == manifest
    assert len(first) == 3 and not set(first) & set(second)
    assert len(first) + len(second) == len(manifest.shards) + len(manifest.sample)
    assert hashes(tmp_path / "rows") == hashes(folder)


def test_a_killed_build_goes_on(
    built: tuple[Path, Manifest], small_corpus: Path, repository: Path, tmp_path: Path
) -> None:
    folder, _ = built
    script = (
        "import os, pyarrow.parquet as pq, sys\nfrom pathlib import Path\n"
        "from prospect_hf.dataset.build import build_rows\n"
        "from prospect_hf.dataset.input_files import DstFramesConfig\n"
        "write, calls = pq.ParquetWriter.write_table, []\n"
        "def killed(self, *given, **named):\n    write(self, *given, **named)\n    calls.append(1)\n"
        "    if len(calls) == 3:\n        os.kill(os.getpid(), 9)\n"
        "pq.ParquetWriter.write_table = killed\n"
        f"config = DstFramesConfig(name='all', root={str(small_corpus)!r}, dst='files')\n"
        f"build_rows(config, Path({str(tmp_path / 'rows')!r}), shard_rows=150, sample=1)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, timeout=120)
    assert done.returncode == -9
    assert shown(tmp_path / "rows") == set()
    left = [name for name in hashes(tmp_path / "rows") if name.endswith((".parquet", ".partial"))]
    assert sum(name.endswith(".parquet") for name in left) == 2 and len(left) == 3
    built_in(tmp_path / "rows", small_corpus)
    assert hashes(tmp_path / "rows") == hashes(folder)


def test_the_files_of_a_stopped_build_of_another_kind_are_not_kept(
    built: tuple[Path, Manifest], small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names are the same, and so may their bytes be: their markers alone tell the two apart."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "BUILD_CODE", (*build.BUILD_CODE, "errors.py"))
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", small_corpus)
    with monkeypatch.context() as patch:
        written = stop_after(patch, 1000)
        manifest = built_in(tmp_path / "rows", small_corpus)
    assert len(written) == len(manifest.shards) + len(manifest.sample)
    assert hashes(tmp_path / "rows") == hashes(built[0])


def test_what_an_ended_process_was_writing_is_removed(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of a pool that is ended has no time to remove it, and the disk may be full."""

    def ended(planned: Any, folder: Path, *given: Any) -> None:
        path = folder / f"{planned.path}.77-0123abcd.partial"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half of it")
        raise Stopped

    monkeypatch.setattr(build_state, "write_shard", ended)
    with pytest.raises(Stopped):
        built_in(tmp_path / "rows", small_corpus)
    assert set(hashes(tmp_path / "rows")) == {".build/key"}


@pytest.mark.parametrize("step", ["place", "write_json", "write_fingerprints", "write_card", "write_manifest", "close"])
def test_a_build_that_stops_at_its_end_goes_on(
    step: str, built: tuple[Path, Manifest], small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> None:
        if step == "place":  # after the first file
            state, shards = given
            place(state, shards[:1])
        raise Stopped

    place = build_state.BuildState.place
    with monkeypatch.context() as patch:
        patch.setattr(build_state.BuildState if step in ("place", "close") else build, step, stopped)
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", small_corpus)
    if step == "close":
        assert load_manifest(tmp_path / "rows") == built[1]
    else:
        with pytest.raises(UsageError, match="no finished dataset"):
            load_manifest(tmp_path / "rows")
    with monkeypatch.context() as patch:
        written = stop_after(patch, 0)
        assert built_in(tmp_path / "rows", small_corpus) == built[1] and written == []
    assert hashes(tmp_path / "rows") == hashes(built[0])


@pytest.mark.parametrize("change", ["settings", "inputs", "code"])
def test_nothing_of_another_build_is_kept_or_shown(
    change: str, small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = tmp_path / "rows", {"shard_rows": 150}
    built_in(folder, small_corpus)
    before = shown(folder)
    if change == "settings":
        settings = {"shard_rows": 1000}
    elif change == "code":
        monkeypatch.setattr(build, "BUILD_CODE", (*build.BUILD_CODE, "errors.py"))
    else:
        root = tmp_path / "corpus"
        shutil.copytree(small_corpus, root)
        path = root / "processed_data/ego4d/generated_dialogs/train_filtered.json"
        path.write_text(path.read_text().replace("talk_some", "talk_more"))
        small_corpus = root
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            built_in(folder, small_corpus, **settings)
    assert before and shown(folder) == set()
    with monkeypatch.context() as patch:
        written = stop_after(patch, 1000)
        manifest = built_in(folder, small_corpus, **settings)
    assert len(written) == len(manifest.shards) + len(manifest.sample) - 2
    check_files(folder, manifest)
    paths = {shard.path for shard in (*manifest.shards, *manifest.sample)}
    assert shown(folder) == paths | {"README.md", "manifest.json", "report.json", "frames.json"} == set(hashes(folder))
    fresh = tmp_path / "fresh"
    built_in(fresh, small_corpus, **settings)
    assert hashes(folder) == hashes(fresh)


def test_a_finished_dataset_is_built_once(small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = built_in(tmp_path / "rows", small_corpus)
    before = hashes(tmp_path / "rows")
    written = stop_after(monkeypatch, 1000)
    assert built_in(tmp_path / "rows", small_corpus) == manifest and written == []
    for name, content in ((manifest.shards[1].path, None), ("report.json", b"{}"), ("README.md", None)):
        path = tmp_path / "rows" / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        assert built_in(tmp_path / "rows", small_corpus) == manifest
        assert hashes(tmp_path / "rows") == before


@pytest.mark.parametrize("damage", ["shard", "marker", "no marker", "other path"])
def test_a_shard_without_proof_is_written_again(
    damage: str, built: tuple[Path, Manifest], small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        (first,) = [stop_after(patch, 1)]
        with pytest.raises(Stopped):
            built_in(tmp_path / "rows", small_corpus)
    shard = tmp_path / "rows" / ".build" / first[0]
    marker = shard.with_name(shard.name + ".json")
    if damage == "shard":
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "marker":
        marker.write_text(marker.read_text()[:-20])
    elif damage == "other path":
        marker.write_text(marker.read_text().replace(first[0], "../" + first[0]))
    else:
        marker.unlink()
    with monkeypatch.context() as patch:
        second = stop_after(patch, 1000)
        built_in(tmp_path / "rows", small_corpus)
    assert first[0] in second
    assert hashes(tmp_path / "rows") == hashes(built[0])


# A full disk


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.jobs.command import sentence
if __name__ == "__main__":
    small_corpus, small = sys.argv[1:]
    config = DstFramesConfig(name="all", root=small_corpus, dst="files")
    def build(processes):
        build_rows(config, Path(small) / "rows", shard_rows=150, sample=1, processes=processes, progress=False)
    try:
        build(2)
    except OSError as error:
        print(*sentence(error), sep="\\n")
    print(*[path for path in Path(small).rglob("*") if path.is_file()], sep="\\n")
    subprocess.run(["mount", "-o", "remount,size=10m", small], check=True)
    build(1)
"""


def test_a_full_disk_is_one_sentence_and_the_build_goes_on(
    built: tuple[Path, Manifest], small_corpus: Path, repository: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=100k tmpfs {small}"
    if shutil.which("unshare") is None or subprocess.run([*apart, mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small file system")
    build_twice = f"{sys.executable} {tmp_path}/full_disk.py {small_corpus} {small}"
    done = subprocess.run(
        [*apart, f"{mount} && {build_twice} && cp -r {small}/rows {tmp_path}"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stderr
    told, code, *left = done.stdout.splitlines()
    assert "no space is left on the disk" in told and ".parquet" in told and code == "1"
    below = [path.removeprefix(f"{small}/") for path in left]
    assert any(path.startswith("rows/.build/data/") for path in below)
    assert all(path.startswith("rows/.build/") or path == ".rows.lock" for path in below)
    assert not any(path.endswith(".partial") for path in below)
    assert hashes(tmp_path / "rows") == hashes(built[0])
