"""The card of a dataset: loaded by the Hub's readers, its examples run, and no text changes what it is made of."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from card_fixtures import HOSTILE, shape_of
from huggingface_hub import DatasetCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_pages import read_page
from published_fixtures import publish, small_session

from prospect_hf.dataset.card import ANNOTATIONS, COLUMNS, check_stated, front_matter, write_card
from prospect_hf.dataset.layout import FRAMES_FILE, Manifest, check_files, load_manifest
from prospect_hf.dataset.licenses import LICENSES, ORIGINS
from prospect_hf.dataset.row_maker import FEATURES
from prospect_hf.errors import DataError
from prospect_hf.hub.front_matter import read_card
from prospect_hf.sessions import SOURCES


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published dataset, and a cache of its own for what loads it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    publish(tmp_path / "dst_frames")
    return tmp_path / "dst_frames"


def test_the_card_declares_what_load_dataset_finds(folder: Path) -> None:
    assert datasets.get_dataset_config_names(str(folder)) == ["epickitchens", "wtag", "all"]
    rows = datasets.load_dataset(str(folder), "wtag", split="train")
    assert rows.features == FEATURES and len(rows) == 60 and set(rows["source"]) == {"wtag"}
    assert len(datasets.load_dataset(str(folder), split="test")) == 120  # the configuration "all" is the default
    streamed = datasets.load_dataset(str(folder), "epickitchens", split="validation", streaming=True)
    assert next(iter(streamed)) == datasets.load_dataset(str(folder), "epickitchens", split="validation")[0]
    check_files(folder, load_manifest(folder))


def test_the_examples_of_the_card_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    page = read_page(folder / "README.md", "README.md")
    blocks = [block.code for block in page.blocks if block.language == "python"]
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
    assert len(blocks) == 3 and namespace["free"].unique("license") == ["MIT"]
    assert "Make tea" in capsys.readouterr().out
    assert page.anchors() >= {target.removeprefix("#") for target in page.links() if target.startswith("#")}


def test_the_tables_hold_the_counts(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    # Of 30 frames 2 speak and 4 have an update; of 60 states 1 + 9, 8 + 6 + 21 and 6 + 9 are in each state.
    assert "| wtag | train | 2 | 2 | 2 | 60 | 6.7 % | 13.3 % | 16.7 % / 58.3 % / 25.0 % |" in card
    assert "- wtag, train: 2 sessions read." in card and "- No session was read of ego4d." in card
    assert "| wtag | reopen | plan and turns: ProAssist's |" in card and "see [Frames](#frames)" in card
    for name in FEATURES:
        assert f"| `{name}` (" in card
    assert set(COLUMNS) == {*FEATURES, "image"}


def test_every_source_has_a_licence_and_an_origin() -> None:
    assert set(LICENSES) == set(ORIGINS) == set(ANNOTATIONS) == set(SOURCES)
    for licence in LICENSES.values():
        # The identifiers of the Hub: huggingface.co/docs/hub/repositories-licenses.
        assert licence.lower() in ("mit", "cc-by-nc-4.0", "cdla-permissive-2.0")


def manifest_of(folder: Path, *sources: str, **settings: Any) -> Manifest:
    return publish(folder, {(source, "train"): [small_session(source)] for source in sources}, **settings)[0]


def test_the_licence_that_the_hub_reads(tmp_path: Path) -> None:
    assert front_matter(manifest_of(tmp_path / "a", "wtag", "ego4d"))["license"] == "mit"
    several = front_matter(manifest_of(tmp_path / "b", "wtag", "epickitchens", "holoassist"))
    assert several["license"] == ["cc-by-nc-4.0", "cdla-permissive-2.0", "mit"]
    images = front_matter(manifest_of(tmp_path / "c", "wtag", images=True))
    assert images["license"] == "other" and images["license_name"] == "frames-under-the-terms-of-each-source"


def test_a_copy_with_pictures_warns_by_source(tmp_path: Path) -> None:
    manifest_of(tmp_path, "ego4d", "wtag", images=True)
    card = (tmp_path / "README.md").read_text()
    assert "**This copy contains the video frames of ego4d, wtag. Do not publish it.**" in card
    assert "| `image` (picture) |" in card and "prospect join" not in card
    manifest_of(tmp_path, "wtag")
    card = (tmp_path / "README.md").read_text()
    assert "Do not publish" not in card and "`image`" not in card and "prospect join" in card


def test_the_card_says_how_frames_can_be_checked(tmp_path: Path) -> None:
    manifest, report = publish(tmp_path)
    assert "this dataset was built without frames" in (tmp_path / "README.md").read_text()
    write_card(tmp_path, replace(manifest, files={FRAMES_FILE: "c" * 64}), report)
    assert "`frames.json` says how many frames" in (tmp_path / "README.md").read_text()


def test_the_card_says_what_recordings_in_two_splits_cost(tmp_path: Path) -> None:
    manifest, report = publish(tmp_path)
    taken = {"source": "wtag", "kept_in": "test", "taken_out": {"train": {"sessions": 2, "rows": 60}}}
    write_card(tmp_path, manifest, report | {"leaks": {"wtag v1": taken}})
    card = (tmp_path / "README.md").read_text()
    assert "- wtag, train: 1 recordings are in test too: 2 sessions with 60 rows were taken out." in card


@pytest.mark.parametrize(
    ("form", "dst", "said"),
    [
        ("dialogs", "words", "matched with the steps of the plan"),
        ("dialogs", "files", "from label files"),
        ("prepared", "none", "there are none"),
        ("annotations", "none", "the annotated time spans of the video are the steps"),
        ("annotations", "none", "| wtag | reopen | steps: those of the recipe, matched with"),
    ],
)
def test_the_card_says_where_the_labels_come_from(tmp_path: Path, form: str, dst: str, said: str) -> None:
    manifest_of(tmp_path, "wtag", form=form, dst=dst)
    card = (tmp_path / "README.md").read_text()
    assert said in card and ("ProAssist" in card) == (form != "annotations")


def test_a_simulated_corpus_is_called_one(tmp_path: Path) -> None:
    manifest_of(tmp_path, "wtag", simulated=True)
    card = (tmp_path / "README.md").read_text()
    assert "**These tasks are simulated.**" in card and "ProAssist" not in card
    manifest_of(tmp_path, "wtag")
    assert "simulated" not in (tmp_path / "README.md").read_text().split("## Provenance")[0]


def test_sessions_without_labels_have_no_share_of_states(tmp_path: Path) -> None:
    publish(tmp_path, {("wtag", "train"): [small_session(events=None)]})
    assert "| 0.0 % | none / none / none |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (26_000_000, "10M<n<100M")])
def test_the_size_category(tmp_path: Path, rows: int, size: str) -> None:
    manifest = manifest_of(tmp_path, "wtag")
    (shard,) = manifest.shards
    assert front_matter(replace(manifest, shards=(replace(shard, rows=rows),)))["size_categories"] == [size]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("published")
    return folder, *publish(folder)


@settings(max_examples=60)
@given(
    text=st.text(min_size=1, max_size=30)
    | st.sampled_from(HOSTILE)
    | st.lists(st.sampled_from(HOSTILE), min_size=2).map("".join)
)
@example(text="a\n---\nlicense: mit")
def test_no_text_changes_what_the_card_is_made_of(published: tuple[Path, Manifest, dict[str, Any]], text: str) -> None:
    folder, manifest, report = published

    def card_with(text: str) -> str:
        facts = copy.deepcopy(report)
        facts["absent"] = [text]
        counts = facts["splits"]["train"]["wtag"]
        taken = {"source": text, "kept_in": text, "taken_out": {text: {"sessions": 2, "rows": 60}}}
        facts["leaks"] = {text: taken}
        counts["abstained"], counts["left_out_lines"], counts["state_rules"] = {text: 1}, {text: 2}, [text]
        changed = replace(
            manifest,
            tool_version=text,
            fingerprint=text,
            label_version=text,
            settings={**manifest.settings, "suffix": text, text: text},
        )
        return write_card(folder, changed, facts).read_bytes().decode()

    plain, card = card_with("name"), card_with(text)
    head, body = read_card(folder / "README.md")
    assert head == front_matter(manifest) == DatasetCard(card).data.to_dict()
    assert yaml.safe_load(re.split(r"^---", card, maxsplit=2, flags=re.M)[1]) == head
    assert shape_of(body) == shape_of(plain.split("\n---\n", 1)[1])
    assert card.count("\n") == plain.count("\n")
    for mark in "`<>":
        assert body.count(mark) == plain.split("\n---\n", 1)[1].count(mark)


@pytest.mark.parametrize(
    "change", [{"images": 10**30}, {"form": ["x"]}, {"dst": "other"}, {"dst": None}, {"simulated": "yes"}]
)
def test_settings_that_no_build_states_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    manifest = manifest_of(tmp_path, "wtag")
    check_stated(tmp_path, manifest)
    (name,) = change
    with pytest.raises(DataError, match=f"states no known {name}"):
        check_stated(tmp_path, replace(manifest, settings={**manifest.settings, **change}))
    with pytest.raises(DataError, match="no licence of wtag"):
        check_stated(tmp_path, replace(manifest, licenses={}))
