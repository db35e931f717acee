"use strict";
// Draws the page from the data embedded in it. The one thing that changes is the epoch shown:
// what depends on it is drawn by functions in `whenShown`.

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const recorded = runs.filter((run) => run.records.length);
const epochs = [...new Set(recorded.flatMap((run) => run.records.map((r) => r.epoch)))];
epochs.sort((a, b) => a - b);
let shown = epochs.length - 1; // index
let whenShown = [];
runs.forEach((run, i) => { run.colour = `var(--c${i})`; });

const QUANTITIES = {
  i_int: ["Integrated current", "I_int, in units of the threshold"],
  i_ee: ["Excitatory current", "I_EE"],
  i_ie: ["Inhibitory current", "I_IE, of inhibitory neurons"],
  i_sub: ["Subtractive inhibition", "I_sub"],
  i_div: ["Divisive inhibition", "I_div, before stabilisation"],
  v: ["Membrane potential", "in units of the threshold"],
};

// ---------------------------------------------------------------- elements and figures

const SVG = new Set(["svg", "path", "line", "circle", "text", "g"]);

/** An element with attributes and children; text is text, never markup. */
function el(tag, attributes = {}, ...children) {
  const node = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.flat());
  return node;
}

/** A number with so many significant digits, or a dash for what is not there. */
function figure(x, digits = 3) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  const text = size && (size < 1e-3 || size >= 1e5) ? x.toExponential(1) : String(Number(x.toPrecision(digits)));
  return text.replaceAll("-", "−");
}
const percent = (x) => (x === null || x === undefined ? "–" : `${figure(100 * x)} %`);
const hundredths = (x) => (x === null || x === undefined ? "–" : x.toFixed(2).replace("-", "−"));
const wholePercent = (x) => (x === null || x === undefined ? "–" : `${Math.round(100 * x)} %`);

/** The mean of what is there; null of nothing. */
function mean(values) {
  const there = (values ?? []).filter((x) => x !== null);
  return there.length ? there.reduce((a, b) => a + b) / there.length : null;
}

/** The smallest and the largest of many numbers. */
const extent = (values) => values.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);

/** The colour of the layer at a depth, from the first to the last. */
const depth = (j, count) =>
  `color-mix(in oklch, var(--deep) ${Math.round((100 * j) / Math.max(1, count - 1))}%, var(--shallow))`;

/** The last record at or before an epoch, by default the one that is shown. */
function recordOf(run, index = shown) {
  return run.records.findLast((r) => r.epoch <= epochs[index]) ?? run.records[0];
}

function section(id, title, ...children) {
  const label = el("h2", { id: `${id}-title` }, title);
  document.getElementById("content").append(
    el("section", { id, "aria-labelledby": label.id }, label, ...children));
  document.getElementById("contents").append(el("a", { href: `#${id}` }, title), " ");
}

/** A card for each run, headed by its name and, if it depends on it, the epoch. */
function cards(chosen, build, byEpoch = true) {
  return el("div", { class: "grid" }, chosen.map((run) => {
    const at = el("small");
    if (byEpoch) whenShown.push(() => { at.textContent = ` epoch ${recordOf(run).epoch}`; });
    return el("div", { class: "card run", style: `--run:${run.colour}` },
      el("h3", {}, run.name, at), build(run));
  }));
}

/** A choice with its label. */
function choice(id, label, options) {
  return el("span", {}, el("label", { for: id }, label), " ", el("select", { id },
    options.map(([value, text]) => el("option", { value }, text))));
}

/** What `build` makes of the value of a choice, made anew when it changes. */
function chosen(choice, build) {
  const holder = el("div"), select = choice.querySelector("select");
  let own = [];
  const make = () => {
    const others = whenShown;
    whenShown = [];
    holder.replaceChildren(build(select.value));
    own = whenShown;
    whenShown = others;
  };
  const draw = () => own.forEach((f) => f());
  make();
  whenShown.push(draw);
  select.addEventListener("change", () => { make(); draw(); });
  return holder;
}

const note = (...text) => el("p", { class: "note" }, ...text);

// ---------------------------------------------------------------- line charts

const W = 360, H = 210, LEFT = 44, RIGHT = 12, TOP = 10, BOTTOM = 34;

/** Round numbers that divide low to high in about `count` parts. */
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.75);
  const all = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) all.push(i * step);
  return all;
}

/** A tick's value with as many digits as tell it from its neighbours. */
function tickText(x, all) {
  const step = all.length > 1 ? all[1] - all[0] : Math.abs(x) || 1;
  if (step < 1e-5 || Math.abs(x) >= 1e5) return figure(x);
  return x.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))).replace("-", "−");
}

/** Powers of ten within low to high (logarithms), no more than about six. */
function decades(low, high) {
  const step = Math.max(1, Math.ceil((high - low) / 6)), all = [];
  for (let i = Math.ceil(low / step) * step; i <= high; i += step) all.push(i);
  return all;
}

/**
 * A chart of lines. `series`: {name, colour, x, y, dashed, dot}, of which y may hold null.
 * Options: title; xLabel; names (of whole-number x); log; low, high (of y); unit (function);
 * legend; marker (whether the epoch shown is marked); bounds (series that set the limits of y).
 */
function chart(series, options) {
  const { title, xLabel = "epoch", names, log = false, unit = figure } = options;
  const height = (y) => (log ? (y > 0 ? Math.log10(y) : null) : y);
  const valid = (y) => y !== null && y !== undefined && height(y) !== null;
  const ys = (options.bounds ?? series).flatMap((s) => s.y).filter(valid).map(height);
  let [low, high] = extent([options.low, options.high].filter((y) => y !== undefined).concat(ys));
  if (!ys.length) {
    return el("figure", {}, el("figcaption", {}, title),
      el("p", {}, log ? "All are zero, which a logarithmic axis cannot show." : "No values."));
  }
  if (log) { low = Math.floor(low); high = Math.max(low + 1, Math.ceil(high)); }
  if (high <= low) { low -= Math.abs(low) / 2 || 0.5; high += Math.abs(high) / 2 || 0.5; }
  const [first, last] = extent(series.flatMap((s) => s.x));
  const px = (x) => last === first ? (LEFT + W - RIGHT) / 2
    : LEFT + ((x - first) / (last - first)) * (W - LEFT - RIGHT);
  const py = (y) => TOP + (1 - (height(y) - low) / (high - low)) * (H - TOP - BOTTOM);

  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  const levels = log ? decades(low, high) : ticks(low, high, 4);
  for (const tick of levels) {
    const y = py(log ? 10 ** tick : tick);
    const text = log ? power(tick) : unit === percent ? percent(tick) : tickText(tick, levels);
    svg.append(el("line", { class: "rule", x1: LEFT, x2: W - RIGHT, y1: y, y2: y }),
      el("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text));
  }
  const whole = ticks(first, Math.max(last, first + 1), 6).filter((x) => Number.isInteger(x) && x <= last);
  for (const x of whole) {
    svg.append(el("line", { class: "axis", x1: px(x), x2: px(x), y1: H - BOTTOM, y2: H - BOTTOM + 4 }),
      el("text", { x: px(x), y: H - BOTTOM + 16, "text-anchor": "middle" }, String(x)));
  }
  svg.append(el("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }),
    el("text", { x: (LEFT + W - RIGHT) / 2, y: H - 3, "text-anchor": "middle" }, xLabel));
  if (options.marker) {
    const line = el("line", { class: "marker", y1: TOP, y2: H - BOTTOM });
    svg.append(line);
    whenShown.push(() => {
      const x = px(Math.min(last, Math.max(first, epochs[shown])));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    });
  }
  const points = [];
  for (const s of series) {
    let path = "", open = false;
    s.y.forEach((y, i) => {
      if (!valid(y)) { open = false; return; }
      const x = px(s.x[i]), h = py(y);
      path += `${open ? "L" : "M"}${x.toFixed(1)} ${h.toFixed(1)}`;
      open = true;
      points.push({ x, h, text: `${s.name}, ${names ? names[s.x[i] - 1] : `${xLabel} ${s.x[i]}`}: ${unit(y)}`,
        colour: s.colour });
      if (s.x.length < 2 || s.dot === s.x[i] || names) {
        svg.append(el("circle", { class: "dot", style: `--k:${s.colour}`, cx: x, cy: h, r: names ? 2.5 : 4 }));
      }
    });
    svg.append(el("path", { class: s.dashed ? "curve dashed" : "curve", style: `--k:${s.colour}`, d: path }));
  }
  svg.setAttribute("aria-label", `${title}. ${described(series, unit)}`);
  pointAt(svg, points);
  return el("figure", {}, el("figcaption", {}, title), svg,
    options.legend ? legend(series) : [], numbers(series, xLabel, names, unit));
}

/** 10 to a power, as text. */
const power = (n) => `10${[...String(n)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;

/** What a chart shows, for those who do not see it. */
function described(series, unit) {
  if (series.length > 12) return `${series.length} lines; the numbers are in the table below.`;
  return series.map((s) => `${s.name}: from ${unit(s.y[0])} to ${unit(s.y.at(-1))}`).join("; ") + ".";
}

function legend(series) {
  return el("ul", { class: "legend" }, series.map((s) =>
    el("li", { class: s.dashed ? "dashes" : "", style: `--k:${s.colour}` }, s.name)));
}

/** The numbers of a chart as a table that is made when it is opened. */
function numbers(series, xLabel, names, unit) {
  const details = el("details", {}, el("summary", {}, "Numbers"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const rows = [...new Set(series.flatMap((s) => s.x))].sort((a, b) => a - b);
    details.append(el("div", { class: "scroll", tabindex: 0 }, el("table", {},
      row("th", [names ? "layer" : xLabel, ...series.map((s) => s.name)]),
      rows.map((x) => row("td", [names ? names[x - 1] : String(x),
        ...series.map((s) => unit(s.y[s.x.indexOf(x)]))])))));
  });
  return details;
}

function row(tag, texts) {
  return el("tr", {}, texts.map((text, i) =>
    i === 0 || tag === "th" ? el("th", { scope: tag === "th" ? "col" : "row" }, text) : el(tag, {}, text)));
}

/** Tell the value of the point that is nearest to the pointer. */
function pointAt(svg, points) {
  const tip = document.getElementById("tip"), dot = el("circle", { class: "hit", r: 4.5 });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = W / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = null, least = Infinity;
    for (const p of points) {
      const distance = (p.x - x) ** 2 + (p.h - y) ** 2;
      if (distance < least) [best, least] = [p, distance];
    }
    if (!best) return;
    dot.setAttribute("cx", best.x);
    dot.setAttribute("cy", best.h);
    dot.setAttribute("style", `--k:${best.colour}`);
    svg.append(dot);
    tip.textContent = best.text;
    tip.hidden = false;
    const left = box.left + best.x / scale + 12, room = innerWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(left, room))}px`;
    tip.style.top = `${Math.max(8, box.top + best.h / scale - tip.offsetHeight - 10)}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; dot.remove(); });
}

/** A chart over epochs with a line for each layer. `value` takes a layer's record. */
function byLayer(run, value, options, part = "layers") {
  const count = run.names[part].length;
  const series = run.names[part].map((name, j) => ({
    name,
    colour: depth(j, count),
    x: run.records.map((r) => r.epoch),
    y: run.records.map((r) => value(r[part][j]) ?? null),
  })).filter((s) => s.y.some((y) => y !== null));
  return series.length ? chart(series, { marker: true, ...options }) : [];
}

/** A chart over layers that is drawn anew for each epoch, within the same limits. */
function overLayers(names, seriesAt, options) {
  const holder = el("div"), all = epochs.flatMap((_, i) => seriesAt(i));
  whenShown.push(() => {
    const open = holder.querySelector("details")?.open;
    const drawn = chart(seriesAt(shown), { names, xLabel: "layer", bounds: all, legend: true, ...options });
    holder.replaceChildren(drawn);
    if (open) drawn.querySelector("details").open = true;
  });
  return holder;
}

const ramp = () => el("div", { class: "tools" }, el("span", {}, "Lines: first layer",
  el("span", { class: "ramp", "aria-hidden": "true" }), "last layer"));

// ---------------------------------------------------------------- tables of layers and steps

/** Colour a cell, the stronger the share (0 to 1), but never so that its text is hard to read. */
function paint(cell, share, colour) {
  const amount = 0.55 * Math.max(0, Math.min(1, share));
  cell.style.background = `color-mix(in oklab, var(${colour}) ${Math.round(100 * amount)}%, var(--card))`;
}

/**
 * Layers by time steps, at the epoch shown. `figureOf` gives a list over steps of a layer's
 * record, `colour(cell, value)` colours a cell, `further` are columns: name to [function, text].
 */
function steps(run, caption, figureOf, text, colour, further) {
  const kept = run.names.layers.map((_, j) => j).filter((j) => run.records.some((r) => figureOf(r.layers[j])));
  const count = Math.max(...kept.map((j) => figureOf(run.records[0].layers[j])?.length ?? 0));
  const body = kept.map((j) => {
    const cells = Array.from({ length: count }, () => el("td"));
    const others = Object.values(further).map(() => el("td", { class: "plain" }));
    whenShown.push(() => {
      const layer = recordOf(run).layers[j], values = figureOf(layer) ?? [];
      cells.forEach((cell, t) => {
        cell.textContent = text(values[t]);
        colour(cell, values[t] ?? null);
      });
      Object.values(further).forEach(([f, format], i) => { others[i].textContent = format(f(layer)); });
    });
    return el("tr", {}, el("th", { scope: "row" }, run.names.layers[j]), cells, others);
  });
  const head = ["layer", ...Array.from({ length: count }, (_, t) => `t ${t + 1}`), ...Object.keys(further)];
  return el("div", { class: count > 6 ? "scroll wide" : "scroll", tabindex: 0, role: "region",
    "aria-label": `${caption}, ${run.name}` },
    el("table", { class: "heat" }, el("caption", {}, caption), el("thead", {}, row("th", head)),
      el("tbody", {}, body)));
}

// ---------------------------------------------------------------- the sections

function summary() {
  section("summary", "Summary", cards(runs, (run) => [
    el("p", { class: "big" }, run.accuracy === null ? "–" : `${(100 * run.accuracy).toFixed(2)} %`),
    el("p", {}, run.accuracy === null ? "not finished" : "of the test set"),
    el("dl", {}, Object.entries(run.facts).map(([label, text]) =>
      el("div", {}, el("dt", {}, label), el("dd", {}, text)))),
  ], false), runs.flatMap((run) => run.notes.map((text) => note(el("strong", {}, `${run.name}: `), text))));
}

function curves() {
  const lines = (name) => runs.flatMap((run) => ["train", "val"].flatMap((part) => {
    const y = run.metrics[`${part}_${name}`];
    if (!y) return [];
    const what = { train: "training", val: "validation" }[part];
    return [{ name: runs.length > 1 ? `${run.name}, ${what}` : what, colour: run.colour, x: run.metrics.epoch,
      y, dashed: part === "train", dot: part === "val" ? run.kept : null }];
  }));
  if (!lines("loss").length) return section("curves", "Curves", note("No epoch is finished yet."));
  section("curves", "Curves",
    el("p", {}, "Dots mark the epoch whose weights are kept: the best on the validation set."),
    el("div", { class: "grid" },
      el("div", { class: "card" }, chart(lines("loss"), { title: "Cross-entropy", low: 0, legend: true })),
      el("div", { class: "card" },
        chart(lines("accuracy"), { title: "Accuracy", low: 0, high: 1, unit: percent, legend: true }))));
}

function rates() {
  const names = recorded.map((run) => run.names.layers).reduce((a, b) => (b.length > a.length ? b : a));
  const profile = (value, options) => el("div", { class: "card" }, overLayers(names, (index) =>
    recorded.map((run) => {
      const layers = recordOf(run, index).layers.filter((layer) => layer.rate);
      return { name: run.name, colour: run.colour, x: layers.map((_, j) => j + 1), y: layers.map(value) };
    }), { low: 0, ...options }));
  section("rates", "Firing rates",
    el("p", {}, "Spikes per neuron and time step, on a fixed batch. Silent neurons fire at no step of any sample, "
      + "saturated ones at every step of every sample."),
    recorded.length > 1 ? el("div", { class: "grid" },
      profile((l) => mean(l.rate), { title: "Rate from the first layer to the last, at the epoch shown" }),
      profile((l) => l.silent, { title: "Silent neurons, at the epoch shown", high: 1, unit: percent })) : [],
    ramp(),
    cards(recorded, (run) => el("div", { class: "small" },
      steps(run, "Spikes per neuron, by layer and step", (layer) => layer.rate, hundredths,
        (cell, x) => paint(cell, Math.sqrt(x ?? 0), "--heat"),
        { mean: [(l) => mean(l.rate), hundredths], silent: [(l) => l.silent, wholePercent] }),
      byLayer(run, (l) => mean(l.rate), { title: "Rate of each layer, mean over steps", low: 0 }),
      byLayer(run, (l) => l.silent, { title: "Silent neurons", low: 0, high: 1, unit: percent }),
      run.records.some((r) => r.layers.some((l) => l.saturated >= 0.005)) ? byLayer(run, (l) => l.saturated,
        { title: "Saturated neurons", low: 0, high: 1, unit: percent }) : [])));
}

function balance() {
  const circuits = recorded.filter((run) => run.records.some((r) => r.layers.some((l) => l.balance)));
  if (!circuits.length) return;
  const off = (x) => Math.sqrt(Math.abs(Math.log2(Math.max(x, 1e-9))));
  section("balance", "E-I balance",
    el("p", {}, "Mean subtractive inhibition I_sub by mean excitation I_EE: 1 where they cancel, as E-I Init sets it; "
      + "above, inhibition prevails. Correlation: whether inhibition follows the excitation of the same "
      + "neuron from sample to sample (mean over neurons)."),
    ramp(),
    cards(circuits, (run) => el("div", { class: "small" },
        steps(run, "I_sub by I_EE, layer and step", (layer) => layer.balance, hundredths,
          (cell, x) => paint(cell, x === null ? 0 : off(x), x > 1 ? "--more" : "--less"),
          { correlation: [(l) => l.correlation, hundredths] }),
        byLayer(run, (l) => mean(l.balance), { title: "I_sub by I_EE of each layer" }),
        byLayer(run, (l) => l.correlation, { title: "E-I correlation" }),
        byLayer(run, (l) => l.smallest_divisor, { title: "Smallest divisor", log: true }))));
}

function distributions() {
  const there = Object.keys(QUANTITIES).filter((q) => recorded.some((run) => quantityLayers(run, q).length));
  const select = choice("quantity", "Quantity", there.map((q) => [q, `${QUANTITIES[q][0]} ${QUANTITIES[q][1]}`]));
  section("distributions", "Distributions",
    el("p", {}, "Of all neurons, samples and time steps. Filled: the epoch shown; line: the initialised "
      + "network; dotted: N(0, 1); red: the firing threshold. Each layer keeps its scale over the epochs. "
      + "A bimodality coefficient above 5/9, that of a uniform distribution, suggests two peaks or a long tail."),
    el("div", { class: "tools" }, select),
    chosen(select, (q) => cards(recorded.filter((run) => quantityLayers(run, q).length), (run) => [
      el("div", { class: recorded.length > 1 ? "densities" : "densities large" },
        quantityLayers(run, q).map((j) => density(run, j, q))),
      q === "i_int" ? byLayer(run, (l) => l.bimodality, { title: "Bimodality coefficient (0.33 for N(0, 1))" }) : [],
    ])));
}

/** Indices of the layers of a run that have a quantity. */
function quantityLayers(run, q) {
  return run.names.layers.map((_, j) => j).filter((j) => run.records.some((r) => r.layers[j].currents[q]));
}

/** The distribution of a quantity in a layer, at the epoch shown. */
function density(run, j, q) {
  const w = 160, h = 84, base = h - 16, layer = run.names.layers[j];
  const all = run.records.map((r) => r.layers[j].currents[q]).filter(Boolean);
  const [low, high] = extent(all.flatMap((d) => d.edges.slice(0, 2)));
  const peaks = all.map((d) => d.peak).sort((a, b) => a - b);
  const top = Math.min(peaks.at(-1), 2 * peaks[peaks.length >> 1]) || 1;
  const px = (x) => ((x - low) / (high - low)) * w, py = (y) => base - (Math.min(y, top) / top) * (base - 4);
  const outline = (points) => points.map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("L");
  const path = (d) => {
    const heights = Uint8Array.from(atob(d.density), (c) => c.charCodeAt(0));
    const [from, to, bins] = d.edges, width = (to - from) / bins;
    return outline([[from, 0], ...[...heights].map((v, i) =>
      [from + (i + 0.5) * width, (v / 255) * d.peak]), [to, 0]]);
  };
  const area = el("path", { class: "area" }), words = el("small");
  const svg = el("svg", { viewBox: `0 0 ${w} ${h}`, role: "img" }, area);
  if (run.records[0].layers[j].currents[q]) {
    svg.append(el("path", { class: "first", d: `M${path(run.records[0].layers[j].currents[q])}` }));
  }
  if (q === "i_int") {
    const normal = Array.from({ length: 41 }, (_, i) => low + (i * (high - low)) / 40);
    svg.append(el("path", { class: "normal",
      d: `M${outline(normal.map((x) => [x, Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)]))}` }));
  }
  if ((q === "i_int" || q === "v") && run.records[0].layers[j].rate) {
    svg.append(el("line", { class: "threshold", x1: px(1), x2: px(1), y1: 2, y2: base }));
  }
  svg.append(el("line", { class: "axis", x1: 0, x2: w, y1: base, y2: base }));
  for (const x of low < 0 ? [low, 0, high] : [low, high]) {
    svg.append(el("text", { x: px(x), y: h - 4, "text-anchor": x === low ? "start" : x === high ? "end" : "middle" },
      figure(x)));
  }
  whenShown.push(() => {
    const record = recordOf(run), d = record.layers[j].currents[q];
    area.setAttribute("d", d ? `M${path(d)}Z` : "");
    words.textContent = d ? `mean ${figure(d.mean, 2)}, s.d. ${figure(d.std, 2)}` : "no values";
    svg.setAttribute("aria-label",
      `${QUANTITIES[q][0]} in ${layer} at epoch ${record.epoch}: ${words.textContent}`);
  });
  return el("figure", {}, el("figcaption", {}, layer, words), svg);
}

/** Kinds of parameters, in order. */
function kinds(run, part, of) {
  return [...new Set(run.records[0][part].flatMap((layer) => Object.keys(of(layer))))];
}

function gradients() {
  section("gradients", "Gradient flow",
    el("p", {}, "Euclidean norms of the gradient of the mean cross-entropy on a fixed batch, as the optimiser "
      + "gets them (that of weight_ei is divided by the fan-in). Norms of zero have no place on a logarithmic axis."),
    ramp(),
    cards(recorded, (run) => {
      const names = kinds(run, "gradients", (norms) => norms);
      const profile = overLayers(run.names.gradients, (index) => names.map((kind, k) => {
        const all = recordOf(run, index).gradients;
        const there = all.map((_, j) => j).filter((j) => kind in all[j]);
        return { name: kind, colour: `var(--c${k % 8})`, x: there.map((j) => j + 1),
          y: there.map((j) => all[j][kind]) };
      }), { title: "Each layer, at the epoch shown", log: true });
      const each = names.map((kind) => byLayer(run, (g) => g[kind], { title: kind, log: true }, "gradients"));
      if (recorded.length === 1) return el("div", { class: "small" }, profile, each);
      const folded = el("details", {}, el("summary", {}, "Each kind over the epochs"),
        el("div", { class: "small" }, each));
      folded.open = innerWidth > 700;
      return [profile, folded];
    }));
}

function parameters() {
  const select = choice("statistic", "Statistic",
    [["mean", "Mean"], ["std", "Standard deviation"], ["zero", "Share of exact zeros"]]);
  section("parameters", "Parameters",
    el("p", {}, "What training makes of weights, gains and biases. Under Dale's law all of an E-I circuit but "
      + "the bias stay at zero or above: zeros are weights that the projection holds there."),
    el("div", { class: "tools" }, select, ramp()),
    chosen(select, (key) => cards(recorded, (run) => el("div", { class: "small" },
      kinds(run, "layers", (layer) => layer.parameters).map((kind) =>
        byLayer(run, (layer) => layer.parameters[kind]?.[key], { title: kind,
          ...(key === "zero" ? { low: 0, high: 1, unit: percent } : {}) }))), false)));
}

function confusion() {
  section("confusion", "Confusion matrix",
    el("p", {}, "Test set; rows are the true classes, columns the predicted ones, in % of the row."),
    cards(runs, (run) => run.confusion ? confusionOf(run.confusion)
      : note("Not evaluated yet. Run ", el("code", {}, run.evaluate), " and make the report again."), false));
}

function confusionOf({ classes, counts }) {
  const totals = counts.map((line) => line.reduce((a, b) => a + b, 0));
  const wrong = counts.flatMap((line, i) => line.map((n, j) => ({ n, i, j }))).filter(({ n, i, j }) => n && i !== j);
  wrong.sort((a, b) => b.n - a.n);
  const worst = wrong.slice(0, 8).map(({ n, i, j }) =>
    el("li", {}, `${classes[i]} taken for ${classes[j]}: ${n} of ${totals[i]}`));
  const list = worst.length ? el("details", {}, el("summary", {}, "Most frequent mistakes"), el("ol", {}, worst))
    : el("p", {}, "No mistakes.");
  if (classes.length > data.most_classes) {
    list.open = true;
    return [el("p", {}, `${classes.length} classes are too many for a table here; confusion.png in the folder of `
      + "the run shows them."), list];
  }
  const body = counts.map((line, i) => el("tr", {}, el("th", { scope: "row" }, classes[i]),
    line.map((n, j) => {
      const share = totals[i] ? n / totals[i] : 0;
      const cell = el("td", { title: `${classes[i]} taken for ${classes[j]}: ${n}` },
        n ? (share < 0.005 ? "<1" : String(Math.round(100 * share))) : "");
      paint(cell, Math.sqrt(share), i === j ? "--heat" : "--less");
      return cell;
    })));
  return [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Confusion matrix" },
    el("table", { class: "heat confusion" }, el("thead", {}, row("th", ["", ...classes])),
      el("tbody", {}, body))), list];
}

function configuration() {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))];
  const same = (key) => runs.every((run) => run.config[key] === runs[0].config[key]);
  const table = (chosen) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings" },
    el("table", { class: "wide-table" }, el("thead", {}, row("th", ["setting", ...runs.map((run) => run.name)])),
      el("tbody", {}, chosen.map((key) => row("td", [key, ...runs.map((run) => run.config[key] ?? "–")])))));
  const different = keys.filter((key) => !same(key));
  const every = el("details", {}, el("summary", {}, "All settings and versions"), table(keys));
  every.open = runs.length === 1;
  section("configuration", "Configuration", el("div", { class: "card" },
    different.length ? [el("h3", {}, "Where the runs differ"), table(different)] : [], every));
}

// ---------------------------------------------------------------- controls

function show(index) {
  shown = Math.max(0, Math.min(epochs.length - 1, index));
  const slider = document.getElementById("epoch");
  slider.value = shown;
  slider.setAttribute("aria-valuetext", `epoch ${epochs[shown]}`);
  document.getElementById("shown").textContent = `${epochs[shown]} of ${epochs.at(-1)}`;
  whenShown.forEach((draw) => draw());
}

/** The epoch in the address, such as #epoch=3, or the last one of all. */
function fromAddress() {
  const asked = /^#epoch=(\d+)$/.exec(location.hash);
  if (asked) show(Math.max(0, epochs.findLastIndex((e) => e <= Number(asked[1]))));
}

function controls() {
  const slider = document.getElementById("epoch"), play = document.getElementById("play");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  };
  slider.max = epochs.length - 1;
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  slider.addEventListener("change", () => history.replaceState(null, "", `#epoch=${epochs[shown]}`));
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (shown === epochs.length - 1) show(0);
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Stop";
    timer = setInterval(() => (shown < epochs.length - 1 ? show(shown + 1) : stop()), 350);
  });
  document.getElementById("epochs").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", fromAddress);
  document.getElementById("epochs").hidden = false;
  show(shown);
  fromAddress();
}

function theme() {
  const button = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const tell = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  dark.addEventListener("change", tell);
  tell();
}

theme();
summary();
curves();
if (recorded.length) [rates, balance, distributions, gradients, parameters].forEach((draw) => draw());
confusion();
configuration();
if (recorded.length) controls();
