"""Model folders whose files ask to be run: every file of code in them writes a marker when it is imported."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

from model_fixtures import small_processor
from stream_fixtures import talkative_model

CODE = """
from pathlib import Path

(Path(__file__).parent / "ran").touch()
Path({marker!r}).touch()


class Evil:
    config_class = None

    def __init__(self, *args, **kwargs):
        pass

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        return cls()

    load = from_pretrained
    register_for_auto_class = from_pretrained


EvilTokenizer = EvilTokenizerFast = EvilConfig = EvilModel = EvilProcessor = Evil
"""
AUTO_MAP = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoModelForImageTextToText": "evil.EvilModel",
    "AutoProcessor": "evil.EvilProcessor",
    "AutoImageProcessor": "evil.Evil",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizerFast"],
}


def whole_folder(folder: Path) -> Path:
    """A trained folder, as far as files go."""
    talkative_model().save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return folder


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def poison(folder: Path, marker: Path) -> None:
    """Replace all code in the folder by code that writes ``marker``, and let every file name it."""
    code = CODE.format(marker=str(marker))
    for path in [*folder.glob("*.py"), folder / "evil.py", folder / "__init__.py", folder / "sitecustomize.py"]:
        path.write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    pipelines = {"dst-stream": {"impl": "evil.Evil", "pt": ["AutoModel"], "type": "multimodal"}}
    change_json(folder / "config.json", auto_map=AUTO_MAP, custom_pipelines=pipelines)
    for name in ("processor_config.json", "tokenizer_config.json"):
        change_json(folder / name, auto_map=AUTO_MAP)


class Bomb:
    """A pickle that writes a marker when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def write_bomb(path: Path, marker: Path) -> None:
    """Write a pickle that makes ``marker`` when it is loaded."""
    path.write_bytes(pickle.dumps(Bomb(marker)))
