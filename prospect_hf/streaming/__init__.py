"""Following video live: frame sources, pacing, traces, the timeline page, and streams kept on disk.

The streams themselves are remote code of the model (``streaming_dst_smolvlm``) and can be imported from here too. The
names are loaded when they are asked for: the settings of a stream are checked before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from context_dst_smolvlm import Context, ContextFull, StreamError
    from decoding_dst_smolvlm import Decoding
    from events_dst_smolvlm import ContextEvent, PlanChange, StreamEvent, StreamInput, Task
    from prospect_hf.streaming.snapshot import restore_stream, save_stream
    from streaming_dst_smolvlm import DSTStream, StreamBatch
    from tracking_dst_smolvlm import Deviation, Tracking, Transition

_ORIGINS = {
    "context_dst_smolvlm": ("Context", "ContextFull", "StreamError"),
    "decoding_dst_smolvlm": ("Decoding",),
    "events_dst_smolvlm": ("ContextEvent", "PlanChange", "StreamEvent", "StreamInput", "Task"),
    "prospect_hf.streaming.snapshot": ("restore_stream", "save_stream"),
    "streaming_dst_smolvlm": ("DSTStream", "StreamBatch"),
    "tracking_dst_smolvlm": ("Deviation", "Tracking", "Transition"),
}

__all__ = [
    "Context",
    "ContextEvent",
    "ContextFull",
    "DSTStream",
    "Decoding",
    "Deviation",
    "PlanChange",
    "StreamBatch",
    "StreamError",
    "StreamEvent",
    "StreamInput",
    "Task",
    "Tracking",
    "Transition",
    "restore_stream",
    "save_stream",
]


def __getattr__(name: str) -> Any:
    for module, names in _ORIGINS.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
