// The page of failures. A row is one wrong answer; its predicted mask is painted over the picture and the true one is
// outlined. A card exists only while it is near the window.
(() => {
  const { byId, number, readable, make, readIndex, blockText, fillSelect, addSearch, addTheme, isCommand, isTyping, withChoices,
    showCount, addFacets, remember, recall, makeGrid, makeDetail, readRuns, tile, note, makeTable } = common;
  const { about, rows, pictures } = readIndex();
  const numRows = rows.phrase.length;
  const each = Array.from({ length: numRows }, (_, r) => r);
  const keyOf = (r) => pictures.key[rows.picture[r]];
  const sourceOf = (r) => pictures.source[rows.picture[r]];
  const isMiss = (r) => rows.kinds[r].length === 0;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const iouOf = (r) => (rows.iou[r] === null ? "–" : rows.iou[r].toFixed(2));

  // ---- filters
  const sources = [...new Set(pictures.source)].sort();
  const facets = withChoices([
    { id: "failure", title: "Failure", always: true, names: about.groups.map((group) => group.title), values: rows.group },
    { id: "source", title: "Source", names: sources, values: each.map((r) => sources.indexOf(sourceOf(r))) },
  ]);
  const searched = each.map((r) => `${rows.phrase[r]}\n${keyOf(r)}`.toLowerCase());
  const state = { query: "", sort: "worst", size: "medium" };
  const sorts = {
    worst: ["worst first", (r) => r],
    sure: ["highest presence", (r) => -rows.presence[r]],
    unsure: ["lowest presence", (r) => rows.presence[r]],
    phrase: ["phrase", (r) => [...rows.phrase].sort().indexOf(rows.phrase[r])],
  };
  let shown = each;
  const fitsFacet = (facet, r) => !facet.chosen.size || facet.chosen.has(facet.values[r]);

  function update({ keepScroll = false } = {}) {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = each.filter((r) => words.every((word) => searched[r].includes(word)));
    for (const facet of facets) {
      const counts = new Int32Array(facet.names.length);
      for (const r of found) if (facets.every((other) => other === facet || fitsFacet(other, r))) counts[facet.values[r]]++;
      for (const [value, box] of facet.boxes) showCount(box, counts[value]);
    }
    const ranks = each.map(sorts[state.sort][1]);
    shown = found.filter((r) => facets.every((facet) => fitsFacet(facet, r))).sort((a, b) => ranks[a] - ranks[b] || a - b);
    byId("count").textContent = `${number.format(shown.length)} of ${number.format(numRows)} failures`;
    byId("empty").hidden = shown.length > 0;
    byId("clear").hidden = !state.query && facets.every((facet) => !facet.chosen.size);
    grid.show(shown.length, { keepScroll });
    remember(state, facets, "worst");
  }

  // ---- masks
  const SAID = [213, 94, 0], TRUE = [0, 190, 140], DARK = [0, 0, 0];
  function insideOf(counts, size) { // column by column, as the runs are
    const inside = new Uint8Array(size);
    let end = 0;
    readRuns(counts).forEach((run, i) => {
      if (i % 2) inside.fill(1, end, end + run);
      end += run;
    });
    return inside;
  }
  function paint(canvas, r) {
    const width = pictures.width[rows.picture[r]], height = pictures.height[rows.picture[r]];
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const set = (x, y, [red, green, blue], alpha) => image.data.set([red, green, blue, alpha], 4 * (y * width + x));
    // `isWithin(by)` says whether the mask goes on for `by` pixels on all four sides
    const eachInside = (inside, visit) => {
      const isIn = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[x * height + y];
      inside.forEach((is, at) => {
        const x = Math.floor(at / height), y = at % height;
        if (is) visit(x, y, (by) => isIn(x - by, y) && isIn(x + by, y) && isIn(x, y - by) && isIn(x, y + by));
      });
    };
    if (rows.predicted[r]) {
      const said = insideOf(rows.predicted[r], width * height);
      eachInside(said, (x, y, isWithin) => set(x, y, SAID, isWithin(1) ? 120 : 255));
    }
    if (rows.true[r]) {
      const truth = insideOf(rows.true[r], width * height);
      // two pixels of colour with a dark one within, so that the outline shows on anything
      eachInside(truth, (x, y, isWithin) => {
        if (!isWithin(3)) set(x, y, isWithin(2) ? DARK : TRUE, 255);
      });
    }
    context.putImageData(image, 0, 0);
  }

  // ---- cards
  const SIZES = { small: 220, medium: 320, large: 480 };
  const WORDS = 96;
  const pictureHeight = () => Math.round(grid.width * 0.75);
  const grid = makeGrid({ cardWidth: () => SIZES[state.size], rowHeight: () => pictureHeight() + WORDS, makeCard, fill });

  function altOf(r) {
    const what = isMiss(r) ? "is there" : "is not there";
    return `Picture ${keyOf(r)}: ${rows.phrase[r]} ${what}, presence ${rows.presence[r].toFixed(2)}`;
  }
  function makePicture(r, maxWidth, maxHeight) {
    const width = pictures.width[rows.picture[r]], height = pictures.height[rows.picture[r]];
    const scale = Math.min(maxWidth / width, maxHeight / height);
    const image = make("img", { alt: altOf(r), decoding: "async", draggable: "false" });
    const canvas = make("canvas", { "aria-hidden": "true" });
    const frame = make("span", { class: "frame" }, image, canvas);
    frame.style.width = `${Math.round(width * scale)}px`;
    frame.style.height = `${Math.round(height * scale)}px`;
    paint(canvas, r);
    return { frame, image };
  }
  function fill(card) {
    if (card.filled) return;
    const text = blockText(`thumbnail-${rows.picture[card.row]}`);
    if (text === null) return;
    card.filled = true;
    card.image.src = `data:image/webp;base64,${JSON.parse(text)}`;
  }
  function factsOf(r) {
    const facts = [["presence", rows.presence[r].toFixed(3)]];
    if (isMiss(r) && rows.iou[r] !== null) facts.push(["IoU", iouOf(r)]);
    return facts;
  }
  function makeCard(place) {
    const r = shown[place];
    const { frame, image } = makePicture(r, grid.width, pictureHeight());
    const open = make("button", { type: "button", class: "picture", title: "Enlarge", onclick: () => detail.open(place) }, frame);
    open.style.height = `${pictureHeight()}px`;
    const tags = (isMiss(r) ? ["present"] : rows.kinds[r]).map((kind) => make("span", { class: "tag" }, readable(kind)));
    const facts = factsOf(r).map(([name, value]) => make("span", {}, `${name} `, make("b", {}, value)));
    const element = make("li", { class: `card failure${isMiss(r) ? " is-miss" : ""}` }, open,
      make("div", { class: "words" },
        make("span", { class: "phrase", dir: "auto", title: rows.phrase[r] }, rows.phrase[r]),
        make("div", { class: "facts" }, ...facts, ...tags),
        make("div", { class: "meta" }, make("span", { class: "key", title: keyOf(r) }, keyOf(r)))));
    const card = { element, row: r, image, filled: false };
    fill(card);
    return card;
  }

  // ---- one failure enlarged
  const detail = makeDetail(grid, (place) => {
    const r = shown[place];
    const { frame, image } = makePicture(r, Math.min(innerWidth * 0.5, 720), innerHeight - 140);
    fill({ row: r, image, filled: false });
    byId("detail-phrase").textContent = rows.phrase[r];
    byId("detail-picture").replaceChildren(frame);
    byId("detail-facts").textContent = about.groups[rows.group[r]].title;
    const facts = [["picture", keyOf(r)], ["source", sourceOf(r)], ["truth", isMiss(r) ? "present" : "absent"],
      ["asked as", rows.kinds[r].map(readable).join(", ")], ...factsOf(r), ["predicted mask", rows.predicted[r] ? "painted" : "none"],
      ["true mask", rows.true[r] ? "outlined" : "none"]];
    byId("detail-rows").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", { dir: "auto" }, value))));
  });

  function fillHead() {
    byId("what").textContent = about.what;
    byId("tiles").append(...about.tiles.map(([value, title]) => tile(value, title)));
    note(about.notes);
    byId("tables").append(makeTable("", [], ["Failure", "found", "asked", "share"], about.groups.map((group) =>
      [group.title, number.format(group.num_found), number.format(group.num_asked), percent(group.num_found / group.num_asked)])));
  }
  function restore() {
    recall(state, facets, sorts);
  }

  fillHead();
  fillSelect("sort", Object.entries(sorts).map(([name, [title]]) => [name, title]), state, () => update());
  fillSelect("size", Object.keys(SIZES).map((name) => [name, name]), state, grid.rebuild);
  addFacets(facets, () => update());
  addSearch((query) => {
    state.query = query;
    update();
  });
  byId("clear").addEventListener("click", () => {
    history.replaceState(null, "", "#");
    restore();
    update();
    byId("search").focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || isCommand(event) || isTyping(event)) return;
    event.preventDefault();
    byId("search").focus();
  });
  addTheme();
  restore();
  update({ keepScroll: true });
  addEventListener("hashchange", () => {
    if (location.hash === "#sheet") return;
    restore();
    update({ keepScroll: true });
  });
})();
