"use strict";
// The rules are those of analysis/budgets.py, analysis/decision.py and analysis/latency.py, on the same data;
// tests/report/page/test_decision.py holds both together.

const page = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const FEWEST_ROUNDS = 2, LOG_RANGE = 5, MOST_NAMED = 4;
const SUPERLATIVE = {
  latency: "the fastest", size: "the smallest", memory: "that with the least peak memory",
  energy: "that with the least energy",
};

// ---- comparing rounds ------------------------------------------------------------------------------------------

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function arraysOf(rounds) {
  rounds.decoded ??= { baseline: decode(rounds.baseline_ms), contrasts: decode(rounds.contrasts) };
  return rounds.decoded;
}

function median(sorted) {
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const ascending = (values) => [...values].sort((a, b) => a - b);

/** log(time of row i / time of row j) of each round that timed both; j null is the baseline. */
function logRatios(rounds, i, j) {
  const { contrasts } = arraysOf(rounds);
  return Array.from({ length: rounds.rounds }, (_, round) => {
    const at = (row) => (row === null ? 0 : (row * rounds.rounds + round) * rounds.passes);
    const passes = Array.from({ length: rounds.passes }, (_, k) =>
      contrasts[at(i) + k] - (j === null ? 0 : contrasts[at(j) + k]));
    const both = passes.filter(Number.isFinite);
    return both.length ? median(ascending(both)) : NaN;
  });
}

function medianInterval(values, ends) {
  const sorted = ascending(values), count = sorted.length, point = median(sorted);
  let low, high;
  if (count in ends.position) {
    const place = ends.position[count], rank = Math.floor(place), part = place - rank;
    low = sorted[rank - 1] + (part ? part * (sorted[rank] - sorted[rank - 1]) : 0);
    high = sorted[count - rank] - (part ? part * (sorted[count - rank] - sorted[count - rank - 1]) : 0);
  } else {
    const logs = sorted.map(Math.log), mean = logs.reduce((sum, value) => sum + value, 0) / count;
    const variance = logs.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
    const error = ends.factor[count] * Math.sqrt(variance), centre = median(logs);
    [low, high] = [Math.exp(centre - error), Math.exp(centre + error)];
  }
  return { point, low: Math.min(low, point), high: Math.max(high, point) };
}

/** How many times faster row i is than row j, with its interval. `apart`: no round timed both, and their
 * intervals against the baseline do not overlap. Null when too few rounds compare them. */
function compare(sheet, batch, first, second) {
  const rounds = sheet.rounds.find((some) => some.batch === batch);
  if (!rounds) return null;
  const [i, j] = [sheet.rows.indexOf(first), sheet.rows.indexOf(second)];
  const ratios = logRatios(rounds, i, j).filter(Number.isFinite).map((value) => Math.exp(-value));
  if (ratios.length >= FEWEST_ROUNDS) return medianInterval(ratios, sheet.ends);
  if (ratios.length) return null;
  const counts = [i, j].map((row) => logRatios(rounds, row, null).filter(Number.isFinite).length);
  if (!counts.every((count) => count in sheet.ends.position)) return null;
  return rounds.through_baseline[`${i},${j}`] ?? { apart: true };
}

// ---- limits ----------------------------------------------------------------------------------------------------

const badEnd = (figure, end) => figure[end] ?? figure.point;

function judge(row, query) {
  const key = `${query.percentile}:${query.batch}`;
  const lost = row.figures.change ? -badEnd(row.figures.change, "low")
    : row.figures.accuracy && !("change" in row.missing) ? 100 - badEnd(row.figures.accuracy, "low") : null;
  const at = (name, end) => (row.figures[name] ? badEnd(row.figures[name], end) : null);
  const checks = [
    ["size", at("size", "high"), query.size, "MB", "size"],
    ["peak memory", at(`memory:${query.batch}`, "high"), query.memory, "MB", `memory:${query.batch}`],
    [query.percentile === "p50" ? "latency" : "p99 latency", at(key, "high"), query.latency, "ms", key],
    [row.figures.change || "change" in row.missing || lost === null ? "accuracy drop" : "changed predictions",
      lost, query.drop, "pp", "change"],
  ];
  return checks.filter(([, found, limit]) => limit !== null && (found === null || found > limit))
    .map(([name, found, limit, unit, axis]) => ({
      name,
      relative: found === null || limit === 0 ? Infinity : (found - limit) / limit,
      text: found === null
        ? `${name}: unknown (${row.missing[axis] ?? "not scored"}), at most ${limit} ${unit} allowed`
        : `${name}: ${digits(found, 4)} ${unit}, ${digits(found - limit, 3)} ${unit} over the ${limit} allowed`,
    }));
}

const digits = (value, count) => String(Number(value.toPrecision(count)));

function costOf(row, query) {
  const key = { latency: `${query.percentile}:${query.batch}`, memory: `memory:${query.batch}` }[query.minimize];
  return row.figures[key ?? query.minimize] ?? null;
}

function ties(sheet, query, best, other) {
  if (query.minimize === "latency" && query.percentile === "p50") {
    const found = compare(sheet, query.batch, best, other);
    return found === null || (!found.apart && found.low <= 1 + sheet.epsilon_latency);
  }
  const [first, second] = [costOf(best, query), costOf(other, query)];
  if (first.low === null || second.low === null) return second.point <= first.point * (1 + sheet.epsilon_size);
  return second.low <= first.high;
}

const worstOf = (found) => Math.max(...found.map((excess) => excess.relative));

function findObstacle(excesses) {
  const nearestFirst = [...excesses].sort((a, b) => Number(worstOf(a[1]) > worstOf(b[1])) - Number(worstOf(a[1]) < worstOf(b[1])));
  const rows = nearestFirst.map(([row]) => row);
  const names = nearestFirst.map(([, found]) => new Set(found.map((excess) => excess.name)));
  const counted = [...new Set(names.flatMap((some) => [...some]))].sort().map((name) => ({
    name,
    freed: rows.filter((_, i) => names[i].size === 1 && names[i].has(name)).map((row) => row.name),
    rejected: names.filter((some) => some.has(name)).length,
  }));
  return counted.reduce((worst, some) =>
    some.freed.length > worst.freed.length
      || (some.freed.length === worst.freed.length && some.rejected > worst.rejected) ? some : worst);
}

/** What `decide` returns, for one seed. */
function decide(sheet, query) {
  const rows = [...sheet.rows].sort((a, b) => a.number - b.number)
    .filter((row) => !query.runtimes.length || query.runtimes.includes(row.runtime));
  const excesses = new Map(rows.map((row) => [row, judge(row, query)]));
  const within = rows.filter((row) => !excesses.get(row).length);
  const order = within.filter((row) => costOf(row, query))
    .sort((a, b) => costOf(a, query).point - costOf(b, query).point);
  const [chosen, ...others] = order;
  const closest = rows.length && !within.length ? rows.reduce((a, b) => (worstOf(excesses.get(b)) < worstOf(excesses.get(a)) ? b : a)) : null;
  return {
    chosen: chosen?.name ?? null,
    tied: others.filter((row) => ties(sheet, query, chosen, row)).map((row) => row.name),
    within: within.map((row) => row.name),
    closest: closest?.name ?? null,
    obstacle: closest ? findObstacle(excesses) : null,
    excesses,
  };
}

function listed(names) {
  const more = names.length - MOST_NAMED;
  return more > 0 ? `${names.slice(0, MOST_NAMED).join(", ")} and ${more} more` : names.join(", ");
}

function describe(decision, query) {
  const count = decision.excesses.size, of = `of ${count} variant${count === 1 ? "" : "s"}`;
  if (decision.chosen) {
    const tied = decision.tied.length ? ` Nothing measured separates it from ${listed(decision.tied)}.` : "";
    return `${decision.within.length} ${of} within the limits. Ship ${decision.chosen}, `
      + `${SUPERLATIVE[query.minimize]} of them.${tied}`;
  }
  if (decision.closest) {
    const over = [...decision.excesses].find(([row]) => row.name === decision.closest)[1];
    const { name, freed, rejected } = decision.obstacle;
    return `None ${of} is within the limits. ${decision.closest} comes closest: `
      + `${over.map((excess) => excess.text).join("; ")}. The limit of ${name} costs most: `
      + (freed.length ? `without it, ${listed(freed)} would be within.`
        : `it rejects ${rejected}, and none is within without it.`);
  }
  return `${decision.within.length} ${of} within the limits, and none has a figure of ${query.minimize}.`;
}

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

// ---- plots -----------------------------------------------------------------------------------------------------

/** Plotly reads a little HTML in its texts; a name is never HTML. */
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const colourOf = (sheet, row) => COLOURS[runtimesOf(sheet).indexOf(row.runtime) % COLOURS.length];

const runtimesOf = (sheet) => [...new Set([...sheet.rows].sort((a, b) => a.number - b.number).map((row) => row.runtime))];

const labelOf = (axis) => `${axis.label}, ${axis.unit}`;

function show(figure, axis) {
  if (!figure) return "n/a";
  const fixed = { "%": 2, pp: 2 }[axis.unit];
  const text = (value) => (fixed ? value.toFixed(fixed) : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));
  return figure.low === null ? text(figure.point) : `${text(figure.point)} [${text(figure.low)}, ${text(figure.high)}]`;
}

function draw(element, traces, layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const narrow = element.clientWidth < 600;
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: narrow ? 11 : 13 },
    margin: { l: 60, r: 15, t: 15, b: 50 }, hoverlabel: { align: "left" }, hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  return Plotly.react(element, traces, whole, config);
}

/** A logarithmic axis with a label at 1, 2 and 5 of each power of ten; linear where the values are near each other. */
function scaleOf(title, values) {
  const found = values.filter((value) => Number.isFinite(value));
  if (!found.length || !isWide(found)) return { title: { text: title } };
  const [first, last] = [Math.min(...found), Math.max(...found)].map((value) => Math.floor(Math.log10(value)));
  const powers = Array.from({ length: last - first + 3 }, (_, i) => first - 1 + i);
  const tickvals = powers.flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  return { title: { text: title }, type: "log", tickvals, ticktext: tickvals.map(String) };
}

const isWide = (values) => Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > LOG_RANGE;

function beats(a, b, axes) {
  const cost = (row, axis) => row.figures[axis.key].point * (axis.direction === "minimize" ? 1 : -1);
  return axes.every((axis) => cost(a, axis) <= cost(b, axis)) && axes.some((axis) => cost(a, axis) < cost(b, axis));
}

/** Who beats each row on the axes, by row; what the study was ranked by is as the report has it. */
function findDominators(sheet, rows, axes) {
  // A change of accuracy orders variants as the accuracy does.
  const keys = axes.map((axis) => (axis.key === "change" ? "accuracy" : axis.key));
  const ranked = keys.length === sheet.ranked.length && sheet.ranked.every((key) => keys.includes(key));
  if (ranked) return new Map(rows.map((row) => [row, row.dominated_by]));
  return new Map(rows.map((row) => [row, rows.filter((some) => beats(some, row, axes)).map((some) => some.name)]));
}

function stairs(rows, x, y) {
  const best = rows.filter((row) => !rows.some((some) => beats(some, row, [x, y])));
  const points = best.map((row) => [row.figures[x.key].point, row.figures[y.key].point]).sort((a, b) => a[0] - b[0]);
  const ends = [x, y].map((axis) => {
    const values = rows.map((row) => row.figures[axis.key].point);
    return axis.direction === "minimize" ? Math.max(...values) : Math.min(...values);
  });
  if (points.length) {
    // From the worst figure of one axis to that of the other: beyond the line everything is dominated.
    const [head, tail] = x.direction === "minimize"
      ? [[points[0][0], ends[1]], [ends[0], points.at(-1)[1]]]
      : [[ends[0], points[0][1]], [points.at(-1)[0], ends[1]]];
    points.unshift(head);
    points.push(tail);
  }
  return { x: points.map((point) => point[0]), y: points.map((point) => point[1]), shape: x.direction === "minimize" ? "hv" : "vh" };
}

function drawFrontier(state) {
  const { sheet, root, decision, pins } = state;
  const choice = (name) => sheet.axes.find((axis) => axis.key === root.querySelector(`.axes [name=${name}]`).value);
  const [x, y, area] = ["x", "y", "area"].map(choice);
  const axes = [...new Set([x, y, area])];
  const rows = sheet.rows.filter((row) => axes.every((axis) => axis.key in row.figures));
  const dominators = findDominators(sheet, rows, axes);
  const largest = Math.max(...rows.map((row) => Math.abs(row.figures[area.key].point)), 1e-12);
  const radius = (row) => Math.max(30 * Math.sqrt(Math.abs(row.figures[area.key].point) / largest), 9);
  const over = (row) => (decision.excesses.get(row) ?? [{ text: "another runtime than those chosen" }]).map((excess) => excess.text);
  const isPale = (row) => dominators.get(row).length > 0 || over(row).length > 0;
  const text = (row) => [
    `<b>${plain(row.name)}</b>`, ...axes.map((axis) => `${axis.label}: ${show(row.figures[axis.key], axis)} ${axis.unit}`),
    ...(row.on_frontier ? [`on the frontier in ${Math.round(100 * row.probability)} % of resamplings`] : []),
    ...(dominators.get(row).length ? [`dominated by ${plain(listed(dominators.get(row)))}`] : []),
    ...over(row).map((reason) => `exceeds ${plain(reason)}`),
  ].join("<br>");
  const named = rows.filter((row) => row.group === row.name && !isPale(row)).sort((a, b) => a.figures[x.key].point - b.figures[x.key].point);
  const bars = (row, axis) => {
    const figure = row.figures[axis.key];
    return figure.low === null ? [0, 0] : [figure.high - figure.point, figure.point - figure.low];
  };
  const error = (some, axis, pale) => ({
    type: "data", symmetric: false, array: some.map((row) => bars(row, axis)[0]),
    arrayminus: some.map((row) => bars(row, axis)[1]), thickness: pale ? 0.6 : 1.2, width: pale ? 0 : 3,
  });
  const trace = (runtime, index, pale) => {
    const some = rows.filter((row) => row.runtime === runtime && isPale(row) === pale);
    return {
      type: "scatter", mode: pale ? "markers" : "markers+text", name: plain(runtime), legendgroup: plain(runtime),
      showlegend: false, opacity: pale ? 0.35 : 1, cliponaxis: false,
      textposition: some.map((row) => (named.indexOf(row) % 2 ? "bottom right" : "top right")),
      x: some.map((row) => row.figures[x.key].point), y: some.map((row) => row.figures[y.key].point),
      text: some.map((row) => (named.includes(row) ? plain(row.name) : "")),
      customdata: some.map((row) => row.number), hovertext: some.map(text), hoverinfo: "text",
      error_x: error(some, x, pale), error_y: error(some, y, pale),
      marker: { color: COLOURS[index % COLOURS.length], symbol: SHAPES[index % SHAPES.length], size: some.map(radius), line: { width: 1 } },
    };
  };
  const legend = (runtime, index) => ({
    type: "scatter", mode: "markers", name: plain(runtime), legendgroup: plain(runtime), x: [null], y: [null],
    marker: { color: COLOURS[index % COLOURS.length], symbol: SHAPES[index % SHAPES.length], size: 11 },
  });
  const line = stairs(rows, x, y);
  const pinned = rows.filter((row) => pins.includes(row));
  const traces = [
    { type: "scatter", mode: "lines", name: "frontier", x: line.x, y: line.y, line: { shape: line.shape, dash: "dash", width: 1.2, color: "#888" }, hoverinfo: "skip", showlegend: false },
    ...runtimesOf(sheet).flatMap((runtime, i) => [trace(runtime, i, true), trace(runtime, i, false), legend(runtime, i)]),
    { type: "scatter", mode: "markers", x: pinned.map((row) => row.figures[x.key].point), y: pinned.map((row) => row.figures[y.key].point), hoverinfo: "skip", showlegend: false,
      marker: { symbol: "circle-open", size: pinned.map((row) => radius(row) + 12), color: "#d00070", line: { width: 3 } } },
  ];
  const scale = (axis) => scaleOf(labelOf(axis), rows.map((row) => row.figures[axis.key].point));
  const element = root.querySelector(".frontier-plot");
  draw(element, traces, { xaxis: scale(x), yaxis: scale(y) }).then(() => {
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", (event) => {
      const row = sheet.rows.find((some) => some.number === event.points[0].customdata);
      if (row) togglePin(state, row);
    });
  });
}

function drawSpread(state) {
  const { sheet, root } = state, batch = root.querySelector(".spread-batch").value;
  const rows = sheet.rows.filter((row) => row.spread[batch]).slice(0, 60).reverse();
  const at = (i) => rows.map((row) => row.spread[batch][i]);
  const element = root.querySelector(".spread-plot");
  element.style.height = `${Math.max(rows.length * 18 + 90, 200)}px`;
  draw(element, [{
    type: "box", orientation: "h", y: rows.map((row) => plain(row.name)), lowerfence: at(0), q1: at(1), median: at(2), q3: at(3), upperfence: at(4),
    marker: { color: COLOURS[0] }, line: { width: 1.2 }, hoverinfo: "x",
  }], { xaxis: scaleOf(`latency of a call at batch ${batch}, ms`, rows.flatMap((row) => row.spread[batch])), yaxis: { dtick: 1 }, showlegend: false });
}

function drawRounds(state) {
  const { sheet, root } = state, batch = Number(root.querySelector(".rounds-batch").value);
  const rounds = sheet.rounds.find((some) => some.batch === batch);
  const chosen = sheet.rows.filter((row, i) => i === 0 || row.on_frontier || state.pins.includes(row)).slice(0, 20);
  const numbers = Array.from({ length: rounds?.rounds ?? 0 }, (_, i) => i + 1);
  const traces = !rounds ? [] : chosen.map((row) => {
    const baseline = arraysOf(rounds).baseline, ratios = logRatios(rounds, sheet.rows.indexOf(row), null);
    return {
      type: "scatter", mode: "lines+markers", name: plain(row.name), x: numbers,
      y: ratios.map((ratio, round) => (Number.isFinite(ratio) ? baseline[round] * Math.exp(ratio) : null)),
      line: { width: 1.2 }, marker: { size: 5, symbol: SHAPES[runtimesOf(sheet).indexOf(row.runtime) % SHAPES.length] }, hovertemplate: "%{fullData.name}, round %{x}: %{y:.3g} ms<extra></extra>",
    };
  });
  draw(root.querySelector(".rounds-plot"), traces, {
    xaxis: { title: { text: "round" } }, yaxis: scaleOf("median call, ms", traces.flatMap((trace) => trace.y).filter((value) => value !== null)), legend: { orientation: "h", y: -0.2 }, showlegend: true,
  });
}

function drawMemory(state) {
  const { sheet, root } = state;
  const rows = sheet.rows.filter((row) => row.memory.length).slice(0, 60).reverse();
  const last = (row) => row.memory.at(-1);
  const bar = (name, colour, value) => ({ type: "bar", orientation: "h", name, y: rows.map((row) => plain(row.name)), x: rows.map(value), marker: { color: colour }, hovertemplate: `${name}: %{x:.1f} MB<extra></extra>` });
  const element = root.querySelector(".memory-plot");
  element.style.height = `${Math.max(rows.length * 18 + 110, 200)}px`;
  draw(element, [
    bar("runtime alone", "#8a94a0", (row) => last(row).floor),
    bar("opened", COLOURS[5], (row) => Math.max(last(row).loaded - last(row).floor, 0)),
    bar("peak of inference at the largest batch", COLOURS[1], (row) => Math.max(last(row).peak - Math.max(last(row).loaded, last(row).floor), 0)),
  ], { barmode: "stack", xaxis: { title: { text: "resident memory, MB" } }, yaxis: { dtick: 1 } });
}

// ---- pinned variants -------------------------------------------------------------------------------------------

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

function togglePin(state, row) {
  state.pins = state.pins.includes(row) ? state.pins.filter((some) => some !== row) : [...state.pins, row].slice(-2);
  state.root.querySelectorAll(".variants tbody tr").forEach((line) => {
    const pinned = state.pins.some((some) => some.number === Number(line.dataset.number));
    line.querySelector(".pin").setAttribute("aria-pressed", String(pinned));
  });
  showPins(state);
  drawFrontier(state);
  drawRounds(state);
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
    body.append(line(labelOf(axis), show(a.figures[axis.key], axis), show(b.figures[axis.key], axis), batch ? describeRatio(sheet, Number(batch), a, b) : ""));
  });
  sheet.classes.forEach((name, i) => {
    const change = (row) => (row.classes[i] ? `${row.classes[i].diff_pp.toFixed(1)}${row.classes[i].marked ? "*" : ""}` : "n/a");
    body.append(line(`change of ${name}, pp`, change(a), change(b), ""));
  });
  const extra = (row, other) => row.steps.filter((step) => !other.steps.includes(step)).join(", ") || "nothing of its own";
  body.append(line("steps that the other lacks", extra(a, b), extra(b, a), ""));
  const table = element("table"), scroll = element("div", undefined, { class: "wide", role: "region", tabindex: "0", "aria-label": "The two pinned variants" });
  const headings = element("thead");
  headings.append(head);
  table.append(element("caption", "Side by side. A direct ratio is over the rounds that timed both."), headings, body);
  scroll.append(table);
  place.append(scroll);
}

function describeRatio(sheet, batch, a, b) {
  const found = compare(sheet, batch, a, b);
  if (found === null) return "too few rounds timed both";
  if (found.apart) return "no round timed both; their speed-ups lie apart";
  const [first, second] = found.point >= 1 ? [a, b] : [b, a];
  const times = found.point >= 1 ? found : { point: 1 / found.point, low: 1 / found.high, high: 1 / found.low };
  const tie = times.low <= 1 && times.high >= 1 ? " (tie)" : "";
  return `${first.name} ${times.point.toFixed(3)} [${times.low.toFixed(3)}, ${times.high.toFixed(3)}] times as fast as ${second.name}${tie}`;
}

// ---- the table -------------------------------------------------------------------------------------------------

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

function filterRows({ root, sheet }) {
  const wanted = root.querySelector(".filter").value.toLowerCase(), best = root.querySelector(".frontier-only").checked;
  root.querySelectorAll(".variants tbody tr").forEach((line) => {
    const row = sheet.rows.find((some) => some.number === Number(line.dataset.number));
    line.hidden = !row.name.toLowerCase().includes(wanted) || (best && !row.on_frontier);
  });
}

function tableText(table, form) {
  const lines = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((line) => !line.hidden)
    .map((line) => [...line.cells].filter((cell) => !cell.querySelector(".pin") && cell.textContent !== "pin")
      .map((cell) => cell.textContent.trim().replace(/\s+/g, " ")));
  if (form === "csv") return lines.map((cells) => cells.map((cell) => `"${cell.replace(/"/g, '""')}"`).join(",")).join("\r\n");
  const rows = lines.map((cells) => `| ${cells.map((cell) => cell.replace(/\|/g, "\\|").replace(/</g, "&lt;")).join(" | ")} |`);
  return [rows[0], `|${" --- |".repeat(lines[0].length)}`, ...rows.slice(1)].join("\n");
}

async function copyTable({ root }, form) {
  const place = root.querySelector(".copied"), field = place.querySelector("textarea");
  place.hidden = false;
  field.value = tableText(root.querySelector(".variants"), form);
  field.select();
  const copied = await navigator.clipboard?.writeText(field.value).then(() => true, () => false);
  place.querySelector("p").textContent = copied ? "Copied; this is the text:" : "This browser did not copy it; the text is selected:";
}

// ---- putting it together ---------------------------------------------------------------------------------------

function answer(state) {
  const { root, sheet } = state, query = readQuery(root.querySelector(".limits"));
  state.decision = decide(sheet, query);
  root.querySelector(".decision").textContent = describe(state.decision, query);
  root.querySelectorAll(".variants tbody tr").forEach((line) => {
    const row = sheet.rows.find((some) => some.number === Number(line.dataset.number));
    const excesses = state.decision.excesses.get(row), fit = line.querySelector(".fit");
    const reason = excesses ? excesses.map((excess) => excess.text).join("; ") : "another runtime";
    fit.textContent = row.name === state.decision.chosen ? "the pick" : state.decision.tied.includes(row.name) ? "ties with it" : reason || "yes";
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
  const { root } = state, on = (selector, kind, act) => root.querySelectorAll(selector).forEach((some) => some.addEventListener(kind, () => act(some)));
  on(".limits", "input", () => answer(state));
  on(".limits", "reset", () => setTimeout(() => answer(state)));
  root.querySelector(".limits")?.addEventListener("submit", (event) => event.preventDefault());
  on(".axes select", "change", () => drawFrontier(state));
  on(".spread-batch", "change", () => drawSpread(state));
  on(".rounds-batch", "change", () => drawRounds(state));
  on(".filter", "input", () => filterRows(state));
  on(".frontier-only", "change", () => filterRows(state));
  on(".copy", "click", (button) => copyTable(state, button.dataset.form));
  on(".sort", "click", (button) => sortBy(button.closest("table"), button.closest("th")));
  on(".pin", "click", (button) => togglePin(state, state.sheet.rows.find((row) => row.number === Number(button.closest("tr").dataset.number))));
}

const states = page.sheets.map((sheet, i) => ({ sheet, root: document.getElementById(`sheet-${i}`), pins: [], decision: null, drawn: false }));
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
