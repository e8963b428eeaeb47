// The gallery. A row is a phrase asked of a picture; a person says of each whether it is there or rightly absent.
// Rows stand in columns that are filtered at once; a card exists only while it is near the window.
(() => {
  const { byId, number, readable, make, readIndex, blockText, fillSelect, addSearch, addTheme, isCommand, isTyping, withChoices,
    showCount, addFacets, remember, recall, makeGrid, makeDetail, tile, warn, fillMining } = common;
  const { about, rows, pictures, thumbnails, texts } = readIndex();
  const isMined = about.pairs === "negatives";
  const numRows = rows.phrase.length;
  for (const name of ["kind", "evidence", "miner", "guard", "stage", "detail", "phrase", "source", "split"]) texts[name] ??= [];
  const textOf = (name, r) => texts[name][rows[name][r]];
  const phraseOf = (r) => textOf("phrase", r);
  const pictureOf = (r) => thumbnails.picture[rows.asked[r]];
  const keyOf = (r) => pictures.key[pictureOf(r)];
  const sourceOf = (r) => texts.source[pictures.source[pictureOf(r)]];
  const splitOf = (r) => texts.split[pictures.split[pictureOf(r)]];
  const positiveKeyOf = (r) => (rows.positive[r] < 0 ? "" : pictures.key[thumbnails.picture[rows.positive[r]]]);
  const hasScores = rows.score.some((score) => score !== null);
  const each = Array.from({ length: numRows }, (_, r) => r);

  // ---- decisions: one per key and phrase, whichever rows show the pair
  const pairs = []; // the first row of each pair
  const pairOf = new Int32Array(numRows);
  const pairNamed = new Map();
  const nameOf = (key, phrase) => JSON.stringify([key, phrase]);
  for (const r of each) {
    const name = nameOf(keyOf(r), phraseOf(r));
    if (!pairNamed.has(name)) pairNamed.set(name, pairs.push(r) - 1);
    pairOf[r] = pairNamed.get(name);
  }
  const PRESENT = "present", ABSENT = "absent";
  const SAY = { [PRESENT]: "it is there", [ABSENT]: "rightly absent" };
  const decided = new Map(); // by pair: { decision, by }, where `by` is "" until a name is typed
  const undone = []; // what to go back to: [pair, what stood there before, place]
  const STORE = `absentia.decisions.${about.digest}`, NAME = "absentia.by";

  const exported = (by) => ({
    schema: 1,
    decisions: [...decided].sort(([a], [b]) => a - b).map(([pair, one]) =>
      ({ key: keyOf(pairs[pair]), phrase: phraseOf(pairs[pair]), decision: one.decision, by: one.by || by })),
  });
  // how many of the file's decisions are of this table; null for what is no decisions file
  function take(file) {
    if (file?.schema !== 1 || !Array.isArray(file.decisions)) return null;
    let count = 0;
    for (const one of file.decisions) {
      const pair = pairNamed.get(nameOf(one?.key, one?.phrase));
      if (pair === undefined || !Object.hasOwn(SAY, one.decision)) continue;
      decided.set(pair, { decision: one.decision, by: String(one.by ?? "") });
      count++;
    }
    return count;
  }
  function keep() {
    try {
      localStorage.setItem(STORE, JSON.stringify(exported("")));
    } catch {
      say("This browser keeps nothing for this page: download your decisions before you close it.");
    }
  }
  function bringBack() {
    try {
      byId("by").value = localStorage.getItem(NAME) ?? "";
      take(JSON.parse(localStorage.getItem(STORE)));
    } catch { /* nothing is kept, or nothing that can be read */ }
  }
  const say = (text) => { byId("said").textContent = text; };

  // Source: Wilson (1927), JASA 22(158), 209-212: both roots of (p - share)^2 = z^2 p (1 - p) / n; z of 95 %.
  function wilson(count, total) {
    const z = 1.959963984540054, share = count / total, scale = 1 + (z * z) / total;
    const middle = (share + (z * z) / (2 * total)) / scale;
    const half = (z / scale) * Math.sqrt((share * (1 - share)) / total + (z * z) / (4 * total * total));
    return [Math.max(0, middle - half), Math.min(1, middle + half)];
  }
  function shareOf(among) {
    const found = [...among].filter((pair) => decided.has(pair));
    const there = found.filter((pair) => decided.get(pair).decision === PRESENT).length;
    if (!found.length) return null;
    const [low, high] = wilson(there, found.length).map((share) => (100 * share).toFixed(1));
    return { found: found.length, there, share: there / found.length, range: `95 %: ${low} to ${high} %` };
  }
  function showShare() {
    const all = shareOf(pairs.keys());
    const what = isMined ? "false negatives" : "wrongly taken";
    const left = make("span", { class: "quiet" }, `of ${number.format(pairs.length)} pairs decided`);
    byId("share").replaceChildren(make("b", {}, number.format(all?.found ?? 0)), " ", left);
    byId("share").title = "Wilson's interval. It holds for the whole table where the pairs decided are a fair draw of it: " +
      "sort at random, clear the filters, and decide from the top without leaving any out.";
    if (all) byId("share").append(" · ", make("b", {}, `${number.format(all.there)} there: ${(100 * all.share).toFixed(1)} % ${what}`), make("span", { class: "quiet" }, ` (${all.range})`));
    if (all && shown.length < numRows) {
      const here = shareOf(new Set(Array.from(shown, (r) => pairOf[r])));
      byId("share").append(make("span", { class: "quiet" }, here ? ` · in this view ${here.there} of ${here.found} (${here.range})` : " · none in this view"));
    }
    byId("undo").disabled = undone.length === 0;
  }

  // ---- filters
  const UNDECIDED = 0;
  const decisionOf = (pair) => ({ [PRESENT]: 1, [ABSENT]: 2 })[decided.get(pair)?.decision] ?? UNDECIDED;
  const facets = withChoices([
    { id: "decision", title: "Decision", always: true, names: ["undecided", "✓ it is there", "✗ rightly absent"], values: new Int32Array(numRows) },
    { id: "guard", title: "Guard", names: texts.guard, values: rows.guard },
    { id: "kind", title: "Kind", names: texts.kind, values: rows.kind },
    { id: "evidence", title: "Evidence", names: texts.evidence, values: rows.evidence },
    { id: "split", title: "Split", names: texts.split, values: each.map((r) => pictures.split[pictureOf(r)]) },
    { id: "source", title: "Source", names: texts.source, values: each.map((r) => pictures.source[pictureOf(r)]) },
    { id: "stage", title: "Stage", names: texts.stage, values: rows.stage },
  ]);
  const decisions = facets[0];
  const state = { query: "", sort: "random", phrase: "", size: "medium" };
  const misses = new Uint16Array(numRows); // bit f is set where the row misses facet f
  const OF_PHRASE = 1 << 14, OF_SEARCH = 1 << 15;
  const searched = each.map((r) => `${phraseOf(r)}\n${keyOf(r)}\n${positiveKeyOf(r)}\n${textOf("detail", r)}`.toLowerCase());
  let shown = new Int32Array(0); // rows, in the order of the page

  function findMatches() {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    misses.fill(0);
    facets.forEach((facet, f) => {
      if (!facet.chosen.size) return;
      for (let r = 0; r < numRows; r++) if (!facet.chosen.has(facet.values[r])) misses[r] |= 1 << f;
    });
    if (state.phrase) for (let r = 0; r < numRows; r++) if (phraseOf(r) !== state.phrase) misses[r] |= OF_PHRASE;
    if (words.length) for (let r = 0; r < numRows; r++) if (!words.every((word) => searched[r].includes(word))) misses[r] |= OF_SEARCH;
  }
  function readDecisions() {
    for (const r of each) decisions.values[r] = decisionOf(pairOf[r]);
  }
  function countFacets() {
    facets.forEach((facet, f) => {
      const counts = new Int32Array(facet.names.length);
      for (let r = 0; r < numRows; r++) if (!(misses[r] & ~(1 << f))) counts[facet.values[r]]++;
      for (const [value, box] of facet.boxes) showCount(box, counts[value]);
    });
  }

  // ---- order: what is unknown comes last, equals keep the table's order
  function shuffled() { // the same on every visit: a multiplicative hash of the row's number
    const mixed = (r) => {
      let value = Math.imul(r + 1, 0x9e3779b1);
      value = Math.imul(value ^ (value >>> 15), 0x85ebca6b);
      return (value ^ (value >>> 13)) >>> 0;
    };
    return each.map(mixed);
  }
  const byText = (name) => {
    const place = new Map([...texts[name]].sort((a, b) => (a < b ? -1 : 1)).map((text, at) => [text, at]));
    return (r) => place.get(textOf(name, r));
  };
  const random = shuffled();
  const known = (column, sign) => (r) => (column[r] === null ? Infinity : sign * column[r]);
  const sorts = {
    random: ["at random", (r) => random[r]],
    written: ["as written", (r) => r],
    hard: ["hardest: closest to its positive", (r) =>
      (rows.score[r] === null || !rows.positive_score[r] ? Infinity : rows.positive_score[r] - rows.score[r])],
    standard: ["highest standard score", known(rows.standard_score, -1)],
    score: ["highest score", known(rows.score, -1)],
    low: ["lowest score", known(rows.score, 1)],
    rank: ["rank", (r) => (rows.rank[r] < 0 ? Infinity : rows.rank[r])],
    phrase: ["phrase", byText("phrase")],
    guard: ["guard", byText("guard")],
  };
  const ofScores = ["hard", "standard", "score", "low", "rank"];
  function chooseRows() {
    const rank = sorts[state.sort][1];
    const ranks = Float64Array.from(each, rank);
    const chosen = each.filter((r) => !misses[r]);
    chosen.sort((a, b) => (ranks[a] === ranks[b] ? a - b : ranks[a] - ranks[b]));
    shown = Int32Array.from(chosen);
  }
  function update({ keepScroll = false } = {}) {
    readDecisions();
    findMatches();
    countFacets();
    chooseRows();
    byId("count").textContent = `${number.format(shown.length)} of ${number.format(numRows)} rows`;
    byId("empty").hidden = shown.length > 0;
    byId("clear").hidden = !state.query && !state.phrase && facets.every((facet) => !facet.chosen.size);
    showShare();
    current = 0;
    grid.show(shown.length, { keepScroll });
    remember(state, facets, "random");
  }
  function restore() {
    const view = recall(state, facets, sorts);
    state.phrase = texts.phrase.includes(view.get("phrase")) ? view.get("phrase") : "";
    byId("phrase").value = state.phrase;
  }

  // ---- cards
  const SIZES = { small: 330, medium: 470, large: 700 };
  const WORDS = 164; // the text, with two lines of phrase, and the buttons under the pictures
  const picturesHeight = () => Math.round(grid.width * 0.6 * 0.75);
  const grid = makeGrid({ cardWidth: () => SIZES[state.size], rowHeight: () => picturesHeight() + WORDS, makeCard, fill });

  function makeImage(thumbnail, alt) {
    const image = make("img", { alt, decoding: "async", draggable: "false" });
    return { image, thumbnail };
  }
  function fill(card) {
    if (card.filled) return;
    card.filled = card.images.map(({ image, thumbnail }) => {
      const text = image.src ? "" : blockText(`thumbnail-${thumbnail}`);
      if (text) image.src = `data:image/webp;base64,${JSON.parse(text)}`;
      return text !== null;
    }).every(Boolean);
  }
  function makeAsked(r) {
    const there = pictures.present[pictureOf(r)].map((phrase) => texts.phrase[phrase]).slice(0, 12).join(", ");
    return makeImage(rows.asked[r], `Picture ${keyOf(r)}, asked for ${phraseOf(r)}. ${there ? `Known to be there: ${there}.` : ""}`);
  }
  // the positive that the pair resembles, or else what is known to be in the picture
  function makePositive(r) {
    if (rows.positive[r] >= 0) {
      const key = positiveKeyOf(r);
      const where = key === keyOf(r) ? "in the same picture" : key;
      const { image, thumbnail } = makeImage(rows.positive[r], `The positive that it resembles, ${where}`);
      return { element: make("div", { class: "positive" }, image, make("span", { class: "caption", title: key }, `resembles ${where}`)), images: [{ image, thumbnail }] };
    }
    const there = pictures.present[pictureOf(r)];
    const list = make("ul", {}, ...there.map((phrase) => make("li", { dir: "auto", title: texts.phrase[phrase] }, texts.phrase[phrase])));
    const words = there.length ? "Known to be in this picture" : "Nothing is known to be in this picture";
    return { element: make("div", { class: "positive" }, make("div", { class: "has" }, words, list)), images: [] };
  }
  const VERDICTS = { annotated: "The labels say it is absent", verified: "A second model or a person says it is absent",
    mined: "Only the guards let it pass: no label speaks of it", generated: "The picture was painted without it" };
  function verdictOf(r) {
    if (!isMined) return [readable(textOf("guard", r)), textOf("detail", r)].filter(Boolean).join(": ");
    const [score, positive] = [rows.score[r], rows.positive_score[r]];
    const margin = score === null || !positive ? "" : score <= positive
      ? `, ${(positive - score).toFixed(3)} below its positive` : `, ${(score - positive).toFixed(3)} above its positive`;
    return `${VERDICTS[textOf("evidence", r)] ?? "No word on how it is known"}${margin}`;
  }
  const known3 = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  function scoresOf(r) {
    return [["score", known3(rows.score[r], 3)], ["standard score", known3(rows.standard_score[r], 2)],
      ["rank", rows.rank[r] < 0 ? "–" : number.format(rows.rank[r])], ["positive score", rows.positive_score[r] ? known3(rows.positive_score[r], 3) : "–"]];
  }
  function makeDecide(r, place) {
    const button = (decision, style, sign, key) => make("button", { type: "button", class: style, tabindex: "-1", "aria-pressed": "false", "aria-keyshortcuts": key,
      onclick: () => decide(place, decision, { toggle: true }) }, `${sign} ${SAY[decision][0].toUpperCase()}${SAY[decision].slice(1)}`, make("kbd", { "aria-hidden": "true" }, key));
    return make("div", { class: "decide", role: "group", "aria-label": `Is ${phraseOf(r)} in ${keyOf(r)}?` },
      button(PRESENT, "there", "✓", "p"), button(ABSENT, "gone", "✗", "a"));
  }
  function showDecision(element, r) {
    const decision = decided.get(pairOf[r])?.decision;
    element.classList.toggle("is-there", decision === PRESENT);
    element.classList.toggle("is-gone", decision === ABSENT);
    element.querySelector(".there").setAttribute("aria-pressed", String(decision === PRESENT));
    element.querySelector(".gone").setAttribute("aria-pressed", String(decision === ABSENT));
  }
  function makeCard(place) {
    const r = shown[place];
    const asked = makeAsked(r), positive = makePositive(r);
    const open = make("button", { type: "button", class: "picture", title: "Enlarge", onclick: () => detail.open(place) }, asked.image);
    const views = make("div", { class: "pictures" }, open, positive.element);
    views.style.height = `${picturesHeight()}px`;
    const tags = (isMined ? [["kind", textOf("kind", r)], ["evidence", textOf("evidence", r)]] : [["guard", textOf("guard", r)]])
      .filter(([, value]) => value).map(([title, value]) => make("span", { class: "tag", title }, readable(value)));
    const [score, standard, rank, positiveScore] = scoresOf(r);
    const figures = !hasScores ? [] : [[score[0], score[1]], ["z", standard[1], standard[0]], rank, ["positive", positiveScore[1], positiveScore[0]]]
      .map(([name, value, title = name]) => make("span", { title }, `${name} `, make("b", {}, value)));
    const where = `${keyOf(r)} · ${sourceOf(r)} · ${splitOf(r)}`;
    const element = make("li", { class: "card pair" }, views,
      make("div", { class: "words" },
        make("span", { class: "phrase", dir: "auto", title: phraseOf(r) }, phraseOf(r)),
        make("div", { class: "facts" }, ...tags, ...figures),
        make("div", { class: "verdict", title: verdictOf(r), dir: "auto" }, verdictOf(r)),
        make("div", { class: "verdict key", title: where }, where)),
      makeDecide(r, place));
    const card = { element, row: r, images: [asked, ...positive.images], filled: false };
    showDecision(element, r);
    fill(card);
    return card;
  }

  // ---- deciding
  let current = 0; // the place that keys mean when no card has the focus
  let seen = false; // whether keys have been at a card: the first `j` goes to the first one
  function placeNow() {
    if (byId("detail").open) return detail.place;
    const card = document.activeElement?.closest?.(".card");
    return card ? Number(card.dataset.place) : Math.min(current, grid.numPlaces() - 1);
  }
  function set(pair, one) {
    if (one) decided.set(pair, one);
    else decided.delete(pair);
    keep();
    for (const card of grid.cards.values()) if (pairOf[card.row] === pair) showDecision(card.element, card.row);
    if (byId("detail").open && pairOf[shown[detail.place]] === pair) showDecision(byId("detail-decide"), shown[detail.place]);
    readDecisions();
    countFacets();
    showShare();
  }
  function decide(place, decision, { toggle = false, move = false } = {}) {
    const r = shown[place];
    if (r === undefined) return;
    const pair = pairOf[r];
    const before = decided.get(pair);
    current = place;
    undone.push([pair, before, r]);
    const one = toggle && before?.decision === decision ? undefined : { decision, by: byId("by").value.trim() };
    say(`${phraseOf(r)} in ${keyOf(r)}: ${one ? SAY[decision] : "undecided again"}`);
    set(pair, one);
    if (move) goTo(place + 1);
  }
  function undo() {
    const last = undone.pop();
    if (!last) return;
    const [pair, before, r] = last;
    say(`${phraseOf(r)} in ${keyOf(r)}: ${before ? SAY[before.decision] : "undecided"} again`);
    set(pair, before);
    const place = shown.indexOf(r);
    if (place >= 0) goTo(place);
  }
  function goTo(place) {
    if (place < 0 || place >= grid.numPlaces()) return;
    current = place;
    seen = true;
    if (byId("detail").open) detail.open(place);
    else grid.goTo(place);
  }
  function step(by) {
    const isInside = byId("detail").open || document.activeElement?.closest?.(".card");
    goTo(isInside || seen ? placeNow() + by : 0);
  }

  // ---- a pair enlarged
  const detail = makeDetail(grid, (place) => {
    const r = shown[place];
    const asked = makeAsked(r), positive = makePositive(r);
    fill({ images: [asked, ...positive.images], filled: false });
    byId("detail-phrase").textContent = phraseOf(r);
    byId("detail-picture").replaceChildren(asked.image);
    byId("detail-positive").replaceChildren(positive.element);
    byId("detail-decide").replaceChildren(makeDecide(r, place));
    for (const button of byId("detail-decide").querySelectorAll("button")) button.tabIndex = 0;
    showDecision(byId("detail-decide"), r);
    byId("detail-facts").textContent = `${sourceOf(r)} · ${splitOf(r)} · ${pictures.width[pictureOf(r)]} × ${pictures.height[pictureOf(r)]} pixels · ` +
      `row ${number.format(place + 1)} of ${number.format(shown.length)}`;
    const there = pictures.present[pictureOf(r)].map((phrase) => texts.phrase[phrase]).join(", ");
    const facts = [["picture", keyOf(r)], ["positive", positiveKeyOf(r)], ["present", there], ["kind", readable(textOf("kind", r) ?? "")],
      ["evidence", textOf("evidence", r)], ["verdict", verdictOf(r)], ...(hasScores ? scoresOf(r) : []), ["miner", textOf("miner", r)], ["stage", textOf("stage", r)]];
    byId("detail-rows").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", { dir: "auto" }, value))));
  });

  // ---- files of decisions
  function download() {
    const by = byId("by").value.trim();
    const isNamed = by !== "" || [...decided.values()].every((one) => one.by);
    byId("by").setAttribute("aria-invalid", String(!isNamed));
    if (!isNamed) {
      say("Type your name first: every decision says by whom it is.");
      byId("by").focus();
      return;
    }
    const file = new Blob([`${JSON.stringify(exported(by), null, 1)}\n`], { type: "application/json" });
    const link = make("a", { href: URL.createObjectURL(file), download: "decisions.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`${number.format(decided.size)} decisions in decisions.json`);
  }
  async function load() {
    const [file] = byId("file").files;
    byId("file").value = "";
    if (!file) return;
    let count = null;
    try {
      const text = JSON.parse(await file.text());
      count = take(text);
      if (count !== null) say(`${file.name}: ${number.format(count)} of ${number.format(text.decisions.length)} decisions are of these pairs`);
    } catch { /* no JSON */ }
    if (count === null) say(`${file.name} is no decisions file of schema 1`);
    undone.length = 0; // they would go back behind the file
    keep();
    update({ keepScroll: true });
  }

  function addControls() {
    const offered = Object.entries(sorts).filter(([name]) => (ofScores.includes(name) ? hasScores : name !== "guard" || !isMined));
    fillSelect("sort", offered.map(([value, [title]]) => [value, title]), state, () => update());
    fillSelect("size", Object.keys(SIZES).map((name) => [name, name]), state, grid.rebuild);
    const counts = new Map();
    for (const r of each) counts.set(phraseOf(r), (counts.get(phraseOf(r)) ?? 0) + 1);
    const phrases = [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
    fillSelect("phrase", [["", "all phrases"], ...phrases.map(([phrase, count]) => [phrase, `${phrase.length > 60 ? `${phrase.slice(0, 60)}…` : phrase} (${count})`])], state, () => update());
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
    byId("undo").addEventListener("click", undo);
    byId("download").addEventListener("click", download);
    byId("load").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", load);
    byId("by").addEventListener("input", () => {
      byId("by").removeAttribute("aria-invalid");
      try {
        localStorage.setItem(NAME, byId("by").value.trim());
      } catch { /* the name is typed again next time */ }
    });
    addTheme();
  }
  function addKeys() {
    const actions = {
      j: () => step(1),
      k: () => step(-1),
      p: () => decide(placeNow(), PRESENT, { move: true }),
      a: () => decide(placeNow(), ABSENT, { move: true }),
      u: undo,
      "/": () => byId("search").focus(),
    };
    addEventListener("keydown", (event) => {
      if (isCommand(event) || isTyping(event) || !Object.hasOwn(actions, event.key)) return;
      event.preventDefault();
      actions[event.key]();
    });
  }
  function fillHead() {
    byId("what").textContent = about.what;
    const many = (count, title) => tile(number.format(count), title);
    byId("tiles").append(many(numRows, isMined ? "mined rows" : "rejected rows"), many(new Set(each.map(pictureOf)).size, "pictures asked"),
      many(new Set(rows.phrase).size, "phrases"));
    const groups = isMined ? "kind" : "guard";
    const counts = new Map();
    for (const r of each) counts.set(textOf(groups, r), (counts.get(textOf(groups, r)) ?? 0) + 1);
    byId("tiles").append(...[...counts].sort(([, a], [, b]) => b - a).slice(0, 6).filter(([name]) => name).map(([name, count]) => many(count, readable(name))));
    warn(about.notes);
    fillMining(about.mining);
  }

  fillHead();
  bringBack();
  addControls();
  addKeys();
  restore();
  update({ keepScroll: true });
  addEventListener("hashchange", () => {
    if (location.hash === "#sheet") return;
    restore();
    update({ keepScroll: true });
  });
})();
