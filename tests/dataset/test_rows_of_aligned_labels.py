"""Rows of aligned labels: what they are made of, what the report and the card say of the aligner, any processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aligner_fixtures import use_word_hashes
from proassist_fixtures import make_record, make_row, write_corpus, write_prepared

from prospect_hf.align import named
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.corpus import prepare_rows
from prospect_hf.dataset.build import build_rows
from prospect_hf.dataset.dst_frames import load_dst_frames
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.layout import MANIFEST_FILE
from prospect_hf.dataset.report import REPORT_FILE, read_report
from prospect_hf.errors import UsageError
from prospect_hf.labels.label_files import NOT_STATED


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write_corpus(tmp_path / "corpus", [make_record(f"{split}{number}") for number in range(2)], split)
    return tmp_path / "corpus"


def config(root: Path, **given: Any) -> DstFramesConfig:
    return DstFramesConfig(**{"name": "all", "root": str(root), "dst": "semantic", "dst_encoder": "mine", **given})


def test_the_encoder_and_the_aligner_are_part_of_what_rows_are_made_of(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_word_hashes(monkeypatch)
    prints = [
        config(root, dst=dst, dst_encoder=encoder).fingerprint()
        for dst, encoder in (("semantic", "mine"), ("semantic", "yours"), ("words", "mine"), ("files", "mine"))
    ]
    assert len(set(prints)) == 4
    for dst in ("words", "files", "none"):  # these need no encoder
        assert config(root, dst=dst).fingerprint() == config(root, dst=dst, dst_encoder="yours").fingerprint()
    assert config(root).fingerprint() == prints[0]
    monkeypatch.setattr("prospect_hf.align.semantic.REVISION", 999)
    named.named_aligner.cache_clear()
    assert config(root).fingerprint() != prints[0]
    # Prepared rows have no annotation to align, so the encoder is not even looked for.
    write_prepared(root, make_row())
    monkeypatch.setattr(named, "NEEDED", {"no-such-package": "no_such_package"})
    named.named_aligner.cache_clear()
    assert config(root, form="prepared").aligner is None and config(root, form="prepared").fingerprint()
    with pytest.raises(UsageError, match="needs no-such-package, not installed"):
        config(root).fingerprint()


def test_the_report_and_the_card_name_the_aligner(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_word_hashes(monkeypatch)
    manifest = build_rows(config(root), tmp_path / "built", progress=False)
    report = json.loads((tmp_path / "built" / REPORT_FILE).read_text())
    version = named.named_aligner("semantic", "mine").version
    assert "mine @ 0123456789ab" in version
    assert report["splits"]["train"]["wtag"]["labelled_by"] == {version: 2}
    assert (manifest.settings["aligner"], manifest.settings["dst_encoder"]) == (version, "mine @ 0123456789ab")
    card = (tmp_path / "built/README.md").read_text()
    assert "by meaning, words, order" in card and "| semantic 2, " in card and "mine @ 0123456789ab | 4 |" in card
    rows = load_dst_frames("wtag", root, cache_dir=tmp_path / "cache", dst="semantic", dst_encoder="mine")
    assert read_report(rows)["splits"]["train"]["wtag"]["labelled_by"] == {version: 2}
    assert sum(rows["train"]["dst_update"]) > 0


def test_the_card_names_what_made_the_labels_of_files_and_no_text_of_theirs_changes_it(
    root: Path, tmp_path: Path
) -> None:
    hostile = {"provenance": {"aligner": "llm", "version": "1 | 2\n# <b>title</b> {{ fps }}"}}
    write_corpus(root, [make_record("v1") | hostile, make_record("v2")])
    build_rows(config(root, dst="files"), tmp_path / "built", progress=False)
    card = (tmp_path / "built/README.md").read_text()
    table = card[card.index("| made by |") : card.index("| source | state rule |")]
    assert len(table.strip().splitlines()) == 4 and f"| {NOT_STATED} | 3 |" in table
    assert "<b>" not in card and "\n# <" not in card and "{{ fps }}" not in card and "&#123; fps &#125;" in table
    build_rows(config(root, dst="none"), tmp_path / "none", progress=False)
    assert "| made by |" not in (tmp_path / "none/README.md").read_text()


@pytest.mark.slow
def test_any_number_of_processes_writes_the_same_files(root: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        build_rows(config(root, dst="words"), tmp_path / f"built{number}", processes=number, progress=False)
    one, two = (json.loads((tmp_path / f"built{number}" / MANIFEST_FILE).read_text()) for number in (1, 2))
    assert one == two and one["settings"]["aligner"].startswith("words ")


def test_rows_of_another_encoder_are_not_taken_for_those_of_this_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_word_hashes(monkeypatch)
    built = tmp_path / "built"
    build_rows(config(root), built, progress=False)
    monkeypatch.setattr(named, "NEEDED", {"no-such-package": "no_such_package"})  # given rows need no encoder
    named.named_aligner.cache_clear()

    def arguments(**given: Any) -> DataArguments:
        values = {"name": "proassist", "root": str(root), "rows": str(built), "cache_dir": str(tmp_path / "cache")}
        return DataArguments(**values | {"dst": "semantic", "dst_encoder": "mine"} | given)

    assert prepare_rows(arguments())[0].folder == built
    with pytest.raises(UsageError, match=r"with data\.dst_encoder=other: set data\.dst_encoder=mine\.$"):
        prepare_rows(arguments(dst_encoder="somebody/other"))
    with pytest.raises(UsageError, match=r"with data\.dst=words.*: set data\.dst=semantic"):
        prepare_rows(arguments(dst="words"))


def test_a_setting_that_is_gone_says_what_replaced_it(root: Path) -> None:
    for key, make in (
        ("data.dst", lambda: DataArguments("proassist", str(root), dst="align")),
        ("dst", lambda: config(root, dst="align").input_files()),
    ):
        with pytest.raises(UsageError, match=f"^{key}=align is gone: {key}=semantic .* {key}=words does"):
            make()
