"""What the settings of ``data`` name: the corpus on the disk, and what is read of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from prospect_hf.data.arguments import DataArguments
from prospect_hf.dataset.input_files import DstFramesConfig, Form
from prospect_hf.errors import UsageError
from prospect_hf.settings import parse
from prospect_hf.simulator.corpus import ensure_corpus, telling_shares, telling_text
from prospect_hf.simulator.scene import SceneConfig
from prospect_hf.sources.proassist import DST
from prospect_hf.sources.report import OnError
from prospect_hf.sources.splits import SplitLeaks

logger = logging.getLogger(__name__)


def ready_corpus(data: DataArguments) -> Path:
    """The corpus's folder; a simulated corpus is written where it is missing or out of date.

    Raises:
        UsageError: the folder is missing, or a setting of the simulator is wrong.
        DataError: the simulated corpus does not say what it holds.
    """
    root = Path(str(data.root))
    if data.name == "simulated":
        ranges = {name: tuple(value) if isinstance(value, list) else value for name, value in data.scene.items()}
        ensure_corpus(root, data.sources, data.recordings, data.seed, parse(SceneConfig, ranges, "data.scene"))
        logger.info("%s", telling_text(telling_shares(root)))
    elif data.name == "proassist" and not (root / "processed_data").is_dir():
        raise UsageError(f"data.root={root} has no subfolder processed_data; set data.root to ProAssist's root folder.")
    return root


def rows_config(data: DataArguments, form: str) -> DstFramesConfig:
    """What ``build_rows`` reads for one form of ``data``."""
    return DstFramesConfig(
        name="all",
        root=str(Path(str(data.root)).resolve()),
        sources=tuple(data.sources),
        dst=cast(DST, data.dst),
        dst_root="" if data.dst_root is None else str(Path(data.dst_root).resolve()),
        dst_encoder=data.dst_encoder,
        suffix=data.suffix,
        split_leaks=cast(SplitLeaks, data.split_leaks),
        on_error=cast(OnError, data.on_error),
        form=cast(Form, form),
    )
