"""The live view in a terminal: step table, last utterances, decisions, speed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from prospect_hf.terminal import visible
from streaming_dst_smolvlm import StreamEvent
from tracking_dst_smolvlm import STATE_NAMES, Deviation

SYMBOLS = ("○", "◐", "●")
COLOURS = ("dim", "yellow", "green")
SPEAKERS = {"user": "cyan", "assistant": "magenta", "plan": "red"}  # "plan": what deviates from it
BAR = 20  # characters
LAST_WORDS = 6
STEPS_SHOWN = 20
FPS_OVER = 40  # the speed is measured over this many frames


class LiveView:
    """Shows a stream while it runs; a context manager.

    On a terminal it redraws one view; elsewhere (a file, a pipe) it prints a line for each utterance and state change.
    Markup in texts has no effect; control characters are shown as codes.

    Args:
        plan: the steps.
        goal: what the user wants to do.
        speaking_threshold, dst_update_threshold: of the stream.
        console: where to draw.
        view: False prints lines on a terminal as well.
    """

    def __init__(
        self,
        plan: Sequence[str],
        goal: str,
        speaking_threshold: float,
        dst_update_threshold: float,
        console: Console | None = None,
        view: bool = True,
    ) -> None:
        self.plan, self.goal = [visible(step) for step in plan], visible(goal)
        self.thresholds = speaking_threshold, dst_update_threshold
        self.console = console or Console()
        self.words: deque[tuple[str, str, str]] = deque(maxlen=LAST_WORDS)
        self.speaking = ""
        self.dropped = self.overflows = 0
        self._event: StreamEvent | None = None  # the last one
        self._times: deque[float] = deque(maxlen=FPS_OVER)
        self._live = Live(console=self.console, refresh_per_second=8) if view and self.console.is_terminal else None

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def hear(self, piece: str) -> None:
        """Show a piece of an utterance that is being generated."""
        self.speaking += piece
        if self._live is not None:
            self._live.update(self._layout())

    def show(self, event: StreamEvent, dropped: int = 0) -> None:
        """Show the event of a frame; ``dropped`` is the number of frames dropped so far."""
        self.speaking, self.dropped = "", dropped
        self._times.append(time.perf_counter())
        self.overflows += event.context is not None
        at = clock(event.time)
        told = [("user", event.user_text)] if event.user_text else []
        told += [("assistant", event.text)] if event.text else []
        told += [("plan", str(deviation)) for deviation in event.deviations]
        self.words.extend((at, who, visible(text)) for who, text in told)
        self._event = event
        if event.plan_change is not None:
            self.plan, self.goal = [visible(step) for step in event.plan_change.plan], visible(event.plan_change.goal)
        if self._live is not None:
            self._live.update(self._layout())
            return
        if event.plan_change is not None:
            kept = sum(place is not None for place in event.plan_change.kept)
            self._line(at, f"plan changed: {len(self.plan)} steps, {kept} kept")
        for move in event.transitions:
            self._line(at, f"step {move.step + 1} {STATE_NAMES[move.after]}: {self.plan[move.step]}")
        for who, text in told:
            self._line(at, f"{who}: {visible(text)}")
        if event.context is not None:
            self._line(
                at, f"context: {event.context.strategy}, {event.context.tokens_before} to {event.context.tokens_after}"
            )

    def end(self, second: float, deviations: Sequence[Deviation]) -> None:
        """Show the deviations from the plan that the end of the video, at ``second``, shows."""
        for deviation in deviations:
            self.words.append((clock(second), "plan", str(deviation)))
            if self._live is None:
                self._line(clock(second), f"plan: {deviation}")
        if self._live is not None:
            self._live.update(self._layout())

    def _line(self, at: str, text: str) -> None:
        self.console.print(Text(f"{at}  {text}"), soft_wrap=True)

    @property
    def fps(self) -> float:
        """Frames a second, over the last ``FPS_OVER`` frames."""
        span = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        return (len(self._times) - 1) / span if span else 0.0

    def _layout(self) -> Group:
        parts: list[RenderableType] = []
        if self._event is not None:
            parts += [self._steps(self._event), self._decisions(self._event)]
        words = Table.grid(padding=(0, 1), expand=True)
        words.add_column(style="dim", no_wrap=True)
        words.add_column(no_wrap=True)
        words.add_column(ratio=1)
        for at, who, text in self.words:
            words.add_row(at, Text(who, style=SPEAKERS[who]), Text(text))
        if self.speaking.strip():
            words.add_row("", Text("assistant", style="magenta"), Text(visible(self.speaking) + " …", style="italic"))
        parts.append(Panel(words, title="last words", title_align="left", border_style="dim"))
        return Group(*parts)

    def _steps(self, event: StreamEvent) -> Panel:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(justify="right", style="dim")
        table.add_column()
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        current = next((step for step, state in enumerate(event.states) if state == 1), 0)
        first = max(0, min(current - STEPS_SHOWN // 2, len(self.plan) - STEPS_SHOWN))
        for step in range(first, min(first + STEPS_SHOWN, len(self.plan))):
            state = event.states[step]
            sure = event.probabilities[step][state]
            table.add_row(
                str(step + 1),
                Text(SYMBOLS[state], style=COLOURS[state]),
                Text(self.plan[step], style=COLOURS[state]),
                Text(STATE_NAMES[state], style=COLOURS[state]),
                f"{sure:.2f}",
            )
        hidden = len(self.plan) - STEPS_SHOWN
        title = Text(self.goal or "plan")
        if hidden > 0:
            title.append(f" (steps {first + 1} to {first + STEPS_SHOWN} of {len(self.plan)})", style="dim")
        return Panel(table, title=title, title_align="left", border_style="dim")

    def _decisions(self, event: StreamEvent) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, value, threshold in (
            ("speak ", event.p_speak, self.thresholds[0]),
            ("update", event.p_update, self.thresholds[1]),
        ):
            table.add_row(name, bar(value, threshold), f"{value:.2f} of {threshold:.2f}")
        facts = f"{clock(event.time)}  frame {event.frame}  {self.fps:.1f} fps  {event.cache_length} tokens cached"
        facts += f"  {self.overflows} restarts" if self.overflows else ""
        facts += f"  {self.dropped} frames dropped" if self.dropped else ""
        table.add_row("", Text(facts, style="dim"), "")
        return table


def bar(value: float, threshold: float) -> Text:
    """A probability as a bar with its threshold marked."""
    filled, mark = round(value * BAR), min(round(threshold * BAR), BAR - 1)
    text = Text("".join("█" if place < filled else "·" for place in range(BAR)))
    text.stylize("green" if value >= threshold else "blue", 0, filled)
    text.stylize("reverse", mark, mark + 1)
    return text


def clock(seconds: float) -> str:
    """Seconds as minutes, seconds and tenths: 12.5 becomes 0:12.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"
