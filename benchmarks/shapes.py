"""Models, processors, pictures and batches from numbers alone: what the benchmarks measure without a download.

The three published shapes have exactly the parameters of SmolVLM2's checkpoints, with random weights. Needs torch,
transformers and the model's own files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import IGNORE_INDEX
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration as Model
from processing_dst_smolvlm import DSTSmolVLMProcessor

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<end_of_utterance>"]
BOS, PAD, IMAGE, END = 1, 2, 3, 4  # places of SPECIAL
GOAL = "Assemble the toy truck"
STEPS = ["Attach the wheels.", "Attach the cabin.", "Fasten the roof.", "Put the load on.", "Check the doors."]

# Of a random batch: steps and tokens of its plan, and tokens of a turn.
PLAN_STEPS, PLAN_TOKENS, TURN_TOKENS = 8, 96, 12
PADDING = 8  # tokens at the end of the last row, where a batch is padded
TEXT_SHARE = 0.12  # of the tokens, in a stream with occasional turns
SPEAKING, UPDATES = 0.07, 0.02  # shares of the frames with an utterance, and with a change of state


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; ``tokens_per_frame`` as in its configuration."""

    name: str
    image: int
    patch: int
    shuffle: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    vision_intermediate: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tokens_per_frame: int | str = 1
    rope_theta: float = 100_000.0

    @property
    def frame_tokens(self) -> int:
        """Stream tokens of one frame."""
        if self.tokens_per_frame == "full":
            return (self.image // self.patch // self.shuffle) ** 2
        return int(self.tokens_per_frame)

    def frames_of(self, tokens_per_frame: int | str) -> Shape:
        """The same model with another number of tokens for a frame."""
        return replace(self, tokens_per_frame=tokens_per_frame)


TINY = Shape("tiny", 24, 4, 1, 32, 2, 2, 128, 64, 3, 4, 2, 128, 300, 4)
SMOLVLM2_256M = Shape("256M", 512, 16, 4, 768, 12, 12, 3072, 576, 30, 9, 3, 1536, 49280)
SMOLVLM2_500M = Shape("500M", 512, 16, 4, 768, 12, 12, 3072, 960, 32, 15, 5, 2560, 49280)
SMOLVLM2_2B = Shape("2.2B", 384, 14, 3, 1152, 27, 16, 4304, 2048, 24, 32, 32, 8192, 49280, rope_theta=130_000.0)


def config_of(shape: Shape) -> DSTSmolVLMConfig:
    """The configuration of ``shape``; the ids of its special tokens are those of ``processor_of``."""
    return DSTSmolVLMConfig(
        text_config=LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
            bos_token_id=BOS,
            eos_token_id=END,
            pad_token_id=PAD,
        ).to_dict(),
        vision_config=SmolVLMVisionConfig(
            hidden_size=shape.vision_hidden,
            intermediate_size=shape.vision_intermediate,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_heads,
            image_size=shape.image,
            patch_size=shape.patch,
        ).to_dict(),
        scale_factor=shape.shuffle,
        image_token_id=IMAGE,
        tokens_per_frame=shape.tokens_per_frame,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


def model_of(shape: Shape, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> Model:
    """Random weights, made on ``device`` in ``dtype``, in eval mode.

    The weights are wide enough that every decision depends on what was read.
    """
    default = torch.get_default_dtype()
    torch.manual_seed(seed)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Model(config_of(shape)).eval()
    finally:
        torch.set_default_dtype(default)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return model


def processor_of(shape: Shape) -> DSTSmolVLMProcessor:
    """A byte-level tokenizer without merges, filled up to the vocabulary's size, and frames of the shape's size."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [f"<unused{number}>" for number in range(shape.vocab - len(tokens))]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=SPECIAL[0],
        bos_token=SPECIAL[BOS],
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        extra_special_tokens=[SPECIAL[IMAGE]],
        clean_up_tokenization_spaces=False,
    )
    pictures = SmolVLMImageProcessorPil(
        size={"longest_edge": shape.image},
        max_image_size={"longest_edge": shape.image},
        do_image_splitting=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return DSTSmolVLMProcessor(pictures, fast, tokens_per_frame=shape.frame_tokens)


def pictures_of(shape: Shape, count: int, seed: int) -> list[np.ndarray]:
    """Pictures of noise, uint8 ``[size, size, 3]``."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (shape.image, shape.image, 3), dtype=np.uint8) for _ in range(count)]


def random_batch(
    shape: Shape,
    rows: int,
    positions: int,
    all_labelled: bool = False,
    pixels: bool = False,
    padded: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """A batch in the format of ``ClipCollator``: a plan, then frames with occasional turns.

    Args:
        shape: of the model.
        rows: streams; each has the same tokens.
        positions: tokens of a stream.
        all_labelled: every position has a text label; else about 12 % of them.
        pixels: frames are pixels of noise, else features of noise.
        padded: the last row ends with padding, so that attention needs a mask, as in training; else no row does.
        device, dtype: of the batch, and of its pixels or features.
        seed: of all that is drawn.
    """
    draw = random.Random(seed)
    torch.manual_seed(seed)
    tokens = [draw.randrange(10, shape.vocab) for _ in range(PLAN_TOKENS)]
    labels = [IGNORE_INDEX] * PLAN_TOKENS
    frames: list[int] = []
    share = TEXT_SHARE * positions / (positions - PLAN_TOKENS)
    turn_chance = share * shape.frame_tokens / (TURN_TOKENS * (1 - share))
    while len(tokens) + shape.frame_tokens + TURN_TOKENS <= positions:
        tokens += [IMAGE] * shape.frame_tokens
        labels += [IGNORE_INDEX] * shape.frame_tokens
        frames.append(len(tokens) - 1)
        if draw.random() < turn_chance:
            turn = [draw.randrange(10, shape.vocab) for _ in range(TURN_TOKENS)]
            tokens += turn
            labels += turn
    rest = [draw.randrange(10, shape.vocab) for _ in range(positions - len(tokens))]
    tokens, labels = tokens + rest, labels + rest
    if all_labelled:
        labels = [draw.randrange(10, shape.vocab) for _ in tokens]
    one = {
        "input_ids": torch.tensor([tokens]),
        "attention_mask": torch.ones(1, len(tokens), dtype=torch.long),
        "labels": torch.tensor([labels]),
        "frame_positions": torch.tensor([frames]),
        "step_positions": torch.linspace(10, PLAN_TOKENS - 1, PLAN_STEPS).long()[None, :, None].repeat(1, 1, 2),
        "speaking_labels": (torch.rand(1, len(frames)) < SPEAKING).long(),
        "dst_update_labels": (torch.rand(1, len(frames)) < UPDATES).long(),
        "dst_state_labels": torch.randint(0, 3, (1, len(frames), PLAN_STEPS)),
    }
    batch = {name: value.repeat(rows, *[1] * (value.dim() - 1)).to(device) for name, value in one.items()}
    if padded:  # the last tokens of a row are never a frame's
        for name, value in (("input_ids", PAD), ("attention_mask", 0), ("labels", IGNORE_INDEX)):
            batch[name][-1, -PADDING:] = value
    count = len(frames) * rows
    if pixels:
        batch["pixel_values"] = torch.randn(count, 3, shape.image, shape.image, device=device, dtype=dtype)
    else:
        batch["frame_features"] = torch.randn(count, shape.frame_tokens, shape.hidden, device=device, dtype=dtype)
    return batch
