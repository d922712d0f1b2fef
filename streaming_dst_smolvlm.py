"""Following video one frame at a time: decisions, texts, the tracked state, and a context that never overflows.

``DSTStream`` follows one video, ``StreamBatch`` several on one model. The processor that lays out training clips also
lays out what is fed to the model here, and each token passes through the model once: a frame on which nobody speaks and
nothing changes costs one pass over its own tokens. Remote code of the Hub: it imports torch and transformers and
nothing of the training package.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

try:
    from .cache_dst_smolvlm import StreamCache, cut
    from .context_dst_smolvlm import Context, ContextFull, StreamError
    from .decoding_dst_smolvlm import Decoding
    from .events_dst_smolvlm import ContextEvent, FrameFacts, StreamEvent, StreamInput, StreamRow, Task
    from .inputs_dst_smolvlm import check_input, check_model, check_settings, encode_frames, frames_of, listed
    from .processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
    from .room_dst_smolvlm import Cut, Restart, check_room, first_table, plan_room, replan
    from .tracking_dst_smolvlm import Deviation, Tracking
    from .turns_dst_smolvlm import Turns
except ImportError:  # imported as a top-level module of the installed package
    from cache_dst_smolvlm import StreamCache, cut
    from context_dst_smolvlm import Context, ContextFull, StreamError
    from decoding_dst_smolvlm import Decoding
    from events_dst_smolvlm import ContextEvent, FrameFacts, StreamEvent, StreamInput, StreamRow, Task
    from inputs_dst_smolvlm import check_input, check_model, check_settings, encode_frames, frames_of, listed
    from processing_dst_smolvlm import DSTSmolVLMProcessor, Stream, one_line
    from room_dst_smolvlm import Cut, Restart, check_room, first_table, plan_room, replan
    from tracking_dst_smolvlm import Deviation, Tracking
    from turns_dst_smolvlm import Turns

if TYPE_CHECKING:
    from .modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration

# Tokens of one stream in a joint pass at most: the other streams are padded to the longest.
JOINT_TOKENS = 8
END = object()  # the end of a source; a frame that is None is an error


class StreamBatch:
    """Several streams on one model; each gives what it would give alone.

    Args:
        model: in eval mode.
        processor: the model's own.
        tasks: one for each stream.
        context: what happens when the context is full, or a strategy's name.
        tracking: how proposals change the table.
        decoding: how texts are written.
        on_text: called with (stream, frame, piece) while an utterance is being written.
        speaking_threshold, dst_update_threshold: of the decisions; None: those of the model's configuration.

    Raises:
        StreamError: a plan without steps, invalid states, or a plan that leaves no room for a frame.
    """

    def __init__(
        self,
        model: DSTSmolVLMForConditionalGeneration,
        processor: DSTSmolVLMProcessor,
        tasks: Sequence[Task],
        context: Context | str = "summarize_with_dst",
        tracking: Tracking | None = None,
        decoding: Decoding | None = None,
        on_text: Callable[[int, int, str], None] | None = None,
        speaking_threshold: float | None = None,
        dst_update_threshold: float | None = None,
    ) -> None:
        tasks = listed(tasks, "The tasks")
        if not tasks:
            raise StreamError("There are no tasks: give one for each stream.")
        self.model, self.processor = model, processor
        self.device, self.dtype = model.device, model.dtype  # looked up once: each look-up walks all parameters
        self.context = Context(context) if isinstance(context, str) else context
        self.decoding = Decoding() if decoding is None else decoding
        self.tracking = Tracking() if tracking is None else tracking
        check_settings(context=self.context, decoding=self.decoding, tracking=self.tracking, on_text=on_text)
        check_model(model, processor, self.tracking)
        text_config = model.config.text_config
        self.max_tokens = self.context.limit(text_config.max_position_embeddings)
        self.cache = StreamCache(len(tasks), text_config.num_hidden_layers)
        self.turns = Turns(
            processor,
            self.cache,
            self.tracking,
            self.decoding,
            model.config.speaking_threshold if speaking_threshold is None else speaking_threshold,
            model.config.dst_update_threshold if dst_update_threshold is None else dst_update_threshold,
            on_text,
        )
        self.rows: list[StreamRow] = []
        for number, task in enumerate(tasks):
            table = first_table(task, self.tracking)
            generator = torch.Generator(self.device)
            generator.manual_seed(self.decoding.seed + (number if task.seed is None else task.seed))
            row = StreamRow(number, task, table, generator, list(table.states), self.turns.most(len(table.states)))
            check_room(len(task.prompt(processor, table.states).input_ids), row.coming([]), self.max_tokens)
            self.rows.append(row)
        shape = len(tasks), max(len(task.plan) for task in tasks), text_config.hidden_size
        self.step_hidden = torch.zeros(shape, device=self.device, dtype=self.dtype)

    @property
    def speaking_threshold(self) -> float:
        """The assistant speaks on a frame where p(speak) is at least this."""
        return self.turns.speaking_threshold

    @property
    def dst_update_threshold(self) -> float:
        """The table is updated on a frame where p(update) is at least this."""
        return self.turns.dst_update_threshold

    # -- plan -----------------------------------------------------------------------------------------------------

    def change_plan(self, number: int, steps: Sequence[str], goal: str | None = None) -> None:
        """Change the plan of stream ``number`` before its next frame; see ``DSTStream.change_plan``."""
        if type(number) is not int or not 0 <= number < len(self.rows):
            raise StreamError(f"There is no stream {number!r}: the streams are 0 to {len(self.rows) - 1}.")
        replan(self.rows[number], steps, goal, self.processor, self.turns.most, self.max_tokens)
        self.cache.truncate(number, 0)  # the new prompt is fed with the next frame
        kept, longest = self.step_hidden, max(len(row.task.plan) for row in self.rows)
        self.step_hidden = kept.new_zeros(kept.shape[0], longest, kept.shape[2])
        self.step_hidden[:, : kept.shape[1]] = kept[:, :longest]

    # -- room -----------------------------------------------------------------------------------------------------

    def held(self, row: StreamRow) -> int:
        """Tokens of a stream: those in the cache and those to be fed."""
        return self.turns.held(row)

    def _plan_room(self, row: StreamRow, user_turn: Sequence[int]) -> Cut | Restart | None:
        """How room is made for the next frame; raises ``ContextFull`` where it cannot be."""
        return plan_room(
            self.context,
            self.max_tokens,
            self.processor,
            row,
            self.cache.lengths[row.number],
            row.coming(user_turn),
            lambda: self.write_summary(row, self.context.summary_tokens),
        )

    def _make_room(self, row: StreamRow, plan: Cut | Restart) -> ContextEvent:
        before, summary = self.held(row), ""
        if isinstance(plan, Cut):
            cut(self.cache, plan.begin, plan.end, self.model.model.text_model.rotary_emb, row.number)
            removed = plan.end - plan.begin
            row.frame_starts = deque(place - removed for place in row.frame_starts if place >= plan.end)
        else:
            summary = plan.summary
            # The pending tokens belong to turns that are dropped, except the user's words, which were not read yet.
            row.pending = list(row.user_turn)
            self.cache.truncate(row.number, 0)
            self._enter({row.number: plan.prompt})
        return ContextEvent(self.context.strategy, before, self.held(row), summary)

    def write_summary(self, row: StreamRow, limit: int) -> str:
        """Let the model summarise a stream in at most ``limit`` tokens.

        The stream holds the same tokens afterwards; those that were pending are in the cache then.
        """
        held, facts, user_turn = self.held(row), row.facts, row.user_turn
        row.facts = FrameFacts()
        self.turns.ask_summary(row, limit)
        while row.phase:
            self._pass()
        summary = (row.facts.text or "").replace("\ufffd", "").strip()
        row.facts, row.user_turn, row.pending = facts, user_turn, []
        self.cache.truncate(row.number, held)
        return summary

    # -- input ----------------------------------------------------------------------------------------------------

    def _enter(self, prompts: Mapping[int, Stream]) -> None:
        """Feed the prompts of one row, or of all rows; these rows are empty."""
        rows = slice(0, len(self.rows)) if len(prompts) == len(self.rows) else slice(min(prompts), min(prompts) + 1)
        counts = [len(prompt.input_ids) for prompt in prompts.values()]
        steps = max(len(prompt.step_positions) for prompt in prompts.values())
        positions = torch.full((len(prompts), steps, 2), -1)
        for index, prompt in enumerate(prompts.values()):
            positions[index, : len(prompt.step_positions)] = torch.tensor(prompt.step_positions)
        output = self._forward(
            rows, [prompt.input_ids for prompt in prompts.values()], [], step_positions=positions.to(self.device)
        )
        self.step_hidden[rows, :steps] = output.step_hidden_states
        for number, count in zip(prompts, counts, strict=True):
            self.rows[number].head_length = count
            self.rows[number].frame_starts.clear()

    def _push(self, inputs: Mapping[int, StreamInput]) -> None:
        """Check the next frames of some streams, encode them, make room and queue them.

        Nothing is dropped from any stream before all of them have accepted their frames.
        """
        hidden = self.model.config.text_config.hidden_size
        turns = {
            number: check_input(self.rows[number], item, self.processor, hidden, self.max_tokens)
            for number, item in inputs.items()
        }
        started = time.perf_counter()
        features = encode_frames(self.model, self.processor, {number: item.frame for number, item in inputs.items()})
        vision = time.perf_counter() - started
        empty = [row for row in self.rows if not self.cache.lengths[row.number]]
        prompts = {row.number: row.task.prompt(self.processor, row.first_states) for row in empty}
        for part in [prompts] if len(empty) == len(self.rows) else [{number: prompts[number]} for number in prompts]:
            self._enter(part)
        plans: dict[int, tuple[Cut | Restart | None, float]] = {}
        for number, turn in turns.items():
            started = time.perf_counter()
            plan = self._plan_room(self.rows[number], turn)
            plans[number] = plan, time.perf_counter() - started
        for number, item in inputs.items():
            row, (plan, seconds) = self.rows[number], plans[number]
            started = time.perf_counter()
            context = None if plan is None else self._make_room(row, plan)
            seconds += time.perf_counter() - started
            if row.frame == row.opened and row.facts.talked:
                row.head_length = self.held(row)
            row.frame += 1
            row.time = self._time(row) if item.time is None else float(item.time)
            row.facts = FrameFacts(
                user_text=one_line(item.user_text or ""),
                user_turn=turns[number],
                rejected_before=row.table.rejected,
                context=context,
                plan_change=row.plan_change,
            )
            row.plan_change = None
            row.facts.latency |= {"vision": vision, "context": seconds if context else 0.0}
            frame = Stream()
            self.processor.add_frame(frame)
            row.frame_starts.append(self.held(row))
            row.pending.extend(frame.input_ids)
            row.features.extend(features[number].to(self.device, self.dtype))
            row.phase = "frame"

    def _time(self, row: StreamRow) -> float:
        """Seconds of a frame that came without a time: index / fps, but always after the frame before it."""
        fps = self.model.config.fps
        return row.frame / fps if row.frame / fps > row.time else row.time + 1 / fps

    # -- passes ---------------------------------------------------------------------------------------------------

    def _forward(
        self, rows: slice, ids: Sequence[Sequence[int]], features: Sequence[torch.Tensor], **reads: Any
    ) -> Any:
        """One pass that feeds ``ids`` (one list a row, padded here) with ``features`` ``[hidden]`` at the frames."""
        counts = [len(part) for part in ids]
        device, width = self.device, max(counts)
        pad = self.processor.tokenizer.pad_token_id
        padded = torch.tensor([[*part, *[pad] * (width - len(part))] for part in ids], device=device)
        positions, mask = self.cache.begin(rows, counts, device)
        if mask is not None and self.model.config.text_config._attn_implementation == "eager":
            mask = torch.zeros(mask.shape, device=device, dtype=self.dtype).masked_fill(~mask, -torch.inf)
        reads.setdefault("logits_to_keep", torch.zeros(len(counts), 0, dtype=torch.long, device=device))
        output = self.model(
            input_ids=padded,
            frame_features=torch.stack(list(features))[:, None] if features else None,
            attention_mask=mask,
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            **reads,
        )
        self.cache.commit()
        return output

    def _pass(self) -> None:
        """Run one forward pass over the pending tokens, then process the rows whose queue is empty.

        Of several active rows, each feeds at most ``JOINT_TOKENS``.
        """
        active = [row for row in self.rows if row.phase]
        if len(active) == 1:
            rows, most = slice(active[0].number, active[0].number + 1), len(active[0].pending)
        else:
            rows, most = slice(0, len(self.rows)), JOINT_TOKENS
        started = time.perf_counter()
        chosen = self.rows[rows]
        fed = [row.pending[:most] if row.phase else [] for row in chosen]
        features: list[torch.Tensor] = []
        for row, ids in zip(chosen, fed, strict=True):
            features.extend(row.features.popleft() for _ in range(ids.count(self.processor.image_id)))
            del row.pending[: len(ids)]
            if len(row.pending) < len(row.user_turn):
                row.user_turn = []  # the model has read it
        empty = [bool(row.phase) and not row.pending for row in chosen]
        decides = [done and row.phase == "frame" for done, row in zip(empty, chosen, strict=True)]
        writes = any(done and row.phase != "frame" for done, row in zip(empty, chosen, strict=True))
        last = torch.tensor([[max(len(ids) - 1, 0)] for ids in fed], device=self.device)
        reads: dict[str, Any] = {"logits_to_keep": last} if writes else {}
        if any(decides):
            reads["frame_positions"] = last
            reads["step_hidden_states"] = self.step_hidden[rows]
        output = self._forward(rows, fed, features, **reads)
        if any(decides):
            heads = [
                logits[:, 0].float().softmax(-1).tolist()
                for logits in (output.speaking_logits, output.dst_update_logits, output.dst_state_logits)
            ]
        seconds = time.perf_counter() - started
        for index, row in enumerate(chosen):
            if not row.phase:
                continue
            row.facts.latency["decide" if row.phase == "frame" else "write"] += seconds
            if decides[index]:
                p_speak, p_update = heads[0][index][1], heads[1][index][1]
                self.turns.decide(row, p_speak, p_update, heads[2][index][: len(row.task.plan)])
            elif empty[index]:
                self.turns.write(row, output.logits[index, 0])

    # -- stepping -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(
        self,
        frames: Sequence[Any],
        user_texts: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
    ) -> list[StreamEvent | None]:
        """Show each stream its next frame and return one event a stream; None leaves a stream out.

        Raises:
            StreamError: an input that cannot be used, or no room; no stream has taken a frame then.
        """
        count = len(self.rows)
        frames = listed(frames, "The frames")
        texts = [None] * count if user_texts is None else listed(user_texts, "The user's texts")
        seconds = [None] * count if times is None else listed(times, "The times")
        if not len(frames) == len(texts) == len(seconds) == count:
            raise StreamError(f"{count} streams take {count} frames, user texts and times, None where there is none.")
        self._push(
            {
                number: StreamInput(frame, text, second)
                for number, (frame, text, second) in enumerate(zip(frames, texts, seconds, strict=True))
                if frame is not None
            }
        )
        while any(row.phase for row in self.rows):
            self._pass()
        return [self._take(row) for row in self.rows]

    @torch.inference_mode()
    def run(self, sources: Sequence[Iterable[Any]]) -> Iterator[tuple[int, StreamEvent]]:
        """Follow each stream's frames (or ``StreamInput``) to their end; no stream waits for another's texts.

        Yields:
            (stream, event), each stream's in order.
        """
        sources = listed(sources, "The sources")
        if len(sources) != len(self.rows):
            raise StreamError(f"{len(sources)} sources for {len(self.rows)} streams: one each.")
        open_sources = {number: frames_of(source) for number, source in enumerate(sources)}
        while True:
            inputs = {}
            for number in [number for number in open_sources if not self.rows[number].phase]:
                item = next(open_sources[number], END)
                if item is END:
                    del open_sources[number]
                else:
                    inputs[number] = item if isinstance(item, StreamInput) else StreamInput(item)
            if inputs:
                self._push(inputs)
            if not any(row.phase for row in self.rows):
                return
            self._pass()
            for row in self.rows:
                event = self._take(row)
                if event is not None:
                    yield row.number, event

    def _take(self, row: StreamRow) -> StreamEvent | None:
        event, row.event = row.event, None
        return event


class DSTStream:
    """One video, followed frame by frame.

    Example::

        stream = DSTStream(model, processor, plan=["Attach the wheels.", "Attach the roof."], goal="Assemble the toy")
        for event in stream.run(frames):  # two a second
            print(event.time, event.states, event.text)

    Args:
        model, processor: of one folder; the model in eval mode.
        plan: the steps.
        goal: what the user wants to achieve.
        states: the steps' states before the first frame; None: all are not started.
        on_text: called with (frame, piece) while an utterance is being written.
        context, tracking, decoding, speaking_threshold, dst_update_threshold: as in ``StreamBatch``.

    ``batch`` is the stream as a batch of one.

    Raises:
        StreamError: a plan without steps, invalid states, or a plan that leaves no room for a frame.
    """

    def __init__(
        self,
        model: DSTSmolVLMForConditionalGeneration,
        processor: DSTSmolVLMProcessor,
        plan: Sequence[str],
        goal: str = "",
        states: Sequence[int] | None = None,
        context: Context | str = "summarize_with_dst",
        tracking: Tracking | None = None,
        decoding: Decoding | None = None,
        on_text: Callable[[int, str], None] | None = None,
        speaking_threshold: float | None = None,
        dst_update_threshold: float | None = None,
    ) -> None:
        check_settings(on_text=on_text)
        of_batch = None if on_text is None else lambda _, frame, piece: on_text(frame, piece)
        self.batch = StreamBatch(
            model,
            processor,
            [Task(plan, goal, states)],
            context,
            tracking,
            decoding,
            of_batch,
            speaking_threshold,
            dst_update_threshold,
        )

    @property
    def states(self) -> tuple[int, ...]:
        """``[steps]``, the tracked table."""
        return tuple(self.batch.rows[0].table.states)

    def deviations_at_end(self) -> tuple[Deviation, ...]:
        """What deviates from the plan if the video ends here (skipped, unfinished); the stream may still go on."""
        return self.batch.rows[0].table.deviations.at_end()

    @property
    def cache_length(self) -> int:
        """Tokens in the KV cache."""
        return self.batch.cache.lengths[0]

    def step(self, frame: Any, user_text: str | None = None, time: float | None = None) -> StreamEvent:
        """Show the next frame and return its event.

        Args:
            frame: a picture (PIL, or a uint8 RGB array ``[height, width, 3]``), or features ``[tokens, hidden]``.
            user_text: what the user says on it; the assistant does not speak on that frame.
            time: seconds of the video; None: ``frame index / config.fps``.

        Raises:
            StreamError: an input that cannot be used, or no room; the stream is unchanged and can go on.
        """
        if frame is None:
            raise StreamError("The frame is None: give a picture or features.")
        (event,) = self.batch.step([frame], [user_text], [time])
        assert event is not None
        return event

    def change_plan(self, steps: Sequence[str], goal: str | None = None) -> None:
        """Change the plan before the next frame; the first one may be still to come.

        A step whose text stays keeps its state, wherever it is; equal texts are kept in their order. A new step is not
        started. From the next frame on, the stream is one that was opened with the new plan in these states; words of
        the user that were not read yet are kept, and the drawing of texts goes on.

        Args:
            steps: the new plan.
            goal: what the user wants to achieve from now on; None: the goal stays.

        Raises:
            StreamError: a plan without steps or with an empty one, texts that cannot be used, no room for a frame, or a
                stream in the middle of a frame; the stream is unchanged and can go on.
        """
        self.batch.change_plan(0, steps, goal)

    def run(self, frames: Iterable[Any]) -> Iterator[StreamEvent]:
        """Follow ``frames`` (or ``StreamInput``) to their end."""
        for item in frames_of(frames):
            given = item if isinstance(item, StreamInput) else StreamInput(item)
            yield self.step(given.frame, given.user_text, given.time)


__all__ = [
    "Context",
    "ContextFull",
    "DSTStream",
    "Decoding",
    "StreamBatch",
    "StreamError",
    "StreamEvent",
    "StreamInput",
    "Task",
    "Tracking",
]
