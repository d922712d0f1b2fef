/*
The timeline of one session, for any page: steps over time, decisions, utterances, one selected frame.

  SessionTimeline.draw(root, session, options) -> timeline

root: an element that is on the page; its content is replaced. It may be hidden: the timeline is drawn once it has a
width. Several may be on one page.

session: plain data. Frames count from 0; `first_frame` only moves the clock and the numbers that are shown.
  id                string, for screen readers
  frames            number of frames, at least 1
  fps               frames per second
  first_frame       number shown for frame 0
  steps             [text, ...]
  stretches         of each step the frames in which it is in the plan, [[from, to, number], ...], `to` exclusive; null or
                    absent: every step is in the plan, with its place as its number
  predicted_states  [[frame, step, state], ...] changes of the predicted table, in any order; before its first change a
                    step is 0 (not started); state is 0, 1 (in progress) or 2 (completed)
  reference_states  the same for the reference, or null where there are no state labels
  deviations        [[frame, step, words], ...] where the predicted table leaves the order of the plan, in order of frames;
                    may be left out
  reference_deviations  the same for the reference; null where there are no state labels; may be left out
  p_speak, p_update one number a frame, or [] where there are no probabilities
  said              utterances of the assistant, in order of frames
  reference         utterances of the reference, in order of frames, or null where there is no reference
  user              utterances of the user, in order of frames
  An utterance is {frame, text} and optionally
    verdict  "exact", "matched" or "wrong" (paired with an utterance of the other side), "redundant" (of the assistant,
             not paired), "missed" (of the reference, not paired); null or absent: not compared
    pair     in `said`: index in `reference` of the utterance it is paired with; the list shows both in one row
    words    [[piece, differs], ...]: the text in pieces that join to `text`; pieces with differs = true are marked

options: all may be left out.
  thresholds   [speak, update], each a number or null
  names        {part: words} where a page has other words than NAMES below for a lane ("assistant", "reference", "user"),
               a table of states ("predicted", "expected"), what the lanes hold ("utterance") or their emptiness ("silence")
  verdicts     {verdict: words} where a page has other words for a verdict than VERDICTS below
  thumbnails   [[frame, data URI], ...] in order of frames
  heads        Float32Array [frames * steps * 3]: the state head's probabilities
  cache        [tokens in the cache, one a frame]
  latency      {part: [milliseconds, one a frame]}
  contexts     [[frame, words], ...]: what happened to the context before the frame
  selected     the frame selected at first; default: the assistant's first utterance, else 0
  pageKeys     true: keys work anywhere on the page; default: only while the focus is inside root
  link         frame -> URL of the page at that frame; there is a "copy link" button only where it is given
  onSelect     called with the frame whenever the selection changes, the first time before draw returns

timeline: select(frame, reveal) selects a frame and, with reveal, scrolls it into view; `selected` is the frame;
`disagreements` are the frames at which a difference from the reference begins: a step's state, or an utterance that is
wrong, redundant or missed. `scale` (pixels a frame), `left` (leftmost frame), `gutter` (pixels) and middle(frame) say
where things are drawn.

Keys: arrows, home, end: frame. n, p: next and previous utterance of the assistant. d, shift + d: next and previous
disagreement. u: next change of the predicted table. v: next deviation from the plan, predicted or of the reference.
c: next context event. +, -, 0: zoom.

SessionTimeline.wordDifferences(ours, theirs) -> [words of ours, words of theirs], as `words` of an utterance.

All text is set as text: textContent, fillText. A page includes palette.css and session_timeline.css with it.
*/
const SessionTimeline = (() => {
const STATES = ["not started", "in progress", "completed"], SYMBOLS = ["○", "◐", "●"];
const VERDICTS = { exact: "same words", matched: "matched", wrong: "wrong", redundant: "redundant", missed: "missed" };
const NAMES = { assistant: "assistant", reference: "reference", user: "user", predicted: "predicted", expected: "reference", utterance: "utterance", silence: "Nobody says anything." };
const MARKS = { exact: "✓", matched: "≈", wrong: "≠", redundant: "+", missed: "○" };
const DISAGREE = new Set(["wrong", "redundant", "missed"]);
const MAX_SCALE = 40; // pixels a frame

function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (className) node.className = className;
  return node;
}
function clock(seconds, tenths) {
  const t = tenths ? Math.round(seconds * 10) / 10 : Math.floor(seconds + 1e-6), m = Math.floor(t / 60), s = t - 60 * m;
  return m + ":" + (tenths && t % 1 ? s.toFixed(1).padStart(4, "0") : String(Math.round(s)).padStart(2, "0"));
}
const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
// Four digits where two would show 0.00 or 1.00 for a probability that is neither.
const number = (p) => p.toFixed((p > 0.00004 && p < 0.005) || (p >= 0.995 && p < 0.99996) ? 4 : 2);
const best = (p) => p.indexOf(Math.max(...p));

// Of each step the runs [from, to, state], `to` exclusive, from the changes of a table that begins with zeros.
function runs(steps, frames, changes) {
  const rows = Array.from({ length: steps }, () => [[0, frames, 0]]);
  for (const [at, step, state] of [...changes].sort((a, b) => a[0] - b[0])) {
    const row = rows[step], last = row[row.length - 1];
    if (at === last[0]) { last[2] = state; continue; }
    if (state === last[2]) continue;
    last[1] = at;
    row.push([at, frames, state]);
  }
  return rows;
}
const stateAt = (row, i) => row.find((run) => i < run[1])[2];
// The number of a step in the plan at a frame; undefined where it is not in it.
const numberAt = (session, k, i) => session.stretches ? session.stretches[k].find(([from, to]) => from <= i && i < to)?.[2] : k + 1;

// Where two rows of runs differ: [from, to] of each stretch.
function differences(row, other) {
  const found = [];
  for (const [a, b, state] of row) for (const [c, d, wanted] of other) {
    const from = Math.max(a, c), to = Math.min(b, d), last = found[found.length - 1];
    if (state === wanted || from >= to) continue;
    if (last && last[1] === from) last[1] = to; else found.push([from, to]);
  }
  return found;
}

function words(utterance) { // the text as nodes, differing words marked
  if (!utterance.words) return [document.createTextNode(utterance.text)];
  return utterance.words.map(([piece, differs]) => differs ? element("mark", piece) : document.createTextNode(piece));
}

// The words of both texts, those outside of a longest common subsequence marked: [[piece, differs], ...] of each.
function wordDifferences(ours, theirs) {
  // A word is a run of letters, marks and digits; in scripts that write without blanks, a character with its marks.
  const alone = "[\\p{sc=Han}\\p{sc=Hira}\\p{sc=Kana}\\p{sc=Thai}\\p{sc=Laoo}\\p{sc=Khmr}\\p{sc=Mymr}]", word = "[\\p{L}\\p{M}\\p{N}]";
  const piece = new RegExp(`${alone}\\p{M}*|(?:(?!${alone})${word})+|\\s+|[^\\p{L}\\p{M}\\p{N}\\s]+`, "gu");
  const split = (text) => text.normalize("NFC").match(piece) || [], isWord = (piece) => /\S/.test(piece);
  const a = split(ours), b = split(theirs), x = a.filter(isWord), y = b.filter(isWord);
  const length = Array.from({ length: x.length + 1 }, () => new Uint16Array(y.length + 1));
  for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--)
    length[i][j] = x[i] === y[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const common = [new Set(), new Set()];
  for (let i = 0, j = 0; i < x.length && j < y.length;) {
    if (x[i] === y[j]) { common[0].add(i++); common[1].add(j++); }
    else if (length[i + 1][j] >= length[i][j + 1]) i++; else j++;
  }
  return [a, b].map((pieces, side) => { let n = 0; return pieces.map((piece) => [piece, isWord(piece) && !common[side].has(n++)]); });
}

function draw(root, session, options = {}) {
  const { frames: N, fps, steps, said, user } = session, K = steps.length;
  const reference = session.reference || [], speak = session.p_speak, update = session.p_update;
  const { thresholds = [null, null], thumbnails = [], heads = null, cache = [], latency = {}, contexts = [] } = options;
  const verdictWords = { ...VERDICTS, ...options.verdicts }, names = { ...NAMES, ...options.names };
  const tracked = runs(K, N, session.predicted_states);
  const drawn = session.stretches ? tracked.map((row, k) => row.flatMap(([a, b, state]) => session.stretches[k].map(([from, to]) => [Math.max(a, from), Math.min(b, to), state]).filter(([from, to]) => from < to))) : tracked;
  const expected = session.reference_states && runs(K, N, session.reference_states);
  const timeOf = (i) => (session.first_frame + i) / fps;
  const headAt = (i, k) => { const o = 3 * (i * K + k); return [heads[o], heads[o + 1], heads[o + 2]]; };
  const parts = Object.keys(latency);
  const moved = [...new Set(tracked.flatMap((row) => row.slice(1).map((run) => run[0])))].sort((a, b) => a - b);
  const referenceMoved = expected ? [...new Set(expected.flatMap((row) => row.slice(1).map((run) => run[0])))].sort((a, b) => a - b) : [];
  const differing = expected ? tracked.map((row, k) => differences(row, expected[k])) : [];
  const disagreements = [...new Set([
    ...differing.flatMap((row) => row.map((stretch) => stretch[0])),
    ...[...said, ...reference].filter((one) => DISAGREE.has(one.verdict)).map((one) => one.frame),
  ])].sort((a, b) => a - b);
  const strayed = session.deviations || [], expectedStrayed = session.reference_deviations || [];
  const strayedAt = [...new Set([...strayed, ...expectedStrayed].map((one) => one[0]))].sort((a, b) => a - b);
  const compares = expected || [...said, ...reference].some((one) => one.verdict);

  // ---- what is on the page ----
  const bar = element("div", undefined, "st-bar"), buttons = {};
  function button(name, text, key, label) {
    const node = buttons[name] = element("button", text);
    node.type = "button";
    node.dataset.action = name;
    if (label) node.setAttribute("aria-label", label);
    if (key) node.setAttribute("aria-keyshortcuts", key);
    bar.append(node);
  }
  button("previous", "‹ " + names.utterance, "p");
  button("next", names.utterance + " ›", "n");
  if (compares) button("disagreement", "disagreement ›", "d");
  button("update", "update ›", "u");
  if (strayedAt.length) button("deviation", "deviation ›", "v");
  if (contexts.length) button("context", "context ›", "c");
  bar.append(element("span", undefined, "st-gap"));
  if (options.link) button("link", "copy link", "", "copy a link to this frame");
  button("out", "−", "-", "zoom out");
  button("in", "+", "+", "zoom in");
  button("fit", "fit", "0");

  const lanes = element("div", undefined, "st-lanes"), above = element("canvas"), below = element("canvas");
  const stepsBox = element("div", undefined, "st-steps"), spacer = element("div", undefined, "st-spacer"), stepsCanvas = element("canvas");
  stepsBox.tabIndex = -1;
  stepsBox.append(spacer, stepsCanvas);
  lanes.append(above, stepsBox, below);
  lanes.tabIndex = 0;
  for (const [name, value] of [["role", "slider"], ["aria-label", `Selected frame of ${session.id}`], ["aria-valuemin", session.first_frame], ["aria-valuemax", session.first_frame + N - 1]])
    lanes.setAttribute(name, value);
  const scrollBox = element("div", undefined, "st-scroll");
  scrollBox.tabIndex = -1;
  scrollBox.setAttribute("aria-hidden", "true");
  scrollBox.append(element("div"));
  const caption = element("div", undefined, "st-caption"), live = element("div", undefined, "st-hidden");
  live.setAttribute("aria-live", "polite");
  const tipBox = element("div", undefined, "st-tip");
  tipBox.hidden = true;
  root.classList.add("session-timeline");
  root.replaceChildren(bar, lanes, scrollBox, caption, legend(), help(), utteranceList(), tipBox, live);

  // ---- lanes: where they are ----
  let selected = 0, scale = 1, left = 0; // pixels a frame; leftmost frame (a fraction)
  let width = 0, gutter = 0, hover = null, note = "";
  const ROW = expected ? (K > 40 ? 20 : 26) : K > 40 ? 17 : 22;
  const ABOVE = [["ruler", 24]];
  if (thumbnails.length) ABOVE.push(["frames", 62]);
  ABOVE.push(["assistant", 26, said]);
  if (session.reference) ABOVE.push(["reference", 26, reference]);
  if (user.length) ABOVE.push(["user", 26, user]);
  if (speak.length) ABOVE.push(["p(speak)", 78]);
  if (update.length) ABOVE.push(["p(update)", 64]);
  const BELOW = [];
  if (cache.length) BELOW.push(["cache", 56]);
  if (parts.length) BELOW.push(["latency", 78]);
  below.hidden = !BELOW.length;
  const total = (list) => list.reduce((sum, lane) => sum + lane[1], 0);
  const plotWidth = () => width - gutter;
  const fitScale = () => plotWidth() / N;
  const x = (i) => gutter + (i - left) * scale; // left edge of frame i
  const mid = (i) => x(i + 0.5);
  let colours = {};
  function readColours() {
    const style = getComputedStyle(root);
    for (const name of ["card", "ink", "soft", "line", "grid", "speak", "update", "user", "reference", "context", "alarm", "exact", "matched",
      "wrong", "redundant", "missed", "s0", "s1", "s2", "s0ink", "s1ink", "s2ink", "l0", "l1", "l2", "l3", "l4"]) colours[name] = style.getPropertyValue("--" + name).trim();
  }
  const FONT = getComputedStyle(root).fontFamily;
  const images = thumbnails.map(([at, uri]) => {
    const image = new Image();
    image.onload = () => redraw();
    image.src = uri;
    return [at, image];
  });

  function prepare(canvas, height) {
    const ratio = window.devicePixelRatio || 1, w = Math.round(width * ratio), h = Math.round(height * ratio);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.textBaseline = "middle";
    return g;
  }
  function shorten(g, text, room) {
    text = text.length > 300 ? text.slice(0, 300) : text;
    if (g.measureText(text).width <= room) return text;
    let low = 0, high = text.length;
    while (low < high) {
      const half = (low + high + 1) >> 1;
      if (g.measureText(text.slice(0, half) + "…").width <= room) low = half; else high = half - 1;
    }
    return low ? text.slice(0, low).trimEnd() + "…" : "";
  }
  function plot(g, top, height, body) { // draw inside the lane only
    g.save();
    g.beginPath();
    g.rect(gutter, top, plotWidth(), height);
    g.clip();
    body();
    g.restore();
  }
  function rule(g, y) { g.fillStyle = colours.line; g.fillRect(0, Math.round(y) - 1, width, 1); }
  function label(g, y, text, small) {
    g.font = "600 12px " + FONT;
    g.fillStyle = colours.ink;
    g.fillText(shorten(g, text, gutter - 14), 12, small ? y - 7 : y);
    if (!small) return;
    g.font = "11px " + FONT;
    g.fillStyle = colours.soft;
    g.fillText(shorten(g, small, gutter - 14), 12, y + 8);
  }
  function tickStep() { // seconds between labels: the least of these that keeps them 64 px apart
    for (const s of [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]) if (s * fps * scale >= 64) return s;
    return 7200;
  }
  function eachTick(body) {
    const step = tickStep(), end = timeOf(left + plotWidth() / scale);
    for (let s = Math.ceil(timeOf(left) / step) * step; s <= end; s += step) body(s * fps - session.first_frame, s);
  }
  function grid(g, top, height) {
    g.fillStyle = colours.grid;
    eachTick((i) => g.fillRect(Math.round(x(i)), top, 1, height));
  }
  function ruler(g, top, height) {
    plot(g, top, height, () => {
      g.font = "11px " + FONT;
      g.fillStyle = colours.soft;
      eachTick((i, s) => { g.fillRect(Math.round(x(i)), top + height - 6, 1, 6); g.fillText(clock(s), x(i) + 4, top + height - 10); });
    });
  }
  function strip(g, top, height) {
    plot(g, top, height, () => {
      let free = -Infinity;
      for (const [at, image] of images) {
        if (!image.complete || !image.naturalWidth) continue;
        const h = height - 8, w = h * image.naturalWidth / image.naturalHeight, from = x(at);
        if (from < free || from > width || from + w < gutter) continue;
        g.drawImage(image, from, top + 4, w, h);
        g.fillStyle = colours.soft;
        g.fillRect(from, top, 1, height - 4);
        free = from + w + 3;
      }
    });
  }

  // An utterance's mark: full, lower or hollow, so that colour is not needed to tell verdicts apart.
  function mark(g, at, top, wide, height, verdict, colour) {
    g.fillStyle = g.strokeStyle = verdict ? colours[verdict] : colour;
    if (verdict === "redundant" || verdict === "missed") {
      g.lineWidth = 1.5;
      g.strokeRect(at + 0.75, top + 0.75, Math.max(wide - 1.5, 1), height - 1.5);
      return;
    }
    const low = verdict === "wrong" ? 0.6 * height : verdict === "matched" ? 0.25 * height : 0;
    g.fillRect(at, top + low, wide, height - low);
  }
  // The size of marks that are spread over all frames: smaller where they would cover each other.
  const crowded = (count, size) => Math.max(1, Math.min(size, 0.3 * N * scale / Math.max(1, count)));
  const barWidth = (list) => Math.max(crowded(list.length, 5), Math.min(scale - 1, 8));
  const textEnd = (list, n) => n + 1 < list.length ? x(list[n + 1].frame) : width; // an utterance's text ends at the next one
  function utterances(g, top, height, list, colour) {
    plot(g, top, height, () => {
      g.font = "12px " + FONT;
      const wide = barWidth(list);
      list.forEach((one, n) => {
        const from = x(one.frame), to = textEnd(list, n);
        if (to < gutter || from > width) return;
        mark(g, from, top + 4, wide, height - 8, one.verdict, colour);
        const at = from + wide + 4;
        if (to - at < 30) return;
        g.fillStyle = colours.ink;
        g.fillText(shorten(g, one.text.replace(/\s+/g, " "), to - at - 8), at, top + height / 2);
      });
    });
  }
  function under(list, at) { // the utterance whose mark or text is at this pixel, else the nearest within 8
    const n = list.findLastIndex((one) => x(one.frame) <= at);
    if (n >= 0 && at < x(list[n].frame) + barWidth(list) + 8) return list[n];
    if (n + 1 < list.length && x(list[n + 1].frame) - at < 8) return list[n + 1];
    return n >= 0 && textEnd(list, n) - x(list[n].frame) - barWidth(list) >= 34 ? list[n] : null;
  }

  function visible() { return [Math.max(0, Math.floor(left)), Math.min(N, Math.ceil(left + plotWidth() / scale))]; }
  // One point a frame; where frames are closer than pixels, the highest and lowest value of each pixel column.
  function curve(g, values, y, colour) {
    const [from, to] = visible(), step = Math.max(1, Math.floor(1 / scale));
    g.strokeStyle = colour;
    g.lineWidth = 1.5;
    g.lineJoin = "round";
    g.beginPath();
    for (let i = from - from % step; i < to; i += step) {
      let low = values[i], high = values[i];
      for (let j = i + 1; j < Math.min(i + step, N); j++) { low = Math.min(low, values[j]); high = Math.max(high, values[j]); }
      const at = mid(i + (step - 1) / 2);
      if (i === from - from % step) g.moveTo(at, y(low)); else g.lineTo(at, y(low));
      if (high > low) g.lineTo(at, y(high));
    }
    g.stroke();
  }
  function probability(g, top, height, values, threshold, colour, hits, wanted) {
    const pad = 9, y = (p) => top + height - pad - p * (height - 2 * pad);
    plot(g, top, height, () => {
      const [from, to] = visible();
      if (threshold !== null) {
        const limit = y(threshold);
        g.fillStyle = colour;
        g.globalAlpha = 0.22;
        for (let i = from; i < to; i++) // at least 2 pixels, so that every frame over the threshold is visible at any zoom
          if (values[i] >= threshold) g.fillRect(x(i), y(values[i]), Math.max(scale, 2), limit - y(values[i]));
        g.globalAlpha = 1;
        g.strokeStyle = colours.soft;
        g.lineWidth = 1;
        g.setLineDash([4, 3]);
        g.beginPath(); g.moveTo(gutter, Math.round(limit) + 0.5); g.lineTo(width, Math.round(limit) + 0.5); g.stroke();
        g.setLineDash([]);
      }
      curve(g, values, y, colour);
      g.fillStyle = colour;
      const radius = crowded(hits.length, 3.5), half = crowded(wanted.length, 4);
      for (const i of hits) { g.beginPath(); g.arc(mid(i), y(values[i]), radius, 0, 7); g.fill(); }
      g.fillStyle = colours.reference;
      for (const i of wanted) { // a triangle at the bottom: the reference does it here
        const at = mid(i), floor = top + height - 2;
        g.beginPath(); g.moveTo(at - half, floor); g.lineTo(at + half, floor); g.lineTo(at, floor - 7); g.fill();
      }
    });
    scaleNumbers(g, [[1, y(1)], [0, y(0)]]);
    if (threshold !== null && gutter > 120 && threshold > 0.12 && threshold < 0.88) scaleNumbers(g, [[+threshold.toFixed(2), y(threshold)]]);
  }
  function scaleNumbers(g, pairs) {
    g.font = "10px " + FONT;
    g.textAlign = "right";
    g.fillStyle = colours.soft;
    for (const [value, y] of pairs) g.fillText(String(value), gutter - 5, y);
    g.textAlign = "left";
  }
  function scaleLines(g, values, y) {
    g.fillStyle = colours.grid;
    for (const value of values) g.fillRect(gutter, Math.round(y(value)), plotWidth(), 1);
    scaleNumbers(g, values.map((value) => [value, y(value)]));
  }

  function cursors(g, height) { // context events through all lanes, then the pointer's and the selected frame
    plot(g, 0, height, () => {
      g.strokeStyle = colours.context;
      g.lineWidth = 1;
      g.setLineDash([2, 3]);
      // Where lines would be closer than 40 pixels, only their ends in the ruler are drawn.
      const foot = N * scale / contexts.length < 40 ? (g.canvas === above ? 8 : 0) : height;
      for (const [i] of contexts) { g.beginPath(); g.moveTo(Math.round(mid(i)) + 0.5, 0); g.lineTo(Math.round(mid(i)) + 0.5, foot); g.stroke(); }
      g.setLineDash([]);
      if (hover !== null && hover !== selected) { g.fillStyle = colours.soft; g.globalAlpha = 0.5; g.fillRect(mid(hover) - 0.5, 0, 1, height); g.globalAlpha = 1; }
      g.fillStyle = colours.ink;
      g.globalAlpha = 0.1;
      g.fillRect(x(selected), 0, scale, height);
      g.globalAlpha = 1;
      g.fillRect(Math.round(mid(selected)) - 1, 0, 2, height);
    });
  }

  const maximum = (values) => values.reduce((high, value) => Math.max(high, value), 0) || 1;
  const cacheHigh = Math.max(maximum(cache), 1);
  // A logarithmic scale: writing takes ten times as long as encoding a picture, and both have to be visible.
  const latencyHigh = Math.ceil(Math.log10(Math.max(10, ...parts.map((part) => maximum(latency[part])))));

  function drawAbove() {
    const height = total(ABOVE), g = prepare(above, height), narrow = gutter < 120;
    let top = 0;
    grid(g, ABOVE[0][1], height);
    for (const [name, h, list] of ABOVE) {
      const middle = top + h / 2;
      if (name === "ruler") { label(g, middle + 1, "time"); ruler(g, top, h); }
      else if (name === "frames") { label(g, middle, name); strip(g, top, h); }
      else if (name === "p(speak)") { label(g, middle, name, narrow ? "" : "● spoke" + (session.reference ? "  ▴ reference" : "")); probability(g, top, h, speak, thresholds[0], colours.speak, said.map((one) => one.frame), reference.map((one) => one.frame)); }
      else if (name === "p(update)") { label(g, middle, name, narrow ? "" : "● changed" + (expected ? "  ▴ reference" : "")); probability(g, top, h, update, thresholds[1], colours.update, moved, referenceMoved); }
      else { label(g, middle, names[name]); utterances(g, top, h, list, colours[name === "assistant" ? "speak" : name]); }
      top += h;
      rule(g, top);
    }
    cursors(g, height);
  }
  function diamond(g, at, middle, size, hollow) { // a deviation from the plan; the rim shows it on any state's colour
    g.beginPath();
    g.moveTo(at, middle - size); g.lineTo(at + size, middle); g.lineTo(at, middle + size); g.lineTo(at - size, middle);
    g.closePath();
    g.fillStyle = colours[hollow ? "card" : "alarm"];
    g.strokeStyle = colours[hollow ? "alarm" : "card"];
    g.lineWidth = 1.2;
    g.fill();
    g.stroke();
  }
  function drawSteps() {
    const shown = stepsBox.clientHeight, offset = stepsBox.scrollTop, g = prepare(stepsCanvas, shown), [from, to] = visible();
    const band = (row, top, height) => {
      for (const [a, b, state] of row) {
        if (b < from || a > to) continue;
        const begin = Math.max(x(a), gutter - 2), end = Math.min(x(b), width + 2);
        g.fillStyle = colours["s" + state];
        g.fillRect(begin, top, Math.max(end - begin, 1), height);
      }
    };
    for (let k = Math.floor(offset / ROW); k < Math.min(K, Math.ceil((offset + shown) / ROW)); k++) {
      const top = k * ROW - offset, now = stateAt(tracked[k], selected), upper = expected ? Math.round(0.34 * ROW) : 0;
      const tall = ROW - 6 - (expected ? upper + 1 : 0), under = top + ROW - 3 - tall; // the predicted band
      plot(g, top, ROW, () => {
        if (expected) {
          band(expected[k], top + 2, upper - 1);
          g.fillStyle = colours.alarm;
          for (const [a, b] of differing[k]) if (b >= from && a <= to) g.fillRect(x(a), under - 2, Math.max((b - a) * scale, 1.5), 2);
        }
        band(drawn[k], under, tall);
        if (heads) for (const [a, b, state] of drawn[k]) { // the head's own choice, where it is not the tracked state
          for (let i = Math.max(a, from), end = Math.min(b, to); i < end; i++) {
            const o = 3 * (i * K + k), rest = Math.max(heads[o + (state + 1) % 3], heads[o + (state + 2) % 3]);
            if (heads[o + state] >= rest) continue;
            g.fillStyle = colours["s" + best(headAt(i, k)) + "ink"];
            g.fillRect(x(i), under + tall - 4, Math.max(scale, 1.5), 4);
          }
        }
        for (const [list, middle, size, hollow] of [[expectedStrayed, top + 2 + (upper - 1) / 2, 3.5, true], [strayed, under + tall / 2, 5, false]])
          for (const [at, step] of list) if (step === k && at >= from && at < to) diamond(g, mid(at), middle, size, hollow);
      });
      g.font = "12px " + FONT;
      g.fillStyle = colours["s" + now + "ink"];
      const n = numberAt(session, k, selected), text = steps[k].replace(/\s+/g, " ");
      if (n) g.fillText(SYMBOLS[now], 12, top + ROW / 2);
      g.fillStyle = n ? colours.ink : colours.soft; // pale where it is not in the plan
      g.fillText(shorten(g, n ? `${n}. ${text}` : text, gutter - 42), 30, top + ROW / 2);
      g.fillStyle = colours.grid;
      g.fillRect(0, Math.round(top + ROW) - 1, width, 1);
    }
    cursors(g, shown);
  }
  function drawBelow() {
    if (!BELOW.length) return;
    const height = total(BELOW), g = prepare(below, height), narrow = gutter < 120;
    let top = 0;
    grid(g, 1, height);
    for (const [name, h] of BELOW) {
      rule(g, top + 1);
      if (name === "cache") {
        const end = top + h, y = (value) => end - 9 - value / cacheHigh * (h - 18);
        label(g, top + h / 2, name, narrow ? "" : "tokens");
        scaleLines(g, [0, cacheHigh], y);
        plot(g, top, h, () => curve(g, cache, y, colours.soft));
      } else {
        const end = top + h, y = (value) => end - 9 - Math.log10(Math.max(value, 1)) / latencyHigh * (h - 18);
        label(g, top + h / 2, name, narrow ? "ms" : "ms by part, log scale");
        scaleLines(g, narrow ? [1, 10 ** latencyHigh] : [1, 10, 100, 1000, 10000, 100000].slice(latencyHigh > 3 ? 1 : 0, latencyHigh + 1), y);
        plot(g, top, h, () => parts.forEach((part, n) => curve(g, latency[part], y, colours["l" + n % 5])));
      }
      top += h;
    }
    cursors(g, height);
  }
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; if (width) { drawAbove(); drawSteps(); drawBelow(); } });
  }

  // ---- moving about ----
  function setView(newScale, newLeft) {
    scale = Math.min(Math.max(newScale, fitScale()), Math.max(MAX_SCALE, fitScale()));
    left = Math.max(0, Math.min(newLeft, N - plotWidth() / scale));
    scrollBox.firstElementChild.style.width = N * scale + gutter + "px";
    scrollBox.scrollLeft = left * scale;
    buttons.out.disabled = scale <= fitScale() * 1.001;
    buttons.in.disabled = scale >= MAX_SCALE;
    redraw();
  }
  function zoom(factor, anchor) { // the anchor frame stays where it is
    const at = (anchor - left) * scale;
    const wanted = Math.min(Math.max(scale * factor, fitScale()), Math.max(MAX_SCALE, fitScale()));
    const outside = at < 0 || at > plotWidth();
    setView(wanted, anchor - (outside ? plotWidth() / 2 : at) / wanted);
  }
  function layout() {
    if (!lanes.clientWidth) return; // in a closed <details>
    const fitted = scale <= fitScale() * 1.001 || width === 0;
    width = lanes.clientWidth;
    gutter = width < 520 ? 84 : 210;
    const rowsShown = Math.max(1, Math.floor(parseFloat(getComputedStyle(stepsBox).maxHeight) / ROW));
    stepsBox.style.height = Math.min(K, rowsShown) * ROW + "px";
    spacer.style.height = K * ROW + "px";
    readColours();
    setView(fitted ? fitScale() : scale, left);
    reveal();
  }
  function reveal() { // the selected frame and the step that is worked on
    const shown = plotWidth() / scale, margin = Math.min(shown * 0.1, 40);
    if (selected < left + margin || selected > left + shown - margin) setView(scale, selected - shown / 2);
    const moving = tracked.findIndex((row) => row.some((run) => run[0] === selected && selected)), k = moving < 0 ? busyStep() : moving, top = k * ROW;
    if (k >= 0 && (top < stepsBox.scrollTop || top + ROW > stepsBox.scrollTop + stepsBox.clientHeight)) stepsBox.scrollTop = top - stepsBox.clientHeight / 2;
  }
  function busyStep() {
    const wrong = differing.findIndex((row) => row.some(([from]) => from === selected));
    if (wrong >= 0) return wrong;
    for (let k = K - 1; k >= 0; k--) if (stateAt(tracked[k], selected) === 1 && numberAt(session, k, selected)) return k;
    return tracked.findIndex((row, k) => stateAt(row, selected) === 0 && numberAt(session, k, selected));
  }
  function select(i, show) {
    selected = Math.max(0, Math.min(N - 1, i));
    note = "";
    if (show && width) reveal();
    tell();
    redraw();
  }
  function jump(list, back, what) {
    const i = back ? list.findLast((at) => at < selected) : list.find((at) => at > selected);
    if (i !== undefined) return select(i, true);
    note = `No ${back ? "earlier" : "later"} ${what}.`;
    tell();
  }
  async function copyLink() {
    const link = options.link(selected);
    try {
      await navigator.clipboard.writeText(link);
      note = "The link was copied.";
    } catch (error) { // the browser does not let the page write to the clipboard
      note = "This is the link: " + link;
    }
    tell();
  }
  const spokenAt = said.map((one) => one.frame), contextAt = contexts.map((pair) => pair[0]);
  const KEYS = {
    ArrowLeft: (shift) => select(selected - (shift ? 10 : 1), true), ArrowRight: (shift) => select(selected + (shift ? 10 : 1), true),
    Home: () => select(0, true), End: () => select(N - 1, true),
    n: () => jump(spokenAt, false, names.utterance), p: () => jump(spokenAt, true, names.utterance),
    u: () => jump(moved, false, "update"), v: () => jump(strayedAt, false, "deviation"), c: () => jump(contextAt, false, "context event"),
    d: (shift) => jump(disagreements, shift, "disagreement"),
    ArrowUp: () => stepsBox.scrollBy(0, -ROW), ArrowDown: () => stepsBox.scrollBy(0, ROW),
    "+": () => zoom(1.6, selected + 0.5), "=": () => zoom(1.6, selected + 0.5), "-": () => zoom(1 / 1.6, selected + 0.5), "0": () => setView(fitScale(), 0),
  };
  (options.pageKeys ? document : root).addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // Inside a part that scrolls, the keys that scroll it keep their meaning.
    if ((event.key === "Home" || event.key === "End") && event.target.closest?.("[data-scrolls]")) return;
    if ((event.key === "ArrowUp" || event.key === "ArrowDown") && event.target !== lanes) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action(event.shiftKey);
  });
  const ACTIONS = { previous: "p", next: "n", disagreement: "d", update: "u", deviation: "v", context: "c", out: "-", in: "+", fit: "0" };
  bar.addEventListener("click", (event) => {
    const name = event.target.dataset.action;
    if (name === "link") copyLink(); else if (name) KEYS[ACTIONS[name]](false);
  });

  const frameUnder = (event) => {
    const at = event.clientX - lanes.getBoundingClientRect().left;
    return at < gutter ? null : Math.max(0, Math.min(N - 1, Math.floor(left + (at - gutter) / scale)));
  };
  let drag = null;
  lanes.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { at: event.clientX, left, moved: false, id: event.pointerId };
  });
  lanes.addEventListener("pointermove", (event) => {
    if (drag && Math.abs(event.clientX - drag.at) > 4 && !drag.moved) { drag.moved = true; lanes.setPointerCapture(drag.id); }
    if (drag && drag.moved) { setView(scale, drag.left - (event.clientX - drag.at) / scale); hideTip(); return; }
    hover = frameUnder(event);
    tip(event);
    redraw();
  });
  lanes.addEventListener("pointerup", (event) => {
    const clicked = drag && !drag.moved, i = frameUnder(event), one = utteranceUnder(event);
    drag = null;
    if (clicked && i !== null) select(one ? one.frame : i, false);
  });
  lanes.addEventListener("pointercancel", () => { drag = null; });
  lanes.addEventListener("pointerleave", () => { hover = null; hideTip(); redraw(); });
  lanes.addEventListener("wheel", (event) => {
    if (event.ctrlKey) {
      event.preventDefault();
      const i = frameUnder(event);
      zoom(Math.exp(-event.deltaY / 200), i === null ? selected : i);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      setView(scale, left + (event.deltaX || event.deltaY) / scale);
    }
  }, { passive: false });
  scrollBox.addEventListener("scroll", () => {
    if (Math.abs(scrollBox.scrollLeft - left * scale) < 1.5) return; // set by setView
    left = scrollBox.scrollLeft / scale;
    redraw();
  });
  stepsBox.addEventListener("scroll", redraw);

  // ---- words ----
  const speakers = [["user", user], ["reference", reference], ["assistant", said]];
  function named(who, one) { return names[who] + (one.verdict ? `, ${verdictWords[one.verdict]}` : ""); }
  const atFrame = (i) => speakers.flatMap(([who, list]) => list.filter((one) => one.frame === i).map((one) => [who, one]));
  const decisions = (i) => [["p(speak)", speak, thresholds[0]], ["p(update)", update, thresholds[1]]].filter(([, values]) => values.length)
    .map(([name, values, threshold]) => `${name} ${number(values[i])}${threshold === null ? "" : ` of ${+threshold.toFixed(4)}`}`).join(", ");
  const headline = (i) => `frame ${session.first_frame + i}, ${clock(timeOf(i), true)}`;
  function utteranceUnder(event) { // only in a lane of utterances
    let top = above.getBoundingClientRect().top;
    for (const [, h, list] of ABOVE) {
      if (list && event.clientY >= top && event.clientY < top + h) return under(list, event.clientX - lanes.getBoundingClientRect().left);
      top += h;
    }
    return null;
  }
  function hideTip() { tipBox.hidden = true; }
  function tip(event) {
    if (hover === null) return hideTip();
    const one = utteranceUnder(event), i = one ? one.frame : hover;
    const lines = [headline(i)], box = stepsBox.getBoundingClientRect(), k = Math.floor((event.clientY - box.top + stepsBox.scrollTop) / ROW);
    if (decisions(i)) lines.push(decisions(i));
    if (event.clientY >= box.top && event.clientY < box.bottom && k < K) {
      const n = numberAt(session, k, i);
      lines.push(...n ? [`${n}. ${steps[k]}`, names.predicted + ": " + STATES[stateAt(tracked[k], i)]] : [steps[k], "not in the plan"]);
      if (expected) lines.push(names.expected + ": " + STATES[stateAt(expected[k], i)]);
      for (const [list, whose] of [[strayed, names.predicted], [expectedStrayed, names.expected]])
        lines.push(...list.filter(([at, step]) => step === k && Math.abs(mid(at) - mid(i)) < 6).map((one) => `${whose}, deviation: ${one[2]}`));
      if (heads && n) lines.push("head: " + STATES.map((name, s) => `${name} ${number(headAt(i, k)[s])}`).join(", "));
    } else {
      lines.push(...atFrame(i).map(([who, other]) => `${named(who, other)}: ${other.text}`));
      lines.push(...contexts.filter(([at]) => at === i).map((pair) => pair[1]));
    }
    tipBox.textContent = lines.join("\n");
    tipBox.hidden = false;
    tipBox.style.left = tipBox.style.top = 0; // its size must not depend on where it was
    const size = tipBox.getBoundingClientRect();
    tipBox.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - size.width - 4)) + "px";
    tipBox.style.top = Math.max(4, event.clientY + 18 + size.height > innerHeight ? event.clientY - size.height - 12 : event.clientY + 18) + "px";
  }
  function utteranceNode(tag, who, one, className) {
    const node = element(tag, undefined, className);
    node.append(element("b", `${one.verdict ? MARKS[one.verdict] + " " : ""}${named(who, one)}`, one.verdict ? "st-is-" + one.verdict : ""), " ", ...words(one));
    return node;
  }

  let liveTimer = 0;
  function tell() { // the selected frame in words, below the lanes and for screen readers
    const i = selected, lines = [element("p", [`Frame ${session.first_frame + i}, ${clock(timeOf(i), true)}`, decisions(i)].filter(Boolean).join(" · "), "st-when")];
    for (const [who, one] of atFrame(i)) lines.push(utteranceNode("p", who, one));
    tracked.forEach((row, k) => {
      const state = stateAt(row, i), wanted = expected ? stateAt(expected[k], i) : state, changes = i && row.some((run) => run[0] === i);
      const n = numberAt(session, k, i);
      if (!n || (!changes && state === wanted)) return;
      const line = element("p");
      const whose = wanted === state ? "" : `${names.predicted}: `; // whose state it is matters where they differ
      line.append(element("b", `step ${n}`), ` ${steps[k]}: ${whose}`, element("span", `${SYMBOLS[state]} ${STATES[state]}`, "st-state" + state));
      if (wanted !== state) line.append(`; ${names.expected}: `, element("span", `${SYMBOLS[wanted]} ${STATES[wanted]}`, "st-state" + wanted));
      lines.push(line);
    });
    for (const [list, whose] of [[strayed, names.predicted], [expectedStrayed, names.expected]]) for (const [at, , text] of list) if (at === i) {
      const line = element("p");
      line.append(element("b", `${whose}, deviation`, "st-is-missed"), " ", text);
      lines.push(line);
    }
    if (note) lines.push(element("p", note, "st-note"));
    caption.replaceChildren(...lines);
    const spoken = lines.map((line) => line.textContent).join(". ");
    lanes.setAttribute("aria-valuenow", session.first_frame + i);
    lanes.setAttribute("aria-valuetext", spoken);
    for (const line of root.querySelectorAll(".st-line")) line.setAttribute("aria-current", String(Number(line.dataset.frame) === i));
    clearTimeout(liveTimer); // nothing is read out while a key is held down
    liveTimer = setTimeout(() => { live.textContent = document.activeElement === lanes ? "" : spoken; }, 250);
    if (options.onSelect) options.onSelect(i);
  }

  function legend() {
    const box = element("div", undefined, "st-legend");
    const swatch = (className, text) => { const item = element("span"); item.append(element("i", undefined, className), text); box.append(item); };
    STATES.forEach((name, s) => swatch("st-s" + s, SYMBOLS[s] + " " + name));
    if (expected) { box.append(element("span", `above: ${names.expected}, below: ${names.predicted}`)); swatch("st-thin st-alarm", "they differ"); }
    if (heads) swatch("st-thin st-s1ink", "at the foot: the state head's choice, where it is another");
    const given = new Set([...said, ...reference].map((one) => one.verdict));
    for (const verdict of Object.keys(VERDICTS).filter((one) => given.has(one))) swatch("st-mark st-mark-" + verdict, verdictWords[verdict]);
    if (strayedAt.length) swatch("st-diamond", expectedStrayed.length ? `deviation from the plan (hollow: ${names.expected})` : "deviation from the plan");
    if (contexts.length) swatch("st-thin st-context", session.stretches ? "context or plan renewed" : "context shrunk");
    parts.forEach((part, n) => swatch("st-thin st-l" + n % 5, part + " ms"));
    return box;
  }
  function help() {
    const box = element("p", undefined, "st-help");
    const keys = (text, ...names) => { for (const name of names) box.append(element("kbd", name), " "); box.append(text); };
    keys("frame, with ", "←", "→"); keys("ten · ", "shift"); keys("first, last · ", "home", "end"); keys("steps · ", "↑", "↓");
    keys(`next, previous ${names.utterance} · `, "n", "p");
    if (compares) { keys("next disagreement, with ", "d"); keys("previous · ", "shift"); }
    keys("next update · ", "u");
    if (strayedAt.length) keys("next deviation · ", "v");
    if (contexts.length) keys("next context event · ", "c");
    keys("zoom · ", "+", "−"); keys("fit · click a frame, drag or scroll sideways to move, ctrl + wheel to zoom", "0");
    return box;
  }
  function utteranceList() { // a row of the list: what the reference and the user say, and what the assistant says
    const box = element("div", undefined, "st-list"), table = element("table"), body = element("tbody"), head = element("tr"), rows = [];
    for (const name of ["time", session.reference ? `${names.reference} and ${names.user}` : names.user, names.assistant]) {
      const cell = element("th", name);
      cell.scope = "col";
      head.append(cell);
    }
    const row = (frame) => { const made = { frame, sides: [[], []] }; rows.push(made); return made; };
    const rowOf = reference.map((one) => { const made = row(one.frame); made.sides[0].push(["reference", one]); return made; });
    for (const one of user) row(one.frame).sides[0].push(["user", one]);
    for (const one of said) (one.pair === undefined || one.pair === null ? row(one.frame) : rowOf[one.pair]).sides[1].push(["assistant", one]);
    for (const { frame, sides } of rows.sort((a, b) => a.frame - b.frame)) {
      const line = element("tr");
      line.append(element("td", clock(timeOf(frame), true)));
      for (const side of sides) {
        const cell = element("td");
        for (const [who, one] of side) {
          const node = utteranceNode("button", who, one, "st-line"), late = (one.frame - frame) / fps;
          node.type = "button";
          node.tabIndex = -1;
          node.dataset.frame = one.frame;
          if (who === "assistant" && one.verdict) node.firstElementChild.textContent = `${MARKS[one.verdict]} ${verdictWords[one.verdict]}`; // its column says who
          if (late) node.firstElementChild.append(` ${late > 0 ? "+" : "−"}${+Math.abs(late).toFixed(2)} s`);
          cell.append(node);
        }
        line.append(cell);
      }
      body.append(line);
    }
    if (!rows.length) return element("p", names.silence, "st-none");
    const thead = element("thead");
    thead.append(head);
    table.append(thead, body);
    box.append(table);
    for (const [name, value] of [["role", "region"], ["aria-label", `Every ${names.utterance}; arrow keys move, enter goes to the frame`], ["data-scrolls", ""]]) box.setAttribute(name, value);
    const lines = [...box.querySelectorAll(".st-line")];
    lines[0].tabIndex = 0; // one stop for tab; arrows move inside
    const focus = (node) => { for (const line of lines) line.tabIndex = line === node ? 0 : -1; };
    box.addEventListener("focusin", (event) => { if (event.target.matches(".st-line")) focus(event.target); });
    box.addEventListener("click", (event) => { const line = event.target.closest(".st-line"); if (line) select(Number(line.dataset.frame), true); });
    box.addEventListener("keydown", (event) => {
      const to = lines.indexOf(document.activeElement) + { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!lines[to]) return;
      event.preventDefault();
      lines[to].focus();
    });
    return box;
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
  const timeline = {
    select, disagreements, middle: mid,
    get selected() { return selected; }, get scale() { return scale; }, get left() { return left; }, get gutter() { return gutter; },
  };
  new ResizeObserver(layout).observe(lanes);
  layout();
  select(options.selected ?? (said.length ? said[0].frame : 0), true);
  return timeline;
}
return { draw, wordDifferences, element, clock, number, plural, best, runs, stateAt, numberAt, STATES, SYMBOLS };
})();
