"""DST-SmolVLM2: SmolVLM2 with a speaking, a DST-update and a DST-state head, read at every frame of a stream.

The language model reads one causal stream: the plan, then frames and utterances in turn. Two linear heads answer at
each frame's last token (speak now? did the state change?), or with ``decision_source=lm`` the LM head does. A third
answers there for every step of the plan, and the LM head writes the texts. Remote code of the Hub: it imports torch and
transformers and nothing of the training package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import SmolVLMForConditionalGeneration
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils import ModelOutput

try:
    from .adapters_dst_smolvlm import AdapterFolders
    from .configuration_dst_smolvlm import HEADS, DSTSmolVLMConfig
    from .decoding_dst_smolvlm import Decoding
    from .text_loss_dst_smolvlm import summed_cross_entropy
except ImportError:  # imported as a top-level module of the installed package
    from adapters_dst_smolvlm import AdapterFolders
    from configuration_dst_smolvlm import HEADS, DSTSmolVLMConfig
    from decoding_dst_smolvlm import Decoding
    from text_loss_dst_smolvlm import summed_cross_entropy

IGNORE_INDEX = -100
# Bounds the activations of one pass through the vision tower: 16 frames of 1,024 patches.
PATCHES_PER_VISION_PASS = 16_384


@dataclass
class DSTSmolVLMOutput(ModelOutput):
    """The result of one pass over a batch of streams.

    Args:
        loss: mean cross-entropy of the text, with ``labels`` (the heads' losses are computed by the trainer).
        logits: LM logits ``[batch, kept, vocab]``; None with ``labels``, for the loss needs no logits of all places at
            once (``text_loss_dst_smolvlm``).
        speaking_logits: ``[batch, frames, 2]``: stay silent, speak; in eval mode divided by their temperature.
        dst_update_logits: ``[batch, frames, 2]``: state unchanged, state changed; likewise.
        dst_state_logits: ``[batch, frames, steps, 3]``: not started, in progress, completed, after the frame.
        step_hidden_states: ``[batch, steps, hidden]``: the plan's steps as the state head reads them; give them to
            later passes, whose plan is already in the cache.
        cache: the KV cache after this pass.
        hidden_states: per-layer hidden states, with ``output_hidden_states``.
        attentions: per-layer attention weights, with ``output_attentions``.
        sequences: ids of the text that was written (``fast_greedy_generate_with_dst``), None if the model is silent.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    speaking_logits: torch.Tensor | None = None
    dst_update_logits: torch.Tensor | None = None
    dst_state_logits: torch.Tensor | None = None
    step_hidden_states: torch.Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    sequences: list[int] | None = None


class DSTSmolVLMForConditionalGeneration(AdapterFolders, SmolVLMForConditionalGeneration):
    """SmolVLM2 with the three DST heads; a stock SmolVLM2 checkpoint loads into it, with newly initialised heads."""

    config_class = DSTSmolVLMConfig
    # Heads that were trained in float32 on a bfloat16 body are read as they were saved.
    _keep_in_fp32_modules_strict = HEADS

    def __init__(self, config: DSTSmolVLMConfig) -> None:
        config.check()
        super().__init__(config)
        hidden = config.text_config.hidden_size
        if config.decision_source == "heads":
            self.speaking_decision_head = nn.Linear(hidden, 2)
            self.dst_update_head = nn.Linear(hidden, 2)
        self.dst_frame_proj = nn.Linear(hidden, hidden)
        self.dst_step_norm = nn.LayerNorm(hidden)
        self.dst_step_proj = nn.Linear(hidden, hidden)
        self.dst_state_norm = nn.LayerNorm(hidden)
        self.dst_state_head = nn.Linear(hidden, config.num_dst_states)
        self.post_init()

    # -- frames -------------------------------------------------------------------------------------------------

    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode frames: vision tower, connector, then the mean over a grid of vision tokens.

        An all-black frame is encoded like any other (the stock model takes it for padding and drops it).

        Args:
            pixel_values: ``[frames, 3, height, width]``, or ``[batch, frames, 3, height, width]``, normalised.

        Returns:
            ``[frames, tokens, hidden]`` with ``tokens = config.stream_tokens``; ``forward`` takes them as
            ``frame_features`` in place of pixels.
        """
        if pixel_values.dim() == 5:
            pixel_values = pixel_values.flatten(0, 1)
        vision = self.config.vision_config
        expected = (vision.num_channels, vision.image_size, vision.image_size)
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"pixel_values must be [frames, {expected[0]}, {expected[1]}, {expected[2]}], "
                f"not {list(pixel_values.shape)}; prepare frames with the model's processor."
            )
        frames_per_pass = max(1, PATCHES_PER_VISION_PASS // (vision.image_size // vision.patch_size) ** 2)
        # A connector that is trained is in float32, over a vision tower that may be in bfloat16.
        connector, dtype = self.model.connector, self.model.connector.modality_projection.proj.weight.dtype
        passes = [
            self._pool(connector(self.model.vision_model(chunk).last_hidden_state.to(dtype)))
            for chunk in pixel_values.to(self.dtype).split(frames_per_pass)
        ]
        return torch.cat(passes)

    def _pool(self, vision_tokens: torch.Tensor) -> torch.Tensor:
        """``[frames, side * side, hidden]`` to ``[frames, stream_tokens, hidden]``, averaging over a square grid."""
        side, tokens = self.config.grid_side, self.config.stream_tokens
        if tokens == side**2:
            return vision_tokens
        if tokens == 1:
            return vision_tokens.mean(dim=1, keepdim=True)
        grid = vision_tokens.transpose(1, 2).unflatten(2, (side, side))
        return F.adaptive_avg_pool2d(grid, int(tokens**0.5)).flatten(2).transpose(1, 2)

    def joint_embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed text and frames: token embeddings, with the frames' features at the ``<image>`` tokens.

        Args:
            input_ids: ``[batch, seq]``.
            pixel_values: ``[frames, 3, height, width]``, all frames of the batch in the order of their tokens; or
            frame_features: ``[frames, tokens, hidden]`` from ``encode_frames``, in the same order.

        Returns:
            ``[batch, seq, hidden]``.

        Raises:
            ValueError: both forms given, or the number of features is not the number of ``<image>`` tokens.
        """
        if pixel_values is not None and frame_features is not None:
            raise ValueError("Give pixel_values or frame_features, not both.")
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            frame_features = self.encode_frames(pixel_values)
        places = input_ids == self.config.image_token_id
        given = 0 if frame_features is None else frame_features.shape[0] * frame_features.shape[1]
        wanted = int(places.sum())
        if given != wanted:
            raise ValueError(
                f"The stream has {wanted} <image> places but the frames bring {given} tokens "
                f"({self.config.stream_tokens} a frame)."
            )
        if frame_features is None:
            return embeds
        return embeds.masked_scatter(places.unsqueeze(-1), frame_features.to(embeds))

    # -- heads --------------------------------------------------------------------------------------------------

    def read_heads(
        self, frame_hidden: torch.Tensor, step_hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three decisions of each frame.

        A step's state is read from the frame and the step together: ``z = gelu(norm(q(f) * sigmoid(k(s)) + k(s)))``, so
        that one ``Linear(hidden, 3)`` answers for any number of steps in any wording.

        Args:
            frame_hidden: ``[batch, frames, hidden]``, the text model's state at each frame's last token.
            step_hidden: ``[batch, steps, hidden]`` from ``read_plan``.

        Returns:
            speaking ``[batch, frames, 2]``, DST update ``[batch, frames, 2]``, states ``[batch, frames, steps, 3]``.
        """
        # The heads may be kept in float32 over a bfloat16 body.
        frame_hidden = frame_hidden.to(self.dst_frame_proj.weight.dtype)
        step_hidden = self.dst_step_norm(step_hidden.to(self.dst_step_norm.weight.dtype))
        step_key = self.dst_step_proj(step_hidden)[:, None]
        query = self.dst_frame_proj(frame_hidden)[:, :, None]
        meeting = F.gelu(self.dst_state_norm(query * torch.sigmoid(step_key) + step_key))
        return (*self._read_decisions(frame_hidden), self.dst_state_head(meeting))

    def _read_decisions(self, frame_hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Speaking and DST update, ``[batch, frames, 2]`` each, from ``frame_hidden`` ``[batch, frames, hidden]``.

        With ``decision_source=lm``, of the LM head's logits for the next token only the three that decide are
        computed. Both decisions are weighed against the next frame coming at once; p(speak) does not depend on the
        state text that may come first.
        """
        if self.config.decision_source == "heads":
            return self.speaking_decision_head(frame_hidden), self.dst_update_head(frame_hidden)
        deciding = self.lm_head.weight[self.config.decision_tokens]
        nothing, speak, update = F.linear(frame_hidden, deciding.to(frame_hidden.dtype)).unbind(-1)
        return torch.stack([nothing, speak], dim=-1), torch.stack([nothing, update], dim=-1)

    def read_plan(self, hidden: torch.Tensor, step_positions: torch.Tensor) -> torch.Tensor:
        """Represent each step by the mean hidden state of its line, minus the mean over the plan's steps.

        The lines of a plan are much alike ("Fasten the ... to the board."), and so are their hidden states: without the
        subtraction the common part would outweigh what distinguishes the steps. (The hidden state at the end of a line
        is no substitute: a small model spends most of its training on learning to gather the line there.) In a plan of
        one step the difference is 0, and the frame's hidden state, which has attended to the plan, answers alone.

        Args:
            hidden: ``[batch, seq, hidden]``, the text model's states of the pass with the plan.
            step_positions: ``[batch, steps, 2]``, first and last token of each step's line, -1 is padding.

        Returns:
            ``[batch, steps, hidden]``, 0 for padding steps.
        """
        place = torch.arange(hidden.shape[1], device=hidden.device)
        inside = ((place >= step_positions[..., :1]) & (place <= step_positions[..., 1:])).to(hidden.dtype)
        lines = inside @ hidden / inside.sum(-1, keepdim=True).clamp(min=1)
        is_step = (step_positions[..., 1:] >= 0).to(hidden.dtype)
        shared = lines.sum(1, keepdim=True) / is_step.sum(1, keepdim=True).clamp(min=1)
        return (lines - shared) * is_step

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
        frame_positions: torch.Tensor | None = None,
        step_positions: torch.Tensor | None = None,
        step_hidden_states: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> DSTSmolVLMOutput:
        """Run one pass over a batch of streams, or over the next tokens of streams that a cache holds.

        Args:
            input_ids: ``[batch, seq]``, or ``inputs_embeds`` ``[batch, seq, hidden]`` from ``joint_embed``.
            attention_mask: ``[batch, cached + seq]``, 0 on padding.
            position_ids: ``[batch, seq]``; None: counted on from the end of the cache.
            cache: KV cache to read and to grow.
            pixel_values: ``[frames, 3, height, width]``, or ``frame_features`` ``[frames, tokens, hidden]``: the frames
                of all rows, in the order of their tokens in ``input_ids``.
            frame_positions: ``[batch, frames]``, the index *in this pass* of each frame's last token; -1 is padding.
                Without it the heads are not read.
            step_positions: ``[batch, steps, 2]``, the index in this pass of the first and of the last token of each
                step's line in the plan; -1 is padding.
                Or ``step_hidden_states`` ``[batch, steps, hidden]`` from the pass that read the plan.
            labels: ``[batch, seq]``, the token ids that the place before them has to predict, -100 elsewhere. They give
                ``loss`` and no logits.
            use_cache: return the cache.
            logits_to_keep: without labels, the places that get LM logits: a number of last places (0: all), places
                ``[kept]`` of every row, or ``[batch, kept]`` of each row.

        Returns:
            ``DSTSmolVLMOutput``; logits of padding frames and padding steps are 0.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give input_ids or inputs_embeds, and only one of them.")
        if input_ids is not None:
            inputs_embeds = self.joint_embed(input_ids, pixel_values, frame_features)
        elif pixel_values is not None or frame_features is not None:
            raise ValueError("inputs_embeds already hold the frames: give no pixel_values or frame_features with them.")

        kwargs.pop("return_dict", None)
        body = self.model.text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden = body.last_hidden_state
        output = DSTSmolVLMOutput(cache=body.cache, hidden_states=body.hidden_states, attentions=body.attentions)

        if step_positions is not None:
            step_hidden_states = self.read_plan(hidden, step_positions)
        output.step_hidden_states = step_hidden_states
        if frame_positions is not None:
            if step_hidden_states is None:
                raise ValueError(
                    "frame_positions need step_positions, or step_hidden_states of the pass with the plan."
                )
            speaking, update, states = self.read_heads(_gather(hidden, frame_positions), step_hidden_states)
            if not self.training:
                speaking = speaking / self.config.speaking_temperature
                update = update / self.config.dst_update_temperature
            no_frame = (frame_positions < 0).unsqueeze(-1)
            output.speaking_logits = speaking.masked_fill(no_frame, 0.0)
            output.dst_update_logits = update.masked_fill(no_frame, 0.0)
            states = states.masked_fill(no_frame.unsqueeze(-1), 0.0)
            if step_positions is not None:
                states = states.masked_fill((step_positions[..., 1] < 0)[:, None, :, None], 0.0)
            output.dst_state_logits = states

        if labels is not None:
            targets = labels[:, 1:]
            labelled = targets != IGNORE_INDEX
            rows = hidden[:, :-1][labelled]
            # Without labels the sum is 0, but backward still reaches every weight, those of the LM head included.
            output.loss = summed_cross_entropy(self.lm_head, rows, targets[labelled]) / max(len(rows), 1)
        else:
            if isinstance(logits_to_keep, torch.Tensor) and logits_to_keep.dim() == 2:
                kept_hidden = _gather(hidden, logits_to_keep)
            else:
                kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
                kept_hidden = hidden[:, kept]
            output.logits = self.lm_head(kept_hidden)
        return output

    # -- one stream, token by token -------------------------------------------------------------------------------

    @torch.inference_mode()
    def fast_greedy_generate(
        self,
        input_ids: torch.Tensor,
        end_token_id: int,
        cache: Cache | None = None,
        decoding: Decoding | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[list[int], Cache]:
        """Write a text after ``input_ids``, each token passing through the model once.

        The end token is fed too, so that the cache ends with a whole turn. A text contains no frame and no beginning of
        a stream, and it has at least one token.

        Args:
            input_ids: ``[1, seq]``, the tokens to be fed first; they end where the text begins (``Assistant:``).
            end_token_id: ends the text (``processor.end_id``).
            cache: the tokens before ``input_ids``; it grows in place. None: a new one.
            decoding: None: greedy, 40 tokens at most.
            generator: of the sampling, with a temperature.

        Returns:
            the ids of the text without the end token, and the cache.

        Raises:
            ValueError: more than one row; ``StreamBatch`` steps several streams.
        """
        if input_ids.shape[0] != 1:
            raise ValueError(f"fast_greedy_generate takes one stream, not {input_ids.shape[0]}: use a StreamBatch.")
        decoding = decoding or Decoding()
        cache = DynamicCache(config=self.config.text_config) if cache is None else cache
        forbidden = [self.config.image_token_id, self.config.text_config.bos_token_id]
        words: list[int] = []
        ids = input_ids
        while True:
            logits = self._extend(input_ids=ids, cache=cache, logits_to_keep=1).logits
            assert logits is not None
            token = decoding.next_token(
                logits[0, -1], words, decoding.max_new_tokens, end_token_id, forbidden, generator
            )
            ids = torch.tensor([[token]], device=self.device)
            if token == end_token_id:
                self._extend(input_ids=ids, cache=cache, logits_to_keep=1)
                return words, cache
            words.append(token)

    @torch.inference_mode()
    def fast_greedy_generate_with_dst(
        self,
        input_ids: torch.Tensor,
        response_ids: torch.Tensor,
        end_token_id: int,
        frame_positions: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
        step_positions: torch.Tensor | None = None,
        step_hidden_states: torch.Tensor | None = None,
        cache: Cache | None = None,
        decoding: Decoding | None = None,
        generator: torch.Generator | None = None,
    ) -> DSTSmolVLMOutput:
        """Feed frames, read the decisions at each of them, and write a text after the last if the model decides to.

        ``DSTStream`` does this for whole videos, with a tracked table, the user's words and a context that does not
        overflow; this method is one step for loops that do without them.

        Args:
            input_ids: ``[1, seq]``, the tokens to be fed, up to a frame's last token.
            response_ids: ``[1, opening]``, the opening of an utterance (``Assistant:``).
            frame_positions: ``[1, frames]``, the index in ``input_ids`` of each frame's last token.
            pixel_values: ``[frames, 3, height, width]``, or ``frame_features`` ``[frames, tokens, hidden]``.
            step_positions: ``[1, steps, 2]`` where ``input_ids`` hold the plan; else ``step_hidden_states``
                ``[1, steps, hidden]`` of the output of the call that did.
            end_token_id, cache, decoding, generator: as in ``fast_greedy_generate``.

        Returns:
            the heads' logits at the frames, ``step_hidden_states``, ``cache``, and ``sequences``: the ids of the text
            after the last frame, None if p(speak) is below ``config.speaking_threshold`` there.
        """
        output = self._extend(
            input_ids=input_ids,
            pixel_values=pixel_values,
            frame_features=frame_features,
            frame_positions=frame_positions,
            step_positions=step_positions,
            step_hidden_states=step_hidden_states,
            cache=DynamicCache(config=self.config.text_config) if cache is None else cache,
            logits_to_keep=1,
        )
        assert output.speaking_logits is not None
        if float(output.speaking_logits[0, -1].float().softmax(-1)[1]) >= self.config.speaking_threshold:
            output.sequences, output.cache = self.fast_greedy_generate(
                response_ids, end_token_id, output.cache, decoding, generator
            )
        return output

    def _extend(self, input_ids: torch.Tensor, cache: Cache, **inputs: Any) -> DSTSmolVLMOutput:
        """Feed tokens after those of ``cache``; the mask spans both."""
        held = int(cache.get_seq_length()) + input_ids.shape[1]
        mask = torch.ones(1, held, dtype=torch.long, device=input_ids.device)
        output: DSTSmolVLMOutput = self(input_ids=input_ids, cache=cache, attention_mask=mask, use_cache=True, **inputs)
        return output

    # The two imports below close the only circle of these modules, and must stay where they are: saving a checkpoint
    # copies the files that the model's file imports relatively, and no others. Without them a saved folder could
    # neither stream nor serve the pipeline.

    def stream(self, processor: Any, plan: Sequence[str], goal: str = "", **options: Any) -> Any:
        """A ``DSTStream`` that follows a video on this model; ``options`` are those of ``DSTStream``."""
        try:
            from .streaming_dst_smolvlm import DSTStream
        except ImportError:
            from streaming_dst_smolvlm import DSTStream

        return DSTStream(self, processor, plan, goal, **options)

    def stream_pipeline(self, processor: Any) -> Any:
        """A ``DSTStreamPipeline`` on this model, as ``transformers.pipeline("dst-stream", model=...)`` makes it."""
        try:
            from .pipeline_dst_smolvlm import DSTStreamPipeline
        except ImportError:
            from pipeline_dst_smolvlm import DSTStreamPipeline

        return DSTStreamPipeline(model=self, processor=processor, task="dst-stream")

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Frames and the plan belong to the first pass of ``generate``; later passes read them from the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in ("frame_features", "frame_positions", "step_positions"):
                inputs.pop(name, None)
        return inputs


def _gather(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """``hidden`` ``[batch, seq, hidden]`` at ``positions`` ``[batch, n]`` (-1 reads place 0, to be masked)."""
    index = positions.clamp(min=0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, index)


DSTSmolVLMForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["DSTSmolVLMForConditionalGeneration", "DSTSmolVLMOutput", "Decoding"]
