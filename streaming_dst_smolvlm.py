"""Following video one frame at a time: decisions, texts, the tracked state, and a context that never overflows.

``DSTStream`` follows one video, ``StreamBatch`` several on one model. What is fed to the model is laid out by the
processor, the same that lays out training clips, and each token passes through the model once: a frame without words
costs one pass of its own tokens. Remote code of the Hub: it imports torch and transformers and nothing of the training
package.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

try:
    from .cache_dst_smolvlm import StreamCache
    from .context_dst_smolvlm import Context, ContextFull, StreamError, make_room
    from .events_dst_smolvlm import StreamEvent, StreamInput, StreamRow, Task
    from .modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
    from .processing_dst_smolvlm import (
        STATE_NAMES,
        SUMMARY_REQUEST,
        DSTSmolVLMProcessor,
        Stream,
        one_line,
        state_text,
    )
    from .tracking_dst_smolvlm import StateTable, Tracking
except ImportError:  # imported as a top-level module of the installed package
    from cache_dst_smolvlm import StreamCache
    from context_dst_smolvlm import Context, ContextFull, StreamError, make_room
    from events_dst_smolvlm import StreamEvent, StreamInput, StreamRow, Task
    from modeling_dst_smolvlm import Decoding, DSTSmolVLMForConditionalGeneration
    from processing_dst_smolvlm import (
        STATE_NAMES,
        SUMMARY_REQUEST,
        DSTSmolVLMProcessor,
        Stream,
        one_line,
        state_text,
    )
    from tracking_dst_smolvlm import StateTable, Tracking

# Tokens that one stream of a batch feeds in a joint pass at most: the others are padded to the longest.
JOINT_TOKENS = 8
END = object()  # of a source; a frame that is None is an error and not the end


class StreamBatch:
    """Several streams on one model, each what it would be alone.

    Args:
        model: in eval mode. Its thresholds are read from the configuration; those of the batch may be set.
        processor: the model's own.
        tasks: one for each stream.
        context: what happens when the context is full, or a strategy's name.
        tracking: how proposals become moves of the table.
        decoding: how texts are written.
        on_text: called with (stream, frame, piece) while an utterance is being written.

    Raises:
        StreamError: a plan without steps, states that are none, or a plan that leaves no room for a frame.
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
    ) -> None:
        if not tasks:
            raise StreamError("There are no tasks: give one for each stream.")
        if model.training:
            raise StreamError("The model is in training mode; call model.eval() before it follows a video.")
        if processor.tokens_per_frame != model.config.stream_tokens:
            raise StreamError(
                f"The processor lays out {processor.tokens_per_frame} tokens a frame, the model reads "
                f"{model.config.stream_tokens}; load both from one folder."
            )
        text_config = model.config.text_config
        if text_config._attn_implementation not in ("sdpa", "eager"):
            raise StreamError(
                f"Streams run on sdpa or eager attention, not on {text_config._attn_implementation}: load the model "
                'with attn_implementation="sdpa".'
            )
        self.model, self.processor, self.on_text = model, processor, on_text
        self.device, self.dtype = model.device, model.dtype  # looked up once: each look-up walks all parameters
        self.context = Context(context) if isinstance(context, str) else context
        self.max_tokens = self.context.limit(text_config.max_position_embeddings)
        self.decoding, self.tracking = decoding or Decoding(), tracking or Tracking()
        self.speaking_threshold = model.config.speaking_threshold
        self.dst_update_threshold = model.config.dst_update_threshold
        # What cannot be said: a frame or a stream's beginning, and an utterance does not end before it has begun.
        self.unsayable = [processor.image_id, processor.bos_id]
        self.cache = StreamCache(len(tasks), text_config.num_hidden_layers)
        self.rows = [self._row(number, task) for number, task in enumerate(tasks)]
        self.step_hidden = torch.zeros(
            len(tasks),
            max(len(task.plan) for task in tasks),
            text_config.hidden_size,
            device=model.device,
            dtype=model.dtype,
        )
        for row in self.rows:
            self.check_room(len(self.prompt(row, row.first_states).input_ids), self._coming(row, []))

    def _row(self, number: int, task: Task) -> StreamRow:
        if not task.plan:
            raise StreamError("The plan is empty: give at least one step.")
        states = [0] * len(task.plan) if task.states is None else list(task.states)
        if len(states) != len(task.plan):
            raise StreamError(f"{len(states)} states for {len(task.plan)} steps.")
        try:
            table = StateTable(states, self.tracking)
        except ValueError as error:
            raise StreamError(str(error)) from error
        seed = number if task.seed is None else task.seed
        generator = torch.Generator(self.model.device).manual_seed(self.decoding.seed + seed)
        return StreamRow(number, task, table, generator, states, self._most(len(states)))

    # -- room -----------------------------------------------------------------------------------------------------

    def held(self, row: StreamRow) -> int:
        """Tokens of a stream, those that wait to be fed included."""
        return self.cache.lengths[row.number] + len(row.pending)

    def check_room(self, held: int, coming: int) -> None:
        """Raise ``ContextFull`` where ``coming`` tokens cannot follow on ``held`` that must be kept."""
        if held + coming > self.max_tokens:
            raise ContextFull(
                f"What must be kept takes {held} tokens and a frame with its texts up to {coming}, more than "
                f"max_tokens={self.max_tokens}: raise it, or shorten the plan, the texts or keep_tokens."
            )

    def _most(self, steps: int) -> tuple[int, int]:
        """Tokens at most of a frame with its state text, for a plan of ``steps``, and of an utterance."""
        state, said = Stream(), Stream()
        longest = max(range(len(STATE_NAMES)), key=lambda number: len(STATE_NAMES[number]))
        self.processor.add_turn(state, "State", state_text(dict.fromkeys(range(steps), longest)))
        self.processor.open(said, "Assistant")
        self.processor.close(said)
        written = len(said.input_ids) + self.decoding.max_new_tokens
        states = len(state.input_ids) if self.tracking.source == "head" else max(len(state.input_ids), written)
        return self.processor.tokens_per_frame + states, written

    def _coming(self, row: StreamRow, user_turn: Sequence[int]) -> int:
        """Tokens that a frame and what follows from it take at most."""
        frame, written = row.most
        return frame + max(written, len(user_turn))

    # -- what goes in ---------------------------------------------------------------------------------------------

    def prompt(self, row: StreamRow, states: Sequence[int], progress: str = "") -> Stream:
        """The opening of a stream."""
        stream, task = Stream(), row.task
        self.processor.add_prompt(stream, task.goal, task.plan, states if task.say_states else None, progress)
        return stream

    def enter(self, prompts: Mapping[int, Stream]) -> None:
        """Feed the prompts of one row, or of all; their rows are empty."""
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

    def _check(self, row: StreamRow, item: StreamInput) -> list[int]:
        """The ids of the user's turn; raises ``StreamError`` for an input that cannot be used."""
        where = f"stream {row.number}, frame {row.frame + 1}"
        if row.phase:
            raise StreamError(
                f"stream {row.number} broke off in the middle of frame {row.frame}; begin anew, or restore a saved one."
            )
        if item.time is not None and not (math.isfinite(item.time) and item.time > row.time):
            raise StreamError(
                f"{where}: time is {item.time} s after {row.time} s; the frames of a stream come in order of time."
            )
        if torch.is_tensor(item.frame):
            expected = [self.processor.tokens_per_frame, self.model.config.text_config.hidden_size]
            if list(item.frame.shape) != expected or not item.frame.is_floating_point():
                raise StreamError(
                    f"{where}: features are {item.frame.dtype} {list(item.frame.shape)}; this model takes {expected}."
                )
            if not bool(item.frame.isfinite().all()):
                raise StreamError(f"{where}: features hold a value that is not finite.")
        if not item.user_text or not one_line(item.user_text):
            return []
        turn = Stream()
        self.processor.add_turn(turn, "User", item.user_text)
        prompt = len(self.prompt(row, row.table.states).input_ids)
        if prompt + len(turn.input_ids) + self._coming(row, turn.input_ids) > self.max_tokens:
            raise StreamError(
                f"{where}: the user's text of {len(item.user_text)} characters takes {len(turn.input_ids)} tokens; "
                f"beside the plan a context of {self.max_tokens} has no room for it: shorten it."
            )
        return turn.input_ids

    def _encode(self, inputs: Mapping[int, StreamInput]) -> dict[int, torch.Tensor]:
        """The features of each stream's frame; pictures are encoded together."""
        pictures = {number: item.frame for number, item in inputs.items() if not torch.is_tensor(item.frame)}
        features = {number: item.frame for number, item in inputs.items() if torch.is_tensor(item.frame)}
        if pictures:
            try:
                # One by one: pictures of several sizes do not stack.
                pixels = torch.cat([self.processor.pixel_values([picture]) for picture in pictures.values()])
            except (AttributeError, TypeError, ValueError, OSError) as error:
                raise StreamError(f"A frame of streams {sorted(pictures)} cannot be used: {error}") from error
            features |= dict(zip(pictures, self.model.encode_frames(pixels.to(self.device)), strict=True))
        return {number: part.to(self.device, self.dtype) for number, part in features.items()}

    def _push(self, inputs: Mapping[int, StreamInput]) -> None:
        """Check the next frames of some streams, encode them, make room and queue them."""
        turns = {number: self._check(self.rows[number], item) for number, item in inputs.items()}
        started = time.perf_counter()
        features = self._encode(inputs)
        vision = time.perf_counter() - started
        if not any(self.cache.lengths):
            self.enter({row.number: self.prompt(row, row.first_states) for row in self.rows})
        room = {}
        for number, turn in turns.items():
            started = time.perf_counter()
            context = make_room(self, self.rows[number], self._coming(self.rows[number], turn))
            room[number] = context, time.perf_counter() - started
        for number, item in inputs.items():
            row = self.rows[number]
            if row.frame == 0 and row.facts["talked"]:
                row.head_length = self.held(row)
            row.frame += 1
            row.time = self._time(row) if item.time is None else float(item.time)
            context, seconds = room[number]
            row.facts = {
                "text": None,
                "user_text": one_line(item.user_text or ""),
                "user_turn": turns[number],
                "transitions": (),
                "rejected": row.table.rejected,
                "latency": {"vision": vision, "decide": 0.0, "write": 0.0, "context": seconds if context else 0.0},
                "context": context,
                "talked": False,
            }
            frame = Stream()
            self.processor.add_frame(frame)
            row.frame_starts.append(self.held(row))
            row.pending.extend(frame.input_ids)
            row.features.extend(features[number])
            row.phase = "frame"

    def _time(self, row: StreamRow) -> float:
        """Seconds of a frame that brings no time: its index tells them, unless earlier frames were told later ones."""
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
        """Feed what waits, as much as suits the batch, and take the answers of the rows that are through with it."""
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
                row.user_turn = []  # heard
        through = [bool(row.phase) and not row.pending for row in chosen]
        decides = [done and row.phase == "frame" for done, row in zip(through, chosen, strict=True)]
        writes = any(done and row.phase != "frame" for done, row in zip(through, chosen, strict=True))
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
            row.facts["latency"]["decide" if row.phase == "frame" else "write"] += seconds
            if decides[index]:
                self._decide(row, heads[0][index][1], heads[1][index][1], heads[2][index][: len(row.task.plan)])
            elif through[index]:
                self._write(row, output.logits[index, 0])

    # -- what comes out -------------------------------------------------------------------------------------------

    def _decide(self, row: StreamRow, p_speak: float, p_update: float, states: Sequence[Sequence[float]]) -> None:
        """Take the heads' answers at the end of a frame."""
        row.facts |= {"p_speak": p_speak, "p_update": p_update, "probabilities": tuple(map(tuple, states))}
        update = p_update >= self.dst_update_threshold
        if self.tracking.source == "text" and update:
            self._open(row, "State")
            return
        self._move(row, row.table.read_head(states) if self.tracking.source == "head" else {}, update)
        self._respond(row)

    def _move(self, row: StreamRow, proposals: Mapping[int, int], update: bool) -> str:
        """Offer proposals to the table, queue the state text of the moves and return it."""
        moves = row.table.propose(proposals, update)
        row.facts["transitions"] = moves
        text = state_text({move.step: move.after for move in moves})
        if moves:
            turn = Stream()
            self.processor.add_turn(turn, "State", text)
            row.pending.extend(turn.input_ids)
        return text

    def _respond(self, row: StreamRow) -> None:
        """After the state: the user's words, or the assistant's."""
        row.user_turn = list(row.facts["user_turn"])
        if row.user_turn:
            row.pending.extend(row.user_turn)
            row.facts["talked"] = True
            self._finish(row)
        elif row.facts["p_speak"] >= self.speaking_threshold:
            row.facts["talked"] = True
            self._open(row, "Assistant")
        else:
            self._finish(row)

    def _open(self, row: StreamRow, role: str, limit: int | None = None) -> None:
        """Begin to write a turn."""
        row.turn_start = self.held(row)
        turn = Stream()
        self.processor.open(turn, "Assistant" if role == "Summary" else role)
        row.pending.extend(turn.input_ids)
        row.phase, row.words, row.shown = role, [], ""
        row.limit = self.decoding.max_new_tokens if limit is None else limit

    def _write(self, row: StreamRow, logits: torch.Tensor) -> None:
        """Take the LM's next token of the text that is being written; the end token goes back into the stream too."""
        end = self.processor.end_id
        banned = self.unsayable if row.words else [*self.unsayable, end]
        token = end
        if len(row.words) < row.limit:
            token = self.decoding.pick(logits, row.words, banned, row.generator)
        if token != end:
            row.words.append(token)
            row.pending.append(token)
            if row.phase == "Assistant" and self.on_text is not None:
                self._show(row, self._text(row.words))
            return
        text, role = self._text(row.words), row.phase
        closing = Stream()
        self.processor.close(closing)
        if role == "Assistant":
            if self.on_text is not None:
                self._show(row, text, whole=True)
            row.facts["text"] = text.strip() or None
            row.pending.extend(closing.input_ids)
            self._finish(row)
        elif role == "State":
            applied = self._move(row, row.table.read_text(text.strip()), update=True)
            if applied == text.strip():
                row.pending = closing.input_ids  # the model's own text stands, so it is not fed again
            else:
                self.cache.truncate(row.number, row.turn_start)  # what the table refused is not to be read later
            self._respond(row)
        else:
            row.facts["summary"] = text
            row.phase = ""

    def _text(self, words: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(words))

    def _show(self, row: StreamRow, text: str, whole: bool = False) -> None:
        """Hand on what is new of an utterance; a character whose bytes are not all there yet waits."""
        assert self.on_text is not None
        if (whole or not text.endswith("\ufffd")) and len(text) > len(row.shown):
            self.on_text(row.number, row.frame, text[len(row.shown) :])
            row.shown = text

    def _finish(self, row: StreamRow) -> None:
        facts, row.phase = row.facts, ""
        row.event = StreamEvent(
            frame=row.frame,
            time=row.time,
            p_speak=facts["p_speak"],
            p_update=facts["p_update"],
            text=facts["text"],
            user_text=facts["user_text"] if facts["user_turn"] else "",
            transitions=facts["transitions"],
            states=tuple(row.table.states),
            probabilities=facts["probabilities"],
            rejected=row.table.rejected - facts["rejected"],
            cache_length=self.cache.lengths[row.number],
            latency=facts["latency"],
            context=facts["context"],
        )

    def write_summary(self, row: StreamRow, limit: int) -> str:
        """The model's summary of a stream, ``limit`` tokens at most; the stream is as it was afterwards, but fed."""
        request = Stream()
        fed = self.held(row)
        self.processor.add_turn(request, "User", SUMMARY_REQUEST)
        facts, user_turn = row.facts, row.user_turn
        row.facts = {"latency": {"write": 0.0}}
        row.pending.extend(request.input_ids)
        self._open(row, "Summary", limit)
        while row.phase:
            self._pass()
        summary = row.facts["summary"].replace("\ufffd", "").strip()
        row.facts, row.user_turn, row.pending = facts, user_turn, []
        self.cache.truncate(row.number, fed)
        return str(summary)

    # -- stepping -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(
        self,
        frames: Sequence[Any],
        user_texts: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
    ) -> list[StreamEvent | None]:
        """Show each stream its next frame, None to leave one out, and return what came of it.

        Raises:
            StreamError: an input that cannot be used, or no room; no stream has taken a frame then.
        """
        count = len(self.rows)
        texts, seconds = user_texts or [None] * count, times or [None] * count
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
        """Follow each stream's frames (or ``StreamInput``) to their end, none waiting for another's words to end.

        Yields:
            (stream, event), each stream's in order.
        """
        if len(sources) != len(self.rows):
            raise StreamError(f"{len(sources)} sources for {len(self.rows)} streams: one each.")
        waiting = {number: iter(source) for number, source in enumerate(sources)}
        while True:
            inputs = {}
            for number in [number for number in waiting if not self.rows[number].phase]:
                item = next(waiting[number], END)
                if item is END:
                    del waiting[number]
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
        goal: what the user is after.
        states: the steps' states before the first frame; all not started where not given.
        context: what happens when the context is full, or a strategy's name.
        tracking: how proposals become moves of the table.
        decoding: how texts are written.
        on_text: called with (frame, piece) while an utterance is being written.

    ``batch`` is the stream as a batch of one; thresholds may be set there.

    Raises:
        StreamError: a plan without steps, states that are none, or a plan that leaves no room for a frame.
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
    ) -> None:
        hand_on = None if on_text is None else lambda _, frame, piece: on_text(frame, piece)
        task = Task(plan, goal, states)
        self.batch = StreamBatch(model, processor, [task], context, tracking, decoding, hand_on)

    @property
    def states(self) -> tuple[int, ...]:
        """``[steps]``, the tracked table."""
        return tuple(self.batch.rows[0].table.states)

    @property
    def cache_length(self) -> int:
        """Tokens in the KV cache."""
        return self.batch.cache.lengths[0]

    def step(self, frame: Any, user_text: str | None = None, time: float | None = None) -> StreamEvent:
        """Show the next frame and return what came of it.

        Args:
            frame: a picture (PIL, or a uint8 RGB array ``[height, width, 3]``), or features ``[tokens, hidden]``.
            user_text: what the user says on it; the assistant does not speak on that frame.
            time: seconds of the video; ``frame index / config.fps`` where not given.

        Raises:
            StreamError: an input that cannot be used, or no room; the stream is as it was and goes on.
        """
        if frame is None:
            raise StreamError("The frame is None: give a picture or features.")
        (event,) = self.batch.step([frame], [user_text], [time])
        assert event is not None
        return event

    def run(self, frames: Iterable[Any]) -> Iterator[StreamEvent]:
        """Follow ``frames`` (or ``StreamInput``) to their end."""
        for item in frames:
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
