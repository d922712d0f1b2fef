"""A control without memory: each frame is judged from the last few frames alone, under the plan in its initial state.

With a window of one frame, it is what a picture tells. The tracked table over these decisions is what a table adds to
pictures. A model that remembers must beat both where the state has left the picture. The control has no past of its
own, so it writes no texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.clips import ClipCollator, ClipInputs
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.packing import Clip
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.free_running import without_labels
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.teacher_forced import batches
from prospect_hf.sessions import NOT_STARTED
from tracking_dst_smolvlm import StateTable, Tracking

# Frames whose inputs are held in memory at a time.
FRAMES_AT_A_TIME = 64


@torch.inference_mode()
def windowed(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader | FrameFeatures,
    sessions: Sequence[SessionRows],
    window: int,
    tracking: Tracking,
    thresholds: tuple[float, float],
) -> Iterator[tuple[int, Prediction]]:
    """Judge every frame of ``sessions`` from the ``window`` frames that end with it; yields (index, prediction).

    Args:
        model: the model, in eval mode.
        processor: its processor.
        frames: reader of pictures or encoded frames.
        sessions: the sessions.
        window: number of frames, 1 or more.
        tracking: rules of the table.
        thresholds: of the speaking and of the DST-update decision.

    The prediction's ``states`` are those of each frame by itself; its ``table`` is tracked over them. It is wordless:
    it decides when to speak, and ``spoken`` has empty texts. As in a stream, it does not speak where the user does.
    """
    inputs = ClipInputs(processor, frames)
    collate = ClipCollator(processor.tokenizer.pad_token_id)
    for index, session in enumerate(sessions):
        # The states after each frame stay: they are never in the stream, and drawn pictures are made of them.
        heard = replace(without_labels(session), states_after=session.states_after)
        count, steps = session.states_after.shape
        speak, update, states = np.zeros(count), np.zeros(count), np.zeros((count, steps, 3))
        for begin in range(0, count, FRAMES_AT_A_TIME):
            ends = range(begin, min(begin + FRAMES_AT_A_TIME, count))
            clips = [Clip(heard, max(0, end + 1 - window), end + 1, tokens=0) for end in ends]
            items = [inputs(clip, 0, 0) for clip in clips]
            for chosen in batches([len(item["input_ids"]) for item in items]):
                batch = collate([items[row] for row in chosen])
                given = {name: value.to(model.device) for name, value in batch.items() if not name.endswith("labels")}
                output = model(**given, use_cache=False, logits_to_keep=1)
                for place, row in enumerate(chosen):
                    last = clips[row].end - clips[row].begin - 1
                    speak[ends[row]] = output.speaking_logits[place, last].double().softmax(-1)[1].item()
                    update[ends[row]] = output.dst_update_logits[place, last].double().softmax(-1)[1].item()
                    of_steps = output.dst_state_logits[place, last, :steps].double().softmax(-1)
                    states[ends[row]] = of_steps.cpu().numpy()
        speaks = speak >= thresholds[0]
        speaks[list(heard.items)] = False
        yield index, _tracked(speak, update, states, tracking, speaks, thresholds[1])


def _tracked(
    speak: np.ndarray,
    update: np.ndarray,
    states: np.ndarray,
    tracking: Tracking,
    speaks: np.ndarray,
    update_threshold: float,
) -> Prediction:
    """The prediction with a table over the probabilities ``states`` ``[frames, steps, 3]``."""
    table = StateTable([NOT_STARTED] * states.shape[1], tracking)
    tables, updates = [], []
    for frame, probabilities in enumerate(states.tolist()):
        if table.propose(table.read_head(probabilities), bool(update[frame] >= update_threshold)):
            updates.append(frame)
        tables.append(list(table.states))
    return Prediction(
        p_speak=speak,
        p_update=update,
        states=states.argmax(-1),
        table=np.array(tables),
        spoken=dict.fromkeys(np.flatnonzero(speaks).tolist(), ""),
        updates=updates,
        rejected=table.rejected,
        wordless=True,
    )
