"""Visitors of the demo: a small model, settings of the page, and clips to follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_fixtures import small_processor
from stream_fixtures import talkative_model

from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.visitor import Settings, Shared, Shown

PLAN = "attach the wheel\n\n  tighten the bolt \ntwo\n"
# Templates and markup: none of it may be more than text in the page.
NASTY = ["<img src=x onerror=alert(1)>", "${alert(2)} {{value}} `x`", "</div></script><script>alert(3)</script> &amp;"]


def shared_by_all(folder: Path, **limits: Any) -> Shared:
    return Shared(talkative_model(), small_processor(), "talkative", folder, Limits(**limits))


def settings(path: Path | None, **changes: Any) -> Settings:
    config = talkative_model().config
    given = Settings(
        camera=False,
        video=None if path is None else str(path),
        realtime=False,
        goal="the red wheel",
        plan=PLAN,
        strategy="summarize_with_dst",
        speaking_threshold=config.speaking_threshold,
        dst_update_threshold=config.dst_update_threshold,
    )
    return replace(given, **changes)


def last(views: Iterator[Shown]) -> Shown:
    *_, shown = views
    return shown
