// The contact sheet. All rows stand in columns of numbers that are filtered at once; a card exists only while it is
// near the window, and the pictures and masks of a chunk of samples are parsed when the first of its cards appears.
(() => {
  const { byId, number, readable, make, readIndex, blockText, fillSelect, addSearch, addTheme, isCommand, isTyping, withChoices,
    showCount, addFacets, remember, recall, makeGrid, makeDetail, readRuns, tile, warn, makeTable, fillMining } = common;
  const data = readIndex();
  const { samples, prompts, texts, about } = data;
  const numSamples = samples.key.length;
  const numPrompts = prompts.phrase.length;

  // ---- columns
  const firstPrompt = new Int32Array(numSamples + 1);
  for (let s = 0; s < numSamples; s++) firstPrompt[s + 1] = firstPrompt[s] + samples.num_prompts[s];
  const sampleOf = new Int32Array(numPrompts);
  for (let s = 0; s < numSamples; s++) sampleOf.fill(s, firstPrompt[s], firstPrompt[s + 1]);
  const lowerPhrases = texts.phrase.map((text) => text.toLowerCase());
  const lowerKeys = samples.key.map((text) => text.toLowerCase());

  const perSample = (column) => Int32Array.from(sampleOf, (s) => column[s]);
  const facets = withChoices([
    { id: "split", title: "Split", ofSample: true, names: texts.split, values: perSample(samples.split) },
    { id: "source", title: "Source", ofSample: true, names: texts.source, values: perSample(samples.source) },
    { id: "answer", title: "Answer", names: ["✓ present", "✗ absent"], values: prompts.present.map((one) => 1 - one) },
    { id: "kind", title: "Kind of absence", names: texts.kind, values: prompts.kind },
    { id: "evidence", title: "Evidence", names: texts.evidence, values: prompts.evidence },
    { id: "mask_state", title: "Masks of a presence", names: texts.mask_state,
      values: prompts.mask_state.map((value, p) => (prompts.present[p] ? value : -1)) },
  ]);

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
      for (const [value, box] of facet.boxes) showCount(box, counts[value]);
    });
  }

  // ---- layout: a card's height follows from its number of prompts, so nothing is ever measured
  const LINE = 22, META = 30, FOOT = 8, MAX_LINES = 11;
  const SIZES = { small: 220, medium: 290, large: 420 };
  const linesOf = (s) => Math.min(MAX_LINES, samples.num_prompts[s]);
  const pictureHeight = () => Math.round(grid.width * 0.75);
  function rowHeight(first, last) {
    let lines = 0;
    for (let place = first; place < last; place++) lines = Math.max(lines, linesOf(shown[place]));
    return pictureHeight() + META + lines * LINE + FOOT;
  }

  // ---- chunks
  const chunks = new Map(); // the most recent ones, parsed
  function heavyOf(s) {
    const place = Math.floor(s / data.chunk_samples);
    let chunk = chunks.get(place);
    if (!chunk) {
      const text = blockText(`chunk-${place}`);
      if (text === null) return null;
      chunk = JSON.parse(text);
      chunks.set(place, chunk);
      if (chunks.size > 40) chunks.delete(chunks.keys().next().value);
    }
    return chunk[s % data.chunk_samples];
  }

  // ---- masks
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
  const grid = makeGrid({ cardWidth: () => SIZES[state.size], rowHeight, makeCard, fill: fillPicture });
  function makeCard(place) {
    const s = shown[place];
    const height = pictureHeight();
    const picture = makePicture(s, grid.width, height);
    const open = make("button", { type: "button", class: "picture", title: "Enlarge", onclick: () => detail.open(place) }, picture.frame);
    open.style.height = `${height}px`;
    const meta = make("div", { class: "meta" },
      make("span", { class: "key", title: samples.key[s] }, samples.key[s]),
      make("span", {}, `${samples.width[s]} × ${samples.height[s]}`),
      make("span", { class: "tag", title: "source" }, texts.source[samples.source[s]]),
      make("span", { class: "tag", title: "split" }, texts.split[samples.split[s]]));
    const order = orderOf(s);
    const lines = order.slice(0, order.length > MAX_LINES ? MAX_LINES - 1 : MAX_LINES);
    picture.element = make("li", { class: "card" }, open, meta,
      ...lines.map((p) => makePrompt(picture, p, whyOf(p).join(" · "))));
    if (lines.length < order.length) {
      picture.element.append(make("button", { type: "button", class: "more", tabindex: "-1", onclick: () => detail.open(place) },
        `${order.length - lines.length} more …`));
    }
    return picture;
  }
  function update({ keepScroll = false } = {}) {
    findMatches();
    const count = chooseSamples();
    countFacets();
    byId("count").textContent = `${number.format(shown.length)} of ${number.format(numSamples)} samples, ${number.format(count)} prompts`;
    byId("empty").hidden = shown.length > 0;
    byId("clear").hidden = !state.query && facets.every((facet) => !facet.chosen.size);
    grid.show(shown.length, { keepScroll });
    remember(state, facets, "written");
  }

  // ---- controls
  function redraw() {
    for (const picture of [...grid.cards.values(), ...(detail.place < 0 ? [] : [enlarged])]) drawMasks(picture.canvas, picture.sample, picture.pinned);
  }
  function addControls() {
    addFacets(facets, update);
    const scored = prompts.score.some((score) => score !== 0);
    const offered = Object.entries(sorts).filter(([name]) => scored || !["hard", "easy"].includes(name));
    fillSelect("sort", offered.map(([value, [title]]) => [value, title]), state, () => update());
    fillSelect("masks", [["filled", "filled"], ["outlined", "outlined"], ["hidden", "hidden"]], state, redraw);
    fillSelect("size", Object.keys(SIZES).map((name) => [name, name]), state, grid.rebuild);
    addSearch((query) => {
      state.query = query;
      update();
    });
    byId("clear").addEventListener("click", () => {
      history.replaceState(null, "", "#");
      recall(state, facets, sorts);
      update();
      byId("search").focus();
    });
    addTheme();
  }

  // ---- the sample enlarged
  let enlarged = null; // its picture
  const detail = makeDetail(grid, (place) => {
    const s = shown[place];
    const narrow = innerWidth <= 900;
    const picture = makePicture(s, narrow ? innerWidth - 66 : Math.min(1200, innerWidth - 32) * 0.56 - 34, innerHeight - (narrow ? 300 : 130));
    enlarged = picture;
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
  });
  function addKeys() {
    addEventListener("keydown", (event) => {
      if (isCommand(event) || isTyping(event)) return;
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
    byId("what").textContent = `${about.what} · seed ${about.seed}${about.encoder && !about.mining.encoder ? ` · encoder ${about.encoder}` : ""}`;
    const numPresent = prompts.present.reduce((sum, one) => sum + one, 0);
    const audit = about.shortcuts;
    const readings = [["phrase", audit.phrase], ["source", audit.source], ["size in pixels", audit.pixels], ["size in bytes", audit.num_bytes]];
    byId("tiles").append(
      tile(number.format(numSamples), "samples here"),
      tile(`✓ ${number.format(numPresent)}`, "present", "present"),
      tile(`✗ ${number.format(numPrompts - numPresent)}`, "absent", "absent"),
      ...readings.map(([name, auc]) => tile(`${auc > audit.bound ? "⚠ " : ""}${auc.toFixed(2)}`, `AUC of ${name}`, auc > audit.bound ? "loud" : "",
        `How well presence is guessed from the ${name} alone: 0.5 is perfect, 1.0 a leak, the bound is ${audit.bound}`)),
      tile(number.format(about.rejects.rejected_images), `of ${number.format(about.rejects.images)} images rejected`));
    warn([...audit.warnings, ...about.notes, ...about.leaks.map((leak) => `leak: ${leak}`)]);
    fillMining(about.mining);
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
  addKeys();
  recall(state, facets, sorts);
  update({ keepScroll: true });
  addEventListener("hashchange", () => {
    if (location.hash === "#sheet") return;
    recall(state, facets, sorts);
    update({ keepScroll: true });
  });
})();
