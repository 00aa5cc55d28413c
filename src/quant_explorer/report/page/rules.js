"use strict";
// The rules are those of analysis/decide/budgets.py, analysis/decide/decision.py and analysis/latency.py, on the same data;
// tests/report/page/test_decision.py holds both together.

const page = JSON.parse(document.getElementById("data").textContent);
const FEWEST_ROUNDS = 2, NORMAL_95 = 1.959963984540054, MOST_NAMED = 4;
const SUPERLATIVE = {
  latency: "the fastest", size: "the smallest", memory: "that with the least peak memory",
  energy: "that with the least energy",
};

// ---- comparing rounds

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

const inverse = ({ point, low, high }) => ({ point: 1 / point, low: 1 / high, high: 1 / low });

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
  const slower = rounds.through_baseline[`${j},${i}`];
  return rounds.through_baseline[`${i},${j}`] ?? (slower ? inverse(slower) : { apart: true });
}

/** Tango's interval of (gained - lost) / total, as `stats/paired.py:paired_interval`. */
function pairedInterval(gained, lost, total) {
  const observed = (gained - lost) / total;
  const score = (d) => {
    const linear = (2 * total - gained + lost) * d - gained - lost;
    const root = Math.sqrt(Math.max(linear ** 2 + 8 * total * lost * d * (1 - d), 0));
    const share = (root - linear) / (4 * total);
    return (gained - lost - total * d) / Math.sqrt(Math.max(total * (2 * share + d * (1 - d)), 1e-300));
  };
  const end = (limit, bound) => {
    let [outside, inside] = [limit, observed];
    for (let i = 0; i < 60 && limit !== observed; i += 1) {
      const middle = (outside + inside) / 2;
      if (Math.abs(score(middle)) > bound) outside = middle;
      else inside = middle;
    }
    return inside;
  };
  return { point: observed, low: end(-1, NORMAL_95), high: end(1, NORMAL_95) };
}

/** How much more accurate row i is than row j in percentage points, or null when they share no image. */
function compareAccuracy(sheet, first, second) {
  if (!sheet.pairs) return null;
  sheet.pairs.decoded ??= { gained: decode(sheet.pairs.gained), shared: decode(sheet.pairs.shared) };
  const { gained, shared } = sheet.pairs.decoded, count = sheet.rows.length;
  const [i, j] = [sheet.rows.indexOf(first), sheet.rows.indexOf(second)], total = shared[i * count + j];
  if (!total) return null;
  const { point, low, high } = pairedInterval(gained[i * count + j], gained[j * count + i], total);
  return { point: 100 * point, low: 100 * low, high: 100 * high };
}

// ---- limits

const badEnd = (figure, end) => figure[end] ?? figure.point;

/** Whether the images of the search split decide by this limit of the drop. */
const decidesOnSearch = (sheet, query) =>
  sheet.search_least_pp !== null && query.drop !== null && query.drop >= sheet.search_least_pp;

function judge(sheet, row, query) {
  const key = `${query.percentile}:${query.batch}`;
  const lost = decidesOnSearch(sheet, query) && row.search ? -badEnd(row.search, "low")
    : row.figures.change ? -badEnd(row.figures.change, "low")
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
  // Not by subtraction: the difference of two infinities is no order.
  const order = (a, b) => Number(a > b) - Number(a < b);
  const nearestFirst = [...excesses].sort((a, b) => order(worstOf(a[1]), worstOf(b[1])));
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

const inStudyOrder = (rows) => [...rows].sort((a, b) => a.number - b.number);

/** What `decide` returns, for one seed. */
function decide(sheet, query) {
  const rows = inStudyOrder(sheet.rows)
    .filter((row) => !query.runtimes.length || query.runtimes.includes(row.runtime));
  const excesses = new Map(rows.map((row) => [row, judge(sheet, row, query)]));
  const within = rows.filter((row) => !excesses.get(row).length);
  const order = within.filter((row) => costOf(row, query))
    .sort((a, b) => costOf(a, query).point - costOf(b, query).point);
  const [chosen, ...others] = order;
  const nearer = (a, b) => (worstOf(excesses.get(b)) < worstOf(excesses.get(a)) ? b : a);
  const closest = rows.length && !within.length ? rows.reduce(nearer) : null;
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
