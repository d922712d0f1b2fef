"""The card takes values of a run as data: no name, whatever is in it, changes its front matter, tables or lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_fixtures import HOSTILE, shape_of
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from prospect_hf.errors import DataError
from prospect_hf.hub.front_matter import read_card, with_front_matter
from prospect_hf.hub.markdown import escaped
from prospect_hf.hub.model_card import base_model, write_card

HASH = "0123456789abcdef" * 4


def facts_of(text: str) -> dict[str, Any]:
    """The facts of a run in which every name is ``text``."""
    count = {"videos": 1, "sessions": 1, "rows": 1, "speaking_1": 1, "dst_update_1": 0}
    return {
        "weights_sha256": HASH,
        "machine": {"processor": text, "threads": 1, "torch": text, "transformers": text},
        "settings": {
            "model": {"name_or_path": text, "freeze_vision": True},
            "data": {"frames": "store", "name": text, "sources": [text, text], "scene": {text: text}},
            "training": {"mode": "full", "train_connector": False},
        },
        "results": {
            "steps": 1,
            "train_seconds": 1.0,
            "free_run": {"split": text, "sessions": 1, "joint_state_accuracy": 0.5},
        },
        "balance": {text: count, f"{text}2": count},
    }


@settings(max_examples=60)
@given(
    st.text(min_size=1, max_size=30)
    | st.sampled_from(HOSTILE)
    | st.lists(st.sampled_from(HOSTILE), min_size=2).map("".join)
)
@example("a\n---\nlicense: mit")
def test_no_text_changes_what_the_card_is_made_of(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    card = write_card(folder, facts_of(text)).read_bytes().decode()
    head, body = read_card(folder / "README.md")
    encodable = text.encode("utf-8", "backslashreplace").decode()
    wanted = head["base_model"] if text.startswith(("/", ".")) else encodable  # a folder's name alone
    assert head == {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "license": "apache-2.0",
        "language": "en",
        "base_model": wanted,
        "tags": head["tags"],
        "weights_sha256": HASH,
    }
    # The Hub's own reader, and one that ends the front matter at the first line that begins with three dashes.
    assert ModelCard(card).data.to_dict() == {name: value for name, value in head.items() if value is not None}
    assert yaml.safe_load(re.split(r"^---", card, maxsplit=2, flags=re.M)[1]) == head
    plain = write_card(folder, facts_of("name")).read_bytes().decode()
    assert shape_of(body) == shape_of(read_card(folder / "README.md")[1]), text
    assert card.count("\n") == plain.count("\n")
    for mark in "`<>":
        assert body.count(mark) == plain.count(mark)
    shown = json.loads(re.findall(r"```json\n(.*?)\n```", card, re.S)[0])
    assert shown["data"]["sources"] == [text, text] and shown["data"]["scene"] == {text: text}


@given(st.text(max_size=20))
def test_a_card_is_read_as_it_was_written(text: str) -> None:
    data = {"base_model": text, "list": [text, {"a": text}], "number": 1.5, "none": None, "yes": "yes"}
    written = with_front_matter(data, "\n# body\n---\nrest\n")
    assert yaml.safe_load(written.split("\n---\n")[0]) == data
    assert written.endswith("\n# body\n---\nrest\n")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("# no head", "does not begin with front matter"),
        ("---\na: b\n", "does not begin with front matter"),
        ("---\na: [\n---\n", "cannot be read"),
        ("---\n- a\n---\n", "list and not a mapping"),
        ("---\na: !!python/object:os.system x\n---\n", "cannot be read"),
    ],
)
def test_a_card_that_cannot_be_read(tmp_path: Path, card: str, message: str) -> None:
    (tmp_path / "README.md").write_text(card)
    with pytest.raises(DataError, match=message):
        read_card(tmp_path / "README.md")
    (tmp_path / "README.md").write_bytes(b"---\na: \xff\n---\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_card(tmp_path / "README.md")


def test_a_missing_fact_is_an_error(tmp_path: Path) -> None:
    facts = facts_of("x")
    del facts["settings"]["data"]["sources"]
    with pytest.raises(UndefinedError):
        write_card(tmp_path, facts)


def test_no_text_is_carried_out_as_a_template(tmp_path: Path) -> None:
    card = write_card(tmp_path, facts_of("{{ 7777 * 7777 }}{% for a in range(3) %}looped{% endfor %}")).read_text()
    assert str(7777 * 7777) not in card and "loopedlooped" not in card


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/home/ann/stock", "stock"), ("../models/stock/", "stock"), ("org/name", "org/name"), ("models/a", "models/a")],
)
def test_a_base_model_on_disk_is_named_without_its_path(tmp_path: Path, name: str, shown: str) -> None:
    card = write_card(tmp_path, facts_of(name))
    assert read_card(card)[0]["base_model"] == shown and f"Base model: {shown}, vision" in card.read_text()


def test_the_working_directory_as_base_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert base_model(".") == tmp_path.name and base_model(None) is None and base_model("/") == "/"


def test_common_names_are_shown_as_they_are() -> None:
    for text in ("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "wtag dialogs train", "dst_frames, 0.5 (x): y", "Öl"):
        assert escaped(text) == text


HEADS = ["speaking_head", "dst_update_head", "dst_state_head"]
LORA = {"mode": "lora", "base_model": "../base", "rank": 16, "quantization": None, "modules": HEADS}
QLORA = {**LORA, "mode": "qlora", "quantization": {}, "modules": ["dst_state_head", "model.connector"]}
MODEL_WITH_HEADS = "It is SmolVLM2 with a speaking head, a DST-update head and a DST-state head.\n"


@pytest.mark.parametrize(
    ("config", "training", "wanted"),
    [
        (
            {},
            {"mode": "full", "train_connector": False},
            ["It needs torch and transformers, and", "Base model: base.\n", MODEL_WITH_HEADS],
        ),
        (
            {"adapter": LORA},
            {"mode": "lora", "train_connector": False},
            [
                "It needs torch, transformers and peft, and",
                "Base model: base, vision tower and connector frozen.\n",
                "Trained in mode lora: the heads, LoRA layers of rank 16 in the text model.\n",
                "It opens on its base model, ../base; if that",
                MODEL_WITH_HEADS,
            ],
        ),
        (
            {"adapter": QLORA, "decision_source": "lm"},
            {"mode": "qlora", "train_connector": True},
            [
                "It needs torch, transformers, peft and bitsandbytes, and",
                "Base model: base, vision tower frozen.\n",
                "Trained in mode qlora: the DST-state head, the connector, LoRA layers of rank 16 in the text model.\n"
                "The base was quantised to 4 bits (nf4, double quantisation).\n",
                "with a DST-state head; its language-model head decides whether to speak",
            ],
        ),
        (
            {"adapter": {**LORA, "mode": "heads", "rank": None}},
            {"mode": "heads", "train_connector": False},
            ["It needs torch and transformers, and", "Trained in mode heads: the heads.\n"],
        ),
        (
            {"merged": "adapters in the base", "blind": True},
            {"mode": "lora", "train_connector": False},
            [
                "DST is Dialog State Tracking.\n\n**Its eyes are blind.**",
                "Base model: base, vision tower and connector frozen.\n",
                "Merged: adapters in the base.",
            ],
        ),
    ],
    ids=["full", "lora", "qlora, lm, connector", "heads", "merged, blind"],
)
def test_a_card_says_what_was_trained(
    tmp_path: Path, config: dict[str, Any], training: dict[str, Any], wanted: list[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = facts_of("x")
    facts["settings"]["model"] = {"name_or_path": "/home/ann/base", "freeze_vision": False}
    facts["settings"]["training"] = training
    _, body = read_card(write_card(tmp_path, facts))
    assert [text for text in wanted if text not in body] == []
    assert not re.search(r"\n#+ [^\n]*\n+#", body) and "\n\n\n" not in body and "ann" not in body.split("<details>")[0]
    assert ("eyes are blind" in body) == config.get("blind", False)


def test_the_card_does_not_hide_a_missing_fact(tmp_path: Path) -> None:
    facts = facts_of("base")
    facts["settings"]["data"]["frames"] = "rendered"
    del facts["results"]["free_run"]
    card = write_card(tmp_path, facts).read_text()
    assert "base_model: base" in card and "nothing was evaluated" in card and "drawn from the labels" in card
    del facts["results"]["steps"]
    with pytest.raises(UndefinedError):
        write_card(tmp_path, facts)
