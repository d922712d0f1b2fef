"""``prospect demo``: the demo in a browser, or the files of a Space that shows it."""

from __future__ import annotations

from pathlib import Path

from prospect_hf.streaming.demo.app import build_app, launch
from prospect_hf.streaming.demo.limits import Limits
from prospect_hf.streaming.demo.space import write_space
from prospect_hf.terminal import say


def run(
    model: str,
    host: str,
    port: int,
    space: Path | None,
    streams: int,
    minutes: float,
    video_minutes: float,
    upload_mb: int,
) -> None:
    """Serve the demo until it is interrupted, or write a Space.

    Args:
        model: folder of a trained model; for a Space a model of the Hub, ``OWNER/NAME``.
        host, port: to serve at.
        space: folder for the Space's files; nothing is served then.
        streams, minutes, video_minutes, upload_mb: the limits, see ``Limits``.
    """
    limits = Limits(streams, minutes, video_minutes, upload_mb)
    if space is None:
        launch(build_app(model, limits), host, port)
    else:
        say("\n".join(map(str, write_space(space, model, limits))))
