"use strict";
// The plots, by Plotly. `state` is what page.js keeps of a sheet.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const LOG_RANGE = 5, MOST_BARS = 60, MOST_LINES = 20;

/** Plotly reads a little HTML in its texts; a name is never HTML. */
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const runtimesOf = (sheet) => [...new Set(inStudyOrder(sheet.rows).map((row) => row.runtime))];

/** Each runtime has a colour and a shape of its own. */
function markOf(sheet, runtime) {
  const index = runtimesOf(sheet).indexOf(runtime);
  return { color: COLOURS[index % COLOURS.length], symbol: SHAPES[index % SHAPES.length] };
}

const labelOf = (axis) => `${axis.label}, ${axis.unit}`;

function show(figure, axis) {
  if (!figure) return "n/a";
  const fixed = { "%": 2, pp: 2 }[axis.unit] ?? (Math.abs(figure.point) >= 100 ? 0 : null);
  const text = (value) => (fixed === null ? value.toPrecision(3) : value.toFixed(fixed));
  const point = text(figure.point);
  return figure.low === null ? point : `${point} [${text(figure.low)}, ${text(figure.high)}]`;
}

function draw(element, traces, layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const narrow = element.clientWidth < 600;
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: narrow ? 11 : 13 },
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
  return axes.every((axis) => cost(a, axis) <= cost(b, axis))
    && axes.some((axis) => cost(a, axis) < cost(b, axis));
}

/** Who beats each row on the axes, by row; what the study was ranked by is as the report has it. */
function findDominators(sheet, rows, axes) {
  // A change of accuracy orders variants as the accuracy does.
  const keys = axes.map((axis) => (axis.key === "change" ? "accuracy" : axis.key));
  const ranked = keys.length === sheet.ranked.length && sheet.ranked.every((key) => keys.includes(key));
  if (ranked) {
    const names = new Map(sheet.rows.map((row) => [row.number, row.name]));
    return new Map(rows.map((row) => [row, row.dominated_by.map((number) => names.get(number))]));
  }
  const better = (row) => rows.filter((some) => beats(some, row, axes)).map((some) => some.name);
  return new Map(rows.map((row) => [row, better(row)]));
}

function stairs(rows, x, y) {
  const best = rows.filter((row) => !rows.some((some) => beats(some, row, [x, y])));
  const points = best.map((row) => [row.figures[x.key].point, row.figures[y.key].point])
    .sort((a, b) => a[0] - b[0]);
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
  const shape = x.direction === "minimize" ? "hv" : "vh";
  return { x: points.map((point) => point[0]), y: points.map((point) => point[1]), shape };
}

/** What a limit or a better variant says against a row, as sentences without a full stop. */
function objections(row, decision, dominators) {
  const excesses = decision.excesses.get(row);
  return [
    ...(dominators.length ? [`dominated by ${listed(dominators)}`] : []),
    ...(excesses ? excesses.map((excess) => `exceeds ${excess.text}`) : ["not on the runtimes chosen"]),
  ];
}

function drawFrontier(state) {
  const { sheet, root, decision, pins } = state;
  const chosen = (name) => root.querySelector(`.axes [name=${name}]`).value;
  const [x, y, area] = ["x", "y", "area"].map((name) => sheet.axes.find((axis) => axis.key === chosen(name)));
  const axes = [...new Set([x, y, area])];
  const rows = sheet.rows.filter((row) => axes.every((axis) => axis.key in row.figures));
  const dominators = findDominators(sheet, rows, axes);
  const against = new Map(rows.map((row) => [row, objections(row, decision, dominators.get(row))]));
  const isPale = (row) => against.get(row).length > 0;
  const named = rows.filter((row) => row.group === row.name && !isPale(row))
    .sort((a, b) => a.figures[x.key].point - b.figures[x.key].point);
  const values = (some, axis) => some.map((row) => row.figures[axis.key].point);
  const largest = Math.max(...values(rows, area).map(Math.abs), 1e-12);
  const radius = (row) => Math.max(30 * Math.sqrt(Math.abs(row.figures[area.key].point) / largest), 9);
  const hover = (row) => [
    `<b>${plain(row.name)}</b>`,
    ...axes.map((axis) => `${axis.label}: ${show(row.figures[axis.key], axis)} ${axis.unit}`),
    ...(row.on_frontier ? [`on the frontier in ${Math.round(100 * row.probability)} % of resamplings`] : []),
    ...against.get(row).map(plain),
  ].join("<br>");
  const bars = (some, axis, pale) => {
    const figures = some.map((row) => row.figures[axis.key]);
    return {
      type: "data", symmetric: false, thickness: pale ? 0.6 : 1.2, width: pale ? 0 : 3,
      array: figures.map((figure) => (figure.high ?? figure.point) - figure.point),
      arrayminus: figures.map((figure) => figure.point - (figure.low ?? figure.point)),
    };
  };
  const points = (runtime, pale) => {
    const some = rows.filter((row) => row.runtime === runtime && isPale(row) === pale);
    return {
      type: "scatter", mode: pale ? "markers" : "markers+text", legendgroup: plain(runtime),
      showlegend: false, opacity: pale ? 0.35 : 1, cliponaxis: false,
      x: values(some, x), y: values(some, y), error_x: bars(some, x, pale), error_y: bars(some, y, pale),
      text: some.map((row) => (named.includes(row) ? plain(row.name) : "")),
      textposition: some.map((row) => (named.indexOf(row) % 2 ? "bottom right" : "top right")),
      hovertext: some.map(hover), hoverinfo: "text", customdata: some.map((row) => row.number),
      marker: { ...markOf(sheet, runtime), size: some.map(radius), line: { width: 1 } },
    };
  };
  const legend = (runtime) => ({
    type: "scatter", mode: "markers", name: plain(runtime), legendgroup: plain(runtime), x: [null], y: [null],
    marker: { ...markOf(sheet, runtime), size: 11 },
  });
  const { shape, ...corners } = stairs(rows, x, y);
  const line = {
    type: "scatter", mode: "lines", ...corners, line: { shape, dash: "dash", width: 1.2, color: "#888" },
    hoverinfo: "skip", showlegend: false,
  };
  const pinned = rows.filter((row) => pins.includes(row));
  const rings = {
    type: "scatter", mode: "markers", x: values(pinned, x), y: values(pinned, y), hoverinfo: "skip",
    showlegend: false,
    marker: {
      symbol: "circle-open", size: pinned.map((row) => radius(row) + 12), color: "#d00070", line: { width: 3 },
    },
  };
  const perRuntime = (runtime) => [points(runtime, true), points(runtime, false), legend(runtime)];
  const traces = [line, ...runtimesOf(sheet).flatMap(perRuntime), rings];
  const place = root.querySelector(".frontier-plot");
  const scales = { xaxis: scaleOf(labelOf(x), values(rows, x)), yaxis: scaleOf(labelOf(y), values(rows, y)) };
  draw(place, traces, scales).then(() => {
    place.removeAllListeners("plotly_click");
    place.on("plotly_click", (event) => {
      const row = sheet.rows.find((some) => some.number === event.points[0].customdata);
      if (row) togglePin(state, row);
    });
  });
}

function fitRows(place, count) {
  place.style.height = `${Math.max(count * 18 + 110, 200)}px`;
}

function drawSpread({ sheet, root }) {
  const batch = root.querySelector(".spread-batch").value, place = root.querySelector(".spread-plot");
  const rows = sheet.rows.filter((row) => row.spread[batch]).slice(0, MOST_BARS).reverse();
  const at = (i) => rows.map((row) => row.spread[batch][i]);
  fitRows(place, rows.length);
  const boxes = {
    type: "box", orientation: "h", y: rows.map((row) => plain(row.name)), hoverinfo: "x",
    lowerfence: at(0), q1: at(1), median: at(2), q3: at(3), upperfence: at(4),
    marker: { color: COLOURS[0] }, line: { width: 1.2 },
  };
  const scale = scaleOf(`latency of a call at batch ${batch}, ms`, rows.flatMap((row) => row.spread[batch]));
  draw(place, [boxes], { xaxis: scale, yaxis: { dtick: 1 }, showlegend: false });
}

function drawRounds({ sheet, root, pins }) {
  const batch = Number(root.querySelector(".rounds-batch").value);
  const rounds = sheet.rounds.find((some) => some.batch === batch);
  const chosen = sheet.rows.filter((row, i) => i === 0 || row.on_frontier || pins.includes(row));
  const traces = !rounds ? [] : chosen.slice(0, MOST_LINES).map((row) => {
    const { baseline } = arraysOf(rounds), ratios = logRatios(rounds, sheet.rows.indexOf(row), null);
    return {
      type: "scatter", mode: "lines+markers", name: plain(row.name), x: ratios.map((_, round) => round + 1),
      y: ratios.map((ratio, round) => (Number.isFinite(ratio) ? baseline[round] * Math.exp(ratio) : null)),
      line: { width: 1.2 }, marker: { size: 5, symbol: markOf(sheet, row.runtime).symbol },
      hovertemplate: "%{fullData.name}, round %{x}: %{y:.3g} ms<extra></extra>",
    };
  });
  const timed = traces.flatMap((trace) => trace.y).filter((value) => value !== null);
  draw(root.querySelector(".rounds-plot"), traces, {
    xaxis: { title: { text: "round" } }, yaxis: scaleOf("median call, ms", timed),
    legend: { orientation: "h", y: -0.2 }, showlegend: true,
  });
}

function drawMemory({ sheet, root }) {
  const place = root.querySelector(".memory-plot");
  const rows = sheet.rows.filter((row) => row.memory.length).slice(0, MOST_BARS).reverse();
  const bar = (name, color, value) => ({
    type: "bar", orientation: "h", name, y: rows.map((row) => plain(row.name)), marker: { color },
    x: rows.map((row) => Math.max(value(row.memory.at(-1)), 0)), hovertemplate: `${name}: %{x:.1f} MB<extra></extra>`,
  });
  fitRows(place, rows.length);
  const bars = [
    bar("runtime alone", "#8a94a0", ({ floor }) => floor),
    bar("opened", COLOURS[5], ({ floor, loaded }) => loaded - floor),
    bar("peak at the largest batch", COLOURS[1], ({ floor, loaded, peak }) => peak - Math.max(loaded, floor)),
  ];
  draw(place, bars, { barmode: "stack", xaxis: { title: { text: "resident memory, MB" } }, yaxis: { dtick: 1 } });
}
