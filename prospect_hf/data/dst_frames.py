"""Public import path of the frame rows' builder; the code is in ``prospect_hf.dataset``."""

from __future__ import annotations

from prospect_hf.dataset.balance import balance_by_source, label_balance
from prospect_hf.dataset.dst_frames import DstFrames, load_dst_frames
from prospect_hf.dataset.input_files import DstFramesConfig
from prospect_hf.dataset.report import read_report

__all__ = ["DstFrames", "DstFramesConfig", "balance_by_source", "label_balance", "load_dst_frames", "read_report"]
