"""The default job's model: a small SmolVLM2 and its tokenizer, built from scratch in seconds, without a download.

The tokenizer is a byte-level BPE trained on the corpus's own texts, with SmolVLM2's special tokens, so that the small
model runs through the same code as the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import INSTRUCTION, DSTSmolVLMProcessor
from prospect_hf.training.arguments import TinyShape
from tracking_dst_smolvlm import STATE_NAMES

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
    "<end_of_utterance>",
]
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# How SmolLM2's tokenizer cuts a text before it merges: digits one by one, then words, as bytes.
SPLIT = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over ``texts`` with SmolVLM2's special tokens; any text can be encoded with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = SPLIT
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own = [INSTRUCTION, *(f" [{name}] {name}" for name in STATE_NAMES), "System: State: User: Assistant: Goal: Plan:"]
    tokenizer.train_from_iterator([*own, *texts], trainer)
    return smolvlm_tokenizer(tokenizer, 8192)


def smolvlm_tokenizer(tokenizer: Tokenizer, longest: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE, which has SmolVLM2's special tokens, with their parts and SmolVLM2's chat template.

    Args:
        longest: stream of the model, in tokens.
    """
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        extra_special_tokens=["<fake_token_around_image>", "<global-img>", "<image>"],
        clean_up_tokenization_spaces=False,
        model_max_length=longest,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_processor(texts: Iterable[str], shape: TinyShape) -> DSTSmolVLMProcessor:
    """The processor of the small model, its tokenizer trained on ``texts``."""
    side = shape.image_size // shape.patch_size // shape.scale_factor
    return DSTSmolVLMProcessor(
        SmolVLMImageProcessorPil(
            size={"longest_edge": shape.image_size},
            max_image_size={"longest_edge": shape.image_size},
            do_image_splitting=False,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        train_tokenizer(texts, shape.vocab_size),
        tokens_per_frame=side**2 if shape.tokens_per_frame == "full" else int(shape.tokens_per_frame or 1),
    )


def tiny_config(processor: DSTSmolVLMProcessor, shape: TinyShape, decision_source: str = "heads") -> DSTSmolVLMConfig:
    """The small model's configuration, for the vocabulary of ``processor``."""
    tokenizer = processor.tokenizer
    return DSTSmolVLMConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden_size,
            intermediate_size=shape.hidden_size * 2,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.max_positions,
            bos_token_id=processor.bos_id,
            eos_token_id=processor.end_id,
            pad_token_id=tokenizer.pad_token_id,
        ).to_dict(),
        vision_config=SmolVLMVisionConfig(
            hidden_size=shape.hidden_size,
            intermediate_size=shape.hidden_size * 2,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.heads,
            image_size=shape.image_size,
            patch_size=shape.patch_size,
        ).to_dict(),
        scale_factor=shape.scale_factor,
        image_token_id=processor.image_id,
        tokens_per_frame=shape.tokens_per_frame or 1,
        decision_source=decision_source,
        decision_tokens=processor.decision_tokens if decision_source == "lm" else None,
        state_feedback=processor.state_feedback,
        tie_word_embeddings=True,
    )


def tiny_model(
    processor: DSTSmolVLMProcessor, shape: TinyShape, decision_source: str = "heads"
) -> DSTSmolVLMForConditionalGeneration:
    """The small model with fresh weights; ``transformers.set_seed`` fixes them."""
    model = DSTSmolVLMForConditionalGeneration(tiny_config(processor, shape, decision_source))
    model.generation_config.eos_token_id = processor.end_id
    return model
