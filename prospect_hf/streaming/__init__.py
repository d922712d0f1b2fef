"""Following video live: frame sources, pacing, traces, the timeline page, and streams kept on disk.

The streams themselves are remote code of the model (``streaming_dst_smolvlm``) and can be imported from here too.
"""

from context_dst_smolvlm import Context, ContextEvent, ContextFull, StreamError
from decoding_dst_smolvlm import Decoding
from prospect_hf.streaming.snapshot import restore_stream, save_stream
from streaming_dst_smolvlm import DSTStream, StreamBatch, StreamEvent, StreamInput, Task
from tracking_dst_smolvlm import Tracking, Transition

__all__ = [
    "Context",
    "ContextEvent",
    "ContextFull",
    "DSTStream",
    "Decoding",
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
