// Parts of a page of cards. Texts reach the page only through textContent.
const Cards = (() => {
  const { element } = SessionTimeline;

  function facts(box, pairs) { // [name, value] pairs in a <dl>
    for (const [name, value] of pairs) {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      box.append(pair);
    }
    return box;
  }
  function row(cells, head) { // [text, class] cells; the first one names the row, unless its class is "plain"
    const line = element("tr");
    cells.forEach(([text, className], n) => {
      const cell = element(head || (n === 0 && className !== "plain") ? "th" : "td", text, className);
      if (cell.tagName === "TH") cell.scope = head ? "col" : "row";
      line.append(cell);
    });
    return line;
  }
  function tableOf(rows) { // a head and rows of numbers; the first column names the row
    const cells = (texts) => texts.map((text, n) => [text, n ? "n" : ""]);
    return table(cells(rows[0]), rows.slice(1).map(cells));
  }
  function table(titles, rows) { // cells as in row()
    const all = element("table"), head = element("thead"), body = element("tbody");
    head.append(row(titles, true));
    for (const cells of rows) body.append(row(cells));
    all.append(head, body);
    return all;
  }
  return { facts, table, tableOf };
})();
