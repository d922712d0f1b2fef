"""The parts of the demo's page as HTML; texts of visitors and of the model are escaped."""

from __future__ import annotations

import base64
import html
import io
from urllib.parse import quote

from PIL import Image

from prospect_hf.streaming.demo.visitor import Shown
from prospect_hf.streaming.frame_sources import video_frames
from prospect_hf.streaming.live_view import SYMBOLS, clock
from tracking_dst_smolvlm import STATE_NAMES

PICTURE = (480, 480)  # pixels of the current picture, at most

STYLE = """
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
.dst { --s0: #d9dde4; --s0ink: #576070; --s1: #f0a92e; --s1ink: #8a5800; --s2: #35a58a; --s2ink: #14705a;
  --speak: #1f5fd0; --update: #8a3fb5; --bad: #b3261e; --soft: #576070; --line: var(--border-color-primary);
  font-size: 14px; line-height: 1.45; color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.dark .dst { --s0: #3a4250; --s0ink: #a3adbd; --s1: #d18f1c; --s1ink: #f5bf5b; --s2: #2a9a7c; --s2ink: #63d3b5;
  --speak: #7db2ff; --update: #d79bf5; --bad: #ff8f85; --soft: #a3adbd; }
.dst .soft, .dst h2, .dst dt, .dst .number { color: var(--soft); }
.dst h1 { font-size: 22px; line-height: 1.25; margin: 4px 0 2px; font-weight: 650; text-wrap: balance; }
.dst h2 { font-size: 13px; font-weight: 600; margin: 0 0 6px; overflow-wrap: anywhere; }
.dst p { margin: 0; }
.dst .card { border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px;
  background: var(--block-background-fill); overflow-wrap: anywhere; }
.dst .status { border-left: 4px solid var(--speak); padding: 8px 12px; }
.dst .status.bad { border-left-color: var(--bad); color: var(--bad); }
.dst .now { display: grid; grid-template-columns: 176px minmax(0, 1fr); gap: 0 20px; align-items: center; }
.dst .picture { grid-row: 1 / 3; position: relative; aspect-ratio: 4 / 3; border-radius: 6px; overflow: hidden;
  display: grid; place-items: center; background: var(--background-fill-secondary); text-align: center; }
.dst .picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; margin: 0; }
.dst .meter { display: grid; grid-template-columns: 72px minmax(0, 1fr) 92px; gap: 10px; align-items: center;
  margin-bottom: 8px; }
.dst .meter .bar { position: relative; height: 12px; border-radius: 6px; background: var(--background-fill-secondary);
  border: 1px solid var(--line); }
.dst .meter .bar i { position: absolute; inset: 0 auto 0 0; border-radius: 5px; opacity: .45; }
.dst .meter.over .bar i { opacity: 1; }
.dst .meter .bar b { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--body-text-color); }
.dst .meter > :last-child { text-align: right; white-space: nowrap; }
.dst dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 6px 12px;
  margin: 0; }
.dst dl div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.dst dt { font-size: 12px; }
.dst dd { margin: 0; font-weight: 600; }
.dst .steps { list-style: none; margin: 0; padding: 0; }
.dst .steps li { display: grid; grid-template-columns: 20px 16px minmax(0, 1fr) 84px 130px 34px; gap: 8px;
  align-items: center; padding: 6px 0; margin: 0; border-top: 1px solid var(--line); }
.dst .steps li:first-child { border-top: 0; }
.dst .number, .dst .sure { text-align: right; }
.dst .state1 .text { font-weight: 600; }
.dst .state0 .ink { color: var(--s0ink); }
.dst .state1 .ink { color: var(--s1ink); }
.dst .state2 .ink { color: var(--s2ink); }
.dst .split { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: var(--s0); }
.dst .split i:nth-child(1) { background: var(--s0); }
.dst .split i:nth-child(2) { background: var(--s1); }
.dst .split i:nth-child(3) { background: var(--s2); }
.dst .talk { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column-reverse;
  max-height: 172px; overflow-y: auto; }
.dst .talk li { display: grid; grid-template-columns: 52px 76px minmax(0, 1fr); gap: 8px; padding: 3px 0; margin: 0; }
.dst .talk .who { font-weight: 600; white-space: nowrap; }
.dst .talk .assistant .who { color: var(--speak); }
.dst .talk .note { color: var(--bad); }
.dst .preview { display: block; width: 100%; max-height: 150px; border-radius: 6px; background: #000; }
.dst .timeline { display: block; width: 100%; height: min(1180px, 92vh); border: 1px solid var(--line);
  border-radius: 8px; }
@media (max-width: 740px) {
  /* Tall enough to be scrolled to the top before there is anything in it. */
  .results { min-height: 100vh; }
  .dst .status { scroll-margin-top: 8px; }
  .dst .card { padding: 8px 10px; }
  .dst .now { grid-template-columns: 104px minmax(0, 1fr); gap: 10px; align-items: start; }
  .dst .picture { grid-row: 1; }
  .dst .meter { grid-template-columns: minmax(0, 1fr) auto; gap: 2px 6px; margin-bottom: 4px; }
  .dst .meter .bar { grid-column: 1 / 3; grid-row: 2; height: 8px; }
  .dst dl { grid-column: 1 / 3; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px 8px; margin-top: 8px; }
  .dst dt { font-size: 11px; line-height: 1.2; }
  .dst .steps li { grid-template-columns: 16px 16px minmax(0, 1fr) 34px; gap: 2px 8px; padding: 4px 0; }
  .dst .steps .name { display: none; }
  .dst .steps .split { grid-column: 3; height: 6px; }
  .dst .steps .sure { grid-column: 4; grid-row: 1; }
  .dst .talk { max-height: 200px; }
  .dst .talk li { grid-template-columns: 52px minmax(0, 1fr); gap: 0 8px; }
  .dst .talk li > :last-child { grid-column: 1 / 3; }
}
"""
# Characters that html.escape keeps and that gradio's templates could read as code.
MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "${}`"})


def escaped(text: str) -> str:
    """``text`` as HTML that shows it unchanged."""
    return html.escape(text).translate(MARKS)


def status_html(message: str, failed: bool = False) -> str:
    """The status line: what the page does, or an error."""
    kind = "card status bad" if failed else "card status"
    return f'<div class="dst"><div class="{kind}" role="status">{escaped(message)}</div></div>'


def preview_html(path: str, fps: float) -> str:
    """A player of an uploaded video; its first picture stands for a format that the browser does not play.

    Raises:
        DataError: the file holds no video.
    """
    frames = video_frames(path, fps)
    first = next(frames, None)
    frames.close()
    poster = ""
    if first is not None:
        assert isinstance(first.frame, Image.Image)
        poster = f'poster="{data_uri(first.frame)}" '
    # Relative: the page may be served below a path.
    address = escaped(f"gradio_api/file={quote(path)}")
    return (
        f'<div class="dst"><video class="preview" controls muted playsinline preload="metadata" {poster}'
        f'src="{address}" aria-label="The chosen video"></video></div>'
    )


def timeline_html(page: str) -> str:
    """A timeline page inside the demo's page: its script runs, and cannot reach the page around it."""
    frame = f'<iframe class="timeline" title="Timeline" sandbox="allow-scripts" srcdoc="{escaped(page)}"></iframe>'
    return f'<div class="dst"><h2>Timeline</h2>{frame}</div>'


def now_html(shown: Shown | None) -> str:
    """The current picture, the two decisions, and the counts and speed of the stream."""
    event = None if shown is None else shown.event
    picture = '<span class="soft">no picture yet</span>'
    meters = _meter("speak"), _meter("update")
    facts = [("time", "–"), ("frames", "–"), ("frames a second", "–"), ("tokens cached", "–")]
    if shown is not None and event is not None:
        if shown.picture is not None:
            picture = f'<img src="{data_uri(shown.picture)}" alt="The picture at {clock(event.time)}">'
        speak, update = shown.thresholds
        meters = _meter("speak", event.p_speak, speak), _meter("update", event.p_update, update)
        facts = [
            ("time", clock(event.time)),
            ("frames", str(shown.frames)),
            ("frames a second", f"{shown.fps:.1f}"),
            ("tokens cached", str(event.cache_length)),
        ]
        facts += [("context restarts", str(shown.restarts))] if shown.restarts else []
        facts += [("frames dropped", str(shown.dropped))] if shown.dropped else []
    numbers = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<div class="dst"><div class="card now"><div class="picture">{picture}</div>'
        f"<div>{''.join(meters)}</div><dl>{numbers}</dl></div></div>"
    )


def _meter(name: str, value: float | None = None, threshold: float = 0.0) -> str:
    """A probability as a bar with its threshold."""
    bar, told, over = "", '<span class="soft">–</span>', False
    if value is not None:
        bar = f'<i style="width:{value:.1%};background:var(--{name})"></i><b style="left:{threshold:.1%}"></b>'
        told, over = f'<span>{value:.2f} <span class="soft">of {threshold:.2f}</span></span>', value >= threshold
    return f'<div class="meter{" over" if over else ""}"><span>p({name})</span><div class="bar">{bar}</div>{told}</div>'


def steps_html(shown: Shown | None) -> str:
    """The tracked table: the state of each step and the state head's probabilities of the three states."""
    if shown is None:
        return card("Steps", '<p class="soft">Not started.</p>')
    event = shown.event
    rows = []
    for number, step in enumerate(shown.plan):
        state, label, parts, sure = 0, "", "", ""
        if event is not None:
            state, row = event.states[number], event.probabilities[number]
            told = ", ".join(f"{name} {value:.2f}" for name, value in zip(STATE_NAMES, row, strict=True))
            label = f' role="img" aria-label="{told}" title="{told}"'
            parts = "".join(f'<i style="width:{value:.1%}"></i>' for value in row)
            sure = f"{row[state]:.2f}"
        rows.append(
            f'<li class="state{state}"><span class="number">{number + 1}</span>'
            f'<span class="ink" aria-hidden="true">{SYMBOLS[state]}</span><span class="text">{escaped(step)}</span>'
            f'<span class="ink name">{STATE_NAMES[state]}</span><div class="split"{label}>{parts}</div>'
            f'<span class="sure">{sure}</span></li>'
        )
    return card(escaped(shown.goal) or "Steps", f'<ol class="steps">{"".join(rows)}</ol>')


def talk_html(shown: Shown | None) -> str:
    """The conversation, with the newest utterance at the bottom."""
    lines = []
    # Newest first: the list is laid out from the bottom up, so that it stays scrolled to its end without a script.
    for seconds, who, text in reversed(shown.words if shown is not None else ()):
        lines.append(
            f'<li class="{who}"><span class="soft">{clock(seconds)}</span><span class="who">{who}</span>'
            f"<span>{escaped(text)}</span></li>"
        )
    told = f'<ol class="talk">{"".join(lines)}</ol>' if lines else '<p class="soft">Nobody has spoken yet.</p>'
    return card("Conversation", told)


def card(title: str, content: str) -> str:
    """A part of the page with a title; ``title`` and ``content`` are HTML."""
    return f'<div class="dst"><div class="card"><h2>{title}</h2>{content}</div></div>'


def data_uri(picture: Image.Image) -> str:
    """The data URI of a picture: a JPEG, shrunk to ``PICTURE``."""
    small = picture.convert("RGB")
    small.thumbnail(PICTURE)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
