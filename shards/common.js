"use strict";
// What every page has: small makers of elements, filters, a grid whose cards exist only while they are near the window,
// and the head's facts. Every text of the data goes through textContent, never through markup.
const common = (() => {
  const byId = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en");
  const readable = (name) => name.replace(/^co_/, "co-").replaceAll("_", " ");

  function add(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const make = (tag, attributes = {}, ...children) => add(document.createElement(tag), attributes, children);
  // the name of SVG as the parser knows it, so that no address stands in the page
  const drawing = Object.assign(document.createElement("template"), { innerHTML: "<svg></svg>" }).content.firstChild.namespaceURI;
  const draw = (tag, attributes = {}, ...children) => add(document.createElementNS(drawing, tag), attributes, children);

  function readIndex() {
    const data = JSON.parse(byId("index").textContent);
    byId("index").remove();
    return data;
  }
  // A data block's text; null while the page is still being read and the block is not whole.
  function blockText(id) {
    const block = byId(id);
    return block && (block.nextElementSibling || document.readyState !== "loading") ? block.textContent : null;
  }

  // ---- controls
  function fillSelect(id, options, state, onchange) {
    byId(id).append(...options.map(([value, title]) => make("option", { value }, title)));
    byId(id).value = state[id];
    byId(id).addEventListener("change", () => {
      state[id] = byId(id).value;
      onchange();
    });
  }
  // `search` hears the words once the typing rests
  function addSearch(search) {
    let waiting = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => search(byId("search").value.trim()), 80);
    });
  }
  function addTheme() {
    const themes = [["", "◐ System"], ["light", "☀ Light"], ["dark", "☾ Dark"]];
    let theme = 0;
    const apply = () => {
      document.documentElement.dataset.theme = themes[theme][0];
      byId("theme").textContent = themes[theme][1];
    };
    byId("theme").addEventListener("click", () => {
      theme = (theme + 1) % themes.length;
      apply();
    });
    apply();
  }
  const isCommand = (event) => event.ctrlKey || event.metaKey || event.altKey;
  const isTyping = (event) => event.target.closest?.("input:not([type=checkbox]), select, textarea") != null;

  // ---- facets: each holds a small number per row; several choices of one widen it, several facets narrow
  const withChoices = (facets) => facets.map((facet) => ({ ...facet, chosen: new Set(), boxes: new Map() }));
  function makeFacet(facet, update) {
    const used = new Set(facet.values);
    const values = [...facet.names.keys()].filter((value) => (facet.always || used.has(value)) && facet.names[value] !== "");
    const choices = values.map((value) => {
      const input = make("input", { type: "checkbox", onchange: () => {
        if (input.checked) facet.chosen.add(value);
        else facet.chosen.delete(value);
        update();
      } });
      const count = make("span", { class: "number" });
      const label = make("label", { class: "choice" }, input, make("span", { class: "name" }, readable(facet.names[value])), count);
      facet.boxes.set(value, { input, count, label });
      return label;
    });
    return make("fieldset", { "data-facet": facet.id }, make("legend", {}, facet.title), ...choices);
  }
  function showCount(box, count) {
    box.count.textContent = number.format(count);
    box.label.classList.toggle("none", count === 0);
  }
  function addFacets(facets, update) {
    byId("facets").append(...facets.map((facet) => makeFacet(facet, update)).filter((fieldset) => fieldset.querySelector("input")));
    byId("facets").addEventListener("submit", (event) => event.preventDefault());
    if (innerWidth <= 900) byId("filters").open = false;
  }

  // ---- the filters live in the address, so that a view can be bookmarked and sent
  function remember(state, facets, firstSort) {
    const view = new URLSearchParams();
    if (state.query) view.set("q", state.query);
    if (state.phrase) view.set("phrase", state.phrase);
    if (state.sort !== firstSort) view.set("sort", state.sort);
    for (const facet of facets) for (const value of facet.chosen) view.append(facet.id, facet.names[value]);
    try {
      history.replaceState(null, "", view.size ? `#${view}` : location.pathname + location.search);
    } catch { /* a page inside a frame may not */ }
  }
  function recall(state, facets, sorts) {
    const view = new URLSearchParams(location.hash.slice(1));
    state.query = byId("search").value = view.get("q") ?? "";
    if (view.get("sort") in sorts) state.sort = byId("sort").value = view.get("sort");
    for (const facet of facets) {
      facet.chosen = new Set(view.getAll(facet.id).map((name) => facet.names.indexOf(name)).filter((value) => facet.boxes.has(value)));
      for (const [value, box] of facet.boxes) box.input.checked = facet.chosen.has(value);
    }
    return view;
  }

  // ---- a grid of cards: heights are computed, never measured, and a card exists only while it is near the window
  const GAP = 14;
  const MAX_HEIGHT = 15e6; // browsers lose precision, and then the end, of much taller elements
  // `cardWidth()` is the narrowest card; `rowHeight(first, last)` that of the cards of a row; `makeCard(place)` gives
  // { element, filled }; `fill(card)` tries to fill one whose pictures were not there yet.
  function makeGrid({ cardWidth, rowHeight, makeCard, fill }) {
    const element = byId("grid");
    const cards = new Map(); // by place
    const grid = { width: 0, columns: 1, cards, render, goTo, numPlaces: () => Math.min(count, rows * grid.columns) };
    let count = 0, rows = 0, tops = new Float64Array(1);

    function arrange() {
      const width = element.clientWidth;
      grid.columns = Math.max(1, Math.floor((width + GAP) / (Math.min(cardWidth(), width) + GAP)));
      grid.width = Math.floor((width - GAP * (grid.columns - 1)) / grid.columns);
      rows = Math.ceil(count / grid.columns);
      tops = new Float64Array(rows + 1);
      for (let row = 0; row < rows; row++) {
        tops[row + 1] = tops[row] + rowHeight(row * grid.columns, Math.min(count, (row + 1) * grid.columns)) + GAP;
        if (tops[row + 1] > MAX_HEIGHT) rows = row + 1; // which ends the loop
      }
      element.style.height = `${tops[rows]}px`;
      byId("cut").hidden = grid.numPlaces() === count;
      byId("cut").textContent = `The first ${number.format(grid.numPlaces())} are here; narrow the filters to see the others.`;
    }
    function rowAt(y) {
      let low = 0, high = rows;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (tops[middle + 1] <= y) low = middle + 1;
        else high = middle;
      }
      return low;
    }
    function place(card, at) {
      const row = Math.floor(at / grid.columns), column = at % grid.columns;
      card.element.style.width = `${grid.width}px`;
      card.element.style.height = `${tops[row + 1] - tops[row] - GAP}px`;
      card.element.style.transform = `translate(${column * (grid.width + GAP)}px, ${tops[row]}px)`;
      card.element.dataset.place = at;
      card.element.setAttribute("aria-setsize", count);
      card.element.setAttribute("aria-posinset", at + 1);
      cards.set(at, card);
      // in the order of the page, so that Tab and screen readers follow it
      const next = [...element.children].find((other) => Number(other.dataset.place) > at);
      element.insertBefore(card.element, next ?? null);
    }
    function render() {
      const top = -element.getBoundingClientRect().top;
      const first = rowAt(top - 600) * grid.columns;
      const last = Math.min(grid.numPlaces(), (rowAt(top + innerHeight + 600) + 1) * grid.columns);
      for (const [at, card] of cards) {
        if ((at < first || at >= last) && !card.element.contains(document.activeElement)) {
          card.element.remove();
          cards.delete(at);
        }
      }
      for (let at = first; at < last; at++) {
        if (cards.has(at)) fill(cards.get(at));
        else place(makeCard(at), at);
      }
      if ([...cards.values()].some((card) => !card.filled)) setTimeout(soon, 60);
    }
    let asked = false;
    function soon() {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        render();
      });
    }
    function rebuild() {
      for (const card of cards.values()) card.element.remove();
      cards.clear();
      arrange();
      render();
    }
    // the card's first button, with the focus on it and the whole card in sight
    function goTo(at) {
      if (at < 0 || at >= grid.numPlaces()) return null;
      const row = Math.floor(at / grid.columns);
      const top = element.getBoundingClientRect().top + tops[row];
      const bottom = top + tops[row + 1] - tops[row];
      const bar = byId("bar").offsetHeight;
      if (top < bar || bottom - top > innerHeight - bar) scrollBy(0, top - bar - 4);
      else if (bottom > innerHeight) scrollBy(0, bottom - innerHeight);
      render();
      const button = cards.get(at)?.element.querySelector("button");
      button?.focus({ preventScroll: true });
      return button;
    }
    addEventListener("scroll", soon, { passive: true });
    let seen = 0;
    new ResizeObserver(() => {
      if (element.clientWidth !== seen) {
        seen = element.clientWidth;
        rebuild();
      }
    }).observe(element);
    grid.rebuild = rebuild;
    grid.show = (places, { keepScroll = false } = {}) => {
      count = places;
      const bar = byId("sheet").getBoundingClientRect().top;
      if (!keepScroll && bar < 0) scrollBy(0, bar);
      rebuild();
    };
    // arrow keys walk over the buttons of a card and from card to card
    element.addEventListener("keydown", (event) => {
      const card = event.target.closest(".card");
      if (!card || isCommand(event)) return;
      const at = Number(card.dataset.place);
      const buttons = [...card.querySelectorAll("button")];
      const line = buttons.indexOf(event.target);
      const moves = {
        ArrowRight: () => goTo(at + 1),
        ArrowLeft: () => goTo(at - 1),
        ArrowDown: () => (line + 1 < buttons.length ? buttons[line + 1].focus() : goTo(at + grid.columns)),
        ArrowUp: () => (line > 0 ? buttons[line - 1].focus() : goTo(at - grid.columns)),
        PageDown: () => goTo(Math.min(grid.numPlaces() - 1, at + 3 * grid.columns)),
        PageUp: () => goTo(Math.max(0, at - 3 * grid.columns)),
        Home: () => goTo(0),
        End: () => goTo(grid.numPlaces() - 1),
      };
      if (!moves[event.key]) return;
      event.preventDefault();
      moves[event.key]();
    });
    return grid;
  }

  // ---- one card enlarged, with a way to its neighbours; `fillDetail(place)` fills the dialog
  function makeDetail(grid, fillDetail) {
    const dialog = byId("detail");
    const detail = { place: -1, open, step: (by) => open(detail.place + by) };
    function open(place) {
      if (place < 0 || place >= grid.numPlaces()) return;
      detail.place = place;
      fillDetail(place);
      byId("previous").disabled = place === 0;
      byId("next").disabled = place === grid.numPlaces() - 1;
      if (!dialog.open) dialog.showModal();
    }
    byId("previous").addEventListener("click", () => detail.step(-1));
    byId("next").addEventListener("click", () => detail.step(1));
    byId("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") detail.step(-1);
      if (event.key === "ArrowRight") detail.step(1);
    });
    dialog.addEventListener("close", () => {
      const { place } = detail;
      detail.place = -1;
      grid.goTo(place);
    });
    return detail;
  }

  // ---- masks: COCO's compressed run lengths, column by column, background first
  function readRuns(counts) {
    const runs = [];
    for (let at = 0; at < counts.length; ) {
      let value = 0, shift = 0, code;
      do {
        code = counts.charCodeAt(at++) - 48;
        value |= (code & 31) << shift;
        shift += 5;
      } while (code & 32);
      if (code & 16) value |= -1 << shift;
      if (runs.length > 2) value += runs[runs.length - 2];
      runs.push(value);
    }
    return runs;
  }

  // ---- the head
  const tile = (value, title, extra = "", hint = "") =>
    make("li", { class: extra, title: hint }, make("b", {}, value), make("span", {}, title));
  const note = (sentences) => byId("warnings").append(...sentences.map((text) => make("li", {}, text)));
  const warn = (sentences) => note(sentences.map((text) => `⚠ ${text}`));
  // `groups` are headings over several columns, as [title, width]; a cell is a text, or a text and its class
  function makeTable(title, groups, heads, rows) {
    const isNumber = rows[0]?.map((cell) => /^[\d.,]*$/.test([cell].flat()[0])) ?? [];
    const classOf = (i, extra = "") => `${isNumber[i] ? "number " : ""}${extra}`;
    const head = heads.map((text, i) => make("th", { scope: "col", class: classOf(i) }, text));
    const over = groups.map(([text, colspan]) => make("th", { scope: "colgroup", colspan, class: "group" }, text));
    const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) => {
      const [text, extra] = [cell].flat();
      return make("td", { class: classOf(i, extra) }, text);
    })));
    return make("section", {}, make("table", {}, make("caption", {}, title),
      make("thead", {}, ...(over.length ? [make("tr", {}, ...over)] : []), make("tr", {}, ...head)), make("tbody", {}, ...body)));
  }

  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
  const tidy = (value) => String(Number(value.toPrecision(2)));
  // Lines over the margins, one per kind, each with the band of its interval and the margin that was used.
  function makeChart(title, series, { format, bottom }) {
    const WIDTH = 330, HEIGHT = 165, LEFT = 44, RIGHT = 14, TOP = 12, BOTTOM = 30;
    const points = series.flatMap((one) => one.points);
    const margins = points.map((point) => point.margin);
    const [left, right] = [Math.min(...margins), Math.max(...margins)];
    const low = Math.min(bottom ?? Infinity, ...points.map((point) => point.low ?? point.value));
    const high = Math.max(...points.map((point) => point.high ?? point.value));
    const x = (margin) => LEFT + ((margin - left) / (right - left || 1)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
    const through = (list, name) => list.map((point) => `${x(point.margin).toFixed(1)} ${y(point[name]).toFixed(1)}`);
    const text = (at, height, anchor, words) => draw("text", { x: at, y: height, "text-anchor": anchor }, words);
    const ends = ({ kind, points: [first, ...rest] }) => {
      const last = rest.at(-1) ?? first;
      return `${readable(kind)} from ${format(first.value)} at margin ${tidy(first.margin)} to ${format(last.value)} at ${tidy(last.margin)}`;
    };
    const chart = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} over the margin: ${series.map(ends).join("; ")}` });
    for (const value of new Set([low, (low + high) / 2, high])) {
      chart.append(draw("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }), text(LEFT - 6, y(value) + 4, "end", format(value)));
    }
    for (const margin of new Set([left, right])) chart.append(text(x(margin), HEIGHT - 16, "middle", tidy(margin)));
    chart.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "middle", "margin"));
    for (const { kind, points: line, used, colour } of series) {
      const group = draw("g", { class: `series-${colour}` });
      if (line[0].low != null) {
        group.append(draw("path", { class: "band", d: `M${through(line, "high").join("L")}L${through(line, "low").reverse().join("L")}Z` }));
      }
      if (used != null && used >= left && used <= right) {
        group.append(draw("line", { class: "used", x1: x(used), x2: x(used), y1: TOP - 6, y2: HEIGHT - BOTTOM }, draw("title", {}, `${readable(kind)}: margin ${tidy(used)} was used`)));
      }
      group.append(draw("path", { class: "curve", d: `M${through(line, "value").join("L")}` }));
      for (const point of line) {
        const range = point.low != null ? ` (${format(point.low)} to ${format(point.high)})` : "";
        group.append(draw("circle", { cx: x(point.margin), cy: y(point.value), r: line.length > 30 ? 1.8 : 3 },
          draw("title", {}, `${readable(kind)}, margin ${tidy(point.margin)}: ${format(point.value)}${range}, ${number.format(point.num_rows)} rows`)));
      }
      chart.append(group);
    }
    return make("figure", {}, make("figcaption", {}, title), chart);
  }
  const NO_MARGIN = -1e8; // what keeps every candidate is written as a margin below this
  function makeCharts(kinds) {
    const series = (name, pick) => kinds.map(({ kind, curve, margin }, colour) => ({ kind, colour: colour % 3, used: margin,
      points: curve.filter((point) => point[name] != null && point.margin > NO_MARGIN).sort((a, b) => a.margin - b.margin).map(pick) }))
      .filter((one) => one.points.length);
    const shares = series("false_share", (point) => ({ ...point, value: point.false_share }));
    const hardness = series("hardness", ({ margin, num_rows, hardness: value }) => ({ margin, num_rows, value }));
    const charts = [];
    if (shares.length) charts.push(makeChart("False share, with its interval", shares, { format: percent, bottom: 0 }));
    if (hardness.length) charts.push(makeChart("Hardness (mean standard score)", hardness, { format: (value) => value.toFixed(2) }));
    return charts;
  }
  const range = (point) => `${percent(point.false_share)} (${percent(point.low)} to ${percent(point.high)})`;
  function makeAuditTable(audit) {
    return makeTable("The mining audit, 95 % intervals", [], ["Kind", "margin", "false share", "rows", "leak", "hardness"], audit.kinds.map((one, colour) => {
      const point = one.at_margin;
      return [[readable(one.kind), `key-${colour % 3}`], one.margin == null ? "none" : tidy(one.margin), point ? range(point) : "", point ? number.format(point.num_rows) : "",
        one.leak == null ? "" : percent(one.leak), point?.hardness == null ? "" : point.hardness.toFixed(2)];
    }));
  }
  function makeGuardTable(kinds) {
    const guards = [...new Set(kinds.flatMap((one) => Object.keys(one.rejected)))];
    return makeTable("What became of the candidates", [["", 2], ["taken by a guard", guards.length], ["", 2]],
      ["Kind", "candidates", ...guards.map(readable), "spare", "rows"],
      kinds.map((one) => [readable(one.kind), ...[one.candidates, ...guards.map((guard) => one.rejected[guard] ?? 0), one.spare, one.rows].map((count) => number.format(count))]));
  }
  // what is known of the mining: the encoder and why it was taken, what the guards took, the audit's figures and curves
  function fillMining(mining) {
    const section = byId("mining");
    const words = make("div", { class: "words-of-mining" });
    if (mining.encoder) words.append(make("p", {}, "Encoder ", make("b", {}, mining.encoder), mining.encoder_why ? `: ${mining.encoder_why}` : ""));
    if (mining.unreadable) warn([mining.unreadable]);
    const audit = mining.audit;
    if (audit?.kinds.length) words.append(makeAuditTable(audit));
    if (mining.no_audit) words.append(make("p", { class: "quiet" }, `No audit: ${mining.no_audit}`));
    if (audit?.assumption) {
      const hidden = audit.hidden_share == null ? "" : `${percent(audit.hidden_share)} of the known presences were hidden. `;
      words.append(make("p", { class: "quiet" }, `${hidden}Assumed: ${audit.assumption}`));
    }
    if (mining.kinds.length) words.append(make("details", {}, make("summary", {}, "What the guards took"), makeGuardTable(mining.kinds)));
    if (words.childElementCount) section.append(words);
    const charts = audit ? makeCharts(audit.kinds) : [];
    if (charts.length) section.append(make("div", { class: "charts" }, ...charts));
    section.hidden = !section.childElementCount;
  }

  return { byId, number, readable, make, readIndex, blockText, fillSelect, addSearch, addTheme, isCommand, isTyping, withChoices,
    showCount, addFacets, remember, recall, makeGrid, makeDetail, readRuns, tile, note, warn, makeTable, fillMining };
})();
