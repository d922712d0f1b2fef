"""The turns of a stream: what is written and read after a frame.

After the decisions of a frame come the state text, then the user's words or the assistant's response. ``Turns`` takes
the model's answers, changes the table, and queues in ``StreamRow.pending`` what the next passes feed. It runs no pass
itself. Remote code of the Hub: it imports torch and transformers and nothing of the training package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

try:
    from .cache_dst_smolvlm import StreamCache
    from .decoding_dst_smolvlm import Decoding
    from .events_dst_smolvlm import StreamEvent, StreamRow
    from .inputs_dst_smolvlm import number_of
    from .processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text
    from .tracking_dst_smolvlm import STATE_NAMES, Tracking
except ImportError:  # imported as a top-level module of the installed package
    from cache_dst_smolvlm import StreamCache
    from decoding_dst_smolvlm import Decoding
    from events_dst_smolvlm import StreamEvent, StreamRow
    from inputs_dst_smolvlm import number_of
    from processing_dst_smolvlm import SUMMARY_REQUEST, DSTSmolVLMProcessor, Stream, state_text
    from tracking_dst_smolvlm import STATE_NAMES, Tracking


class Turns:
    """Writes and reads the turns of the streams of one batch.

    Args:
        processor: lays out the turns.
        cache: of the streams; a state text that the table refuses is removed from it.
        tracking: how proposals change the table.
        decoding: how texts are written.
        speaking_threshold: the assistant speaks on a frame where p(speak) is at least this.
        dst_update_threshold: proposals are heard on a frame where p(update) is at least this.
        on_text: called with (stream, frame, piece) while an utterance is being written.
    """

    def __init__(
        self,
        processor: DSTSmolVLMProcessor,
        cache: StreamCache,
        tracking: Tracking,
        decoding: Decoding,
        speaking_threshold: float,
        dst_update_threshold: float,
        on_text: Callable[[int, int, str], None] | None,
    ) -> None:
        self.processor, self.cache = processor, cache
        self.tracking, self.decoding = tracking, decoding
        self.speaking_threshold = number_of(speaking_threshold, "speaking_threshold")
        self.dst_update_threshold = number_of(dst_update_threshold, "dst_update_threshold")
        self.on_text = on_text
        # A text contains no frame and no beginning of a stream.
        self.forbidden = [processor.image_id, processor.bos_id]

    def held(self, row: StreamRow) -> int:
        """Tokens of a stream: those in the cache and those to be fed."""
        return self.cache.lengths[row.number] + len(row.pending)

    def most(self, steps: int) -> tuple[int, int]:
        """Upper bounds in tokens, for a plan of ``steps``: of a frame with its state text, and of an utterance."""
        state, said = Stream(), Stream()
        longest = max(range(len(STATE_NAMES)), key=lambda number: len(STATE_NAMES[number]))
        self.processor.add_state(state, dict.fromkeys(range(steps), longest))
        self.processor.open(said, "Assistant")
        self.processor.close(said)
        written = len(said.input_ids) + self.decoding.max_new_tokens
        states = len(state.input_ids) if self.tracking.source == "head" else max(len(state.input_ids), written)
        return self.processor.tokens_per_frame + states, written

    def decide(self, row: StreamRow, p_speak: float, p_update: float, states: Sequence[Sequence[float]]) -> None:
        """Take the heads' answers at the end of a frame; ``states`` are probabilities ``[steps][3]``."""
        row.facts.p_speak, row.facts.p_update = p_speak, p_update
        row.facts.probabilities = tuple(map(tuple, states))
        update = p_update >= self.dst_update_threshold
        if self.tracking.source == "text" and update:
            self.open(row, "State", self.decoding.max_new_tokens)
            return
        self._move(row, row.table.read_head(states) if self.tracking.source == "head" else {}, update)
        self._respond(row)

    def open(self, row: StreamRow, role: str, limit: int) -> None:
        """Begin to write a ``State``, ``Assistant`` or ``Summary`` text of at most ``limit`` tokens."""
        row.turn_start = self.held(row)
        turn = Stream()
        self.processor.open(turn, "Assistant" if role == "Summary" else role)
        row.pending.extend(turn.input_ids)
        row.phase, row.words, row.shown, row.limit = role, [], "", limit

    def ask_summary(self, row: StreamRow, limit: int) -> None:
        """Queue the request for a summary of at most ``limit`` tokens; when written, it is in ``facts.text``."""
        request = Stream()
        self.processor.add_turn(request, "User", SUMMARY_REQUEST)
        row.pending.extend(request.input_ids)
        self.open(row, "Summary", limit)

    def write(self, row: StreamRow, logits: torch.Tensor) -> None:
        """Take the LM's logits ``[vocab]`` for the next token of the text that is being written."""
        end = self.processor.end_id
        token = self.decoding.next_token(logits, row.words, row.limit, end, self.forbidden, row.generator)
        if token == end:
            self._close(row)
            return
        row.words.append(token)
        row.pending.append(token)
        if row.phase == "Assistant" and self.on_text is not None:
            self._show(row, self._text(row), whole=False)

    def _close(self, row: StreamRow) -> None:
        """End the text that is being written; its end token goes back into the stream too."""
        text, role = self._text(row), row.phase
        closing = Stream()
        self.processor.close(closing)
        if role == "Assistant":
            self._show(row, text, whole=True)
            row.facts.text = text.strip() or None
            row.pending.extend(closing.input_ids)
            self._finish(row)
        elif role == "State":
            applied = self._move(row, row.table.read_text(text.strip()), update=True)
            if applied == text.strip():
                row.pending = closing.input_ids  # the model's own text stands, so it is not fed again
            else:
                self.cache.truncate(row.number, row.turn_start)  # the model must not read what the table refused
            self._respond(row)
        else:
            row.facts.text = text
            row.phase = ""

    def _move(self, row: StreamRow, proposals: Mapping[int, int], update: bool) -> str:
        """Offer proposals to the table; queue the state text of the changes, and return it."""
        moves = row.table.propose(proposals, update)
        row.facts.transitions = moves
        changes = {move.step: move.after for move in moves}
        turn = Stream()
        self.processor.add_state(turn, changes)
        row.pending.extend(turn.input_ids)
        return state_text(changes)

    def _respond(self, row: StreamRow) -> None:
        """After the state text: the user's words, or the assistant's response."""
        row.user_turn = list(row.facts.user_turn)
        if row.user_turn:
            row.pending.extend(row.user_turn)
            row.facts.talked = True
            self._finish(row)
        elif row.facts.p_speak >= self.speaking_threshold:
            row.facts.talked = True
            self.open(row, "Assistant", self.decoding.max_new_tokens)
        else:
            self._finish(row)

    def _finish(self, row: StreamRow) -> None:
        """End the frame: its facts become an event."""
        facts, row.phase = row.facts, ""
        row.event = StreamEvent(
            frame=row.frame,
            time=row.time,
            p_speak=facts.p_speak,
            p_update=facts.p_update,
            text=facts.text,
            user_text=facts.user_text if facts.user_turn else "",
            transitions=facts.transitions,
            states=tuple(row.table.states),
            probabilities=facts.probabilities,
            rejected=row.table.rejected - facts.rejected_before,
            cache_length=self.cache.lengths[row.number],
            latency=facts.latency,
            context=facts.context,
            deviations=row.table.deviations.see(row.table.states),
            plan_change=facts.plan_change,
        )

    def _text(self, row: StreamRow) -> str:
        return str(self.processor.tokenizer.decode(row.words))

    def _show(self, row: StreamRow, text: str, whole: bool) -> None:
        """Give ``on_text`` what is new of an utterance, but no character whose bytes are not all written yet."""
        if self.on_text is None or len(text) <= len(row.shown):
            return
        if whole or not text.endswith("\ufffd"):
            self.on_text(row.number, row.frame, text[len(row.shown) :])
            row.shown = text


__all__ = ["Turns"]
