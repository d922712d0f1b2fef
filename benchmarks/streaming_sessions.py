"""Sessions, models, timing and Markdown tables of the streaming benchmark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import SmolVLMConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.corpus import prepare_rows, split_sessions
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.corpus import data_of
from streaming_dst_smolvlm import StreamInput, Task

GOAL = "Assemble the toy truck"
STEPS = ["Attach the wheels.", "Attach the cabin.", "Fasten the roof.", "Put the load on.", "Check the doors."]
# A threshold above every probability: the stream stays silent, and a frame costs only its own tokens.
NEVER = 2.0


@dataclass(frozen=True)
class Session:
    """The input of a stream, and its labels.

    Args:
        task: plan and goal.
        features: ``[frames, tokens, hidden]`` encoded frames.
        user_texts: ``[frames]`` texts of the user, "" for none.
        rows: the labels; None for random features.
    """

    task: Task
    features: torch.Tensor
    user_texts: Sequence[str]
    rows: SessionRows | None = None

    def inputs(self) -> Iterator[StreamInput]:
        """The frames in order."""
        for feature, text in zip(self.features, self.user_texts, strict=True):
            yield StreamInput(feature, text)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block with one torch thread: more do not speed up the small model, and they wait under other load."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """``names`` rotated by ``number``, so that each name is first equally often."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def median_seconds(
    sides: Mapping[str, Callable[[], object]], repeats: int, before: Mapping[str, Callable[[], object]] | None = None
) -> dict[str, float]:
    """Median seconds of each side, after one warm-up round; the sides alternate, and take turns in running first.

    ``before`` has functions to run before a side, untimed.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name in rotated(list(sides), number):
            if before is not None and name in before:
                before[name]()
            started = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


@torch.inference_mode()
def load_sessions(
    folder: Path,
) -> tuple[Model, DSTSmolVLMProcessor, list[Session]]:
    """The model and processor in a folder of ``scripts/train.py``, and the held-out sessions of its data."""
    data = data_of(folder, {})
    model, processor = load_trained(folder)
    model.to("cpu")  # what is measured here, on every machine
    reader = FrameReader(Path(str(data.root)), data.frames, processor)
    sessions = []
    for rows in split_sessions(prepare_rows(data), "test"):
        features = model.encode_frames(reader.inputs(rows, 0, len(rows))["pixel_values"])
        texts = [rows.item(frame).user_text for frame in range(len(rows))]
        sessions.append(Session(Task(rows.steps, rows.goal, say_states=rows.labelled), features, texts, rows))
    return model, processor, sessions


def random_session(model: Model, frames: int) -> Session:
    """A session of random features with the standard deviation of the token embeddings."""
    scale = float(model.get_input_embeddings().weight.detach().std())
    features = torch.randn(frames, model.config.stream_tokens, model.config.text_config.hidden_size) * scale
    return Session(Task(STEPS, GOAL), features, [""] * frames)


def mid_model(name: str, processor: DSTSmolVLMProcessor) -> Model:
    """The text model of SmolVLM2-256M with random weights, large enough that decisions depend on the input."""
    stock = SmolVLMConfig.from_pretrained(name, trust_remote_code=False)
    stock.vision_config.num_hidden_layers = 1  # the vision tower is not used
    config = DSTSmolVLMConfig.from_smolvlm(stock, image_token_id=processor.image_id)
    torch.manual_seed(0)
    model = Model(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    model.config.speaking_threshold = model.config.dst_update_threshold = NEVER
    return model
