// Charts and tables of figures for pages, drawn by hand as SVG and HTML. Texts reach the page only through textContent.
const Charts = (() => {
const { element, STATES } = SessionTimeline;
function append(parent, ...children) { parent.append(...children); return parent; }
function shape(parent, tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}
function fixed(value, digits) {
  if (value !== 0 && Math.abs(value) >= 1e6) return value.toExponential(2).replace("-", "−");
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}
function header(text, className, scope) { const node = element("th", text, className); node.scope = scope || "col"; return node; }
function region(label, ...children) {
  const box = append(element("div", undefined, "box"), ...children);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  return box;
}
function figure(width, height, label) { return shape(null, "svg", { viewBox: `0 0 ${width} ${height}`, class: "figure", role: "img", "aria-label": label }); }
function swatch(text, draw) {
  const picture = shape(null, "svg", { width: 18, height: 12, "aria-hidden": "true" });
  draw(picture);
  return append(element("span"), picture, document.createTextNode(text));
}

function unitSquare(across, up, most = 1) { // axes from 0 to `most`
  const picture = figure(360, 300, ""), x = (v) => 34 + v / most * 316, y = (v) => 10 + (1 - v / most) * 250;
  for (const v of [0, 0.25, 0.5, 0.75, 1].map((part) => +(part * most).toFixed(4))) {
    shape(picture, "path", { class: v ? "grid" : "axis", d: `M${x(0)} ${y(v)}H${x(most)}M${x(v)} ${y(0)}V${y(most)}` });
    shape(picture, "text", { x: x(v), y: y(0) + 15, "text-anchor": "middle" }, String(v));
    shape(picture, "text", { x: x(0) - 5, y: y(v) + 4, "text-anchor": "end" }, String(v));
  }
  shape(picture, "text", { x: x(most / 2), y: 296, "text-anchor": "middle" }, across);
  shape(picture, "text", { x: 6, y: y(most / 2), "text-anchor": "middle", transform: `rotate(-90 6 ${y(most / 2)})` }, up);
  return [picture, x, y];
}
// The reliability of decisions: mean p(yes) and share of yes of each bin. heads: {name, kind, error, bins: [[frames, p, share]]}.
function reliabilityChart(heads) {
  const found = heads.filter((head) => head.bins.length), largest = Math.max(0, ...found.flatMap((head) => head.bins.flatMap(([, p, yes]) => [p, yes])));
  const most = [0.1, 0.2, 0.4, 1].find((end) => end >= largest) || 1, [picture, x, y] = unitSquare("mean probability", "share of yes", most);
  const title = "Reliability, at most 15 bins with as many frames each", legend = element("div", undefined, "legend"), words = [];
  shape(picture, "path", { class: "ideal", d: `M${x(0)} ${y(0)}L${x(most)} ${y(most)}` });
  for (const { name, kind, error, bins } of found) {
    shape(picture, "path", { class: kind, "stroke-width": 2, "stroke-linejoin": "round", d: bins.map(([, p, yes], n) => `${n ? "L" : "M"}${x(p).toFixed(1)} ${y(yes).toFixed(1)}`).join("") });
    for (const [count, p, yes] of bins) shape(shape(picture, "circle", { class: `dot ${kind}`, cx: x(p), cy: y(yes), r: 4 }), "title", {}, `${SessionTimeline.plural(count, "frame")}: mean probability ${fixed(p, 3)}, ${fixed(100 * yes, 1)} % yes`);
    words.push(`${name}: expected calibration error ${error === null ? "undefined" : fixed(error, 3)}`);
    legend.append(swatch(words.at(-1), (svg) => shape(svg, "path", { class: kind, "stroke-width": 3, d: "M0 6H18" })));
  }
  legend.append(swatch("probabilities that mean what they say", (svg) => shape(svg, "path", { class: "ideal", "stroke-width": 2, d: "M0 6H18" })));
  picture.setAttribute("aria-label", `${title}. ${words.join(". ")}`);
  return append(element("div"), element("h4", title, "chart-title"), picture, legend);
}
function niceRange(values, share) { // [from, to, step] around the values, with 4 to 8 round steps
  let low = Math.min(...values), high = Math.max(...values);
  const spread = high - low || Math.abs(high) || 1, raw = spread * 1.1 / 5, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  low = Math.floor((low - spread * 0.04) / step) * step;
  high = Math.ceil((high + spread * 0.04) / step) * step;
  if (share) { low = Math.max(low, 0); high = Math.min(high, 1); }
  return [low, high, step];
}
function confusionTable(name, counts) {
  const table = element("table"), head = append(element("tr"), header("reference"), ...STATES.map((state) => header(state, "n")));
  table.append(element("caption", `${name}: columns are predicted`, "note"), append(element("thead"), head));
  table.append(append(element("tbody"), ...counts.map((row, n) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return append(element("tr"), header(STATES[n], "", "row"), ...row.map((count) => {
      const share = sum ? count / sum : 0, cell = append(element("td", undefined, "share"), document.createTextNode(count.toLocaleString("en").replaceAll(",", "\u202f")));
      cell.append(sum ? element("small", fixed(100 * share, 1) + " %") : element("small", "–"));
      cell.style.setProperty("--share", share);
      return cell;
    }));
  })));
  return table;
}
// A view as SessionTimeline draws it: pairs by index, verdicts by its names, probabilities from 0 to 1.
function timelineSession(view, units) {
  const verdict = (one) => one.verdict === "matched" && one.exact ? "exact" : one.verdict === "different" ? "wrong" : one.verdict;
  const index = new Map(view.reference.map((one, n) => [one.frame, n]));
  const said = view.said.map((one) => ({ ...one, text: one.text || "(no text)", verdict: verdict(one), pair: one.partner === undefined ? null : index.get(one.partner) }));
  const reference = view.reference.map((one) => ({ ...one, verdict: verdict(one) }));
  for (const one of said) if (one.verdict === "matched") [one.words, reference[one.pair].words] = SessionTimeline.wordDifferences(one.text, reference[one.pair].text);
  const share = (values) => values.map((value) => value / units);
  return { ...view, said, reference, p_speak: share(view.p_speak), p_update: share(view.p_update) };
}
return { append, shape, fixed, header, region, figure, swatch, unitSquare, reliabilityChart, niceRange, confusionTable, timelineSession };
})();
