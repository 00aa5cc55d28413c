"use strict";
// Fields, table, pins and tabs.

// ---- pinned variants

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

function togglePin(state, row) {
  const { pins } = state;
  state.pins = pins.includes(row) ? pins.filter((some) => some !== row) : [...pins, row].slice(-2);
  linesOf(state).forEach(([line, of]) => {
    line.querySelector(".pin").setAttribute("aria-pressed", String(state.pins.includes(of)));
  });
  showPins(state);
  drawFrontier(state);
  drawRounds(state);
}

/** The lines of the table of variants, each with its row. */
function linesOf({ root, sheet }) {
  const rows = new Map(sheet.rows.map((row) => [String(row.number), row]));
  return [...root.querySelectorAll(".variants tbody tr")].map((line) => [line, rows.get(line.dataset.number)]);
}

function showPins({ root, sheet, pins }) {
  const place = root.querySelector(".pinned");
  place.replaceChildren();
  if (!pins.length) return;
  if (pins.length === 1) {
    place.append(element("p", `${pins[0].name} is pinned; pin another to compare them.`));
    return;
  }
  const [a, b] = pins;
  const line = (...cells) => {
    const made = element("tr");
    cells.forEach((cell, i) => made.append(element(i ? "td" : "th", cell, i ? { class: "n" } : { scope: "row" })));
    return made;
  };
  const head = element("tr"), body = element("tbody");
  ["", a.name, b.name, "direct comparison"].forEach((text) => head.append(element("th", text, { scope: "col" })));
  sheet.axes.forEach((axis) => {
    const batch = /^p50:(\d+)$/.exec(axis.key)?.[1];
    const [first, second] = pins.map((row) => show(row.figures[axis.key], axis));
    const direct = batch ? describeRatio(sheet, Number(batch), a, b)
      : axis.key === "accuracy" ? describeDifference(sheet, a, b) : "";
    body.append(line(labelOf(axis), first, second, direct));
  });
  sheet.classes.forEach((name, i) => {
    const [first, second] = pins.map((row) => row.classes[i])
      .map((change) => (change ? `${change.diff_pp.toFixed(1)}${change.marked ? "*" : ""}` : "n/a"));
    body.append(line(`change of ${name}, pp`, first, second, ""));
  });
  const extra = (row, other) => row.steps.filter((step) => !other.steps.includes(step)).join(", ") || "none";
  body.append(line("steps that the other lacks", extra(a, b), extra(b, a), ""));
  const described = { class: "wide", role: "region", tabindex: "0", "aria-label": "The two pinned variants" };
  const table = element("table"), scroll = element("div", undefined, described);
  const headings = element("thead");
  headings.append(head);
  table.append(element("caption", "Side by side. A direct ratio is over the rounds that timed both, a difference over the images that both saw."), headings, body);
  scroll.append(table);
  place.append(scroll);
}

function describeDifference(sheet, a, b) {
  const found = compareAccuracy(sheet, a, b);
  if (found === null) return "no image was scored with both";
  const signed = (value) => `${value > 0 ? "+" : ""}${value.toFixed(2)}`;
  const tie = found.low <= 0 && found.high >= 0 ? " (tie)" : "";
  return `first minus second: ${signed(found.point)} [${signed(found.low)}, ${signed(found.high)}] pp${tie}`;
}

function describeRatio(sheet, batch, a, b) {
  const found = compare(sheet, batch, a, b);
  if (found === null) return "too few rounds timed both";
  if (found.apart) return "no round timed both; their speed-ups lie apart";
  const faster = found.point >= 1 ? "first" : "second";
  const times = found.point >= 1 ? found : inverse(found);
  const tie = times.low <= 1 && times.high >= 1 ? " (tie)" : "";
  const [point, low, high] = [times.point, times.low, times.high].map((value) => value.toFixed(3));
  return `the ${faster} is ${point} [${low}, ${high}] times as fast${tie}`;
}

// ---- the table

function sortBy(table, heading) {
  const column = heading.cellIndex, falling = heading.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("thead th").forEach((some) => some.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const value = (line) => line.cells[column].dataset.value ?? line.cells[column].textContent;
  const lines = [...table.tBodies[0].rows].sort((a, b) => {
    const [first, second] = [value(a), value(b)];
    if (first === "" || second === "") return (first === "") - (second === ""); // What has no figure stays last.
    const order = Number.isNaN(Number(first)) ? first.localeCompare(second) : first - second;
    return falling ? -order : order;
  });
  table.tBodies[0].append(...lines);
}

function filterRows(state) {
  const wanted = state.root.querySelector(".filter").value.toLowerCase();
  const isFrontierOnly = state.root.querySelector(".frontier-only").checked;
  linesOf(state).forEach(([line, row]) => {
    line.hidden = !row.name.toLowerCase().includes(wanted) || (isFrontierOnly && !row.on_frontier);
  });
}

function tableText(table, form) {
  const text = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
  const lines = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((line) => !line.hidden)
    .map((line) => [...line.cells].filter((cell) => !cell.classList.contains("screen")).map(text));
  if (form === "csv") {
    const quoted = (cell) => `"${cell.replace(/"/g, '""')}"`;
    return lines.map((cells) => cells.map(quoted).join(",")).join("\r\n");
  }
  const escaped = (cell) => cell.replace(/\|/g, "\\|").replace(/</g, "&lt;");
  const [heading, ...rows] = lines.map((cells) => `| ${cells.map(escaped).join(" | ")} |`);
  return [heading, `|${" --- |".repeat(lines[0].length)}`, ...rows].join("\n");
}

async function copyTable({ root }, form) {
  const place = root.querySelector(".copied"), field = place.querySelector("textarea");
  place.hidden = false;
  field.value = tableText(root.querySelector(".variants"), form);
  field.select();
  const copied = await navigator.clipboard?.writeText(field.value).then(() => true, () => false);
  place.querySelector("p").textContent = copied ? "Copied:" : "This browser did not copy it; it is selected:";
}

// ---- putting it together

function readQuery(form) {
  const fields = new FormData(form);
  const limit = (name) => {
    const value = Number(fields.get(name));
    return fields.get(name) === "" || !Number.isFinite(value) ? null : value;
  };
  return {
    drop: limit("drop"), latency: limit("latency"), size: limit("size"), memory: limit("memory"),
    batch: Number(fields.get("batch")), percentile: fields.get("percentile"), minimize: fields.get("minimize"),
    runtimes: fields.getAll("runtimes"),
  };
}

function answer(state) {
  const { root, sheet } = state, query = readQuery(root.querySelector(".limits"));
  const decision = state.decision = decide(sheet, query);
  root.querySelector(".decision").textContent = describe(decision, query);
  linesOf(state).forEach(([line, row]) => {
    const excesses = decision.excesses.get(row), fit = line.querySelector(".fit");
    const reason = excesses ? excesses.map((excess) => excess.text).join("; ") : "another runtime";
    const place = row.name === decision.chosen ? "the pick" : decision.tied.includes(row.name) ? "ties with it" : "yes";
    fit.textContent = reason || place;
    fit.className = `fit ${reason ? "fails" : "fits"}`;
    line.classList.toggle("dimmed", Boolean(reason));
  });
  drawFrontier(state);
}

function drawAll(state) {
  state.drawn = true;
  if (!state.sheet.rows.length) return;
  answer(state);
  drawSpread(state);
  drawRounds(state);
  drawMemory(state);
}

function connect(state) {
  const on = (selector, kind, act) => state.root.querySelectorAll(selector)
    .forEach((some) => some.addEventListener(kind, (event) => act(some, event)));
  on(".limits", "input", () => answer(state));
  on(".limits", "reset", () => setTimeout(() => answer(state)));  // The fields change after the event.
  on(".limits", "submit", (_, event) => event.preventDefault());
  on(".axes select", "change", () => drawFrontier(state));
  on(".spread-batch", "change", () => drawSpread(state));
  on(".rounds-batch", "change", () => drawRounds(state));
  on(".filter", "input", () => filterRows(state));
  on(".frontier-only", "change", () => filterRows(state));
  on(".copy", "click", (button) => copyTable(state, button.dataset.form));
  on(".sort", "click", (button) => sortBy(button.closest("table"), button.closest("th")));
  linesOf(state).forEach(([line, row]) => {
    line.querySelector(".pin").addEventListener("click", () => togglePin(state, row));
  });
}

const states = page.sheets.map((sheet, i) => ({
  sheet, root: document.getElementById(`sheet-${i}`), pins: [], decision: null, drawn: false,
}));
const tabs = [...document.querySelectorAll("[role=tab]")];

function select(index) {
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === index));
    tab.tabIndex = i === index ? 0 : -1;
  });
  states.forEach((state, i) => { state.root.hidden = i !== index; });
  if (!states[index].drawn) drawAll(states[index]);
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => select(index));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (index + step + tabs.length) % tabs.length;
    select(next);
    tabs[next].focus();
  });
});
states.forEach(connect);
select(0);
const redraw = () => states.filter((state) => state.drawn && !state.root.hidden).forEach(drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
