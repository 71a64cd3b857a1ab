"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function option(value, words) {
  return element("option", { value }, words);
}

// A text that may break after its commas: category paths have no spaces there.
function breaking(text) {
  return text.split(/(?<=,)(?! )/).flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
}

// Light and dark: the system's choice until the reader makes one.

function remembered(key) {
  try { return localStorage.getItem(key); } catch { return null; } // pages from disk may have no storage
}

function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { /* then it lasts as long as the page */ }
}

function startTheme() {
  const button = $("#theme"), system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = remembered("relstack-theme");
  const dark = () => (chosen ? chosen === "dark" : system.matches);
  const show = () => {
    if (chosen) document.documentElement.dataset.theme = chosen;
    button.setAttribute("aria-pressed", String(dark()));
  };
  button.addEventListener("click", () => {
    chosen = dark() ? "light" : "dark";
    remember("relstack-theme", chosen);
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
}

// One part of the report at a time; the address says which, so that going back works.

function startParts() {
  const panels = $$(".panel"), links = $$(".parts a");
  const show = () => {
    const aim = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const panel = aim?.closest(".panel") ?? panels[0];
    for (const each of panels) each.hidden = each !== panel;
    for (const link of links) {
      if (link.hash === `#${panel.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (aim && aim !== panel) aim.scrollIntoView();
    else if (aim) scrollTo(0, Math.min(scrollY, $(".parts").offsetTop));
    if (panel.id === "rows") startRows();
  };
  addEventListener("hashchange", show);
  show();
}

// A chart that tells its values at any threshold.

function startProbe(chart) {
  const probe = JSON.parse(chart.dataset.probe), names = Object.keys(probe.models);
  const steps = probe.models[names[0]].f1.length - 1;
  const slider = element("input", { type: "range", min: 0, max: steps, step: 1, "aria-label": "Threshold" });
  const model = element("select", { "aria-label": "Model" }, ...names.map((name) => option(name, name)));
  const told = element("output");
  const drawn = (name, kind) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    made.classList.add(kind);
    $("svg", chart).append(made);
    return made;
  };
  const line = drawn("line", "probe-line"), dots = drawn("polyline", "probe-curve");
  const place = (value) => probe.left + ((value - probe.low) / (probe.high - probe.low)) * (probe.right - probe.left);
  const height = (value) => probe.bottom - ((value - probe.lowest) / (probe.highest - probe.lowest)) * (probe.bottom - probe.top);
  const digits = (value) => (value === null ? "–" : value.toFixed(4));
  const tell = () => {
    const at = Number(slider.value), threshold = at / steps, curve = probe.models[model.value];
    for (const [key, value] of [["x1", place(threshold)], ["x2", place(threshold)], ["y1", probe.top], ["y2", probe.bottom]]) {
      line.setAttribute(key, value);
    }
    dots.setAttribute("points", curve.f1.map((value, step) => `${place(step / steps)},${height(value)}`).join(" "));
    slider.setAttribute("aria-valuetext", `threshold ${threshold.toFixed(2)}, F1 ${digits(curve.f1[at])}`);
    told.textContent = `At ${threshold.toFixed(2)}: F1 ${digits(curve.f1[at])}, precision ${digits(curve.precision[at])}, ` +
      `recall ${digits(curve.recall[at])}. ${model.value} is cut at ${curve.cut.toFixed(3)}.`;
  };
  model.value = probe.chosen;
  slider.value = Math.round(probe.models[probe.chosen].cut * steps);
  slider.addEventListener("input", tell);
  model.addEventListener("change", tell);
  const controls = element("div", { class: "probe" }, element("label", {}, "Model ", model), slider, told);
  ($(".legend", chart.parentElement) ?? chart).after(controls);
  tell();
}

// A table that is wider than its place is a stop for the keyboard, which can scroll it then; the others are none.

function startScrolling() {
  const look = (place) => {
    const wide = { role: "region", tabindex: "0", "aria-label": $("caption", place).textContent };
    for (const [key, value] of Object.entries(wide)) {
      if (place.scrollWidth > place.clientWidth) place.setAttribute(key, value);
      else place.removeAttribute(key);
    }
  };
  const watch = new ResizeObserver((seen) => new Set(seen.map((each) => each.target.closest(".scroll"))).forEach(look));
  for (const place of $$(".scroll")) for (const each of [place, $("table", place)]) watch.observe(each);
}

// The rows. They are unpacked when they are first looked at; only one page of them is ever in the document.

const OUTCOMES = { fp: "false positive", fn: "false negative", right: "right" };
const WORST = "worst errors first";

// What a browser calls a language, "" where that is not known.
const tagged = (language) => ({ vn: "vi", unk: "" })[language] ?? (/^[a-z]{2,3}(-[a-z0-9]+)*$/i.test(language) ? language : "");

async function unpacked() {
  const bytes = Uint8Array.from(atob($("#packed-rows").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

class TaskRows {
  constructor(data) {
    Object.assign(this, data);
    this.size = data.id.length;
    this.spread = Float32Array.from(this.id, (_, row) => {
      const found = data.scores.slice(0, data.learners).map((column) => column[row]);
      return (Math.max(...found) - Math.min(...found)) / 1000;
    });
    this.lowerId = data.id.map((text) => text.toLowerCase());
    this.lower = Object.fromEntries(["query", "query_en", "target"].map((name) => [name, data[name].names.map((text) => text.toLowerCase())]));
  }

  text(name, row) { return this[name].names[this[name].codes[row]]; }

  score(model, row) { return this.scores[model][row] / 1000; }

  outcome(row) {
    if (this.label[row] === this.decision[row]) return "right";
    return this.decision[row] ? "fp" : "fn";
  }

  // A row matches if every word stands in one of its texts; each distinct text is looked at once.
  matching(words) {
    const tests = words.map((word) => {
      const found = Object.entries(this.lower).map(([name, texts]) => [this[name].codes, texts.map((text) => text.includes(word))]);
      return (row) => this.lowerId[row] === word || found.some(([codes, hits]) => hits[codes[row]]);
    });
    return (row) => tests.every((test) => test(row));
  }

  passing(wanted) {
    const matches = this.matching(wanted.text.toLowerCase().split(/\s+/).filter(Boolean));
    const rows = [];
    for (let row = 0; row < this.size; row++) {
      const outcome = this.outcome(row);
      if (wanted.outcome && !(wanted.outcome === outcome || (wanted.outcome === "error" && outcome !== "right"))) continue;
      if (wanted.label && this.label[row] !== Number(wanted.label)) continue;
      if (wanted.language && this.text("language", row) !== wanted.language) continue;
      if (wanted.fold && this.text("fold", row) !== wanted.fold) continue;
      if (this.spread[row] < wanted.spread) continue;
      if (matches(row)) rows.push(row);
    }
    return rows;
  }

  // What rows are sorted by: a function of a row that gives a number or a text.
  key(order) {
    if (order.startsWith("score-")) return (row) => this.score(Number(order.slice(6)), row);
    if (order === "spread") return (row) => this.spread[row];
    if (order === "label") return (row) => this.label[row];
    if (order === "outcome") return (row) => OUTCOMES[this.outcome(row)];
    if (order === "id") return (row) => this.id[row];
    return (row) => this.text(order, row);
  }

  sorted(rows, order, direction) {
    if (!order) return direction === "up" ? [...rows].reverse() : rows;
    const key = this.key(order), sign = direction === "up" ? 1 : -1;
    const keyed = rows.map((row) => [key(row), row]);
    const compare = typeof keyed[0]?.[0] === "number" ? (a, b) => a - b : new Intl.Collator(undefined, { numeric: true }).compare;
    return keyed.sort((a, b) => sign * compare(a[0], b[0]) || a[1] - b[1]).map(([, row]) => row);
  }
}

class Browser {
  constructor(tasks) {
    this.tasks = tasks;
    this.form = $("#filters");
    this.page = 0;
    this.form.elements.task.append(...tasks.map((task, place) => option(place, task.task)));
    this.takeTask();
    this.form.addEventListener("input", (event) => this.changed(event.target));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => { this.takeTask(); this.update(); }));
    $("#rows-per-page").addEventListener("change", () => this.update());
    for (const button of $$("[data-page]")) button.addEventListener("click", () => this.turn(button.dataset.page));
    for (const part of ["#narrow", "#rows-region", "#rows-pages"]) $(part).hidden = false;
    this.fold(matchMedia("(min-width: 44.01rem)"));
    this.update();
  }

  // Filters would fill a phone before its first row.
  fold(wide) {
    const show = () => { $("#narrow").open = wide.matches; };
    wide.addEventListener("change", show);
    show();
  }

  get task() { return this.tasks[Number(this.form.elements.task.value)]; }

  get columns() {
    const scores = this.task.models.map((name, place) => [`score-${place}`, name]);
    return [["id", "id"], ["language", "language"], ["fold", "fold"], ["query", "query"], ["target", "target"],
      ["label", "label"], ["outcome", "outcome"], ...scores];
  }

  takeTask() {
    const fields = this.form.elements, any = () => option("", "any");
    const names = (values) => [...values].sort(new Intl.Collator(undefined, { numeric: true }).compare).map((name) => option(name, name));
    fields.language.replaceChildren(any(), ...names(this.task.language.names));
    fields.fold.replaceChildren(any(), ...names(this.task.fold.names));
    fields.order.replaceChildren(option("", WORST), option("spread", "base learners apart"), ...this.columns.map(([key, name]) => option(key, name)));
    const head = this.columns.map(([key, name]) => {
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => this.sortBy(key));
      const numeric = key.startsWith("score-") ? { class: "figure-cell" } : {};
      return element("th", { scope: "col", role: "columnheader", "data-key": key, ...numeric }, button);
    });
    $("#rows-table thead").replaceChildren(element("tr", { role: "row" }, ...head));
  }

  changed(field) {
    if (field.name === "task") this.takeTask();
    this.update();
  }

  sortBy(key) {
    const { order, direction } = this.form.elements;
    direction.value = order.value === key && direction.value === "down" ? "up" : "down";
    order.value = key;
    this.update();
  }

  update() {
    const wanted = Object.fromEntries(new FormData(this.form));
    const passing = this.task.passing({ ...wanted, spread: Number(wanted.spread) });
    this.rows = this.task.sorted(passing, wanted.order, wanted.direction);
    this.page = 0;
    for (const head of $$("#rows-table thead th")) {
      const sorted = head.dataset.key === wanted.order;
      head.setAttribute("aria-sort", sorted ? (wanted.direction === "up" ? "ascending" : "descending") : "none");
    }
    this.draw();
  }

  turn(where) {
    const last = this.pages - 1;
    this.page = { first: 0, previous: Math.max(0, this.page - 1), next: Math.min(last, this.page + 1), last }[where];
    this.draw();
  }

  get perPage() { return Number($("#rows-per-page").value); }

  get pages() { return Math.max(1, Math.ceil(this.rows.length / this.perPage)); }

  draw() {
    const start = this.page * this.perPage, shown = this.rows.slice(start, start + this.perPage);
    const count = (number) => number.toLocaleString("en");
    $("#rows-table tbody").replaceChildren(...shown.map((row) => this.line(row)));
    $("#rows-page").textContent = `Page ${count(this.page + 1)} of ${count(this.pages)}`;
    $("#rows-status").textContent = this.rows.length
      ? `Rows ${count(start + 1)} to ${count(start + shown.length)} of ${count(this.rows.length)} that pass, out of ${count(this.task.size)} in this file.`
      : `No row passes, out of ${count(this.task.size)} in this file.`;
    for (const button of $$("[data-page]")) {
      const backwards = ["first", "previous"].includes(button.dataset.page);
      button.disabled = backwards ? this.page === 0 : this.page >= this.pages - 1;
    }
  }

  line(row) {
    const task = this.task, outcome = task.outcome(row), english = task.text("query_en", row);
    const cell = (label, ...children) => element("td", { role: "cell", "data-label": label }, ...children);
    const query = cell("query", task.text("query", row));
    if (english && english !== task.text("query", row)) query.append(element("span", { class: "english", lang: "en" }, english));
    const target = cell("target", ...breaking(task.text("target", row)));
    for (const each of [query, target]) {
      each.classList.add("words");
      each.dir = "auto";
    }
    query.lang = tagged(task.text("language", row));
    target.lang = ""; // the row's language is its query's
    const scores = task.models.map((name, model) => {
      const score = cell(name, task.score(model, row).toFixed(3));
      score.classList.add("score", "figure-cell");
      if (model === task.chosen) score.classList.add("chosen");
      score.style.setProperty("--level", task.score(model, row));
      return score;
    });
    return element("tr", { role: "row" },
      element("th", { scope: "row", role: "rowheader", "data-label": "id" }, task.id[row]),
      cell("language", task.text("language", row)), cell("fold", task.text("fold", row)), query, target,
      cell("label", String(task.label[row])),
      cell("outcome", element("span", { class: `outcome ${outcome}` }, OUTCOMES[outcome])), ...scores);
  }
}

let browser = null;

async function startRows() {
  if (browser) return;
  browser = "starting";
  try {
    browser = new Browser((await unpacked()).map((task) => new TaskRows(task)));
  } catch (error) {
    const trouble = $("#rows-trouble");
    trouble.textContent = `The rows cannot be unpacked here (${error.message}). A browser of 2023 or later can.`;
    trouble.hidden = false;
  }
}

startTheme();
startScrolling();
for (const chart of $$("[data-probe]")) startProbe(chart);
startParts();
