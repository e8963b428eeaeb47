"use strict";
// The contact sheet. All rows stand in columns of numbers that are filtered at once; a card exists only while it is
// near the window, and the pictures and masks of a chunk of samples are parsed when the first of its cards appears.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("index").textContent);
  byId("index").remove();
  const { samples, prompts, texts, about } = data;
  const numSamples = samples.key.length;
  const numPrompts = prompts.phrase.length;
  const number = new Intl.NumberFormat("en");

  // ---- small helpers: every text of the data goes through textContent, never through markup
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const readable = (name) => name.replace(/^co_/, "co-").replaceAll("_", " ");

  // ---- columns
  const firstPrompt = new Int32Array(numSamples + 1);
  for (let s = 0; s < numSamples; s++) firstPrompt[s + 1] = firstPrompt[s] + samples.num_prompts[s];
  const sampleOf = new Int32Array(numPrompts);
  for (let s = 0; s < numSamples; s++) sampleOf.fill(s, firstPrompt[s], firstPrompt[s + 1]);
  const lowerPhrases = texts.phrase.map((text) => text.toLowerCase());
  const lowerKeys = samples.key.map((text) => text.toLowerCase());

  // A facet holds one small number per prompt; several choices of one facet widen it, several facets narrow.
  const perSample = (column) => Int32Array.from(sampleOf, (s) => column[s]);
  const facets = [
    { id: "split", title: "Split", ofSample: true, names: texts.split, values: perSample(samples.split) },
    { id: "source", title: "Source", ofSample: true, names: texts.source, values: perSample(samples.source) },
    { id: "answer", title: "Answer", names: ["✓ present", "✗ absent"], values: prompts.present.map((one) => 1 - one) },
    { id: "kind", title: "Kind of absence", names: texts.kind, values: prompts.kind },
    { id: "evidence", title: "Evidence", names: texts.evidence, values: prompts.evidence },
    { id: "mask_state", title: "Masks of a presence", names: texts.mask_state,
      values: prompts.mask_state.map((value, p) => (prompts.present[p] ? value : -1)) },
  ].map((facet) => ({ ...facet, chosen: new Set(), boxes: new Map() }));

  // ---- what fits
  const state = { query: "", sort: "written", masks: "filled", size: "medium" };
  const fits = new Uint8Array(numPrompts); // bit f is set where the prompt misses facet f
  let shown = new Int32Array(0); // samples, in the order of the sheet
  let matching = false; // whether some prompts of a shown sample may not match

  function findMatches() {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const phraseFits = lowerPhrases.map((text) => words.every((word) => text.includes(word)));
    const keyFits = words.length ? lowerKeys.map((text) => words.every((word) => text.includes(word))) : null;
    fits.fill(0);
    facets.forEach((facet, f) => {
      if (!facet.chosen.size) return;
      const allowed = facet.names.map((_, value) => facet.chosen.has(value));
      for (let p = 0; p < numPrompts; p++) if (!allowed[facet.values[p]]) fits[p] |= 1 << f;
    });
    if (words.length) {
      for (let p = 0; p < numPrompts; p++) {
        if (!phraseFits[prompts.phrase[p]] && !keyFits[sampleOf[p]]) fits[p] |= 128;
      }
    }
    matching = words.length > 0 || facets.some((facet) => !facet.ofSample && facet.chosen.size);
  }

  const sorts = {
    written: ["as written", null],
    key: ["key", null],
    many: ["most present", (s) => -sumOf(prompts.present, s)],
    few: ["fewest present", (s) => sumOf(prompts.present, s)],
    large: ["largest mask", (s) => -bestOf(prompts.area, s, Math.max)],
    small: ["smallest mask", (s) => bestOf(prompts.area, s, Math.min)],
    hard: ["highest score", (s) => -bestOf(prompts.score, s, Math.max)],
    easy: ["lowest score", (s) => bestOf(prompts.score, s, Math.min)],
  };
  function sumOf(column, s) {
    let sum = 0;
    for (let p = firstPrompt[s]; p < firstPrompt[s + 1]; p++) sum += column[p];
    return sum;
  }
  // over the prompts that match and say something; samples without any come last
  function bestOf(column, s, choose) {
    let best = null;
    for (let p = firstPrompt[s]; p < firstPrompt[s + 1]; p++) {
      if (!fits[p] && column[p] !== 0) best = best === null ? column[p] : choose(best, column[p]);
    }
    return best ?? (choose === Math.min ? Infinity : -Infinity);
  }

  function chooseSamples() {
    const chosen = [];
    let count = 0;
    for (let s = 0; s < numSamples; s++) {
      const before = count;
      for (let p = firstPrompt[s]; p < firstPrompt[s + 1]; p++) if (!fits[p]) count++;
      if (count > before) chosen.push(s);
    }
    const rank = sorts[state.sort][1];
    if (state.sort === "key") chosen.sort((a, b) => (samples.key[a] < samples.key[b] ? -1 : 1));
    else if (rank) {
      const ranks = new Map(chosen.map((s) => [s, rank(s)]));
      chosen.sort((a, b) => (ranks.get(a) === ranks.get(b) ? a - b : ranks.get(a) - ranks.get(b)));
    }
    shown = Int32Array.from(chosen);
    return count;
  }

  function countFacets() {
    facets.forEach((facet, f) => {
      const counts = new Int32Array(facet.names.length);
      const others = 255 & ~(1 << f);
      let last = -1; // facets of samples count a sample once
      for (let p = 0; p < numPrompts; p++) {
        if (fits[p] & others || facet.values[p] < 0) continue;
        if (facet.ofSample && sampleOf[p] === last) continue;
        last = sampleOf[p];
        counts[facet.values[p]]++;
      }
      for (const [value, box] of facet.boxes) {
        box.count.textContent = number.format(counts[value]);
        box.label.classList.toggle("none", counts[value] === 0);
      }
    });
  }

  // ---- layout: a card's height follows from its number of prompts, so nothing is ever measured
  const LINE = 22, META = 30, FOOT = 8, GAP = 14, MAX_LINES = 11;
  const SIZES = { small: 220, medium: 290, large: 420 };
  const MAX_HEIGHT = 15e6; // browsers lose precision, and then the end, of much taller elements
  const layout = { columns: 1, width: 0, tops: new Float64Array(1), rows: 0 };
  const linesOf = (s) => Math.min(MAX_LINES, samples.num_prompts[s]);
  const pictureHeight = () => Math.round(layout.width * 0.75);

  function arrange() {
    const width = byId("grid").clientWidth;
    layout.columns = Math.max(1, Math.floor((width + GAP) / (Math.min(SIZES[state.size], width) + GAP)));
    layout.width = Math.floor((width - GAP * (layout.columns - 1)) / layout.columns);
    layout.rows = Math.ceil(shown.length / layout.columns);
    layout.tops = new Float64Array(layout.rows + 1);
    for (let row = 0; row < layout.rows; row++) {
      let lines = 0;
      for (let i = row * layout.columns; i < Math.min(shown.length, (row + 1) * layout.columns); i++) {
        lines = Math.max(lines, linesOf(shown[i]));
      }
      layout.tops[row + 1] = layout.tops[row] + pictureHeight() + META + lines * LINE + FOOT + GAP;
      if (layout.tops[row + 1] > MAX_HEIGHT) layout.rows = row + 1; // which ends the loop
    }
    byId("grid").style.height = `${layout.tops[layout.rows]}px`;
    byId("cut").hidden = numPlaces() === shown.length;
    byId("cut").textContent = `The first ${number.format(numPlaces())} are here; narrow the filters to see the others.`;
  }
  const numPlaces = () => Math.min(shown.length, layout.rows * layout.columns);
  function rowAt(y) {
    let low = 0, high = layout.rows;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (layout.tops[middle + 1] <= y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // ---- chunks
  const chunks = new Map(); // the most recent ones, parsed
  function heavyOf(s) {
    const place = Math.floor(s / data.chunk_samples);
    let chunk = chunks.get(place);
    if (!chunk) {
      const block = byId(`chunk-${place}`);
      // The block is whole once something follows it, or once the page is.
      if (!block || (!block.nextElementSibling && document.readyState === "loading")) return null;
      chunk = JSON.parse(block.textContent);
      chunks.set(place, chunk);
      if (chunks.size > 40) chunks.delete(chunks.keys().next().value);
    }
    return chunk[s % data.chunk_samples];
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
  function paintMask(pixels, width, height, counts, [red, green, blue]) {
    const inside = new Uint8Array(width * height); // column by column, as the runs are
    let end = 0;
    readRuns(counts).forEach((run, i) => {
      if (i % 2) inside.fill(1, end, end + run);
      end += run;
    });
    const isInside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[x * height + y];
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        if (!inside[x * height + y]) continue;
        const edge = !(isInside(x - 1, y) && isInside(x + 1, y) && isInside(x, y - 1) && isInside(x, y + 1));
        if (!edge && state.masks === "outlined") continue;
        const at = 4 * (y * width + x);
        pixels[at] = red;
        pixels[at + 1] = green;
        pixels[at + 2] = blue;
        pixels[at + 3] = Math.max(pixels[at + 3], edge ? 255 : 95);
      }
    }
  }
  const COLOURS = [[86, 180, 233], [240, 228, 66], [213, 94, 0], [0, 190, 140], [204, 121, 167], [230, 159, 0], [120, 130, 255]];
  // each present phrase of a sample that has masks takes the next colour
  function colourOf(s, p) {
    let place = 0;
    for (let q = firstPrompt[s]; q < p; q++) if (prompts.num_masks[q]) place++;
    return COLOURS[place % COLOURS.length];
  }
  // the masks of the prompts that match, or those of one prompt alone
  function drawMasks(canvas, s, only) {
    const heavy = heavyOf(s);
    const width = samples.thumbnail_width[s], height = samples.thumbnail_height[s];
    canvas.width = width; // also clears it
    canvas.height = height;
    if (!heavy || state.masks === "hidden") return;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    heavy[1].forEach((masks, i) => {
      const p = firstPrompt[s] + i;
      if (only === null ? matching && fits[p] : only !== p) return;
      for (const counts of masks) paintMask(image.data, width, height, counts, colourOf(s, p));
    });
    context.putImageData(image, 0, 0);
  }

  // ---- pictures and prompts, alike on cards and in the dialog
  function altOf(s) {
    const names = [[], []];
    for (let p = firstPrompt[s]; p < firstPrompt[s + 1]; p++) names[prompts.present[p]].push(texts.phrase[prompts.phrase[p]]);
    const say = (list) => (list.length ? list.slice(0, 12).join(", ") : "nothing that was asked");
    return `Picture ${samples.key[s]}. Present: ${say(names[1])}. Absent: ${say(names[0])}.`;
  }
  function makePicture(s, maxWidth, maxHeight) {
    const width = samples.thumbnail_width[s], height = samples.thumbnail_height[s];
    const scale = Math.min(maxWidth / width, maxHeight / height);
    const image = make("img", { alt: altOf(s), decoding: "async", draggable: "false" });
    const canvas = make("canvas", { "aria-hidden": "true" });
    const frame = make("span", { class: "frame" }, image, canvas);
    frame.style.width = `${Math.round(width * scale)}px`;
    frame.style.height = `${Math.round(height * scale)}px`;
    const picture = { sample: s, frame, image, canvas, pinned: null, filled: false };
    fillPicture(picture);
    return picture;
  }
  function fillPicture(picture) {
    const heavy = heavyOf(picture.sample);
    if (!heavy || picture.filled) return;
    picture.filled = true;
    picture.image.src = `data:image/webp;base64,${heavy[0]}`;
    drawMasks(picture.canvas, picture.sample, picture.pinned);
  }
  function whyOf(p) {
    const parts = [];
    if (prompts.present[p]) {
      const masks = prompts.num_masks[p];
      const how = texts.mask_state[prompts.mask_state[p]];
      parts.push(how === "none" ? "no mask" : `${masks} ${masks === 1 ? "mask" : "masks"}${how === "partial" ? ", partial" : ""}`);
    } else parts.push(readable(texts.kind[prompts.kind[p]]));
    parts.push(texts.evidence[prompts.evidence[p]]);
    if (prompts.score[p]) parts.push(prompts.score[p].toFixed(2));
    return parts.filter(Boolean);
  }
  function makePrompt(picture, p, why) {
    const s = picture.sample;
    const phrase = texts.phrase[prompts.phrase[p]];
    const isPresent = prompts.present[p];
    const button = make("button", { type: "button", tabindex: "-1", "aria-pressed": "false",
      class: `prompt ${isPresent ? "is-present" : "is-absent"}${matching && fits[p] ? " unmatched" : ""}`,
      title: `${isPresent ? "present" : "absent"}: ${phrase}\n${whyOf(p).join(" · ")}` },
      make("span", { class: "sign", "aria-label": isPresent ? "present" : "absent", role: "img" }, isPresent ? "✓" : "✗"),
      make("span", { class: "phrase" }, phrase));
    if (prompts.num_masks[p]) {
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = `rgb(${colourOf(s, p)})`;
      button.append(swatch);
    }
    if (why) button.append(make("span", { class: "why" }, why));
    const show = () => drawMasks(picture.canvas, s, p);
    const restore = () => drawMasks(picture.canvas, s, picture.pinned);
    button.addEventListener("pointerenter", show);
    button.addEventListener("focus", show);
    button.addEventListener("pointerleave", restore);
    button.addEventListener("blur", restore);
    button.addEventListener("click", () => {
      picture.pinned = picture.pinned === p ? null : p;
      for (const other of button.closest("li, tbody").querySelectorAll(".prompt")) {
        other.setAttribute("aria-pressed", String(other === button && picture.pinned === p));
      }
      restore();
    });
    return button;
  }
  // what matches comes first, then what is present
  function orderOf(s) {
    const order = [];
    for (let p = firstPrompt[s]; p < firstPrompt[s + 1]; p++) order.push(p);
    const rank = (p) => (matching && fits[p] ? 2 : 0) + (prompts.present[p] ? 0 : 1);
    return order.sort((a, b) => rank(a) - rank(b) || a - b);
  }

  // ---- cards
  const cards = new Map(); // by place on the sheet
  function makeCard(place) {
    const s = shown[place];
    const height = pictureHeight();
    const picture = makePicture(s, layout.width, height);
    const open = make("button", { type: "button", class: "picture", title: "Enlarge", onclick: () => openDetail(place) }, picture.frame);
    open.style.height = `${height}px`;
    const meta = make("div", { class: "meta" },
      make("span", { class: "key", title: samples.key[s] }, samples.key[s]),
      make("span", {}, `${samples.width[s]} × ${samples.height[s]}`),
      make("span", { class: "tag", title: "source" }, texts.source[samples.source[s]]),
      make("span", { class: "tag", title: "split" }, texts.split[samples.split[s]]));
    const order = orderOf(s);
    const lines = order.slice(0, order.length > MAX_LINES ? MAX_LINES - 1 : MAX_LINES);
    const element = make("li", { class: "card", "aria-setsize": shown.length, "aria-posinset": place + 1 }, open, meta,
      ...lines.map((p) => makePrompt(picture, p, whyOf(p).join(" · "))));
    if (lines.length < order.length) {
      element.append(make("button", { type: "button", class: "more", tabindex: "-1", onclick: () => openDetail(place) },
        `${order.length - lines.length} more …`));
    }
    const row = Math.floor(place / layout.columns), column = place % layout.columns;
    element.style.width = `${layout.width}px`;
    element.style.height = `${layout.tops[row + 1] - layout.tops[row] - GAP}px`;
    element.style.transform = `translate(${column * (layout.width + GAP)}px, ${layout.tops[row]}px)`;
    element.dataset.place = place;
    return { element, picture };
  }
  function render() {
    const top = -byId("grid").getBoundingClientRect().top;
    const first = rowAt(top - 600) * layout.columns;
    const last = Math.min(numPlaces(), (rowAt(top + innerHeight + 600) + 1) * layout.columns);
    for (const [place, card] of cards) {
      const hasFocus = card.element.contains(document.activeElement);
      if ((place < first || place >= last) && !hasFocus) {
        card.element.remove();
        cards.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (cards.has(place)) fillPicture(cards.get(place).picture);
      else {
        const card = makeCard(place);
        cards.set(place, card);
        // in the order of the sheet, so that Tab and screen readers follow it
        const next = [...byId("grid").children].find((other) => Number(other.dataset.place) > place);
        byId("grid").insertBefore(card.element, next ?? null);
      }
    }
    if ([...cards.values()].some((card) => !card.picture.filled)) setTimeout(soon, 60);
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
  function update({ keepScroll = false } = {}) {
    findMatches();
    const count = chooseSamples();
    countFacets();
    byId("count").textContent = `${number.format(shown.length)} of ${number.format(numSamples)} samples, ${number.format(count)} prompts`;
    byId("empty").hidden = shown.length > 0;
    byId("clear").hidden = !state.query && facets.every((facet) => !facet.chosen.size);
    const bar = byId("sheet").getBoundingClientRect().top;
    if (!keepScroll && bar < 0) scrollBy(0, bar);
    rebuild();
    remember();
  }

  // ---- the filters live in the address, so that a view can be bookmarked and sent
  function remember() {
    const view = new URLSearchParams();
    if (state.query) view.set("q", state.query);
    if (state.sort !== "written") view.set("sort", state.sort);
    for (const facet of facets) for (const value of facet.chosen) view.append(facet.id, facet.names[value]);
    try {
      history.replaceState(null, "", view.size ? `#${view}` : location.pathname + location.search);
    } catch { /* a page inside a frame may not */ }
  }
  function recall() {
    const view = new URLSearchParams(location.hash.slice(1));
    state.query = byId("search").value = view.get("q") ?? "";
    if (view.get("sort") in sorts) state.sort = byId("sort").value = view.get("sort");
    for (const facet of facets) {
      facet.chosen = new Set(view.getAll(facet.id).map((name) => facet.names.indexOf(name)).filter((value) => facet.boxes.has(value)));
      for (const [value, box] of facet.boxes) box.input.checked = facet.chosen.has(value);
    }
  }

  // ---- controls
  function makeFacet(facet) {
    const used = new Set(facet.values);
    const values = [...facet.names.keys()].filter((value) => used.has(value) && facet.names[value] !== "");
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
  function fillSelect(id, options, onchange) {
    byId(id).append(...options.map(([value, title]) => make("option", { value }, title)));
    byId(id).value = state[id];
    byId(id).addEventListener("change", () => {
      state[id] = byId(id).value;
      onchange();
    });
  }
  function redraw() {
    for (const { picture } of [...cards.values(), ...(detail ? [detail] : [])]) drawMasks(picture.canvas, picture.sample, picture.pinned);
  }
  function addControls() {
    byId("facets").append(...facets.map(makeFacet).filter((fieldset) => fieldset.querySelector("input")));
    byId("facets").addEventListener("submit", (event) => event.preventDefault());
    const scored = prompts.score.some((score) => score !== 0);
    const offered = Object.entries(sorts).filter(([name]) => scored || !["hard", "easy"].includes(name));
    fillSelect("sort", offered.map(([value, [title]]) => [value, title]), () => update());
    fillSelect("masks", [["filled", "filled"], ["outlined", "outlined"], ["hidden", "hidden"]], redraw);
    fillSelect("size", Object.keys(SIZES).map((name) => [name, name]), rebuild);
    let waiting = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        state.query = byId("search").value.trim();
        update();
      }, 80);
    });
    byId("clear").addEventListener("click", () => {
      history.replaceState(null, "", "#");
      recall();
      update();
      byId("search").focus();
    });
    const themes = [["", "◐ System"], ["light", "☀ Light"], ["dark", "☾ Dark"]];
    let theme = 0;
    const applyTheme = () => {
      document.documentElement.dataset.theme = themes[theme][0];
      byId("theme").textContent = themes[theme][1];
    };
    byId("theme").addEventListener("click", () => {
      theme = (theme + 1) % themes.length;
      applyTheme();
    });
    applyTheme();
    if (innerWidth <= 900) byId("filters").open = false;
  }

  // ---- the sample enlarged
  let detail = null; // { place, picture }
  function openDetail(place) {
    const s = shown[place];
    const narrow = innerWidth <= 900;
    const picture = makePicture(s, narrow ? innerWidth - 66 : Math.min(1200, innerWidth - 32) * 0.56 - 34, innerHeight - (narrow ? 300 : 130));
    detail = { place, picture };
    byId("detail-key").textContent = samples.key[s];
    byId("detail-facts").textContent = `${texts.source[samples.source[s]]} · ${texts.split[samples.split[s]]} · ` +
      `${samples.width[s]} × ${samples.height[s]} pixels · sample ${number.format(place + 1)} of ${number.format(shown.length)}`;
    byId("detail-picture").replaceChildren(picture.frame);
    byId("detail-prompts").replaceChildren(...orderOf(s).map((p) => {
      const button = makePrompt(picture, p, "");
      button.tabIndex = 0;
      const covered = prompts.num_masks[p] ? `covers ${(100 * prompts.area[p]).toFixed(prompts.area[p] < 0.01 ? 2 : 0)} %` : "";
      const state = texts.mask_state[prompts.mask_state[p]];
      const masks = prompts.present[p] ? [whyOf(p)[0], covered, state === "complete" ? state : ""].filter(Boolean).join(", ") : "";
      const scores = [prompts.score[p] && prompts.score[p].toFixed(3), prompts.standard_score[p] && `z ${prompts.standard_score[p].toFixed(2)}`,
        prompts.rank[p] >= 0 && `rank ${prompts.rank[p]}`];
      return make("tr", {}, ...[button, masks || readable(texts.kind[prompts.kind[p]]), texts.evidence[prompts.evidence[p]], scores.filter(Boolean).join(", ")].map((cell) => make("td", {}, cell)));
    }));
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === numPlaces() - 1;
    if (!byId("detail").open) byId("detail").showModal();
  }
  function goTo(place) {
    if (place < 0 || place >= numPlaces()) return null;
    const row = Math.floor(place / layout.columns);
    const top = byId("grid").getBoundingClientRect().top + layout.tops[row];
    const bottom = top + layout.tops[row + 1] - layout.tops[row];
    const bar = byId("bar").offsetHeight;
    if (top < bar || bottom - top > innerHeight - bar) scrollBy(0, top - bar - 4);
    else if (bottom > innerHeight) scrollBy(0, bottom - innerHeight);
    render();
    const button = cards.get(place)?.element.querySelector(".picture");
    button?.focus({ preventScroll: true });
    return button;
  }
  function addDetail() {
    const step = (by) => {
      const place = detail.place + by;
      if (place >= 0 && place < numPlaces()) openDetail(place);
    };
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("close").addEventListener("click", () => byId("detail").close());
    byId("detail").addEventListener("click", (event) => {
      if (event.target === byId("detail")) byId("detail").close();
    });
    byId("detail").addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
    byId("detail").addEventListener("close", () => {
      const place = detail.place;
      detail = null;
      goTo(place);
    });
  }
  function addKeys() {
    byId("grid").addEventListener("keydown", (event) => {
      const card = event.target.closest(".card");
      if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
      const place = Number(card.dataset.place);
      const buttons = [...card.querySelectorAll("button")];
      const line = buttons.indexOf(event.target);
      const moves = {
        ArrowRight: () => goTo(place + 1),
        ArrowLeft: () => goTo(place - 1),
        ArrowDown: () => (line + 1 < buttons.length ? buttons[line + 1].focus() : goTo(place + layout.columns)),
        ArrowUp: () => (line > 0 ? buttons[line - 1].focus() : goTo(place - layout.columns)),
        PageDown: () => goTo(Math.min(numPlaces() - 1, place + 3 * layout.columns)),
        PageUp: () => goTo(Math.max(0, place - 3 * layout.columns)),
        Home: () => goTo(0),
        End: () => goTo(numPlaces() - 1),
      };
      if (!moves[event.key]) return;
      event.preventDefault();
      moves[event.key]();
    });
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input[type=search], select")) return;
      if (event.key === "/") {
        event.preventDefault();
        byId("search").focus();
      } else if (event.key === "m") {
        const options = [...byId("masks").options].map((option) => option.value);
        state.masks = byId("masks").value = options[(options.indexOf(state.masks) + 1) % options.length];
        redraw();
      }
    });
  }

  // ---- the head
  const whole = (value) => number.format(Math.round(value * 10) / 10);
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
  // a figure that misses its request by more than the one that rounding may cost is marked
  const achieved = ({ requested, achieved: got }) => [whole(requested), [whole(got), Math.abs(got - requested) > 1 ? "off" : ""]];
  // one row per name, and for each split the columns that `cells` gives
  function makeMixTable(title, first, field, heads, cells) {
    const splits = Object.keys(about.mix);
    const names = [...new Set(splits.flatMap((split) => Object.keys(about.mix[split][field])))];
    return makeTable(title, [["", 1], ...splits.map((split) => [`${split}, ${number.format(about.totals[split] ?? 0)} samples`, heads.length])],
      [first, ...splits.flatMap(() => heads)],
      names.map((name) => [readable(name), ...splits.flatMap((split) => {
        const one = about.mix[split][field][name];
        return one ? cells(one) : heads.map(() => "");
      })]));
  }
  function fillHead() {
    byId("what").textContent = `${about.what} · seed ${about.seed}${about.encoder ? ` · encoder ${about.encoder}` : ""}`;
    const numPresent = prompts.present.reduce((sum, one) => sum + one, 0);
    const audit = about.shortcuts;
    const readings = [["phrase", audit.phrase], ["source", audit.source], ["size in pixels", audit.pixels], ["size in bytes", audit.num_bytes]];
    const tile = (value, title, extra = "", hint = "") => make("li", { class: extra, title: hint }, make("b", {}, value), make("span", {}, title));
    byId("tiles").append(
      tile(number.format(numSamples), "samples here"),
      tile(`✓ ${number.format(numPresent)}`, "present", "present"),
      tile(`✗ ${number.format(numPrompts - numPresent)}`, "absent", "absent"),
      ...readings.map(([name, auc]) => tile(`${auc > audit.bound ? "⚠ " : ""}${auc.toFixed(2)}`, `AUC of ${name}`, auc > audit.bound ? "loud" : "",
        `How well presence is guessed from the ${name} alone: 0.5 is perfect, 1.0 a leak, the bound is ${audit.bound}`)),
      tile(number.format(about.rejects.rejected_images), `of ${number.format(about.rejects.images)} images rejected`));
    const warnings = [...audit.warnings, ...about.notes, ...about.leaks.map((leak) => `leak: ${leak}`)];
    byId("warnings").append(...warnings.map((text) => make("li", {}, `⚠ ${text}`)));
    const counted = (counts) => Object.entries(counts).map(([name, count]) => [readable(name), number.format(count)]);
    const tables = [
      makeMixTable("Samples by source", "Source", "samples", ["asked", "got"], achieved),
      makeMixTable("Absent prompts by kind", "Kind", "prompts", ["asked", "got"], achieved),
      makeMixTable("Prompts by source", "Source", "pairs", ["present", "absent asked", "got"], (one) => [number.format(one.present), ...achieved(one.absent)]),
      makeTable("Phrases easiest to guess", [], ["Phrase", "present", "absent"],
        audit.worst_phrases.map((one) => [one.phrase, number.format(one.present), number.format(one.absent)])),
      makeTable("Rejected", [], ["Reason", "rows"], counted(about.rejects.by_reason)),
      makeTable("Put right", [], ["Repair", "rows"], counted(about.rejects.repaired)),
    ];
    byId("tables").append(...tables.filter((section) => section.querySelector("tbody tr")));
  }

  fillHead();
  addControls();
  addDetail();
  addKeys();
  recall();
  update({ keepScroll: true });
  addEventListener("scroll", soon, { passive: true });
  addEventListener("hashchange", () => {
    if (location.hash === "#sheet") return;
    recall();
    update({ keepScroll: true });
  });
  new ResizeObserver(() => {
    if (byId("grid").clientWidth !== layout.seen) {
      layout.seen = byId("grid").clientWidth;
      rebuild();
    }
  }).observe(byId("grid"));
})();
